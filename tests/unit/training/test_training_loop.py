"""The loop: it learns, it resumes to the same weights, and it stops on what is not finite."""

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import agetf_pipeline.training
from agetf_pipeline.age_transformer.sizes import ModelSettings
from agetf_pipeline.captions.cache import open_embeddings
from agetf_pipeline.captions.versions import CaptionVersion
from agetf_pipeline.config.train import TrainConfig
from agetf_pipeline.core.errors import StageError, WeightsError
from agetf_pipeline.core.fitting import FitSettings
from agetf_pipeline.core.weights import save_weights
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.ages import AGE_GROUPS, group_of
from agetf_pipeline.data.schemas import CAPTIONS
from agetf_pipeline.data.tables import to_frame, write_table
from agetf_pipeline.training import guidance, loop, validation
from agetf_pipeline.training.alignment import PairAligner
from agetf_pipeline.training.checkpoints import Ema
from agetf_pipeline.training.dataset import FaceData, Sampler
from agetf_pipeline.training.vlm_guidance import VlmGuidance

SMALL = ModelSettings(32, 1, (8, 16, 16), (1, 1, 1), 1, 2, 16, vlm_dim=4)


def face_data(num_people: int = 4, per_person: int = 2) -> FaceData:
    """Soft blobs that darken with age: enough to learn from."""
    rng = np.random.default_rng(0)
    count = num_people * per_person
    ages = np.tile(np.linspace(10, 80, per_person), num_people).astype(np.float32)
    colours = np.repeat(rng.uniform(80, 230, (num_people, 3)), per_person, axis=0)
    ys, xs = np.mgrid[-1:1:32j, -1:1:32j]
    blob = np.exp(-2 * (xs**2 + ys**2))[None, :, :, None]
    images = colours[:, None, None] * blob * (1 - ages / 160)[:, None, None, None]
    return FaceData(
        images.astype(np.uint8),
        np.arange(count),
        np.full(count, -1),
        tuple(f"{index:064x}" for index in range(count)),
        ages,
        np.full(count, 1.0, np.float32),
        np.array([AGE_GROUPS.index(group_of(float(age))) for age in ages]),
        np.repeat(np.arange(num_people), per_person),
    )


def make_run(folder: Path, **changes) -> loop.Run:
    settings = {
        "batch_size": 4, "num_images": 80, "ages_per_image": 3, "log_every_images": 20,
        "all_anchors_every": 5, "r1_every": 4, "adversarial_from": 0.3, "lr": 2e-3,
        "precision": "fp32", "ema_half_life_images": 20, **changes,
    }  # fmt: skip
    torch.manual_seed(0)
    networks = [
        guidance.build_critic(name, 8, 32).eval().requires_grad_(False)
        for name in (guidance.AGE_REGRESSOR, guidance.IDENTITY_EMBEDDER)
    ]
    return loop.Run(
        TrainConfig(**settings), SMALL, [5.0, 35.0, 65.0, 95.0], face_data(),
        guidance.Guidance(*networks), _vectors(folder), None, torch.device("cpu"),
        folder, folder / "checkpoints", "identity",
    )  # fmt: skip


def _vectors(folder: Path) -> VlmGuidance:
    """A vector of each of the eight faces, in a file as the caption cache has them."""
    values = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float16)
    rows = [
        dict.fromkeys(CAPTIONS.schema.names)
        | {"image_id": str(index), "model_version": "v", "prompt_hash": "p", "prompt": "?",
           "status": "ok", "image_embedding": value, "text_embedding": value}
        for index, value in enumerate(values)
    ]  # fmt: skip
    workspace = Workspace(folder / "captions")
    write_table(workspace, CAPTIONS, "ffhq_aging", to_frame(rows, CAPTIONS))
    store = open_embeddings(workspace, CaptionVersion("v", "p"))
    return VlmGuidance(store, np.arange(8), "image")


def test_ten_and_ten_steps_equal_twenty(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = loop.train(make_run(tmp_path / "a"))
    parts = make_run(tmp_path / "b")
    interrupted = loop.train(parts, stop_after_steps=10)
    assert (interrupted.step, interrupted.num_images) == (10, 40)
    resumed = loop.train(parts)
    assert resumed.step == whole.step == 20
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, atol=1e-5, rtol=0)
        torch.testing.assert_close(resumed.ema.state[name], whole.ema.state[name])
    for name, value in whole.discriminator.state_dict().items():
        torch.testing.assert_close(
            resumed.discriminator.state_dict()[name], value, atol=1e-5, rtol=0
        )
    assert [row["num_images"] for row in resumed.history] == [20, 40, 60, 80]
    assert resumed.history[-1] == pytest.approx(whole.history[-1], abs=1e-4)


def test_a_few_faces_are_learned_by_heart(tmp_path):
    weights = {
        "adversarial": 0.0, "age": 0.0, "identity": 0.0, "cycle": 0.0, "order": 0.0,
        "smoothness": 0.0, "preservation": 0.0,
    }  # fmt: skip
    run = make_run(tmp_path, num_images=480, lr=4e-3, losses=weights, log_every_images=80)
    state = loop.train(run)
    first, last = state.history[0], state.history[-1]
    assert last["paired"] < 0.5 * first["paired"]
    assert last["reconstruction"] < first["reconstruction"]
    assert isinstance(state.model, loop.AgeTransformer)
    pairs = validation.same_person_pairs(run.data, 100)
    untrained = loop.AgeTransformer(SMALL)
    before = validation.measure_paired_l1(untrained, run.data, pairs, run.device)
    after = validation.measure_paired_l1(state.model, run.data, pairs, run.device)
    assert before is not None
    assert after is not None
    assert after < 0.6 * before


def test_the_aligner_starts_at_nothing_and_finds_the_light_of_the_other_photograph():
    torch.manual_seed(0)
    aligner = PairAligner(8)
    source = torch.rand(4, 3, 32, 32) * 0.5
    target = source * 1.2 - 0.2
    same, effort = aligner(source, source, target)
    torch.testing.assert_close(same, source, atol=1e-5, rtol=0)
    assert effort.tolist() == [0, 0, 0, 0]
    optimizer = torch.optim.Adam(aligner.parameters(), 3e-3)
    for _ in range(60):
        aligned, effort = aligner(source, source, target)
        loss = (aligned - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3 * (source - target).abs().mean()
    assert 0 < effort.max() <= 1


def test_all_losses_take_part(tmp_path):
    state = loop.train(make_run(tmp_path))
    seen = {name for row in state.history for name in row}
    assert seen >= {
        "adversarial", "age", "identity", "reconstruction", "paired", "cycle", "order",
        "smoothness", "preservation", "discriminator", "r1", "loss", "grad_norm", "lr",
    }  # fmt: skip


def test_a_loss_that_is_not_finite_stops_the_run_and_saves_its_batch(tmp_path):
    run = make_run(tmp_path, batch_size=16)
    ages = np.full_like(run.data.ages_years, np.nan)
    broken = replace(run, data=replace(run.data, ages_years=ages))
    with pytest.raises(StageError, match="not finite at step"):
        loop.train(broken)
    (saved,) = tmp_path.glob("bad_batch_step_*.npz")
    content = np.load(saved)
    assert content["sources"].shape == (16, 32, 32, 3)
    assert set(content["image_ids"]) <= set(run.data.image_ids)


def test_learning_rate_warms_up_and_decays():
    config = TrainConfig(num_images=10_000, lr_warmup_images=1000, lr_final_fraction=0.1)
    factors = [loop.schedule(n, config) for n in (0, 500, 1000, 5500, 10_000)]
    assert factors[0] < factors[1] < factors[2] == pytest.approx(1.0)
    assert factors[2] > factors[3] > factors[4] == pytest.approx(0.1)


def test_ema_halves_the_past_after_its_half_life():
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(module.weight)
    ema = Ema(module, half_life_images=100)
    torch.nn.init.ones_(module.weight)
    for _ in range(10):
        ema.update(module, 10, 100_000)
    assert float(ema.state["weight"]) == pytest.approx(0.5, abs=1e-5)


def test_pairs_are_two_images_of_one_person():
    data = face_data()
    first, second = validation.same_person_pairs(data, 100)
    assert len(first) == 8
    assert (data.identities[first] == data.identities[second]).all()
    assert (first != second).all()


def test_guidance_networks_learn_and_come_back_frozen(tmp_path):
    data, workspace = face_data(num_people=8), Workspace(tmp_path)
    settings = FitSettings(30, 8, 3e-3)
    for name, fit in (
        (guidance.AGE_REGRESSOR, guidance.fit_age_regressor),
        (guidance.IDENTITY_EMBEDDER, guidance.fit_identity_embedder),
    ):
        network = guidance.build_critic(name, 8, 32)
        losses = fit(data, network, settings, tmp_path / f"{name}.pt", "identity")
        assert np.mean(losses[-5:]) < np.mean(losses[:5])
        card = {"kind": name, "width": 8, "input_px": 32}
        save_weights(guidance.guidance_path(workspace, name), network, card)
    loaded = guidance.load_guidance(workspace, torch.device("cpu"))
    assert not any(p.requires_grad for p in loaded.age_regressor.parameters())
    image = torch.zeros(2, 3, 32, 32, requires_grad=True)
    loaded.age_regressor(image)[:, 80].sum().backward()
    assert image.grad.abs().sum() > 0  # frozen, yet differentiable
    z = loaded.identity_embedder(torch.zeros(2, 3, 64, 64))
    torch.testing.assert_close(z.norm(dim=1), torch.ones(2))
    auc = guidance.measure_same_person_auc(loaded.identity_embedder, data)
    assert auc is not None
    assert 0 <= auc <= 1


def test_guidance_of_the_wrong_kind_is_refused(tmp_path):
    workspace = Workspace(tmp_path)
    with pytest.raises(WeightsError, match="age_regressor"):
        guidance.load_guidance(workspace, torch.device("cpu"))
    network = guidance.build_critic(guidance.IDENTITY_EMBEDDER, 8, 32)
    path = guidance.guidance_path(workspace, guidance.AGE_REGRESSOR)
    save_weights(path, network, {"kind": guidance.IDENTITY_EMBEDDER, "width": 8, "input_px": 32})
    with pytest.raises(WeightsError, match="identity_embedder"):
        guidance.load_guidance(workspace, torch.device("cpu"))


def test_pairs_never_cross_into_another_split():
    data = face_data()
    sampler = Sampler(data, TrainConfig(batch_size=8, paired_fraction=1.0), [5.0, 95.0])
    for step in range(5):
        batch = sampler.draw(step)
        assert batch.indices.max() < len(data)


def test_training_knows_nothing_of_evaluation():
    """Its outside networks would no longer be outside."""
    package = Path(agetf_pipeline.training.__file__).parent
    stages = package.parent / "stages"
    modules = [*package.glob("*.py"), *(package.parent / "age_transformer").glob("*.py")]
    for path in [*modules, stages / "train.py", stages / "distill.py"]:
        text = path.read_text()
        imported = [
            name
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (
                [node.module or ""] if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
            )
        ]  # fmt: skip
        assert not [name for name in imported if "evaluat" in name], path
        assert '"evaluators"' not in text, path
        assert ".truth" not in text, path
