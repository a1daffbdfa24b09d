"""Rows of one table against rows of another, image by image, and against the files they name."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl

from agetf_pipeline.captions.cache import index_source, of_version
from agetf_pipeline.captions.token_grids import load_grid
from agetf_pipeline.captions.versions import CaptionVersion, recorded_version
from agetf_pipeline.core.errors import AgetfError, DataError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.work import report_path
from agetf_pipeline.data.schemas import (
    CAPTIONS,
    ENHANCED,
    ENHANCED_AGES,
    KEEP_LIST,
    LABELS,
    PREDICTIONS,
    TableSpec,
)
from agetf_pipeline.enhance.audit import audit_partition
from agetf_pipeline.enhance.outputs import enhanced_folder
from agetf_pipeline.upkeep.verify_checks import NOT_LINKS
from agetf_pipeline.upkeep.verify_forgotten import is_older_than_forgetting
from agetf_pipeline.upkeep.verify_survey import Survey

_NO_ROWS = pl.DataFrame(schema={"image_id": pl.String})


@dataclass(frozen=True)
class Rows:
    """A partition and its images."""

    partition: str
    images: pl.DataFrame

    @property
    def ids(self) -> pl.DataFrame:
        """`image_id` alone."""
        return self.images.select("image_id")


def verify_rows(survey: Survey, its: Rows) -> None:
    """Check the tables of one partition against its images and against each other."""
    predicted = _verify_predictions(survey, its)
    labelled = _verify_table(survey, its, LABELS, "relabel", predicted)
    _verify_table(survey, its, KEEP_LIST, "filter", labelled)
    _verify_enhanced(survey, its)
    _verify_enhanced_ages(survey, its, labelled)
    _verify_captions(survey, its)


def has_parts(survey: Survey, spec: TableSpec, partition: str) -> bool:
    """Whether an interrupted run left rows beside a table: what it lacks is no gap then."""
    folder = survey.workspace.state / "parts" / spec.name / partition
    return any(folder.glob("[!.]*.parquet"))


def _verify_predictions(survey: Survey, its: Rows) -> pl.DataFrame | None:
    """Every image by every configured expert; return the images that have predictions."""
    rows = survey.rows(PREDICTIONS, its.partition, ["image_id", "expert"])
    if rows is None:
        return None
    _add_stale(survey, its, PREDICTIONS, "predict", rows)
    where = survey.path_of(PREDICTIONS, its.partition)
    experts = sorted(survey.config.train_experts.experts)
    for name in sorted(set(rows["expert"].to_list()) - set(experts)) if experts else ():
        survey.add("links/other_expert", where, ", ".join(experts), name)
    if not has_parts(survey, PREDICTIONS, its.partition):
        for name in experts:
            read = rows.filter(pl.col("expert") == name)
            missing = its.ids.join(read, on="image_id", how="anti")["image_id"]
            _add_gaps(survey, where, missing, "predict", f"a row of expert {name}")
    return rows.select("image_id").unique()


def _verify_table(
    survey: Survey, its: Rows, spec: TableSpec, stage: str, wanted: pl.DataFrame | None
) -> pl.DataFrame | None:
    """A row for each image of the table before; return the images that have one."""
    rows = survey.rows(spec, its.partition, ["image_id"])
    if rows is None:
        return None
    _add_stale(survey, its, spec, stage, rows)
    if wanted is not None:
        there = wanted.join(its.ids, on="image_id", how="semi")
        missing = there.join(rows, on="image_id", how="anti")["image_id"]
        _add_gaps(survey, survey.path_of(spec, its.partition), missing, stage, "a row")
    return rows


def _verify_enhanced(survey: Survey, its: Rows) -> None:
    """Run the audit of an enhanced shard, and take over what it says of links."""
    if not its.partition.startswith("caf/"):
        return
    path, folder = survey.path_of(ENHANCED, its.partition), enhanced_folder(
        survey.workspace, its.partition
    )  # fmt: skip
    unfinished = has_parts(survey, ENHANCED, its.partition)
    if not unfinished and not survey.has(ENHANCED, its.partition) and not folder.is_dir():
        return
    try:
        found = audit_partition(
            survey.workspace, its.partition, alone=False, originals=False, hashing=not survey.quick
        )
    except (AgetfError, OSError) as error:
        survey.add_unreadable(path, error)
        return
    said = _said_otherwise(survey, its.partition, unfinished)
    for one in found:
        if one.kind == "table_damaged":
            survey.rows(ENHANCED, its.partition, ["image_id"])  # says which way
        elif one.kind not in said:
            check = f"links/enhanced_{one.kind}"
            survey.add(check, one.path, one.expected, one.found, one.image_id)
    rows = survey.rows(ENHANCED, its.partition, ["status"])
    if rows is not None:
        num_copies = int((rows["status"] == "ok").sum())
        survey.count("links", enhanced=num_copies)


def _said_otherwise(survey: Survey, partition: str, unfinished: bool) -> set[str]:
    """Return the kinds of the audit that are no news: other checks say them, or say why."""
    kinds: set[str] = set(NOT_LINKS)
    report = report_path(survey.workspace, "enhance", partition)
    if unfinished:
        kinds.add("gap")
    if report.is_file() or survey.has(ENHANCED, partition):
        kinds.add("no_table")
    if is_older_than_forgetting(survey, report):
        kinds.add("sheet_missing")  # it went with a face that was forgotten
    return kinds


def _verify_enhanced_ages(survey: Survey, its: Rows, labelled: pl.DataFrame | None) -> None:
    """A row for every labelled copy, of the very copy that is there."""
    rows = survey.rows(ENHANCED_AGES, its.partition, ["image_id", "enhanced_sha256"])
    made = survey.rows(ENHANCED, its.partition, ["image_id", "status", "enhanced_sha256"])
    if rows is None:
        return
    _add_stale(survey, its, ENHANCED_AGES, "recheck", rows)
    if made is None:
        return
    where = survey.path_of(ENHANCED_AGES, its.partition)
    good = made.filter(pl.col("status") == "ok")
    if labelled is not None and not has_parts(survey, ENHANCED_AGES, its.partition):
        wanted = good.join(labelled, on="image_id", how="semi")
        missing = wanted.join(rows, on="image_id", how="anti")["image_id"]
        _add_gaps(survey, where, missing, "recheck", "a row")
    both = rows.join(good, on="image_id", suffix="_there")
    other = both.filter(pl.col("enhanced_sha256") != pl.col("enhanced_sha256_there"))
    columns = ["image_id", "enhanced_sha256_there", "enhanced_sha256"]
    for image_id, expected, found in other.select(columns).iter_rows():
        survey.add("links/other_copy", where, expected, found, image_id)


def _verify_captions(survey: Survey, its: Rows) -> None:
    """A caption of the version in use for every image, its features and its embeddings."""
    columns = [*CAPTIONS.key, "token_grid_path"]
    rows = survey.rows(CAPTIONS, its.partition, columns)
    if rows is None:
        return
    _add_stale(survey, its, CAPTIONS, "caption", rows)
    where = survey.path_of(CAPTIONS, its.partition)
    try:
        version = recorded_version(survey.workspace)
    except DataError:  # said by the state
        version = None
    if version is not None:
        used = rows.filter(of_version(version))
        if not used.height and its.images.height:
            expected = f"captions of version {version.name}"
            survey.add("links/not_run", where, expected, "those of others", stage="caption")
        elif not has_parts(survey, CAPTIONS, its.partition):
            missing = its.ids.join(used, on="image_id", how="anti")["image_id"]
            _add_gaps(survey, where, missing, "caption", f"a row of version {version.name}")
        _check_index(survey, its.partition, version)
    if rows["token_grid_path"].count():
        _check_grids(survey, its.partition)


def _check_grids(survey: Survey, partition: str) -> None:
    """Features before pooling: tokens by values, as many values as the pooled ones have."""
    for rows in survey.slices(CAPTIONS, partition, ["image_id", "token_grid_path",
                                                    "image_embedding"]):  # fmt: skip
        widths = rows.filter(pl.col("token_grid_path").is_not_null()).select(
            "image_id", "token_grid_path", width=pl.col("image_embedding").list.len()
        )
        for image_id, name, width in widths.iter_rows():
            survey.count("links", token_grids=1)
            expected = f"float16 (tokens, {width or 'values'})"
            try:
                grid_TD = load_grid(survey.workspace, name)
                fits = grid_TD.ndim == 2 and grid_TD.dtype == np.float16
                if fits and width in (None, grid_TD.shape[-1]):
                    continue
                found = f"{grid_TD.dtype} {grid_TD.shape}"
            except DataError as error:
                found = str(error).partition("; found: ")[2]
            survey.add("links/token_grid", name, expected, found, image_id)


def _check_index(survey: Survey, partition: str, version: CaptionVersion) -> None:
    """The embeddings mapped into memory are made of the table as it is."""
    from agetf_pipeline.captions.cache import index_path

    path = index_path(survey.workspace, partition, version)
    if not path.exists():
        return
    source = hash_file(survey.path_of(CAPTIONS, partition))
    try:
        found = index_source(path)
    except OSError as error:
        found = str(error)
    if found != source:
        expected = f"made of the table with sha256 {source}"
        survey.add("links/embeddings_index", path, expected, found or "a damaged file")


def _add_stale(survey: Survey, its: Rows, spec: TableSpec, stage: str, rows: pl.DataFrame) -> None:
    survey.count("links", rows=rows.height)
    stale = rows.select("image_id").unique().join(its.ids, on="image_id", how="anti")
    for image_id in sorted(stale["image_id"].to_list()):
        where = survey.path_of(spec, its.partition)
        survey.add("links/stale_row", where, "an image of the partition", "none", image_id, stage)


def _add_gaps(survey: Survey, where, missing: Iterable[str], stage: str, expected: str) -> None:
    for image_id in sorted(missing):
        survey.add("links/gap", where, expected, "none", image_id, stage)
