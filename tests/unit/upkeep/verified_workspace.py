"""A small whole workspace for tests of `agetf verify`: two partitions, every table, every link.

The shard is enhanced by the stage itself, with networks of random weights; the other tables are
written by hand, each with a report as the stage would have left it.
"""

import functools
import hashlib
import json
import os
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from enhanced_shard import make_config as enhancing
from enhanced_shard import make_workspace as make_shard
from PIL import Image

from agetf_pipeline.captions.cache import ensure_index
from agetf_pipeline.captions.token_grids import save_grid
from agetf_pipeline.captions.versions import CaptionVersion, Request, record_version
from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.files import write_json, write_text
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.work import StageReport, run_once
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.examinations import EXAMINATIONS
from agetf_pipeline.data.ffhq_aging import LABEL_COLUMNS, LABELS_NAME
from agetf_pipeline.data.quarantine import quarantine_frame, quarantine_row
from agetf_pipeline.data.schemas import (
    CAPTIONS,
    ENHANCED,
    ENHANCED_AGES,
    IMAGES,
    KEEP_LIST,
    LABELS,
    PREDICTIONS,
    QUARANTINE,
    TRAINING_MANIFEST,
    TableSpec,
)
from agetf_pipeline.data.tables import read_table, table_path, to_frame, write_table
from agetf_pipeline.moe.calibration import Calibration

CAF, FFHQ = "caf/one", "ffhq_aging"
EXPERTS = ("mivolo", "vgg16")
VERSION = CaptionVersion("0123456789ab-1", "f" * 16)
GRID = (4, 8)
"""Tokens, and values of each."""
SHARD_IMAGES = 4


def make_config(root: Path) -> PipelineConfig:
    """Return the config that the workspace was made with."""
    values = enhancing().model_dump()
    values["workspace"] = {"root": root}
    values["train_experts"] = {"experts": {name: {"size": "tiny"} for name in EXPERTS}}
    return PipelineConfig.model_validate(values)


def build(root: Path) -> Workspace:
    """Make the workspace; a second or two."""
    from agetf_pipeline.stages import enhance

    workspace = make_shard(root, SHARD_IMAGES)
    enhance.run(enhancing(), workspace, CAF)
    _write_ffhq(workspace)
    for partition in (FFHQ, CAF):
        _write_quarantine(workspace, partition)
        _write_rows(workspace, partition)
    _write_enhanced_ages(workspace)
    _write_manifest(workspace)
    _write_models(workspace)
    _write_release(workspace)
    ledger = workspace.state / "pull" / "caf.jsonl"
    write_text(ledger, json.dumps(["one/00.png", 12, "tag"]) + "\n")
    write_json(workspace.state / "shards" / "caf.json", {"version": 1, "shards": {}, "removed": []})
    return workspace


def write_registry(workspace: Workspace) -> None:
    """Write a registry as MLflow lays it out, with a version whose files lie in the workspace."""
    folder = workspace.root / "mlruns" / "models" / "m-1" / "artifacts"
    weights = folder / "artifacts" / "weights.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes((workspace.models / "enhance" / "esrgan.safetensors").read_bytes())
    write_text(folder / "MLmodel", "flavors: {}\n")
    with sqlite3.connect(workspace.root / "mlflow.db") as connection:
        connection.execute(
            "CREATE TABLE model_versions (name TEXT, version INT, source TEXT, "
            "storage_location TEXT, current_stage TEXT)"
        )
        connection.execute(
            "CREATE TABLE model_version_tags (name TEXT, version INT, key TEXT, value TEXT)"
        )
        row = ("age-transformer", 1, "models:/m-1", folder.as_uri(), "None")
        connection.execute("INSERT INTO model_versions VALUES (?, ?, ?, ?, ?)", row)
        tag = ("age-transformer", 1, "agetf.weights_sha256", hash_file(weights))
        connection.execute("INSERT INTO model_version_tags VALUES (?, ?, ?, ?)", tag)
        connection.executemany(
            "INSERT INTO model_version_tags VALUES ('other', ?, 'filler', ?)",
            [(number, "x" * 900) for number in range(40)],
        )
    connection.close()


def tree(root: Path) -> dict[str, tuple[int, str]]:
    """Return every file below a folder with its time and content, and every folder."""
    found = {}
    for current, folders, names in os.walk(root):
        found.update({os.path.join(current, name): (0, "folder") for name in folders})  # noqa: PTH118
        for name in names:
            path = Path(current) / name
            status = path.lstat()
            link = path.is_symlink() or not path.is_file()
            content = "other" if link else hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path)] = (status.st_mtime_ns, content)
    return found


def ids_of(workspace: Workspace, partition: str) -> list[str]:
    """Return a partition's images."""
    return read_table(workspace, IMAGES, [partition])["image_id"].to_list()


def change(workspace: Workspace, spec: TableSpec, partition: str, frame: pl.DataFrame) -> None:
    """Write a table anew, with another content."""
    write_table(workspace, spec, partition, frame)


def _write_ffhq(workspace: Workspace) -> None:
    """Photographs whose faces were cut out, and what ingest noted of the crops."""
    rows, noted = [], []
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 255, (48, 40, 3), dtype=np.uint8)
        path = workspace.raw_ffhq / "00000" / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).save(path)
        image_id = hash_file(path)
        face = workspace.processed / "faces" / FFHQ / f"{image_id}.png"
        face.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise[:32, :32]).save(face)
        row = dict.fromkeys(IMAGES.schema.names)
        row |= {"image_id": image_id, "partition": FFHQ, "path": workspace.relative(path)}
        row |= {"face_path": workspace.relative(face), "raw_name": path.name, "format": "PNG"}
        row |= {"mode": "RGB", "stored_width_px": 40, "stored_height_px": 48, "width_px": 32}
        row |= {"height_px": 32, "num_bytes": path.stat().st_size, "is_grey": False, "flags": []}
        row |= {"image_number": number, "age_group": "3-6" if number == 1 else None}
        rows.append(row)
        seen = dict.fromkeys(EXAMINATIONS.schema.names)
        seen |= {"image_id": image_id, "version": "1", "format": "PNG", "flags": []}
        noted.append(seen | {"face_sha256": hash_file(face)})
    write_table(workspace, IMAGES, FFHQ, to_frame(rows, IMAGES))
    labels = f"{','.join(LABEL_COLUMNS)}\n1,3-6{',' * (len(LABEL_COLUMNS) - 2)}\n"
    write_text(workspace.raw_ffhq / LABELS_NAME, labels)
    cache = Workspace(workspace.state / "ingest")
    write_table(cache, EXAMINATIONS, FFHQ, to_frame(noted, EXAMINATIONS))


def _write_quarantine(workspace: Workspace, partition: str) -> None:
    refused = []
    if partition == CAF:
        path = workspace.raw_caf / "one" / "broken.png"
        path.write_bytes(b"no picture")
        digest = hash_file(path)
        why = "The content is no picture."
        refused = [quarantine_row(workspace.relative(path), CAF, "not_an_image", why, digest, 10)]
        again = workspace.raw_caf / "one" / "twin.png"
        again.write_bytes((workspace.raw_caf / "one" / "00.png").read_bytes())
        kept, digest = "data/raw/caf/one/00.png", hash_file(again)
        row = quarantine_row(
            "data/raw/caf/one/twin.png", CAF, "duplicate", "Twice.", digest, 1, kept
        )
        refused.append(row)
        listed = sorted(path.name for path in path.parent.glob("*.png"))
        text = "".join(f"{name},,\n" for name in listed)
        write_text(workspace.raw_caf / "one" / "manifest.csv", f"path,subject,age\n{text}")
    write_table(workspace, QUARANTINE, partition, quarantine_frame(refused))
    csv = workspace.stats / "quarantine" / f"{partition}.csv"
    write_text(csv, "path\n")
    tables = {spec.name: table_path(workspace, spec, partition) for spec in (IMAGES, QUARANTINE)}
    report(workspace, "ingest", {**tables, "quarantine_csv": csv}, partition)


def _write_rows(workspace: Workspace, partition: str) -> None:
    """Write what experts, mixture, filter and captioner would have written."""
    ids = ids_of(workspace, partition)
    rows = {PREDICTIONS: [], LABELS: [], KEEP_LIST: [], CAPTIONS: []}
    for number, image_id in enumerate(ids):
        for expert in EXPERTS:
            row = dict.fromkeys(PREDICTIONS.schema.names) | {"image_id": image_id, "expert": expert}
            row |= {"model_version": "v1", "status": "ok", "age_years": 30.0, "sigma_years": 4.0}
            rows[PREDICTIONS].append(row | {"distribution": [1 / 101] * 101})
        label = dict.fromkeys(LABELS.schema.names) | {"image_id": image_id, "age_years": 30.0}
        label |= {"label_version": "v1", "variance_years2": 9.0, "num_experts": 2}
        label |= {"experts": "{}", "decision": "none", "calibrated": False, "age_group": "30-39"}
        rows[LABELS].append(label)
        keep = {"image_id": image_id, "keep": True, "reasons": [], "label_age_years": 30.0}
        keep |= {"label_variance_years2": 9.0, "age_group": "30-39", "curriculum_weight": 0.5}
        rows[KEEP_LIST].append(keep)
        caption = dict.fromkeys(CAPTIONS.schema.names) | {"image_id": image_id, "prompt": "Say."}
        caption |= {"model_version": VERSION.model_version, "prompt_hash": VERSION.prompt_hash}
        caption |= {"status": "ok", "raw_caption": "A face.", "caption": "A face."}
        caption |= {"num_tokens": 3, "finished": True}
        grid = np.random.default_rng(number).normal(size=GRID).astype(np.float16)
        path = save_grid(workspace, VERSION.model_version, image_id, grid)
        caption |= {"image_embedding": grid.mean(0), "text_embedding": grid[0]}
        rows[CAPTIONS].append(caption | {"token_grid_path": workspace.relative(path)})
    for spec, its in rows.items():
        write_table(workspace, spec, partition, to_frame(its, spec))
    record_version(workspace, VERSION, Request("Say.", 4))
    index = ensure_index(workspace, partition, VERSION)
    assert index is not None
    table = {spec: table_path(workspace, spec, partition) for spec in rows}
    report(workspace, "predict", {"predictions": table[PREDICTIONS]}, partition)
    report(workspace, "filter", {"keep_list": table[KEEP_LIST]}, partition)
    report(workspace, "caption", {"captions": table[CAPTIONS], "embeddings": index}, partition)


def _write_enhanced_ages(workspace: Workspace) -> None:
    made = read_table(workspace, ENHANCED, [CAF])
    rows = []
    for image_id, digest in made.select("image_id", "enhanced_sha256").iter_rows():
        row = dict.fromkeys(ENHANCED_AGES.schema.names) | {"image_id": image_id, "flags": []}
        row |= {"enhanced_sha256": digest, "label_version": "v1", "guards_version": "1"}
        rows.append(row | {"flagged": False, "not_compared": "a test"})
    path = write_table(workspace, ENHANCED_AGES, CAF, to_frame(rows, ENHANCED_AGES))
    report(workspace, "recheck", {"enhanced_ages": path}, CAF)


def _write_manifest(workspace: Workspace) -> None:
    copies = dict(read_table(workspace, ENHANCED).select("image_id", "enhanced_path").iter_rows())
    rows = []
    for image in read_table(workspace, IMAGES).iter_rows(named=True):
        image_id, partition = image["image_id"], image["partition"]
        row = {"image_id": image_id, "partition": partition, "split": "train"}
        row |= {"identity": f"{partition}/{image_id[:4]}", "face_path": image["face_path"]}
        row |= {"enhanced_path": copies.get(image_id), "age_years": 30.0, "age_group": "30-39"}
        row |= {"variance_years2": 9.0, "curriculum_weight": 0.5, "label_source": "moe"}
        rows.append(row | {"has_caption": True})
    path = write_table(workspace, TRAINING_MANIFEST, "all", to_frame(rows, TRAINING_MANIFEST))
    report(workspace, "assemble", {"training_manifest": path})


def _write_models(workspace: Workspace) -> None:
    calibration = workspace.models / "moe" / "calibration.json"
    Calibration(calibrated=False, reason="a test").save(calibration)
    labels = {f"labels/{p}": table_path(workspace, LABELS, p) for p in (CAF, FFHQ)}
    report(workspace, "relabel", {"calibration": calibration, **labels})
    networks = {name: workspace.models / "enhance" / f"{name}.safetensors"
                for name in ("ddcolor", "esrgan")}  # fmt: skip
    report(workspace, "train_enhancers", networks)
    folder = workspace.models / "age_transformer" / "test" / "checkpoints" / "images-00000064"
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(networks["esrgan"].read_bytes())
    (folder / "optimizer.pt").write_bytes(b"moments")
    files = {path.name: hash_file(path) for path in folder.iterdir()}
    write_json(folder / "state.json", {"identity": "i", "num_images": 64, "files": files})
    best = {"checkpoint": folder.name, "figure": "l1", "value": 1.0, "identity": "i"}
    write_json(folder.parent / "best.json", best)
    write_json(workspace.experiments / "test" / "metrics.json", {"mae_years": 4.5})


def _write_release(workspace: Workspace) -> None:
    from agetf_pipeline.stages.release import write_checksums

    folder = workspace.root / "outputs" / "release" / "0.1.0"
    write_text(folder / "identity_splits.csv", "image_id,split\n")
    write_text(folder / "DATASET_CARD.md", "# Card\n")
    write_checksums(folder)
    report(workspace, "release", {"release": folder})


def report(
    workspace: Workspace, stage: str, outputs: dict[str, Path], partition: str | None = None
) -> None:
    """Leave the report of a stage that wrote these files."""
    named = {name: workspace.relative(path) for name, path in outputs.items()}
    done = StageReport(stage, outputs=named)
    run_once(workspace, stage, {}, "1", {}, lambda: done, partition)


@functools.cache
def built(folder: Path) -> Path:
    """Return the workspace's folder below another, made once for all tests; to be copied."""
    return build(folder / "whole" / "workspace").root


def copied(factory: pytest.TempPathFactory, root: Path) -> Workspace:
    """Return a copy of the workspace, with a registry of its own."""
    shutil.copytree(built(factory.getbasetemp()), root)
    workspace = Workspace(root)
    write_registry(workspace)
    return workspace
