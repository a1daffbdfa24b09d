"""Forgetting a person in the workspace that the whole pipeline left, models and all."""

import shutil

import polars as pl
import pytest
from forgotten_workspace import traces
from main_job import GraphRun

from agetf_pipeline.config import PipelineConfig, load_config
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.quarantine import FORGOTTEN
from agetf_pipeline.data.schemas import IMAGES, QUARANTINE, TRAINING_MANIFEST
from agetf_pipeline.data.tables import read_table
from agetf_pipeline.data.trained_on import SUFFIX, read_trained_on, without_list
from agetf_pipeline.registry.tracking import tracking_uri_of
from agetf_pipeline.registry.trained_on import versions_trained_on
from agetf_pipeline.stages import ingest
from agetf_pipeline.upkeep.forget import forget


@pytest.fixture(scope="module")
def copied(graph_run: GraphRun, tmp_path_factory) -> tuple[PipelineConfig, Workspace]:
    root = tmp_path_factory.mktemp("copied") / "workspace"
    shutil.copytree(graph_run.workspace.root, root)
    return load_config(graph_run.config, [f"workspace.root={root}"]), Workspace(root)


def test_every_network_says_what_it_learned_from(graph_run):
    workspace = graph_run.workspace
    lists = {
        workspace.relative(path).removesuffix(SUFFIX): set(read_trained_on(path))
        for path in workspace.models.rglob(f"*{SUFFIX}")
    }
    manifest = read_table(workspace, TRAINING_MANIFEST)
    train = set(manifest.filter(pl.col("split") == "train")["image_id"])
    for name in ("age_transformer/test/weights", "guidance/age_regressor",
                 "guidance/identity_embedder"):  # fmt: skip
        assert lists[f"models/{name}"] == train
    images = read_table(workspace, IMAGES)
    caf = set(images.filter(pl.col("subject").is_not_null())["image_id"])
    experts = set.union(*(ids for name, ids in lists.items() if "/experts/" in name))
    assert len([name for name in lists if "/experts/" in name]) == 4
    assert experts < caf
    assert lists["models/moe/calibration"] == caf - experts
    for name in ("ddcolor", "esrgan"):
        assert lists[f"models/enhance/{name}"] < set(images["image_id"]) - caf
    # The evaluators learn from faces drawn for them, none of which is an image.
    assert {name.split("/")[1] for name in without_list(workspace)} == {"evaluators"}


def test_registered_versions_say_it_too(graph_run):
    workspace = graph_run.workspace
    uri = tracking_uri_of(workspace)
    everybody = set(read_table(workspace, IMAGES)["image_id"])
    found, unknown = versions_trained_on(uri, everybody)
    assert unknown == []
    assert {(version.model, version.part) for version in found} == {
        ("age-transformer", "age_transformer"),
        *(("age-mixture", n) for n in ("calibration", "janus", "mivolo", "resnet50", "vgg16")),
    }
    assert all(version.num_asked == version.num_images for version in found)


def test_a_person_goes_from_all_that_the_pipeline_made(copied):
    config, workspace = copied
    manifest = read_table(workspace, TRAINING_MANIFEST)
    learned = manifest.filter((pl.col("split") == "train") & (pl.col("label_source") == "corpus"))
    subject = learned["identity"].sort()[0].removeprefix("caf:")
    rows = read_table(workspace, IMAGES).filter(pl.col("subject") == subject)
    ids, paths = rows["image_id"].to_list(), rows["path"].to_list()
    report = forget(config, workspace, [subject], subjects=True)
    assert report.left == []
    assert "models/age_transformer/test/weights" in {model.name for model in report.models}
    assert ("age-transformer", "1") in {(v.model, v.version) for v in report.versions}
    left = traces(workspace.root, [*ids, *paths, subject])
    of_drawn_corpus = ("data/truth/", "data/.state/synthesize/")
    stays = ("data/raw/", *of_drawn_corpus, "data/forgotten.json", "data/tables/quarantine/",
             "stats/quarantine/")  # fmt: skip
    assert [n for n in left if not n.startswith(stays) and SUFFIX not in n] == []
    shown = [p for name in ("grid.png", "cases.png", "report.html", "train_samples.png")
             for p in workspace.root.rglob(name)]  # fmt: skip
    assert shown == []
    before = {p: p.read_bytes() for p in workspace.tables.rglob("*.parquet")}
    for partition in sorted({*rows["partition"], "ffhq_aging"}):
        ingest.run(config, workspace, partition)
    assert {p: p.read_bytes() for p in workspace.tables.rglob("*.parquet")} == before
    refused = read_table(workspace, QUARANTINE).filter(pl.col("reason") == FORGOTTEN)
    assert sorted(refused["image_id"]) == sorted(ids)
