import numpy as np
import pytest
import torch

from agetf_pipeline.config.evaluate import TrainEvaluatorsConfig
from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.evaluation import judges, training
from agetf_pipeline.evaluation.discriminant import fisher_discriminant
from agetf_pipeline.evaluation.faces import draw_faces, drawn_version
from agetf_pipeline.evaluation.networks import AgeEstimator, IdentityEmbedder

CPU = torch.device("cpu")
CONFIG = TrainEvaluatorsConfig(
    num_steps=3, batch_size=4, width=8, embedding_dim=8, num_identities=3, num_ages_per_identity=2,
    input_px=64,
)  # fmt: skip


def faces() -> training.LabelledFaces:
    rng = np.random.default_rng(0)
    return training.LabelledFaces(
        rng.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8),
        rng.uniform(0, 100, 8).astype(np.float32),
        np.array([0, 0, 1, 1, 2, 2, 3, 3]),
        "synthetic",
        "v1",
    )


def test_age_estimator_gives_distributions():
    out = AgeEstimator(8).eval()(torch.rand(2, 3, 64, 64) * 2 - 1)
    assert out.shape == (2, 101)
    torch.testing.assert_close(out.exp().sum(-1), torch.ones(2))


def test_embeddings_are_unit_vectors():
    out = IdentityEmbedder(8, 16).eval()(torch.rand(3, 3, 64, 64) * 2 - 1)
    torch.testing.assert_close(out.norm(dim=-1), torch.ones(3))


def test_a_face_and_its_mirror_image_are_one_person():
    embedder, faces_BCHW = IdentityEmbedder(8, 16).eval(), torch.rand(2, 3, 64, 64) * 2 - 1
    torch.testing.assert_close(embedder(faces_BCHW), embedder(faces_BCHW.flip(-1)))


def simulated(num_people: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features in which four directions tell people apart, hidden beneath six that do not."""
    rng = np.random.default_rng(seed)
    people = np.repeat(np.arange(num_people), 3)
    telling = rng.normal(size=(num_people, 4))[people] + 0.1 * rng.normal(size=(len(people), 4))
    idle = 3 * rng.normal(size=(len(people), 6))
    mixing = np.linalg.qr(np.random.default_rng(0).normal(size=(10, 10)))[0]
    return np.concatenate([telling, idle], axis=1) @ mixing + 7.0, people


def test_the_discriminant_finds_what_tells_people_apart():
    found = fisher_discriminant(*simulated(200, 1))
    assert found is not None
    features, people = simulated(100, 2)
    mapped = (features - found.centre) @ found.matrix

    def closest_is_the_same_person(x: np.ndarray) -> float:
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        cosine = unit @ unit.T - 3 * np.eye(len(x))
        return float(np.mean(people[cosine.argmax(axis=1)] == people))

    before, after = (closest_is_the_same_person(x) for x in (features - found.centre, mapped))
    assert before < 0.25
    assert after > 0.5
    spread = mapped.std(axis=0)
    assert spread[:4].min() > 1.5 * spread[4:].max()


def test_too_few_second_photographs_give_no_discriminant():
    features, people = simulated(19, 1)  # 38 second photographs of ten dimensions
    assert fisher_discriminant(features, people) is None
    assert fisher_discriminant(features, np.arange(len(features))) is None


def test_where_traits_are_known_they_teach_the_embedder_and_the_discriminant_is_computed(tmp_path):
    config = CONFIG.model_copy(update={"embedding_dim": 8, "num_identities": 40, "num_steps": 8})
    drawn = draw_faces(config)
    assert drawn.traits is not None
    assert drawn.traits.shape[0] == 80
    path = tmp_path / "w.safetensors"
    losses = training.train_identity_embedder(drawn, config, path, tmp_path / "c.pt", "id", CPU)
    assert losses[-1] < losses[0]
    state = judges.load_judge(path, judges.IDENTITY_KIND, CPU).module.state_dict()
    assert not torch.equal(state["discriminant.weight"], torch.eye(8))


def test_age_loss_is_smallest_at_the_true_age():
    ages = torch.tensor([30.0, 30.0, 30.0])
    bins = torch.arange(101.0)
    means = torch.tensor([30.0, 35.0, 60.0])
    log_p = (-0.5 * ((bins[None] - means[:, None]) / 2) ** 2).log_softmax(-1)
    losses = [float(training.age_loss(log_p[i : i + 1], ages[:1])) for i in range(3)]
    assert losses[0] < losses[1] < losses[2]


def test_age_loss_has_a_gradient():
    logits = torch.zeros(2, 101, requires_grad=True)
    training.age_loss(logits.log_softmax(-1), torch.tensor([0.0, 100.0])).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 0] < 0 < logits.grad[0, 100]


def test_identity_loss_falls_with_the_right_cosine():
    people = torch.tensor([1])
    losses = [
        float(training.identity_loss(torch.tensor([[0.0, cosine, 0.0]]), people))
        for cosine in (-0.5, 0.2, 0.9)
    ]
    assert losses[0] > losses[1] > losses[2] > 0


def test_augmentation_keeps_range_and_is_a_function_of_its_generator():
    x = torch.rand(4, 3, 32, 32) * 2 - 1
    first, again, other = (
        training.augment(x, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    torch.testing.assert_close(first, again)
    assert not torch.equal(first, other)
    assert first.abs().max() <= 1


def test_unmoved_faces_stay_where_they_are_or_are_mirrored():
    x = torch.zeros(16, 3, 32, 32)
    x[:, :, 10:14, 4:8] = 0.5
    still = training.augment(x, torch.Generator().manual_seed(0), moved=False)
    columns = {int(face.mean(dim=(0, 1)).argmax()) // 4 for face in still}
    assert columns == {1, 6}


@pytest.mark.parametrize(
    ("train", "kind", "read"),
    [
        (training.train_age_estimator, judges.AGE_KIND, judges.read_ages),
        (training.train_identity_embedder, judges.IDENTITY_KIND, judges.embed),
    ],
)
def test_trains_saves_loads_and_reuses(tmp_path, train, kind, read):
    path, checkpoint = tmp_path / "w.safetensors", tmp_path / "c.pt"
    losses = train(faces(), CONFIG, path, checkpoint, "id", CPU)
    assert len(losses) == CONFIG.num_steps
    assert not checkpoint.exists()
    before = path.read_bytes()
    assert train(faces(), CONFIG, path, checkpoint, "id", CPU) == []
    judge = judges.load_judge(path, kind, CPU)
    assert judge.trained_on == "synthetic"
    out = read(judge, np.zeros((2, 80, 80, 3), np.uint8))
    assert len(out) == 2
    assert np.isfinite(out).all()
    path.unlink()
    train(faces(), CONFIG, path, checkpoint, "id", CPU)
    assert path.read_bytes() == before
    wrong = {judges.AGE_KIND, judges.IDENTITY_KIND} - {kind}
    with pytest.raises(WeightsError, match="Expected weights of kind"):
        judges.load_judge(path, wrong.pop(), CPU)


def test_drawn_faces_are_outside_every_corpus_and_repeat():
    first, again = draw_faces(CONFIG), draw_faces(CONFIG)
    assert first.faces.shape == (6, 64, 64, 3)
    np.testing.assert_array_equal(first.faces, again.faces)
    assert first.people.tolist() == [0, 0, 1, 1, 2, 2]
    assert (first.ages_years[::2] < 50).all()
    assert (first.ages_years[1::2] >= 50).all()
    assert first.version == drawn_version(CONFIG)
    assert drawn_version(CONFIG) != drawn_version(CONFIG.model_copy(update={"seed": 3}))
