"""A small workspace in which people are to be forgotten: read by ingest, the rest made by hand.

Two shards of Ann (three pictures, one of them under two names), Bob and Carl, and two pictures of
FFHQ-Aging. What later stages write lies where they write it, with as little in it as will do.
"""

import html
import json
import os
import unicodedata
import urllib.parse
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from agetf_pipeline.captions.cache import ensure_index
from agetf_pipeline.captions.token_grids import save_grid
from agetf_pipeline.captions.versions import CaptionVersion, Request, record_version
from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.files import write_json, write_text
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace, is_caf
from agetf_pipeline.data.schemas import CAPTIONS, ENHANCED, IMAGES, PREDICTIONS, TRAINING_MANIFEST
from agetf_pipeline.data.tables import conform, read_table, to_frame, write_parquet, write_table
from agetf_pipeline.data.trained_on import write_trained_on
from agetf_pipeline.stages import ingest
from agetf_pipeline.stages.release import write_checksums
from agetf_pipeline.upkeep.forget import ForgetReport, forget

FIRST, SECOND, FFHQ = "caf/first", "caf/second", "ffhq_aging"
PARTITIONS = (FIRST, SECOND, FFHQ)
ANN, BOB, CARL = "Ann Onymous", "Bob", "Carl"
VERSION = CaptionVersion("0123456789ab-1", "f" * 16)
RUN = "outputs/experiments/run"


def make_config(root: Path, **ingest_settings: object) -> PipelineConfig:
    settings = {"max_failed_fraction": 0.0, "num_workers": 1, **ingest_settings}
    return PipelineConfig.model_validate({"workspace": {"root": root}, "ingest": settings})


def draw(path: Path, seed: int) -> Path:
    """Write a picture that no other seed has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def write_shard(workspace: Workspace, name: str, pictures: dict[str, tuple[int, str]]) -> Path:
    """Write a shard: file name to seed and person."""
    folder = workspace.raw_caf / name
    rows = ["path,subject,age"]
    for file, (seed, person) in pictures.items():
        draw(folder / file, seed)
        rows.append(f"{file},{person},30")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


def read_all(workspace: Workspace, config: PipelineConfig | None = None) -> None:
    """Run ingest on every partition."""
    for partition in PARTITIONS:
        ingest.run(config or make_config(workspace.root), workspace, partition)


def make_workspace(root: Path) -> Workspace:
    """Make the workspace; a second or two."""
    workspace = Workspace(root)
    first = {"ann-1.png": (1, ANN), "ann-2.png": (2, ANN), "bob.png": (3, BOB)}
    write_shard(workspace, "first", first)
    second = {"ann-3.png": (4, ANN), "again.png": (1, ANN), "carl.png": (5, CARL)}
    write_shard(workspace, "second", second)
    for seed in (6, 7):
        draw(workspace.raw_ffhq / "00000" / f"{seed:05d}.png", seed)
    read_all(workspace)
    for partition in PARTITIONS:
        _write_tables(workspace, partition)
    _write_manifest(workspace)
    _write_run(workspace)
    _write_others(workspace)
    return workspace


def id_of(workspace: Workspace, partition: str, name: str) -> str:
    """Return the image of a file."""
    rows = read_table(workspace, IMAGES, [partition]).filter(pl.col("raw_name") == name)
    return rows["image_id"].item()


def traces(root: Path, words: list[str]) -> dict[str, list[str]]:
    """Return every file below a folder that holds a word, or has it in its name, and which words.

    Written for tests alone: it shares nothing with what is tested. Parquet is read, for it is
    compressed; everything else is looked through as bytes, links to folders included, for every way
    in which JSON, HTML, addresses and the quarantine's names write a word.
    """
    found: dict[str, list[str]] = {}
    for path in all_files(root):
        if path.suffix == ".parquet":
            text = json.dumps(pl.read_parquet(path).to_dicts(), default=str, ensure_ascii=False)
            data = text.encode()
        else:
            data = path.read_bytes()
        name = path.relative_to(root).as_posix()
        hits = [w for w in words if w in name or any(s in data for s in spellings(w))]
        if hits:
            found[name] = hits
    return found


def spellings(word: str) -> set[bytes]:
    """Return the bytes by which files may mean a word."""
    plain = {unicodedata.normalize(form, word) for form in ("NFC", "NFD")}
    return {
        spelling.encode()
        for text in plain
        for spelling in (
            text, json.dumps(text)[1:-1], html.escape(text), urllib.parse.quote(text),
            "".join(c if c.isascii() else "".join(f"\\x{b:02x}" for b in c.encode()) for c in text),
        )
    }  # fmt: skip


def copies(root: Path, image_id: str) -> list[str]:
    """Return every file below a folder with the bytes of an image, whatever its name."""
    return [p.relative_to(root).as_posix() for p in all_files(root) if hash_file(p) == image_id]


def all_files(root: Path) -> list[Path]:
    """Return the files below a folder, those behind links to folders included."""
    walked = os.walk(root, followlinks=True)
    return sorted(p for at, _, names in walked for n in names if (p := Path(at, n)).is_file())


def contents(root: Path) -> dict[str, str]:
    """Return every file with the hash of its content."""
    files = (p for p in root.rglob("*") if p.is_file())
    return {path.relative_to(root).as_posix(): hash_file(path) for path in files}


def _write_tables(workspace: Workspace, partition: str) -> None:
    """Write rows, crops and cached files of one partition."""
    images = read_table(workspace, IMAGES, [partition])
    predictions, captions, enhanced = [], [], []
    for image_id, path in images.select("image_id", "path").iter_rows():
        row = {"image_id": image_id, "expert": "vgg16", "model_version": "1", "status": "ok"}
        predictions.append(dict.fromkeys(PREDICTIONS.schema.names) | row)
        grid = np.ones((2, 4), np.float16)
        file = save_grid(workspace, VERSION.model_version, image_id, grid)
        row = {"image_id": image_id, "status": "ok", "prompt": "Say.", "caption": "A face."}
        row |= {"model_version": VERSION.model_version, "prompt_hash": VERSION.prompt_hash}
        row |= {"image_embedding": grid[0], "token_grid_path": workspace.relative(file)}
        captions.append(dict.fromkeys(CAPTIONS.schema.names) | row)
        if is_caf(partition):
            made = workspace.processed / "caf_enhanced" / partition[4:] / f"{image_id}.png"
            draw(made, len(enhanced) + 50)
            write_json(made.with_suffix(".json"), {"image_id": image_id, "original": path})
            row = {"image_id": image_id, "status": "ok", "settings_version": "1"}
            row |= {"enhanced_path": workspace.relative(made)}
            enhanced.append(dict.fromkeys(ENHANCED.schema.names) | row)
    write_table(workspace, PREDICTIONS, partition, to_frame(predictions, PREDICTIONS))
    part = workspace.state / "parts" / "predictions" / partition / "chunk.parquet"
    write_parquet(part, conform(to_frame(predictions, PREDICTIONS), PREDICTIONS))
    write_table(workspace, CAPTIONS, partition, to_frame(captions, CAPTIONS))
    record_version(workspace, VERSION, Request("Say.", 4))
    ensure_index(workspace, partition, VERSION)
    if enhanced:
        write_table(workspace, ENHANCED, partition, to_frame(enhanced, ENHANCED))
        draw(workspace.processed / "caf_enhanced" / partition[4:] / "contact_sheet.jpg", 90)
    pages = workspace.stats / "captions" / partition
    write_text(pages / "page.html", "<img src='data:image/png;base64,AAAA'>")
    draw(pages / "sheet.jpg", 91)
    rows = [f'{image_id},"A face,\nin two lines"' for image_id in images["image_id"]]
    write_text(pages / "examples.csv", "\n".join(["image_id,caption", *rows]) + "\n")


def _write_manifest(workspace: Workspace) -> None:
    rows = []
    for image in read_table(workspace, IMAGES).iter_rows(named=True):
        row = {name: image[name] for name in ("image_id", "partition", "face_path")}
        row |= {"split": "train", "age_years": 30.0, "variance_years2": 1.0, "has_caption": True}
        row |= {"age_group": "30-39", "curriculum_weight": 1.0, "label_source": "corpus"}
        person = image["subject"] or image["image_id"]
        rows.append({"enhanced_path": None, **row, "identity": f"caf:{person}"})
    write_table(workspace, TRAINING_MANIFEST, "all", to_frame(rows, TRAINING_MANIFEST))
    draw(workspace.state / "cache" / "faces_64" / "0.png", 92).rename(
        workspace.state / "cache" / "faces_64" / "0.npy"
    )


def _write_run(workspace: Workspace) -> None:
    """Write a run's files, what of them MLflow holds, and the network."""
    images = read_table(workspace, IMAGES)
    names = ("grid.png", "cases.png", "train_samples.png", "report.html", "loss_curves.png")
    for folder in (workspace.root / RUN, workspace.root / "mlruns/0a/artifacts/report"):
        for number, name in enumerate(names):
            draw(folder / f"{name}.png", 100 + number).rename(folder / name)
        write_json(folder / "metrics.json", {"worst": images["image_id"].to_list(), "mae": 4.5})
    rows = images.select("image_id", detail=pl.lit("{}"))
    write_parquet(workspace.root / RUN / "per_image.parquet", rows.to_arrow())
    weights = workspace.models / "age_transformer" / "run" / "weights.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    write_trained_on(weights, images.filter(pl.col("partition") != FFHQ)["image_id"])


def _write_others(workspace: Workspace) -> None:
    """Write exports, reports of quality, a release."""
    images = read_table(workspace, IMAGES)
    records = images.select("image_id", "path").to_dicts()
    text = json.dumps(records, indent=2) + "\n"
    write_text(workspace.processed / "ffhq_aging_moe_labels.json", text)
    examples = {"passed": False, "examples": records, "num_broken": 2}
    write_json(workspace.stats / "quality" / "images.json", {"expectations": [examples]})
    listed = "".join(f"{record['path']} was looked at\n" for record in records)
    write_text(workspace.stats / "notes.txt", listed)
    folder = workspace.root / "outputs" / "release" / "0.1.0"
    rows = [f"{image_id},train" for image_id in images["image_id"]]
    write_text(folder / "identity_splits.csv", "\n".join(["image_id,split", *rows]) + "\n")
    digest = hash_file(folder / "identity_splits.csv")
    write_json(folder / "croissant.json", {"sha256": digest})
    write_checksums(folder)


def do(workspace: Workspace, *what: str, **options) -> ForgetReport:
    """Forget something in a workspace of `make_workspace`."""
    return forget(make_config(workspace.root), workspace, what, **options)
