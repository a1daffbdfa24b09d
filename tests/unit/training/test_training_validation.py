"""Validation: fixed faces, figures that mean what they say, a grid, and a bounded cost."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from agetf_pipeline.age_transformer.model import Rendered
from agetf_pipeline.data.ages import AGE_GROUPS, group_of
from agetf_pipeline.training import validation
from agetf_pipeline.training.dataset import FaceData
from agetf_pipeline.training.guidance import Guidance

ANCHORS = [5.0, 25.0, 45.0, 65.0]
CPU = torch.device("cpu")


def face_data(num_people: int = 20, per_person: int = 2, size: int = 16) -> FaceData:
    """Faces of one grey: age + 100."""
    count = num_people * per_person
    ages = np.random.default_rng(0).uniform(5, 80, count).astype(np.float32).round()
    images = np.broadcast_to((ages + 100).astype(np.uint8)[:, None, None, None],
                             (count, size, size, 3)).copy()  # fmt: skip
    return FaceData(
        images, np.arange(count), np.full(count, -1),
        tuple(f"{i:064x}" for i in range(count)), ages, np.full(count, 1.0, np.float32),
        np.array([AGE_GROUPS.index(group_of(float(a))) for a in ages]),
        np.repeat(np.arange(num_people), per_person),
    )  # fmt: skip


class Painter(nn.Module):
    """Renders an age as grey age + 100, moved by an error in years; counts its renderings."""

    def __init__(self, error_years: float = 0.0, slope: float = 1.0) -> None:
        super().__init__()
        self.error_years, self.slope, self.num_rendered = error_years, slope, 0

    def forward(self, image, ages):
        B, A = ages.shape
        self.num_rendered += B * A
        grey = ((self.slope * ages + self.error_years + 100) / 127.5 - 1)[:, :, None, None, None]
        size = image.shape[-1]
        return Rendered(grey.expand(B, A, 3, size, size), torch.zeros(1), torch.zeros(1))


class GreyReader(nn.Module):
    """Reads the age back from the grey, as sharp logits."""

    def forward(self, image):
        ages = (image.mean(dim=(1, 2, 3)) + 1) * 127.5 - 100
        return -((torch.arange(101.0) - ages[:, None]) ** 2)


class OneDirection(nn.Module):
    """Everybody is the same person."""

    def forward(self, image):
        return torch.ones(len(image), 3) / 3**0.5


GUIDANCE = Guidance(GreyReader(), OneDirection())  # type: ignore[arg-type]


def faces(data: FaceData | None = None, **changes) -> validation.ValidationFaces:
    chosen = validation.choose_faces(face_data() if data is None else data, ANCHORS, **changes)
    assert chosen is not None
    return chosen


def test_the_subset_is_fixed_seeded_and_of_different_people():
    data = face_data()
    one, two = faces(data, num_faces=12), faces(data, num_faces=12)
    np.testing.assert_array_equal(one.measured, two.measured)
    np.testing.assert_array_equal(one.shown, two.shown)
    assert len(set(data.identities[one.measured])) == len(one.measured) == 12
    assert (np.diff(data.ages_years[one.measured]) >= 0).all()
    other = faces(data, num_faces=12, seed=1)
    assert (other.measured != one.measured).any()
    assert len(faces(data, num_faces=30).measured) == 30  # then people a second time
    assert len(faces(data, num_faces=500).measured) == len(data)


def test_an_empty_split_has_no_faces():
    assert validation.choose_faces(face_data(num_people=0), ANCHORS) is None


def test_a_painter_that_is_right_measures_right():
    figures = validation.measure(Painter(), faces(), GUIDANCE, CPU)
    assert figures[validation.TEACHER_AGE_MAE] == pytest.approx(0, abs=0.05)
    assert figures[validation.TEACHER_ORDER] == 0
    assert figures[validation.TEACHER_SIMILARITY] == pytest.approx(1)
    assert figures[validation.PAIRED_L1] == pytest.approx(0, abs=0.01)
    assert figures[validation.PSNR] > 50
    assert validation.LPIPS not in figures  # its network is not there


def test_errors_are_in_their_units():
    figures = validation.measure(Painter(error_years=4.0), faces(), GUIDANCE, CPU)
    assert figures[validation.TEACHER_AGE_MAE] == pytest.approx(4, abs=0.1)
    assert figures[validation.PAIRED_L1] == pytest.approx(4 / 127.5, rel=1e-3)
    assert figures[validation.PSNR] == pytest.approx(20 * np.log10(255 / 4), abs=0.01)
    backwards = validation.measure(Painter(104.0, -1.0), faces(), GUIDANCE, CPU)
    assert backwards[validation.TEACHER_ORDER] == 1


def test_lpips_is_measured_where_its_network_is():
    guided = replace(GUIDANCE, lpips=lambda a, b: (a - b).abs().mean(dim=(1, 2, 3)))  # type: ignore[arg-type]
    figures = validation.measure(Painter(error_years=4.0), faces(), guided, CPU)
    assert figures[validation.LPIPS] == pytest.approx(4 / 127.5, rel=1e-3)


def test_without_pairs_there_is_no_paired_figure():
    figures = validation.measure(Painter(), faces(face_data(per_person=1)), GUIDANCE, CPU)
    assert validation.PAIRED_L1 not in figures
    assert validation.PSNR in figures


def test_the_cost_is_bounded_whatever_the_split():
    painter = Painter()
    chosen = faces(face_data(200, 3), num_faces=10, max_pairs=7)
    validation.measure(painter, chosen, GUIDANCE, CPU)
    assert painter.num_rendered == 10 * (len(ANCHORS) + 1) + 7


def test_measuring_draws_no_random_number_and_keeps_no_gradient():
    before = torch.get_rng_state()
    validation.measure(Painter(), faces(), GUIDANCE, CPU)
    torch.testing.assert_close(torch.get_rng_state(), before)


def test_the_grid_shows_the_fixed_faces_over_all_ages():
    data = face_data()
    chosen = faces(data, num_shown=3)
    picture = validation.draw_faces(Painter(), chosen, CPU)
    assert picture.dtype == np.uint8
    assert picture.shape == (12 + 3 * 18, 5 * 18 - 2, 3)
    for row, item in enumerate(chosen.shown):
        greys = picture[12 + 18 * row + 8, 8::18, 0]
        assert greys.tolist() == [int(data.ages_years[item]) + 100, 105, 125, 145, 165]
    assert picture[:12, 18:].min() < 128  # the ages are written above
    np.testing.assert_array_equal(picture, validation.draw_faces(Painter(), chosen, CPU))


def test_pairs_are_two_images_of_one_person():
    data = face_data(6, 3)
    first, second = validation.same_person_pairs(data, 1000)
    same = data.identities[:, None] == data.identities[None]
    np.fill_diagonal(same, False)
    np.testing.assert_array_equal(np.stack([first, second]), np.stack(np.nonzero(same)))
    assert len(validation.same_person_pairs(data, 10)[0]) == 10
    assert len(validation.same_person_pairs(face_data(6, 1), 10)[0]) == 0


@pytest.mark.parametrize(("batch", "log_every"), [(4, 20), (8, 20), (256, 200), (7, 10)])
def test_validation_falls_on_log_points_about_every_so_many_images(batch, log_every):
    due = [n for n in range(batch, 20_001, batch) if validation.is_due(n, batch, log_every, 1000)]
    logged = [n for n in range(batch, 20_001, batch) if n // log_every > (n - batch) // log_every]
    assert set(due) <= set(logged)
    assert len(due) == logged[-1] // log_every * log_every // 1000  # each thousand once
    assert not any(validation.is_due(n, batch, log_every, 0) for n in range(batch, 3000, batch))
