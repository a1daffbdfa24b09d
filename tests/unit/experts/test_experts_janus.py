"""Janus: the answer tree, the tiny network's folder, loading, and reading ages."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from agetf_pipeline.captions.age_words import remove_age_words
from agetf_pipeline.captions.attributes import Attributes, named_attributes
from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import ConfigError, DataError, StageError, WeightsError
from agetf_pipeline.core.weights import read_card
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.experts import free_text_janus
from agetf_pipeline.experts.answer_trie import build_trie
from agetf_pipeline.experts.free_text import PRIOR_SIGMA_YEARS
from agetf_pipeline.experts.free_text_janus import JanusTextExpert, Written
from agetf_pipeline.experts.janus import (
    AGE_QUESTION,
    Janus,
    JanusExpert,
    fit_janus,
    janus_version,
    load_janus,
)
from agetf_pipeline.experts.janus_tiny import build_tiny_janus, whiten_patches
from agetf_pipeline.experts.janus_tiny_training import _Tasks, draw_faces, soft_ages
from agetf_pipeline.experts.load import load_expert
from agetf_pipeline.experts.predict import read_faces

STOP = 9


def _config(**janus: object) -> PipelineConfig:
    settings = {"size": "tiny", "input_px": 32, "num_steps": 3, "batch_size": 4, **janus}
    return PipelineConfig.model_validate(
        {
            "runtime": {"device": "cpu", "allow_unverified_weights": True},
            "train_experts": {"experts": {"janus": settings}},
            "caption": {"num_train_faces": 6},
        }
    )


def _faces(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 40, 40, 3), dtype=np.uint8)


def _fit(config: PipelineConfig, workspace: Workspace) -> None:
    fit_janus(
        config, workspace, _faces(6), np.linspace(0, 100, 6), workspace.state / "janus.pt",
        "some faces", workspace.models / "experts" / "janus", {"trained_on": "synthetic"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[PipelineConfig, Workspace]:
    workspace, config = Workspace(tmp_path_factory.mktemp("janus")), _config()
    _fit(config, workspace)
    return config, workspace


# The tree of answers


def test_trie_shares_beginnings_and_merges_equal_forms() -> None:
    trie = build_trie([[(1,), (1,)], [(1, 2)], [(1, 2, 3), (4, 1)]], [STOP])
    assert trie.token_ids == (1, 2, 3, 4, 1)
    assert trie.parents == (-1, 0, 1, -1, 3)
    assert trie.depths == (0, 1, 2, 0, 1)
    assert trie.ends == ((0,), (1,), (2, 4))
    assert trie.paths(2) == [(0, 1, 2), (3, 4)]


def test_trie_refuses_answers_that_look_alike() -> None:
    with pytest.raises(ValueError, match="no other answer's"):
        build_trie([[(1,)], [(1,)]], [STOP])


def test_mask_shows_prompt_and_ancestors_only() -> None:
    trie = build_trie([[(1,)], [(1, 2)], [(3,)]], [STOP])
    seen = trie.attention_mask(2, torch.float32)[0, 0] == 0
    expected = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]
    assert seen.int().tolist() == expected
    assert trie.position_ids(2).tolist() == [[0, 1, 2, 3, 2]]


def test_answers_and_refusals_sum_to_one() -> None:
    """Every way through a tree of all two-token texts is an answer, so nothing is left over."""
    trie = build_trie([[(0,)], [(1,)], [(0, 0), (0, 1)], [(1, 0), (1, 1)]], [2])
    log_probs = torch.randn(3, 1 + trie.num_nodes, 3).log_softmax(dim=-1)
    log_probs[:, 0, 2] = -torch.inf  # an empty answer cannot be given
    log_probs[:, 0] = log_probs[:, 0].log_softmax(dim=-1)
    for node, depth in enumerate(trie.depths):
        if depth == 1:
            log_probs[:, node + 1] = torch.tensor([-1e4, -1e4, 0.0])
    total = trie.answer_log_probs(log_probs).exp().sum(dim=1)
    torch.testing.assert_close(total, torch.ones(3), atol=1e-5, rtol=0)


def test_targets_reproduce_the_distribution_they_come_from() -> None:
    trie = build_trie([[(1,)], [(1, 2)], [(3,)], [(3, 1, 2)]], [STOP])
    wanted = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 1.0, 0.0]])
    targets = trie.next_token_targets(wanted, num_tokens=10)
    given = trie.answer_log_probs(targets.clamp_min(1e-30).log()).exp()
    torch.testing.assert_close(given, wanted, atol=1e-5, rtol=0)


# Training targets and augmentation


def test_soft_ages_are_distributions_around_the_age() -> None:
    targets = soft_ages(torch.tensor([30.0, 0.0, 99.6]))
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(3))
    assert targets.argmax(dim=1).tolist() == [30, 0, 100]


def test_whitened_patches_start_with_equal_variance(untrained: Janus) -> None:
    # Light and shade dominate these pictures: left alone, one component holds nearly all variance.
    generator = torch.Generator().manual_seed(0)
    light = 3 * torch.randn(64, 1, 1, 1, generator=generator)
    pixels = light + 0.3 * torch.randn(64, 3, 32, 32, generator=generator)
    whiten_patches(untrained, pixels)
    embedding = untrained.model.model.vision_model.embeddings.patch_embedding
    with torch.no_grad():
        given = embedding(pixels).transpose(0, 1).flatten(1)
    torch.testing.assert_close(given.mean(dim=1), torch.zeros(len(given)), atol=1e-3, rtol=0)
    assert float(given.std(dim=1).max() / given.std(dim=1).min()) < 1.2


def test_drawn_faces_come_with_what_is_on_them() -> None:
    drawn, again = draw_faces(8, 32), draw_faces(8, 32)
    assert drawn.faces_NHWC.shape == (8, 32, 32, 3)
    assert drawn.captions == again.captions
    np.testing.assert_array_equal(drawn.faces_NHWC, again.faces_NHWC)
    worn = {"": "none", "a moustache": "moustache", "a beard": "beard"}
    for caption, (glasses, colour, facial_hair) in zip(
        drawn.captions, drawn.attributes, strict=True
    ):
        said = Attributes(glasses or "none", colour or None, worn[facial_hair])
        assert named_attributes(caption) == said


def test_black_and_white_faces_name_no_hair_colour() -> None:
    drawn = draw_faces(8, 32)
    without_colour = (np.ptp(drawn.faces_NHWC, axis=3) == 0).all(axis=(1, 2))
    assert without_colour.tolist() == [n % 5 == 0 for n in range(8)]
    assert [not colour for _, colour, _ in drawn.attributes] == without_colour.tolist()


def test_three_in_four_captions_speak_of_age() -> None:
    captions = draw_faces(8, 32).captions
    assert [remove_age_words(caption) != caption for caption in captions] == [
        n % 4 > 0 for n in range(8)
    ]


def test_a_side_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match="input_px"):
        build_tiny_janus(33, [" A man."], 0)


# The tiny network


@pytest.fixture(scope="module")
def untrained() -> Janus:
    return build_tiny_janus(32, [f" {AGE_QUESTION}", " A man, with a beard."], 0)


def test_tokenizer_gives_text_back(untrained: Janus) -> None:
    tokenizer = untrained.processor.tokenizer
    for text in (" A man, with a beard.", "34", " 100", " A beard, with a man."):
        assert tokenizer.decode(untrained.encode(text)) == text
    assert tokenizer.unk_token_id in untrained.encode(" zeppelin")


def test_prompt_holds_the_image_and_no_unknown_word(untrained: Janus) -> None:
    ids = untrained.prompt_ids(AGE_QUESTION)
    assert int((ids == untrained.model.config.image_token_id).sum()) == 4 * 4
    assert untrained.processor.tokenizer.unk_token_id not in ids


def test_faces_of_another_type_are_refused(untrained: Janus) -> None:
    with pytest.raises(DataError, match="uint8"):
        JanusExpert(untrained).read(np.zeros((1, 32, 32, 3), np.float32))


# Folder and loading


def test_written_folder_reads_as_it_was_trained(
    trained: tuple[PipelineConfig, Workspace],
) -> None:
    config, workspace = trained
    janus = load_janus(config, workspace)
    assert janus is load_janus(config, workspace)  # once per process
    assert janus.trained_on == "synthetic"
    assert janus.version == janus_version(config, workspace)
    readings = JanusExpert(janus).read(_faces(3))
    assert readings.distribution is not None
    assert readings.valid_mass is not None
    np.testing.assert_allclose(readings.distribution.sum(axis=1), 1, atol=1e-5)
    assert ((readings.valid_mass > 0) & (readings.valid_mass <= 1 + 1e-5)).all()
    assert readings.reasons == (None,) * 3
    assert JanusExpert(janus).read(_faces(0)).age_years.shape == (0,)


def test_training_is_deterministic_and_says_what_it_was_made_of(
    trained: tuple[PipelineConfig, Workspace], tmp_path: Path
) -> None:
    config, workspace = trained
    again = Workspace(tmp_path)
    _fit(config, again)
    assert janus_version(config, again) == janus_version(config, workspace)
    card = read_card(tmp_path / "models" / "experts" / "janus" / "weights.safetensors")
    assert card["trained_on"] == "synthetic"
    assert card["num_caption_faces"] == 6
    assert np.isfinite(card["final_loss"])
    assert not (again.state / "janus.pt").exists()


def test_without_drawn_faces_ages_alone_are_learnt(tmp_path: Path) -> None:
    config, workspace = _config(), Workspace(tmp_path)
    config = config.model_copy(
        update={"caption": config.caption.model_copy(update={"num_train_faces": 0})}
    )
    _fit(config, workspace)
    card = read_card(workspace.models / "experts" / "janus" / "weights.safetensors")
    assert card["num_caption_faces"] == 0
    assert card["num_age_faces"] == 6


def test_attributes_reach_the_embedding_and_no_weights_but_the_network_are_kept(
    trained: tuple[PipelineConfig, Workspace],
) -> None:
    config, workspace = trained
    drawn = draw_faces(6, 32)
    janus = build_tiny_janus(32, [f" {AGE_QUESTION}", *(f" {one}" for one in drawn.captions)], 0)
    tasks = _Tasks(janus, drawn.faces_NHWC, drawn.ages_years, drawn, " A man.", False)
    features = janus.image_features(tasks.drawn)
    tasks._attribute_loss(features, torch.arange(6)).backward()
    gradient = janus.model.model.vision_model.embeddings.patch_embedding.weight.grad
    assert gradient is not None
    assert float(gradient.abs().sum()) > 0
    assert janus.model.lm_head.weight.grad is None
    stored = load_janus(config, workspace).model.state_dict()
    assert not [name for name in stored if "readout" in name]


def test_transformers_format_folder_loads_the_same(
    trained: tuple[PipelineConfig, Workspace], tmp_path: Path
) -> None:
    config, workspace = trained
    janus = load_janus(config, workspace)
    expected = JanusExpert(janus).read(_faces(2))
    folder = _published(janus, tmp_path / "published")
    other = load_janus(_config(size="full", weights=str(folder)), workspace)
    assert other.trained_on == "published"
    assert other.version != janus.version
    np.testing.assert_allclose(
        JanusExpert(other).read(_faces(2)).age_years, expected.age_years, atol=1e-4
    )


def test_a_folder_that_nothing_vouches_for_is_not_loaded(
    trained: tuple[PipelineConfig, Workspace], tmp_path: Path
) -> None:
    config, workspace = trained
    folder = _published(load_janus(config, workspace), tmp_path / "published")
    strict = config.runtime.model_copy(update={"allow_unverified_weights": False})
    given = _config(size="full", weights=str(folder)).model_copy(update={"runtime": strict})
    with pytest.raises(WeightsError, match="allow_unverified_weights"):
        load_janus(given, workspace)


def test_missing_tensors_are_listed(
    trained: tuple[PipelineConfig, Workspace], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    config, workspace = trained
    folder = _published(load_janus(config, workspace), tmp_path / "published")
    state = load_file(folder / "model.safetensors")
    name = "model.aligner.fc1.weight"
    del state[name]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
        load_janus(_config(size="full", weights=str(folder)), workspace)


def test_wrongly_tied_head_is_refused(
    trained: tuple[PipelineConfig, Workspace], tmp_path: Path
) -> None:
    config, workspace = trained
    folder = _published(load_janus(config, workspace), tmp_path / "published")
    settings = json.loads((folder / "config.json").read_text())
    settings["tie_word_embeddings"] = True
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match="tie_word_embeddings"):
        load_janus(_config(size="full", weights=str(folder)), workspace)


def test_folder_without_tokenizer_is_explained(
    trained: tuple[PipelineConfig, Workspace], tmp_path: Path
) -> None:
    _, workspace = trained
    broken = Workspace(tmp_path)
    shutil.copytree(workspace.models, broken.models)
    for path in (broken.models / "experts" / "janus").glob("*token*"):
        path.unlink()
    with pytest.raises(WeightsError, match="complete folder"):
        load_janus(_config(), broken)


def test_absent_folder_and_absent_expert_are_explained(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="train_experts"):
        load_janus(_config(), Workspace(tmp_path))
    with pytest.raises(ConfigError, match=r"experts\.janus"):
        load_janus(PipelineConfig(), Workspace(tmp_path))


# Answers in words


def test_text_is_an_option_with_a_version_of_its_own(
    trained: tuple[PipelineConfig, Workspace],
) -> None:
    config, workspace = trained
    scored = load_expert(config, workspace, "janus")
    text = load_expert(_config(answer="text"), workspace, "janus")
    assert isinstance(scored, JanusExpert)
    assert isinstance(text, JanusTextExpert)
    assert text.name == scored.name == "janus"
    assert text.version == f"{scored.version}-text1"
    assert text.trained_on == "synthetic"
    readings = text.read(_faces(3))
    assert readings.distribution is None
    assert readings.valid_mass is None
    for age, sigma, reason in zip(
        readings.age_years, readings.sigma_years, readings.reasons, strict=True
    ):
        assert (reason is None) == (0 <= age <= 100) == (sigma > 0)
    assert text.read(_faces(0)).age_years.shape == (0,)


def test_written_answers_become_readings_and_reasons(
    untrained: Janus, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = ["34 years old", "unknown", "in her mid-30s", "150", "1"]
    written = [Written(text, finished=index < 4) for index, text in enumerate(answers)]
    monkeypatch.setattr(free_text_janus, "write_greedily", lambda *_: written)
    expert = JanusTextExpert(untrained)
    rows = read_faces([expert], _faces(5), list("abcde"), 5).sort("image_id")
    assert rows["status"].to_list() == ["ok", "failed", "ok", "failed", "failed"]
    assert rows["age_years"].to_list() == [34.0, None, 35.0, None, None]
    assert rows["sigma_years"][0] == PRIOR_SIGMA_YEARS
    assert "'unknown'" in rows["reason"][1]
    assert "'150'" in rows["reason"][3]
    assert set(rows["model_version"]) == {expert.version}


def test_the_tiny_janus_is_not_fine_tuned(tmp_path: Path) -> None:
    for changed in ({"frozen_fraction": 0.1}, {"validation_fraction": 0.1}, {"init_weights": "x"}):
        with pytest.raises(ConfigError, match=next(iter(changed))):
            _fit(_config(**changed), Workspace(tmp_path))


def test_full_size_and_no_faces_are_not_trained(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with pytest.raises(ConfigError, match="full-size"):
        _fit(_config(size="full"), workspace)
    with pytest.raises(StageError, match="labelled"):
        fit_janus(
            _config(), workspace, _faces(0), np.empty(0), tmp_path / "x.pt", "none", tmp_path, {}
        )


def _published(janus: Janus, folder: Path) -> Path:
    janus.model.save_pretrained(folder)
    janus.processor.save_pretrained(folder)
    return folder
