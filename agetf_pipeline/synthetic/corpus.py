"""A synthetic corpus on disk: FFHQ-Aging, CAF shards, and beside them the truth.

Which pictures there are follows from the configuration alone. Their files are written in chunks,
each of which leaves its hashes in a ledger, so that a run that was killed goes on where it
stopped. A manifest follows the images it lists, and the truth table follows everything.
"""

import csv
import io
import logging
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import astuple, dataclass, fields
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa

from agetf_pipeline.config.synthesize import SynthesizeConfig
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.files import read_json, remove_temporary_files, write_json, write_text
from agetf_pipeline.core.hashing import fingerprint, hash_file
from agetf_pipeline.core.progress import Progress
from agetf_pipeline.core.workspace import Workspace, is_caf
from agetf_pipeline.data.ages import group_of
from agetf_pipeline.data.tables import write_parquet
from agetf_pipeline.synthetic.ageing import visible_facial_hair
from agetf_pipeline.synthetic.photographs import Photograph, write_chunk
from agetf_pipeline.synthetic.plan import plan_corpus, shard_folder
from agetf_pipeline.synthetic.population import (
    CrowdLabel,
    crowd_labels,
)

_LOGGER = logging.getLogger(__name__)
CODE_VERSION = "1"
"""Raised by hand when the same configuration gives other files."""

_CHUNK = 64
_NUM_WORKERS = 2
_SERIAL_CHUNKS = 4

TRUTH_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("partition", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("true_age_years", pa.float32(), nullable=False),
        pa.field("gender", pa.string(), nullable=False),
        pa.field("hair_colour", pa.string(), nullable=False),
        pa.field("hair_cut", pa.string(), nullable=False),
        pa.field("facial_hair", pa.string(), nullable=False),
        pa.field("glasses", pa.string(), nullable=False),
        pa.field("degradations", pa.list_(pa.string()), nullable=False),
        pa.field("clean_path", pa.string(), nullable=False),
    ]
)
"""The truth table, `data/truth/truth.parquet`; `true_age_years` is exact, paths are relative."""


@dataclass(frozen=True)
class Corpus:
    """What was written: counts, and the files and folders that hold it, relative to the root."""

    num_ffhq_images: int
    num_caf_images: int
    num_degraded: int
    num_drawn: int
    outputs: dict[str, str]


def truth_path(workspace: Workspace) -> Path:
    """Return the truth table's file. Evaluation and tests read it; no other stage does."""
    return workspace.truth / "truth.parquet"


def write_corpus(config: SynthesizeConfig, workspace: Workspace) -> Corpus:
    """Write the corpus, or what is missing of it. The same configuration gives the same bytes.

    Raises:
        StageError: The folders hold photographs that did not come from here.
    """
    plan = plan_corpus(config, workspace)
    _claim(config, workspace, {name for item in plan for name in (item.path, item.clean_path)})
    hashes, num_drawn = _write_images(config, workspace, plan)
    partitions = [
        (partition, list(items)) for partition, items in groupby(plan, lambda i: i.partition)
    ]
    for partition, items in partitions:
        if is_caf(partition):
            write_text(shard_folder(workspace, partition) / "manifest.csv", _manifest_csv(items))
        else:
            write_text(workspace.raw_ffhq / "ffhq_aging_labels.csv", _labels_csv(items, config))
    rows = [_truth_row(item, hashes[item.path]) for item in plan]
    rows.sort(key=lambda row: row["path"])
    write_parquet(truth_path(workspace), pa.Table.from_pylist(rows, schema=TRUTH_SCHEMA))
    outputs = {
        partition: workspace.relative(
            shard_folder(workspace, partition) if is_caf(partition) else workspace.raw_ffhq
        )
        for partition, _ in partitions
    }
    outputs["truth"] = workspace.relative(truth_path(workspace))
    if any(item.degradations for item in plan):
        outputs["clean originals"] = workspace.relative(workspace.truth / "clean")
    return Corpus(
        num_ffhq_images=sum(not is_caf(item.partition) for item in plan),
        num_caf_images=sum(is_caf(item.partition) for item in plan),
        num_degraded=sum(bool(item.degradations) for item in plan),
        num_drawn=num_drawn,
        outputs=outputs,
    )


def _claim(config: SynthesizeConfig, workspace: Workspace, planned: set[str]) -> None:
    """Mark the corpus folders as ours; take away what an earlier configuration left in them.

    Only files that an earlier plan names are removed: what others put there stays.
    """
    mark = workspace.truth / "corpus.json"
    if not mark.exists():
        for folder in (workspace.raw_ffhq, workspace.raw_caf):
            if folder.exists() and any(folder.iterdir()):
                raise StageError(
                    f"Expected {folder} to be empty before a synthetic corpus is written; found "
                    "files that did not come from here. Set synthesize.enabled=false to use them, "
                    "or give workspace.root another folder."
                )
    else:
        before = SynthesizeConfig.model_validate(read_json(mark))
        old = plan_corpus(before, workspace) if before != config else []
        manifests = {
            workspace.relative(shard_folder(workspace, item.partition) / "manifest.csv")
            for item in old
            if is_caf(item.partition)
        }
        for name in {n for item in old for n in (item.path, item.clean_path)} | manifests:
            if name not in planned:
                workspace.resolve(name).unlink(missing_ok=True)
        if old:
            truth_path(workspace).unlink(missing_ok=True)
            for folder in (workspace.raw_ffhq, workspace.raw_caf, workspace.truth / "clean"):
                _remove_empty_folders(folder)
    write_json(mark, config.settings())


def _remove_empty_folders(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _write_images(
    config: SynthesizeConfig, workspace: Workspace, plan: list[Photograph]
) -> tuple[dict[str, str], int]:
    """Write the pictures whose ledger is missing or wrong; return hashes by path, and how many."""
    identity = fingerprint(config.settings(), CODE_VERSION, {})[:16]
    ledgers = workspace.state / "synthesize" / identity
    chunks = [plan[start : start + _CHUNK] for start in range(0, len(plan), _CHUNK)]
    hashes: dict[str, str] = {}
    todo: list[int] = []
    for index in range(len(chunks)):
        known = _verified(workspace, ledgers / f"{index:06d}.json")
        hashes.update(known or {})
        if known is None:
            todo.append(index)
    for folder in {workspace.resolve(item.path).parent for i in todo for item in chunks[i]}:
        remove_temporary_files(folder)
    num_drawn = sum(len(chunks[index]) for index in todo)

    with Progress("drawing faces", len(plan)) as progress:
        progress.advance(len(plan) - num_drawn)

        def done(index: int, written: dict[str, str]) -> None:
            write_json(ledgers / f"{index:06d}.json", written)
            hashes.update(written)
            progress.advance(len(chunks[index]))

        _draw(str(workspace.root), chunks, todo, done)
    return hashes, num_drawn


def _draw(
    root: str,
    chunks: list[list[Photograph]],
    todo: list[int],
    done: Callable[[int, dict[str, str]], None],
) -> None:
    """Write chunks of pictures, in two processes where it is worth starting them."""
    if len(todo) <= _SERIAL_CHUNKS:
        for index in todo:
            done(index, write_chunk(root, chunks[index]))
        return
    with ProcessPoolExecutor(_NUM_WORKERS, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(write_chunk, root, chunks[index]): index for index in todo}
        for future in as_completed(futures):
            done(futures[future], future.result())


def _verified(workspace: Workspace, ledger: Path) -> dict[str, str] | None:
    """Return a ledger's hashes if every file that it names is there, unchanged."""
    try:
        known: dict[str, str] = dict(read_json(ledger))
    except (FileNotFoundError, ValueError, TypeError):  # absent, or damaged: drawn again
        return None
    for name, digest in known.items():
        path = workspace.resolve(name)
        if not path.is_file() or hash_file(path) != digest:
            return None
    return known


def _labels_csv(items: list[Photograph], config: SynthesizeConfig) -> str:
    labels = crowd_labels(
        [item.identity for item in items],
        np.asarray([item.age_years for item in items]),
        config.crowd_error,
        config.seed,
    )
    columns = ("image_number", *(field.name for field in fields(CrowdLabel)))
    rows = [
        (int(Path(item.path).stem), *astuple(label))
        for item, label in zip(items, labels, strict=True)
    ]
    return _csv(columns, rows)


def _manifest_csv(items: list[Photograph]) -> str:
    rows = [
        (
            Path(item.path).name,
            Path(item.path).stem.rpartition("-")[0],
            int(item.age_years),
            group_of(item.age_years),
        )
        for item in items
    ]
    return _csv(("path", "subject", "age", "group"), rows)


def _csv(columns: tuple[str, ...], rows: list[tuple]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return stream.getvalue()


def _truth_row(item: Photograph, image_id: str) -> dict:
    who = item.identity
    return {
        "path": item.path,
        "image_id": image_id,
        "partition": item.partition,
        "identity": who.name,
        "true_age_years": item.age_years,
        "gender": who.gender,
        "hair_colour": who.hair_colour,
        "hair_cut": who.hair_cut,
        "facial_hair": visible_facial_hair(who, item.age_years),
        "glasses": who.glasses,
        "degradations": list(item.degradations),
        "clean_path": item.clean_path,
    }
