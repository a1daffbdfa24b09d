"""What is measured while training, on faces outside it, and the grid of the same few faces.

The ages and identities are read by the networks that guide training. They are its teachers, not
independent judges: their figures say whether training gets where it aims, and are named for them.
The judging is done by `agetf evaluate`, with networks of its own.

Shapes: N faces, A anchors, C H W.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from agetf_pipeline.age_transformer.losses import expected_age, pixel_loss
from agetf_pipeline.age_transformer.model import AgeTransformer
from agetf_pipeline.age_transformer.renderer import to_tensor, to_uint8
from agetf_pipeline.core.batches import Work, in_batches
from agetf_pipeline.training.dataset import FaceData
from agetf_pipeline.training.guidance import Guidance

PAIRED_L1 = "val_paired_l1"
TEACHER_AGE_MAE = "val_age_mae_years_by_training_regressor"
TEACHER_ORDER = "val_order_violation_rate_by_training_regressor"
TEACHER_SIMILARITY = "val_id_similarity_by_training_embedder"
PSNR = "val_psnr_db_at_source_age"
LPIPS = "val_lpips_at_source_age"

_WORK = Work("validation")
_BATCH = 8
_PAPER = 255
_GAP_PX = 2


@dataclass(frozen=True)
class ValidationFaces:
    """The faces that every measurement of a run reads: the same, whenever it is made.

    Attributes:
        data: The split.
        measured: int64 (N,), its items that are measured; spread over people and ages.
        shown: int64 (M,), those of the grid, by age.
        pairs: Items (source, target) of one person each, int64 (P,) twice; P may be 0.
        anchors_years: The ages that are rendered.
    """

    data: FaceData
    measured: np.ndarray
    shown: np.ndarray
    pairs: tuple[np.ndarray, np.ndarray]
    anchors_years: Sequence[float]


def choose_faces(
    data: FaceData,
    anchors_years: Sequence[float],
    num_faces: int = 64,
    num_shown: int = 6,
    max_pairs: int = 200,
    seed: int = 0,
) -> ValidationFaces | None:
    """Choose a seeded subset of a split; None where it is empty."""
    if not len(data):
        return None
    rng = np.random.default_rng([seed, 20_002])
    # A person once, before anybody twice; then at even steps through the ages.
    order = rng.permutation(len(data))
    _, firsts = np.unique(data.identities[order], return_index=True)
    people = order[np.sort(firsts)]
    rest = order[~np.isin(order, people)]
    pool = people if len(people) >= num_faces else np.concatenate([people, rest])
    measured = _spread(pool, data.ages_years, num_faces)
    shown = _spread(people, data.ages_years, num_shown)
    return ValidationFaces(
        data, measured, shown, same_person_pairs(data, max_pairs), tuple(anchors_years)
    )


def measure(
    model: AgeTransformer, faces: ValidationFaces, guidance: Guidance, device: torch.device
) -> dict[str, float]:
    """Return the figures of a model in evaluation mode; none that cannot be computed.

    `val_paired_l1` is absent where nobody has two images, LPIPS without its network. The cost is
    bounded: N x (A + 1) + P renderings.

    Args:
        model: The averaged weights, on the device.
        faces: From `choose_faces`.
        guidance: The networks of training.
        device: Where they are.
    """
    with torch.inference_mode():
        batches = in_batches(
            lambda rows: _figures_of(model, faces, guidance, device, faces.measured[rows]),
            len(faces.measured), _BATCH, _WORK,
        )  # fmt: skip
        parts = [part for _, part in batches]
    figures = {name: float(torch.cat([part[name] for part in parts]).mean()) for name in parts[0]}
    paired_l1 = measure_paired_l1(model, faces.data, faces.pairs, device)
    return figures if paired_l1 is None else {PAIRED_L1: paired_l1, **figures}


def measure_paired_l1(
    model: AgeTransformer,
    data: FaceData,
    pairs: tuple[np.ndarray, np.ndarray],
    device: torch.device,
) -> float | None:
    """Return the mean L1 (0 to 2) between renderings and a subject's true pictures at other ages.

    None without pairs. Degraded targets count as they are.
    """
    first, second = pairs
    if not len(first):
        return None

    def compare(part: slice) -> torch.Tensor:
        ages = torch.from_numpy(data.ages_years[second[part]])[:, None].to(device)
        image = model(_faces(data, first[part], device), ages).image[:, 0]
        return pixel_loss(image, _faces(data, second[part], device))

    with torch.inference_mode():
        values = [part for _, part in in_batches(compare, len(first), 32, _WORK)]
    return float(torch.cat(values).mean())


def same_person_pairs(data: FaceData, max_pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return items (source, target) of one person each, at most `max_pairs`, spread evenly."""
    first, second = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    # Person by person: a table of everybody against everybody would not fit memory at 70,000.
    order = np.argsort(data.identities, kind="stable")
    starts = np.flatnonzero(np.diff(data.identities[order]))
    for members in np.split(order, starts + 1):
        if len(members) < 2:
            continue
        a, b = np.nonzero(~np.eye(len(members), dtype=bool))
        first.append(members[a])
        second.append(members[b])
    sources, targets = np.concatenate(first), np.concatenate(second)
    rank = np.lexsort((targets, sources))
    keep = np.linspace(0, len(rank) - 1, min(max_pairs, len(rank))).astype(np.int64)
    return sources[rank[keep]], targets[rank[keep]]


def draw_faces(model: AgeTransformer, faces: ValidationFaces, device: torch.device) -> np.ndarray:
    """Return the chosen faces over the anchors as one picture, uint8 (H, W, 3).

    A row is a face: itself, then its renderings, the ages above them.
    """
    ages = torch.tensor(faces.anchors_years, dtype=torch.float32, device=device)
    rows = []
    with torch.inference_mode():
        for item in faces.shown:
            source = _faces(faces.data, np.array([item]), device)
            images = model(source, ages[None]).image[0]
            rows.append(to_uint8(torch.cat([source, images.float()])))
    return _tile(np.stack(rows), ["src", *(f"{age:g}" for age in faces.anchors_years)])


def is_due(num_images: int, batch_size: int, log_every: int, validate_every: int) -> bool:
    """Whether the log point that a step has reached is the first after a validation is due.

    A function of the count of images alone, so that a resumed run measures where it would have.

    Args:
        num_images: Images seen after the step.
        batch_size: Images of the step.
        log_every: Images between log points.
        validate_every: Images between validations; 0: never.
    """
    if not validate_every:
        return False
    now, before = (n // log_every * log_every for n in (num_images, num_images - batch_size))
    return now // validate_every > before // validate_every


def _figures_of(
    model: AgeTransformer,
    faces: ValidationFaces,
    guidance: Guidance,
    device: torch.device,
    items: np.ndarray,
) -> dict[str, Tensor]:
    """Return each figure of a few faces, a value per face (N,)."""
    source = _faces(faces.data, items, device)
    own = torch.from_numpy(faces.data.ages_years[items])[:, None].to(device)
    anchors = torch.tensor(faces.anchors_years, dtype=torch.float32, device=device)
    N, A = len(items), len(anchors)
    images = model(source, torch.cat([own, anchors.expand(N, A)], dim=1)).image
    at_own, renderings = images[:, 0], images[:, 1:].flatten(0, 1)
    read_NA = expected_age(guidance.age_regressor(renderings)).view(N, A)
    z_NAD = guidance.identity_embedder(renderings).view(N, A, -1)
    source_ND = guidance.identity_embedder(source)
    squared_N = (at_own - source).square().mean(dim=(1, 2, 3))
    figures = {
        TEACHER_AGE_MAE: (read_NA - anchors).abs().mean(dim=1),
        TEACHER_ORDER: (read_NA[:, 1:] <= read_NA[:, :-1]).float().mean(dim=1),
        TEACHER_SIMILARITY: F.cosine_similarity(z_NAD, source_ND[:, None], dim=2).mean(dim=1),
        # Images span 2. A millionth of it bounds the ratio of a face that comes back as it was.
        PSNR: 10 * torch.log10(4 / squared_N.clamp(min=4e-12)),
    }
    if guidance.lpips is not None:
        figures[LPIPS] = guidance.lpips(at_own, source)
    return figures


def _faces(data: FaceData, items: np.ndarray, device: torch.device) -> Tensor:
    """Return faces as training shows them most: enhanced where there is a counterpart."""
    return to_tensor(data.pick(items, np.ones(len(items), bool))).to(device)


def _spread(items: np.ndarray, ages_years: np.ndarray, count: int) -> np.ndarray:
    """Return at most `count` items at even steps through their ages, youngest first."""
    by_age = items[np.argsort(ages_years[items], kind="stable")]
    places = np.linspace(0, len(by_age) - 1, min(count, len(by_age)))
    return by_age[places.round().astype(np.int64)]


def _tile(faces_RKHWC: np.ndarray, headers: Sequence[str]) -> np.ndarray:
    """Lay out rows of faces with small gaps, and a text above each column."""
    from PIL import Image, ImageDraw, ImageFont

    R, K, S = faces_RKHWC.shape[:3]
    # Large: TensorBoard shows the whole grid in the width of a few faces.
    cell, header = S + _GAP_PX, max(12, S // 3)
    canvas = np.full((header + R * cell, K * cell - _GAP_PX, 3), _PAPER, np.uint8)
    for row in range(R):
        for column in range(K):
            y, x = header + row * cell, column * cell
            canvas[y : y + S, x : x + S] = faces_RKHWC[row, column]
    picture = Image.fromarray(canvas)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=max(9, round(header * 0.9)))
    for column, text in enumerate(headers):
        place = (column * cell + S / 2, header / 2)
        draw.text(place, text, fill=(0, 0, 0), font=font, anchor="mm")
    return np.asarray(picture)
