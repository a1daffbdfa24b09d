"""The training manifest: every image that training may use, one row each, split by identity.

All of a person's images are in one split, decided by the person's name alone, so that a new shard
moves nobody. FFHQ-Aging names no persons: each image counts as one.
"""

import polars as pl

from agetf_pipeline.captions.cache import read_captions
from agetf_pipeline.captions.versions import recorded_version
from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.files import write_text
from agetf_pipeline.core.statistics import effective_number
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.ages import AGE_GROUPS
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
from agetf_pipeline.data.tables import (
    ALL_PARTITIONS,
    list_partitions,
    read_table,
    table_hashes,
    table_path,
    write_table,
)
from agetf_pipeline.stages.base import StageReport, run_once

STAGE = "assemble"
CODE_VERSION = "4"
_SPLITS = ("train", "val", "test")


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
    frames = []
    num_unchecked = num_flagged = 0
    for partition in partitions:
        kept = _kept(workspace, partition)
        enhanced, unchecked, flagged = _usable_enhanced(config, workspace, partition, kept)
        num_unchecked, num_flagged = num_unchecked + unchecked, num_flagged + flagged
        frames.append(
            kept.join(enhanced, on="image_id", how="left").with_columns(
                has_caption=pl.col("image_id").is_in(_captioned(workspace, partition))
            )
        )
    rows = pl.concat(frames)
    rows, repeated = _without_repeats(rows)
    messages += repeated
    guards = ", ".join(config.recheck.excluding())
    if num_flagged:
        messages.append(
            f"{num_flagged} enhanced images are not used: a guard flagged them ({guards}; "
            "recheck.exclude); training reads their originals"
        )
    if num_unchecked:
        messages.append(
            f"{num_unchecked} enhanced images are not used: they were not compared with their "
            f"originals ({guards}). Run the stage 'recheck', or set recheck.exclude_flagged=false"
        )
    manifest = _with_splits(config, rows)
    _check_enough(config, manifest, workspace, partitions)
    messages += [
        f"split '{name}' is empty: too few identities"
        for name in config.assemble.split_fractions
        if not (manifest["split"] == name).any()
    ]
    coverage, said = _caption_coverage(config, workspace, manifest)
    messages += said
    path = write_table(workspace, TRAINING_MANIFEST, ALL_PARTITIONS, manifest)
    table = count_table(manifest)
    counts_path = workspace.stats / "training_manifest_counts.csv"
    write_text(counts_path, table.write_csv())
    whole = table.filter(pl.col("age_group") == "all")
    counts = {
        "images": manifest.height,
        "identities": manifest["identity"].n_unique(),
        "enhanced": manifest["enhanced_path"].count(),
        "captioned": int(manifest["has_caption"].sum()),
        "ages_of_corpus": int((manifest["label_source"] == "corpus").sum()),
        **{row["split"]: row["num_images"] for row in whole.iter_rows(named=True)},
    }
    effective = {
        f"effective_images_{row['split']}": row["effective_num_images"]
        for row in whole.iter_rows(named=True)
    }
    return StageReport(
        STAGE,
        counts=counts,
        figures={"caption_coverage": coverage, **effective},
        outputs={
            "training_manifest": workspace.relative(path),
            "counts_csv": workspace.relative(counts_path),
        },
        messages=messages,
    )


def _caption_coverage(
    config: PipelineConfig, workspace: Workspace, manifest: pl.DataFrame
) -> tuple[float | None, list[str]]:
    """Return the share of kept images with a caption in use, and what there is to say of it."""
    if recorded_version(workspace) is None:
        return None, ["no image has a caption: the stage 'caption' was not run"]
    coverage = float(manifest["has_caption"].sum() / manifest.height)
    least = config.caption.checks.min_coverage
    if coverage >= least:
        return coverage, []
    return coverage, [
        f"{coverage:.1%} of the kept images have a caption of the version in use, under "
        f"{least:.0%} (caption.checks.min_coverage): run the stage 'caption' on every partition, "
        "or see its failed rows"
    ]


def count_table(manifest: pl.DataFrame) -> pl.DataFrame:
    """Return images, identities and effective number per split and age group, and over `all`.

    The effective number is (sum w)^2 / sum w^2 of the curriculum weights (Kish 1965): how many
    equally sure images the group is worth.
    """
    rows = []
    present = set(manifest["split"].unique().to_list())
    for split in [*_SPLITS, *sorted(present - set(_SPLITS))]:
        for group in (*AGE_GROUPS, "all"):
            chosen = manifest.filter(
                (pl.col("split") == split) & ((pl.col("age_group") == group) | (group == "all"))
            )
            weights = chosen["curriculum_weight"].to_numpy()
            rows.append(
                {
                    "split": split,
                    "age_group": group,
                    "num_images": chosen.height,
                    "num_identities": chosen["identity"].n_unique(),
                    "effective_num_images": round(effective_number(weights), 3),
                    "num_enhanced": chosen["enhanced_path"].count(),
                    "num_captioned": int(chosen["has_caption"].sum()),
                    "num_corpus_ages": int((chosen["label_source"] == "corpus").sum()),
                }
            )
    return pl.DataFrame(rows)


def _read(workspace: Workspace, spec: TableSpec, partition: str) -> pl.DataFrame:
    """Read a partition, or an empty table where it was not made: such stages can be left out."""
    exists = table_path(workspace, spec, partition).exists()
    return read_table(workspace, spec, [partition] if exists else [])


def _captioned(workspace: Workspace, partition: str) -> list[str]:
    """Return the images of a partition that have a caption of the version in use."""
    version = recorded_version(workspace)
    if version is None:
        return []
    rows = read_captions(workspace, partition, version, ["image_id", "status"])
    return rows.filter(pl.col("status") == "ok")["image_id"].to_list()


def _kept(workspace: Workspace, partition: str) -> pl.DataFrame:
    """Kept images of a partition, with their label and where it comes from."""
    keep_list = read_table(workspace, KEEP_LIST, [partition]).filter(pl.col("keep"))
    images = read_table(workspace, IMAGES, [partition])
    about = images.select("image_id", "partition", "face_path", "subject", "true_age_years")
    corpus = pl.col("true_age_years").is_not_null()
    return keep_list.join(about, on="image_id", how="inner").select(
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


def _usable_enhanced(
    config: PipelineConfig, workspace: Workspace, partition: str, kept: pl.DataFrame
) -> tuple[pl.DataFrame, int, int]:
    """Return image_id and enhanced_path of usable outputs; how many are unchecked, and flagged."""
    from agetf_pipeline.enhance.guards import is_excluded, is_unjudged

    made = (
        _read(workspace, ENHANCED, partition)
        .filter((pl.col("status") == "ok") & pl.col("enhanced_path").is_not_null())
        .join(kept.select("image_id"), on="image_id", how="semi")
        .select("image_id", "enhanced_path", "enhanced_sha256")
    )
    # Matched by the output's hash too: a check of an older output says nothing about this one.
    checked = made.join(
        _read(workspace, ENHANCED_AGES, partition), on=["image_id", "enhanced_sha256"], how="left"
    )
    checked = checked.with_columns(
        flagged=is_excluded(config.recheck), unchecked=is_unjudged(config.recheck)
    )
    usable = checked.filter(~pl.col("flagged") & ~pl.col("unchecked"))
    num_unchecked, num_flagged = (int(checked[name].sum()) for name in ("unchecked", "flagged"))
    return usable.select("image_id", "enhanced_path"), num_unchecked, num_flagged


def _without_repeats(rows: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Keep one row of an image that lies in several partitions, one with the corpus's age first."""
    once = rows.sort(pl.col("label_source") != "corpus", "partition").unique(
        "image_id", keep="first", maintain_order=True
    )
    num_repeats = rows.height - once.height
    if not num_repeats:
        return once, []
    return once, [
        f"{num_repeats} images lie in more than one partition: each is used once, with the age of "
        "the corpus where there is one"
    ]


def _with_splits(config: PipelineConfig, rows: pl.DataFrame) -> pl.DataFrame:
    who = rows.select("partition", "image_id", "subject")
    identities = [identity_of(*row) for row in who.iter_rows()]
    splits = [
        split_of(name, config.assemble.split_fractions, config.assemble.split_seed)
        for name in identities
    ]
    return rows.drop("subject").with_columns(
        identity=pl.Series(identities, dtype=pl.String), split=pl.Series(splits, dtype=pl.String)
    )


def _check_enough(
    config: PipelineConfig, manifest: pl.DataFrame, workspace: Workspace, partitions: list[str]
) -> None:
    num_train = int((manifest["split"] == "train").sum())
    if manifest.height >= config.assemble.min_images and num_train:
        return
    num_judged = read_table(workspace, KEEP_LIST, partitions).height
    raise StageError(
        f"Expected at least {config.assemble.min_images} images to train on; found "
        f"{manifest.height} kept of {num_judged}, {num_train} of them in split 'train'. Add "
        "images, loosen the section filter (stats/stages/filter/ says what was dropped and why), "
        "or lower assemble.min_images."
    )
