"""The training manifest: every image that training may use, one row each, split by identity.

All of a person's images are in one split, decided by the person's name alone, so that a new shard
moves nobody. FFHQ-Aging names no persons: each image counts as one.

The tables of a partition are read side by side, a slice at a time; what may be used goes into
buckets on disk, ranges of ids, and from there into the manifest. Memory holds a slice, a bucket,
and a number a person.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from agetf_pipeline.captions.cache import of_version
from agetf_pipeline.captions.versions import recorded_version
from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.files import write_text
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.buckets import open_buckets
from agetf_pipeline.data.manifest_counts import ManifestCounts
from agetf_pipeline.data.schemas import (
    CAPTIONS,
    ENHANCED,
    ENHANCED_AGES,
    IMAGES,
    KEEP_LIST,
    TRAINING_MANIFEST,
    TableSpec,
)
from agetf_pipeline.data.splits import identity_of, split_of
from agetf_pipeline.data.streaming import Cursor, open_table, read_slices
from agetf_pipeline.data.tables import (
    ALL_PARTITIONS,
    empty_frame,
    list_partitions,
    num_rows,
    table_hashes,
    table_path,
)
from agetf_pipeline.stages.base import StageReport, run_once

STAGE = "assemble"
CODE_VERSION = "5"

_SLICE = 8192
_BUCKET_ROWS = 16_384
_KEPT_COLUMNS = [
    "image_id", "keep", "label_age_years", "label_variance_years2", "age_group",
    "curriculum_weight",
]  # fmt: skip
_IMAGE_COLUMNS = ["image_id", "partition", "face_path", "subject", "true_age_years"]
_ENHANCED_COLUMNS = ["image_id", "status", "enhanced_path", "enhanced_sha256"]


def run(config: PipelineConfig, workspace: Workspace) -> StageReport:
    """Write the training manifest of all partitions that have a keep-list.

    Raises:
        StageError: There is no keep-list, or too few images are left to train on.
    """
    partitions = list_partitions(workspace, KEEP_LIST)
    if not partitions:
        raise StageError(
            "Expected a keep-list; found none. Run the stages 'relabel' and 'filter' first."
        )
    inputs: dict[str, str] = {}
    for spec in (IMAGES, KEEP_LIST, ENHANCED, ENHANCED_AGES, CAPTIONS):
        inputs |= table_hashes(workspace, spec, partitions)
    version = recorded_version(workspace)
    settings = {
        "captions": version and version.name,
        "min_caption_coverage": config.caption.checks.min_coverage,
        "assemble": config.assemble.settings(),
        "excluding_guards": sorted(config.recheck.excluding()),
    }

    def work() -> StageReport:
        return _assemble(config, workspace, partitions)

    return run_once(workspace, STAGE, settings, CODE_VERSION, inputs, work)


def _assemble(config: PipelineConfig, workspace: Workspace, partitions: list[str]) -> StageReport:
    messages = [
        f"images of {name} are not in the manifest: it has no keep-list. Run the stages 'predict', "
        "'relabel' and 'filter' for it"
        for name in sorted(set(list_partitions(workspace, IMAGES)) - set(partitions))
    ]
    num_judged = sum(num_rows(workspace, KEEP_LIST, partition) for partition in partitions)
    found, counts = _Found(), ManifestCounts()
    path = table_path(workspace, TRAINING_MANIFEST, ALL_PARTITIONS)
    with (
        open_buckets(workspace.state / STAGE, "image_id", num_judged, _BUCKET_ROWS) as buckets,
        open_table(path, TRAINING_MANIFEST) as writer,
    ):
        for partition in partitions:
            for rows in _usable(config, workspace, partition, found):
                buckets.add(rows)
        for rows in buckets.take():
            once = _without_repeats(rows)
            found.num_repeated += rows.height - once.height
            manifest = _with_splits(config, once)
            counts.add(manifest.drop("subject"), manifest["subject"].is_null())
            writer.write(manifest.drop("subject"))
        _check_enough(config, counts, num_judged)
    messages += found.messages(config)
    messages += [
        f"split '{name}' is empty: too few identities"
        for name in config.assemble.split_fractions
        if not counts.num_of(name)
    ]
    coverage, said = _caption_coverage(config, workspace, counts)
    return _report(workspace, counts, coverage, [*messages, *said])


@dataclass
class _Found:
    """What a person should know of, counted over all partitions."""

    num_unchecked: int = 0
    num_flagged: int = 0
    num_repeated: int = 0

    def messages(self, config: PipelineConfig) -> list[str]:
        guards = ", ".join(config.recheck.excluding())
        said = []
        if self.num_repeated:
            said.append(
                f"{self.num_repeated} images lie in more than one partition: each is used once, "
                "with the age of the corpus where there is one"
            )
        if self.num_flagged:
            said.append(
                f"{self.num_flagged} enhanced images are not used: a guard flagged them ({guards}; "
                "recheck.exclude); training reads their originals"
            )
        if self.num_unchecked:
            said.append(
                f"{self.num_unchecked} enhanced images are not used: they were not compared with "
                f"their originals ({guards}). Run the stage 'recheck', or set "
                "recheck.exclude_flagged=false"
            )
        return said


def _report(
    workspace: Workspace, counts: ManifestCounts, coverage: float | None, messages: list[str]
) -> StageReport:
    table = counts.table()
    counts_path = workspace.stats / "training_manifest_counts.csv"
    write_text(counts_path, table.write_csv())
    whole = table.filter(pl.col("age_group") == "all")
    effective = {
        f"effective_images_{row['split']}": row["effective_num_images"]
        for row in whole.iter_rows(named=True)
    }
    return StageReport(
        STAGE,
        counts={
            "images": counts.num_images,
            "identities": int(whole["num_identities"].sum()),
            "enhanced": counts.num_enhanced,
            "captioned": counts.num_captioned,
            "ages_of_corpus": counts.num_corpus_ages,
            **{row["split"]: row["num_images"] for row in whole.iter_rows(named=True)},
        },
        figures={"caption_coverage": coverage, **effective},
        outputs={
            "training_manifest": workspace.relative(
                table_path(workspace, TRAINING_MANIFEST, ALL_PARTITIONS)
            ),
            "counts_csv": workspace.relative(counts_path),
        },
        messages=messages,
    )


def _caption_coverage(
    config: PipelineConfig, workspace: Workspace, counts: ManifestCounts
) -> tuple[float | None, list[str]]:
    """Return the share of kept images with a caption in use, and what there is to say of it."""
    if recorded_version(workspace) is None:
        return None, ["no image has a caption: the stage 'caption' was not run"]
    coverage = counts.num_captioned / counts.num_images
    least = config.caption.checks.min_coverage
    if coverage >= least:
        return coverage, []
    return coverage, [
        f"{coverage:.1%} of the kept images have a caption of the version in use, under "
        f"{least:.0%} (caption.checks.min_coverage): run the stage 'caption' on every partition, "
        "or see its failed rows"
    ]


def _usable(
    config: PipelineConfig, workspace: Workspace, partition: str, found: _Found
) -> Iterator[pl.DataFrame]:
    """Yield the kept images of a partition, a slice at a time, with what may be used of each."""
    version = recorded_version(workspace)

    def cursor(spec: TableSpec, columns: Sequence[str]) -> Cursor:
        # Stages that make a table can be left out.
        exists = table_path(workspace, spec, partition).exists()
        slices = read_slices(workspace, spec, partition, _SLICE, list(columns)) if exists else ()
        return Cursor(slices, "image_id")

    images, enhanced = cursor(IMAGES, _IMAGE_COLUMNS), cursor(ENHANCED, _ENHANCED_COLUMNS)
    ages = cursor(ENHANCED_AGES, ENHANCED_AGES.schema.names)
    captions = cursor(CAPTIONS, [*CAPTIONS.key, "status"] if version else ["image_id"])
    for judged in read_slices(workspace, KEEP_LIST, partition, _SLICE, _KEPT_COLUMNS):
        last = judged["image_id"][-1]
        its_images, its_captions = images.take(last), captions.take(last)
        made, checked = enhanced.take(last), ages.take(last)
        if its_images is None:
            continue
        kept = _kept(judged, its_images)
        usable = _usable_enhanced(config, made, checked, kept, found)
        yield kept.join(usable, on="image_id", how="left", maintain_order="left").with_columns(
            has_caption=pl.lit(False)
            if version is None or its_captions is None
            else pl.col("image_id").is_in(
                its_captions.filter(of_version(version) & (pl.col("status") == "ok"))["image_id"]
                .unique()
                .implode()
            )
        )


def _kept(judged: pl.DataFrame, images: pl.DataFrame) -> pl.DataFrame:
    """Kept images, with their label and where it comes from."""
    corpus = pl.col("true_age_years").is_not_null()
    return (
        judged.filter("keep")
        .join(images, on="image_id", how="inner", maintain_order="left")
        .select(
            "image_id",
            "partition",
            "subject",
            "face_path",
            pl.col("label_age_years").alias("age_years"),
            pl.col("label_variance_years2").alias("variance_years2"),
            "age_group",
            "curriculum_weight",
            label_source=pl.when(corpus).then(pl.lit("corpus")).otherwise(pl.lit("moe")),
        )
    )


def _usable_enhanced(
    config: PipelineConfig,
    enhanced: pl.DataFrame | None,
    ages: pl.DataFrame | None,
    kept: pl.DataFrame,
    found: _Found,
) -> pl.DataFrame:
    """Return image_id and enhanced_path of usable outputs; count those unchecked, and flagged."""
    from agetf_pipeline.enhance.guards import is_excluded, is_unjudged

    if enhanced is None:
        return pl.DataFrame(schema={"image_id": pl.String, "enhanced_path": pl.String})
    made = (
        enhanced.filter((pl.col("status") == "ok") & pl.col("enhanced_path").is_not_null())
        .join(kept.select("image_id"), on="image_id", how="semi")
        .select("image_id", "enhanced_path", "enhanced_sha256")
    )
    # Matched by the output's hash too: a check of an older output says nothing about this one.
    checked = made.join(
        empty_frame(ENHANCED_AGES) if ages is None else ages,
        on=["image_id", "enhanced_sha256"],
        how="left",
    ).with_columns(flagged=is_excluded(config.recheck), unchecked=is_unjudged(config.recheck))
    found.num_unchecked += int(checked["unchecked"].sum())
    found.num_flagged += int(checked["flagged"].sum())
    usable = checked.filter(~pl.col("flagged") & ~pl.col("unchecked"))
    return usable.select("image_id", "enhanced_path")


def _without_repeats(rows: pl.DataFrame) -> pl.DataFrame:
    """Keep one row of an image that lies in several partitions, one with the corpus's age first."""
    return rows.sort(pl.col("label_source") != "corpus", "partition").unique(
        "image_id", keep="first", maintain_order=True
    )


def _with_splits(config: PipelineConfig, rows: pl.DataFrame) -> pl.DataFrame:
    who = rows.select("partition", "image_id", "subject")
    identities = pl.Series([identity_of(*row) for row in who.iter_rows()], dtype=pl.String)
    fractions, seed = config.assemble.split_fractions, config.assemble.split_seed
    split_by = {name: split_of(name, fractions, seed) for name in set(identities)}
    splits = pl.Series([split_by[name] for name in identities], dtype=pl.String)
    return rows.with_columns(identity=identities, split=splits)


def _check_enough(config: PipelineConfig, counts: ManifestCounts, num_judged: int) -> None:
    num_train = counts.num_of("train")
    if counts.num_images >= config.assemble.min_images and num_train:
        return
    raise StageError(
        f"Expected at least {config.assemble.min_images} images to train on; found "
        f"{counts.num_images} kept of {num_judged}, {num_train} of them in split 'train'. Add "
        "images, loosen the section filter (stats/stages/filter/ says what was dropped and why), "
        "or lower assemble.min_images."
    )
