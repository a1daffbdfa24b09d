"""The stage train_evaluators: what it trains, what it takes over, what it refuses."""

import pytest
import torch

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import StageError, WeightsError
from agetf_pipeline.core.weights import read_card, save_weights
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import TRAINING_MANIFEST
from agetf_pipeline.data.tables import ALL_PARTITIONS, empty_frame, write_table
from agetf_pipeline.evaluation import arcface
from agetf_pipeline.evaluation.attributes import ATTRIBUTES, load_attribute_reader
from agetf_pipeline.evaluation.embedders import load_embedder
from agetf_pipeline.stages import train_evaluators

CPU = torch.device("cpu")
NAMES = ("age_estimator", "identity_embedder", "attribute_classifier")
TINY = {
    "num_steps": 2, "batch_size": 4, "width": 8, "num_identities": 4, "num_ages_per_identity": 2,
    "embedding_dim": 8,
}  # fmt: skip


def config_of(synthetic: bool = True, **settings) -> PipelineConfig:
    return PipelineConfig.model_validate(
        {
            "synthesize": {"enabled": synthetic},
            "train_evaluators": {**TINY, **settings},
            "runtime": {"allow_unverified_weights": True},
        }
    )


@pytest.fixture(scope="module", autouse=True)
def in_this_process():
    """Trainings of two steps are over before another process has started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            train_evaluators, "run_in_processes",
            lambda function, calls, _: [function(*arguments) for arguments in calls],
        )  # fmt: skip
        yield


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """An ArcFace checkpoint of random weights, as it is published."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("published") / "backbone.pth"
    torch.save(arcface.ArcFaceNet(arcface.BLOCKS["iresnet18"]).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory, in_this_process):
    workspace = Workspace(tmp_path_factory.mktemp("trained"))
    return workspace, train_evaluators.run(config_of(), workspace)


def photographs(folder) -> Workspace:
    """A workspace without a single labelled photograph."""
    workspace = Workspace(folder)
    write_table(workspace, TRAINING_MANIFEST, ALL_PARTITIONS, empty_frame(TRAINING_MANIFEST))
    return workspace


def test_a_synthetic_workspace_trains_all_three_and_says_how_good_the_reader_is(trained):
    workspace, report = trained
    assert set(report.outputs) == set(NAMES)
    reader = load_attribute_reader(
        train_evaluators.evaluator_path(workspace, "attribute_classifier"), CPU
    )
    for name in ATTRIBUTES:
        assert report.figures[f"attribute_accuracy_{name}"] == reader.accuracy[name].accuracy
    assert train_evaluators.run(config_of(), workspace).status == "skipped"


def test_trained_again_elsewhere_the_files_are_the_same(trained, tmp_path):
    workspace, _ = trained
    train_evaluators.run(config_of(), other := Workspace(tmp_path))
    for name in NAMES:
        first, again = (train_evaluators.evaluator_path(w, name) for w in (workspace, other))
        assert first.read_bytes() == again.read_bytes()


def test_photographs_have_no_attribute_reader_unless_one_is_given(trained, tmp_path):
    made, _ = trained
    workspace = photographs(tmp_path)
    path = train_evaluators.evaluator_path(workspace, "attribute_classifier")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"of an earlier configuration")
    report = train_evaluators.run(config_of(synthetic=False), workspace)
    assert not path.exists()
    assert any("train_evaluators.attribute_classifier_weights" in m for m in report.messages)
    given = train_evaluators.evaluator_path(made, "attribute_classifier")
    config = config_of(synthetic=False, attribute_classifier_weights=given)
    report = train_evaluators.run(config, workspace)
    assert path.read_bytes() == given.read_bytes()
    assert "attribute_classifier" in report.outputs


def test_a_published_embedder_is_brought_with_its_card(backbone, tmp_path):
    workspace = photographs(tmp_path)
    config = config_of(synthetic=False, identity_embedder_weights=backbone)
    report = train_evaluators.run(config, workspace)
    assert any("ArcFace iresnet18, trained on not stated" in m for m in report.messages)
    embedder = load_embedder(train_evaluators.evaluator_path(workspace, "identity_embedder"), CPU)
    assert embedder.name == "ArcFace iresnet18"


def test_what_guides_training_cannot_judge_it(backbone, tmp_path):
    workspace = photographs(tmp_path)
    guidance = workspace.models / "guidance" / "identity_embedder.safetensors"
    state = torch.load(backbone, weights_only=True)
    module = arcface.build_published("iresnet18")
    module.load_state_dict(state)
    save_weights(guidance, module, {"kind": "identity_embedder"})  # another file, the same network
    config = config_of(synthetic=False, identity_embedder_weights=backbone)
    with pytest.raises(StageError, match="recogniser that training never saw"):
        train_evaluators.run(config, workspace)
    assert not train_evaluators.evaluator_path(workspace, "identity_embedder").exists()


def test_what_guards_enhancement_may_judge_but_is_named(backbone, tmp_path):
    config = config_of(synthetic=False, identity_embedder_weights=backbone)
    recheck = config.recheck.model_copy(update={"identity_weights": backbone})
    report = train_evaluators.run(
        config.model_copy(update={"recheck": recheck}), photographs(tmp_path)
    )
    assert any("also the guard after enhancement" in message for message in report.messages)


def test_wrong_files_are_refused(trained, tmp_path):
    made, _ = trained
    age = train_evaluators.evaluator_path(made, "age_estimator")
    for name in ("identity_embedder", "attribute_classifier"):
        config = config_of(synthetic=False, **{f"{name}_weights": age})
        with pytest.raises(WeightsError, match="of kind"):
            train_evaluators.run(config, photographs(tmp_path / name))


def test_the_cards_say_what_the_networks_learned_from(trained):
    workspace, _ = trained
    cards = [read_card(train_evaluators.evaluator_path(workspace, name)) for name in NAMES]
    assert {card["trained_on"] for card in cards} == {"synthetic"}
    assert {card["num_faces"] for card in cards} == {8}
