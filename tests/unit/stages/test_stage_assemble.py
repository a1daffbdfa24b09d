"""The training manifest: splits by identity, usable enhancements, captions, counts."""

import shutil

import polars as pl
import pytest
from label_corpus import write_corpus

from agetf_pipeline.captions.versions import CaptionVersion, Request, record_version
from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.config.assemble import AssembleConfig
from agetf_pipeline.config.enhance import RecheckConfig
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import (
    CAPTIONS,
    ENHANCED,
    ENHANCED_AGES,
    IMAGES,
    KEEP_LIST,
    LABELS,
    TRAINING_MANIFEST,
)
from agetf_pipeline.data.tables import read_table, table_path, to_frame, write_table
from agetf_pipeline.stages import assemble, relabel
from agetf_pipeline.stages import filter as variance_filter

CAF = "caf/shard-0"


@pytest.fixture(scope="module")
def filtered(tmp_path_factory):
    workspace = Workspace(tmp_path_factory.mktemp("assemble"))
    write_corpus(workspace, num_ffhq=60, num_subjects=40)
    config = PipelineConfig()
    relabel.run(config, workspace)
    for partition in ("ffhq_aging", CAF, "caf/shard-1"):
        variance_filter.run(config, workspace, partition)
    return workspace


def _manifest(workspace):
    return read_table(workspace, TRAINING_MANIFEST, ["all"])


def test_only_kept_images_and_identities_in_one_split(filtered):
    report = assemble.run(PipelineConfig(), filtered)
    manifest = _manifest(filtered)
    kept = read_table(filtered, KEEP_LIST).filter("keep")
    assert set(manifest["image_id"]) == set(kept["image_id"])
    assert manifest.group_by("identity").agg(pl.col("split").n_unique())["split"].max() == 1
    assert set(manifest["split"]) == {"train", "val", "test"}
    caf = manifest.filter(pl.col("partition") != "ffhq_aging")
    assert (caf["label_source"] == "corpus").all()
    assert caf["identity"].str.starts_with("caf:s").all()
    assert caf["identity"].n_unique() < caf.height
    ffhq = manifest.filter(pl.col("partition") == "ffhq_aging")
    assert (ffhq["label_source"] == "moe").all()
    assert ffhq["identity"].n_unique() == ffhq.height
    assert manifest["enhanced_path"].null_count() == manifest.height
    assert not manifest["has_caption"].any()
    assert report.figures["caption_coverage"] is None
    assert any("the stage 'caption' was not run" in text for text in report.messages)
    assert report.counts["images"] == manifest.height
    assert sum(report.counts[name] for name in ("train", "val", "test")) == manifest.height


def test_counts_per_split_and_group(filtered):
    report = assemble.run(PipelineConfig(), filtered)
    manifest = _manifest(filtered)
    table = pl.read_csv(filtered.resolve(report.outputs["counts_csv"]))
    whole = table.filter(pl.col("age_group") == "all")
    assert whole["num_images"].sum() == manifest.height
    groups = table.filter(pl.col("age_group") != "all")
    assert groups["num_images"].sum() == manifest.height
    assert (groups["effective_num_images"] <= groups["num_images"] + 1e-6).all()
    train = manifest.filter(pl.col("split") == "train")
    expected = train["curriculum_weight"].sum() ** 2 / (train["curriculum_weight"] ** 2).sum()
    assert report.figures["effective_images_train"] == pytest.approx(expected, rel=1e-3)


def test_same_bytes_and_skipped(filtered):
    assemble.run(PipelineConfig(), filtered)
    path = table_path(filtered, TRAINING_MANIFEST, "all")
    first = path.read_bytes()
    assert assemble.run(PipelineConfig(), filtered).status == "skipped"
    path.unlink()
    assert assemble.run(PipelineConfig(), filtered).status == "ran"
    assert path.read_bytes() == first


def test_a_new_shard_moves_nobody(filtered, tmp_path):
    config = PipelineConfig()
    smaller = Workspace(tmp_path)
    for spec in (IMAGES, KEEP_LIST):
        for partition in ("ffhq_aging", CAF):
            write_table(smaller, spec, partition, read_table(filtered, spec, [partition]))
    assemble.run(config, smaller)
    assemble.run(config, filtered)
    before, after = _manifest(smaller), _manifest(filtered)
    both = before.join(after, on="image_id")
    assert both.height == before.height
    assert (both["split"] == both["split_right"]).all()


def test_enhanced_images_are_used_unless_flagged_or_unchecked(filtered, tmp_path):
    workspace, ids = _with_enhancement(filtered, tmp_path)
    used, flagged, unchecked, other_output, failed = ids
    report = assemble.run(PipelineConfig(), workspace)
    manifest = _manifest(workspace)
    paths = dict(manifest.select("image_id", "enhanced_path").iter_rows())
    assert paths[used] == f"data/processed/caf_enhanced/shard-0/{used}.png"
    for image_id in (flagged, unchecked, other_output, failed):
        assert paths[image_id] is None
    text = " ".join(report.messages)
    assert "1 enhanced images are not used: a guard flagged them (age, identity" in text
    assert "2 enhanced images are not used: they were not compared" in text
    captioned = manifest.filter("has_caption")["image_id"].to_list()
    assert captioned == [used]
    assert report.figures["caption_coverage"] == 1 / manifest.height
    assert "have a caption of the version in use, under 95% (caption.checks.min_coverage)" in text
    lenient = PipelineConfig(recheck=RecheckConfig(exclude_flagged=False))
    assert assemble.run(lenient, workspace).counts["enhanced"] == 4


def _with_enhancement(filtered, folder):
    workspace = Workspace(folder)
    for spec in (IMAGES, KEEP_LIST):
        write_table(workspace, spec, CAF, read_table(filtered, spec, [CAF]))
    kept = read_table(workspace, KEEP_LIST).filter("keep")
    ids = kept["image_id"].to_list()[:5]
    used, flagged, _, other_output, failed = ids
    folder_of = "data/processed/caf_enhanced/shard-0"
    enhanced = [
        dict.fromkeys(ENHANCED.schema.names)
        | {"image_id": image_id, "status": "ok", "settings_version": "v", "enhanced_sha256": "h",
           "enhanced_path": f"{folder_of}/{image_id}.png"}
        for image_id in ids
        if image_id != failed
    ]  # fmt: skip
    enhanced.append(
        dict.fromkeys(ENHANCED.schema.names)
        | {"image_id": failed, "status": "failed", "settings_version": "v"}
    )
    ages = [
        dict.fromkeys(ENHANCED_AGES.schema.names)
        | {"image_id": image_id, "label_version": "v", "age_before_years": 20.0,
         "enhanced_sha256": "older" if image_id == other_output else "h",
         "age_after_years": 30.0 if image_id == flagged else 20.5,
         "age_shift_years": 10.0 if image_id == flagged else 0.5,
         "guards_version": "1", "flags": ["age", "colour"] if image_id == flagged else ["colour"],
         "flagged": True}
        for image_id in (used, flagged, other_output)
    ]  # fmt: skip
    captions = [
        dict.fromkeys(CAPTIONS.schema.names)
        | {"image_id": image_id, "model_version": "m", "prompt_hash": "p", "prompt": "?",
           "status": "ok" if image_id == used else "failed"}
        for image_id in (used, flagged)
    ]  # fmt: skip
    for spec, rows in ((ENHANCED, enhanced), (ENHANCED_AGES, ages), (CAPTIONS, captions)):
        write_table(workspace, spec, CAF, to_frame(rows, spec))
    record_version(workspace, CaptionVersion("m", "p"), Request("?", 8))
    return workspace, ids


def test_an_image_in_two_partitions_is_used_once_with_the_age_of_the_corpus(filtered, tmp_path):
    workspace = Workspace(tmp_path)
    images = read_table(filtered, IMAGES, [CAF])
    kept = read_table(filtered, KEEP_LIST, [CAF])
    write_table(workspace, IMAGES, CAF, images)
    write_table(workspace, KEEP_LIST, CAF, kept)
    nobody = images.with_columns(
        pl.lit("ffhq_aging").alias("partition"),
        pl.lit(None, pl.String).alias("subject"),
        pl.lit(None, pl.Float32).alias("true_age_years"),
    )
    write_table(workspace, IMAGES, "ffhq_aging", nobody)
    write_table(workspace, KEEP_LIST, "ffhq_aging", kept)
    report = assemble.run(PipelineConfig(), workspace)
    manifest = _manifest(workspace)
    assert manifest.height == kept["keep"].sum()
    assert (manifest["label_source"] == "corpus").all()
    assert any("more than one partition" in message for message in report.messages)


def test_a_partition_without_keep_list_is_said(filtered, tmp_path):
    workspace = Workspace(tmp_path)
    write_table(workspace, IMAGES, CAF, read_table(filtered, IMAGES, [CAF]))
    write_table(workspace, KEEP_LIST, CAF, read_table(filtered, KEEP_LIST, [CAF]))
    write_table(workspace, IMAGES, "ffhq_aging", read_table(filtered, IMAGES, ["ffhq_aging"]))
    report = assemble.run(PipelineConfig(), workspace)
    assert any("images of ffhq_aging are not in the manifest" in text for text in report.messages)


def test_too_little_to_train_on(filtered, tmp_path):
    with pytest.raises(StageError, match="keep-list"):
        assemble.run(PipelineConfig(), Workspace(tmp_path))
    config = PipelineConfig(assemble=AssembleConfig(min_images=10_000))
    with pytest.raises(StageError, match=r"at least 10000 images.*loosen the section filter"):
        assemble.run(config, filtered)
    everyone_tested = PipelineConfig(
        assemble=AssembleConfig(split_fractions={"train": 0.0, "test": 1.0})
    )
    with pytest.raises(StageError, match="0 of them in split 'train'"):
        assemble.run(everyone_tested, filtered)
    assert read_table(filtered, LABELS).height == 260


def test_small_slices_and_buckets_give_the_same_rows_and_counts(filtered, tmp_path, monkeypatch):
    before = assemble.run(PipelineConfig(), filtered)
    whole = _manifest(filtered)
    shutil.copytree(filtered.root / "data", tmp_path / "data")
    table_path(Workspace(tmp_path), TRAINING_MANIFEST, "all").unlink()
    monkeypatch.setattr(assemble, "_SLICE", 17)
    monkeypatch.setattr(assemble, "_BUCKET_ROWS", 20)
    after = assemble.run(PipelineConfig(), Workspace(tmp_path))
    assert _manifest(Workspace(tmp_path)).equals(whole)
    assert after.counts == before.counts
    assert after.figures == before.figures
    assert not (Workspace(tmp_path).state / "assemble").exists()
