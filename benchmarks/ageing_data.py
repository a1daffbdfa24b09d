"""People for the ageing benchmark: drawn at several ages before one camera, so the truth is known.

Four groups of people, none in two: `train` teaches the AgeTransformer, its guidance networks and
the baselines; `val` gives the learning curves; `test` gives the figures; the evaluators draw a
fourth group of their own (`agetf_pipeline.evaluation.faces`). Everything here is synthetic.

Shapes: P people, K ages of each, S side.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agetf_pipeline.age_transformer.sizes import ANCHORS_YEARS
from agetf_pipeline.core.files import atomic_path
from agetf_pipeline.core.progress import track
from agetf_pipeline.data.ages import AGE_GROUPS, group_of
from agetf_pipeline.training.dataset import NO_ROW, FaceData

SIZE_PX = 64
_FIRST_SEED = {"train": 100_000_000, "val": 200_000_000, "test": 300_000_000}
"""Seeds of the people of each part; the evaluators' start at 2^40, those of a corpus at 0."""


@dataclass(frozen=True)
class Scale:
    """How much is drawn and trained.

    Attributes:
        num_train: People to learn from.
        ages_per_person: Ages at which each of them was drawn.
        num_val: People of the learning curves.
        num_test: People of the figures; each has two sources.
        num_judge_people: People drawn for the evaluators.
        judge_steps: Steps of each evaluator.
        guidance_steps: Steps of each guidance network.
        num_images: Length of both trainings, in images seen.
        num_chunks: Points of the learning curves.
        num_bootstrap: Resamples of the intervals.
    """

    num_train: int = 2000
    ages_per_person: int = 8
    num_val: int = 48
    num_test: int = 120
    num_judge_people: int = 2500
    judge_steps: int = 2200
    guidance_steps: int = 700
    num_images: int = 40_000
    num_chunks: int = 8
    num_bootstrap: int = 2000


FULL = Scale()
QUICK = Scale(60, 4, 8, 16, 80, 40, 30, 240, 2, 200)


@dataclass(frozen=True)
class Series:
    """People before one camera each, with the truth at every anchor.

    Attributes:
        sources: uint8 (P, 2, S, S, 3): a younger and an older source of each.
        source_ages: float64 (P, 2), years.
        truth: uint8 (P, K, S, S, 3), at the ten anchors.
        genders: (P,), `female` or `male`.
    """

    sources: np.ndarray
    source_ages: np.ndarray
    truth: np.ndarray
    genders: np.ndarray

    @property
    def faces(self) -> np.ndarray:
        """Every source, uint8 (2 P, S, S, 3)."""
        return self.sources.reshape(-1, *self.sources.shape[2:])

    @property
    def people(self) -> np.ndarray:
        """Person of each source, (2 P,)."""
        return np.repeat(np.arange(len(self.sources)), 2)

    @property
    def targets(self) -> np.ndarray:
        """The truth of every source, uint8 (2 P, K, S, S, 3)."""
        return np.repeat(self.truth, 2, axis=0)


@dataclass(frozen=True)
class Lessons:
    """The train part.

    Attributes:
        data: As the training loop takes it.
        genders: (n,), of each face; only the nearest-neighbour baseline is told.
    """

    data: FaceData
    genders: np.ndarray


def lessons(scale: Scale, folder: Path) -> Lessons:
    """Draw the train part, or read it from `folder`."""
    path = folder / "train.npz"
    if not path.exists():
        _write(path, _draw_train(scale))
    with np.load(path) as stored:
        faces, ages = stored["faces"], stored["ages"]
        people, genders = stored["people"], stored["genders"]
    n = len(faces)
    data = FaceData(
        images=faces,
        rows=np.arange(n),
        enhanced_rows=np.full(n, NO_ROW, np.int64),
        image_ids=tuple(f"train-{index}" for index in range(n)),
        ages_years=ages,
        variances_years2=np.zeros(n, np.float32),
        groups=np.array([AGE_GROUPS.index(group_of(float(age))) for age in ages], np.int64),
        identities=people,
    )
    return Lessons(data, genders)


def series(part: str, num_people: int, folder: Path) -> Series:
    """Draw the part `val` or `test`, or read it from `folder`."""
    path = folder / f"{part}.npz"
    if not path.exists():
        _write(path, _draw_series(part, num_people))
    with np.load(path) as stored:
        return Series(**{name: stored[name] for name in ("sources", "source_ages", "truth",
                                                          "genders")})  # fmt: skip


def spread_ages(num_ages: int, rng: np.random.Generator) -> np.ndarray:
    """Return an age in each of `num_ages` equal spans of 0 to 100 years, rising."""
    return (np.arange(num_ages) + rng.random(num_ages)) * (100 / num_ages)


def _draw_train(scale: Scale) -> dict[str, np.ndarray]:
    from agetf_pipeline.synthetic.faces import draw_face
    from agetf_pipeline.synthetic.identity import draw_identity

    rng = np.random.default_rng(401)
    faces, ages, genders = [], [], []
    for person in track(range(scale.num_train), "drawing people to learn from"):
        who = draw_identity(_FIRST_SEED["train"] + person)
        for age in spread_ages(scale.ages_per_person, rng):
            faces.append(draw_face(who, float(age), SIZE_PX))
            ages.append(age)
            genders.append(who.gender)
    people = np.repeat(np.arange(scale.num_train), scale.ages_per_person)
    return {"faces": np.stack(faces), "ages": np.array(ages, np.float32),
            "people": people.astype(np.int64), "genders": np.array(genders)}  # fmt: skip


def _draw_series(part: str, num_people: int) -> dict[str, np.ndarray]:
    from agetf_pipeline.synthetic.faces import draw_face
    from agetf_pipeline.synthetic.identity import draw_identity

    rng = np.random.default_rng([409, _FIRST_SEED[part]])
    sources, source_ages, truth, genders = [], [], [], []
    for person in track(range(num_people), f"drawing the people of {part}"):
        who = draw_identity(_FIRST_SEED[part] + person)
        ages = spread_ages(2, rng)
        sources.append([draw_face(who, float(age), SIZE_PX) for age in ages])
        truth.append([draw_face(who, age, SIZE_PX) for age in ANCHORS_YEARS])
        source_ages.append(ages)
        genders.append(who.gender)
    return {"sources": np.array(sources), "source_ages": np.array(source_ages),
            "truth": np.array(truth), "genders": np.array(genders)}  # fmt: skip


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
