"""Every link of a partition: photographs, tables, what was made from them, both ways.

Memory grows with the number of a partition's images (their ids and paths), not with their files.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl

from agetf_pipeline.core.progress import Progress
from agetf_pipeline.core.work import load_report, report_path
from agetf_pipeline.core.workspace import is_caf
from agetf_pipeline.data.schemas import IMAGES, TABLES, TRAINING_MANIFEST
from agetf_pipeline.upkeep.verify_corpus import verify_corpus, verify_duplicates
from agetf_pipeline.upkeep.verify_forgotten import (
    verify_forgotten_manifest,
    verify_forgotten_rows,
)
from agetf_pipeline.upkeep.verify_manifest import verify_manifest
from agetf_pipeline.upkeep.verify_rows import Rows, verify_rows
from agetf_pipeline.upkeep.verify_survey import Survey

STAGE_OF = {
    "images": "ingest", "quarantine": "ingest", "predictions": "predict", "labels": "relabel",
    "keep_list": "filter", "enhanced": "enhance", "enhanced_ages": "recheck",
    "captions": "caption", "training_manifest": "assemble",
}  # fmt: skip
"""Table to the stage that writes it."""
_CAF_ALONE = ("enhanced", "enhanced_ages")


def verify_links(survey: Survey) -> None:
    """Check the links of every partition, then those between partitions."""
    partitions = survey.known_partitions()
    kept_elsewhere: dict[str, set[str]] = {}
    with Progress("verify links", len(partitions)) as progress:
        for partition in partitions:
            if not survey.is_at_work(partition):
                with survey.undisturbed(partition):
                    survey.count("links", partitions=1)
                    kept_elsewhere[partition] = _verify_partition(survey, partition)
            progress.advance()
    verify_duplicates(survey, kept_elsewhere)
    _find_repeats(survey, partitions)
    if not survey.is_at_work(None, "assemble", "relabel"):
        verify_manifest(survey, partitions)
        verify_forgotten_manifest(survey)


def _verify_partition(survey: Survey, partition: str) -> set[str]:
    """Check the links of a partition; return the files that others are to hold."""
    has = {name: survey.has(spec, partition) for name, spec in TABLES.items()}
    present = [name for name, there in has.items() if there]
    if not has["images"]:
        if any(name != "quarantine" for name in present):
            where = survey.path_of(IMAGES, partition)
            survey.add("links/no_images", where, "the table images", ", ".join(present))
        else:
            _say_not_run(survey, partition, "images")
        return set()
    for name in TABLES:
        if not has[name] and name != TRAINING_MANIFEST.name:
            _say_not_run(survey, partition, name)
    columns = ["image_id", "path", "face_path", "flags", "width_px", "height_px", "num_bytes"]
    images = survey.rows(IMAGES, partition, columns)
    if images is None:
        return set()
    survey.count("links", images=images.height)
    kept_elsewhere = verify_corpus(survey, partition, images)
    verify_rows(survey, Rows(partition, images))
    verify_forgotten_rows(survey, partition)
    return kept_elsewhere


def _say_not_run(survey: Survey, partition: str, table: str) -> None:
    """Say that a table is not there: it never was, or its stage's report knows it."""
    stage = STAGE_OF[table]
    if table in _CAF_ALONE and not is_caf(partition):
        return
    where = survey.path_of(TABLES[table], partition)
    if _ran(survey, partition, stage):
        survey.add("links/table_missing", where, f"the table of {stage}", "nothing", stage=stage)
    elif table != "quarantine":  # ingest writes it with the table images
        survey.add("links/not_run", where, f"the table of {stage}", "nothing", stage=stage)


def _ran(survey: Survey, partition: str, stage: str) -> bool:
    """Whether a stage's report says that it wrote a partition's table."""
    if stage != "relabel":
        return report_path(survey.workspace, stage, partition).is_file()
    try:
        report = load_report(survey.workspace, stage)
    except (OSError, ValueError, TypeError, AttributeError):  # said by the files
        return False
    return report is not None and f"labels/{partition}" in report.outputs


def _find_repeats(survey: Survey, partitions: list[str]) -> None:
    """Report images that lie in two partitions.

    A quarter of each id is compared first (64 bits): five million images take 40 MB.
    """
    prefixes = [_prefixes(survey, partition) for partition in partitions]
    every = np.concatenate([np.empty(0, np.uint64), *prefixes])
    values, counts = np.unique(every, return_counts=True)
    repeated = values[counts > 1]
    if not len(repeated):
        return
    first: dict[str, str] = {}
    for partition, its in zip(partitions, prefixes, strict=True):
        if not np.isin(its, repeated).any():
            continue
        for image_id in _ids(survey, partition):
            held = first.setdefault(image_id, partition)
            if held != partition:
                where = survey.path_of(IMAGES, partition)
                survey.add("links/two_partitions", where, f"an image of {held} alone",
                           f"in {partition}, too", image_id)  # fmt: skip


def _prefixes(survey: Survey, partition: str) -> np.ndarray:
    slices = [
        rows["image_id"].str.slice(0, 16).str.to_integer(base=16, dtype=pl.UInt64, strict=False)
        for rows in survey.slices(IMAGES, partition, ["image_id"])
    ]
    parts = [part.drop_nulls().unique().to_numpy() for part in slices]
    return np.concatenate([np.empty(0, np.uint64), *parts])


def _ids(survey: Survey, partition: str) -> Iterator[str]:
    for rows in survey.slices(IMAGES, partition, ["image_id"]):
        yield from rows["image_id"].to_list()
