"""Renderings: the age that an outside estimator reads, and whether it is still the same person.

Shapes: N faces, A anchors, S side of an image, D embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from agetf_pipeline.core.progress import track
from agetf_pipeline.core.statistics import (
    Measure,
    Sampling,
    absent,
    measure,
    measure_mean,
    order_violation_rate,
    slope,
    spearman,
)
from agetf_pipeline.evaluation.image_metrics import (
    KID_REASON,
    LPIPS_REASON,
    psnr,
    sharpness,
    ssim,
)

if TYPE_CHECKING:
    from agetf_pipeline.evaluation.judges import Judge


class RendersAges(Protocol):
    """What evaluation asks of a renderer."""

    def render(self, faces_NHWC: np.ndarray, ages_years: list[float]) -> np.ndarray:
        """Return uint8 (N, A, S, S, 3) of faces, uint8 (N, H, W, 3), at each age."""
        ...


@dataclass(frozen=True)
class HeldOutFaces:
    """Faces that training did not see.

    Attributes:
        image_ids: (N,).
        identities: (N,), who each is.
        faces: uint8 (N, S, S, 3).
        ages_years: float64 (N,), by their label.
    """

    image_ids: list[str]
    identities: np.ndarray
    faces: np.ndarray
    ages_years: np.ndarray


@dataclass(frozen=True)
class Rendered:
    """What was read from the renderings of N faces at A ages.

    Attributes:
        anchors_years: (A,), the target ages.
        read_years: float64 (N, A), by the outside estimator; None without one.
        similarity: float64 (N, A), cosine to the source by the outside embedder; None without one.
        sharpness_ratio: float64 (N, A), over the source's.
        source_psnr: float64 (N,), of the rendering at the source's own age against the source.
        source_ssim: float64 (N,), likewise.
        grid: uint8 (G, A, S, S, 3), renderings of the first G faces.
    """

    anchors_years: tuple[float, ...]
    read_years: np.ndarray | None
    similarity: np.ndarray | None
    sharpness_ratio: np.ndarray
    source_psnr: np.ndarray
    source_ssim: np.ndarray
    grid: np.ndarray


def render_and_read(
    renderer: RendersAges,
    held_out: HeldOutFaces,
    anchors_years: Sequence[float],
    age_judge: "Judge | None",
    identity_judge: "Judge | None",
    num_grid_faces: int,
) -> Rendered:
    """Render each face at every anchor and at its own age, and read the results.

    One face at a time: memory stays that of one face's renderings.

    Args:
        renderer: The model under test.
        held_out: The faces.
        anchors_years: Target ages.
        age_judge: Outside age estimator, or None.
        identity_judge: Outside identity embedder, or None.
        num_grid_faces: Renderings of so many faces are kept for the picture.
    """
    from agetf_pipeline.data.images import resize_rgb
    from agetf_pipeline.evaluation.judges import embed, read_ages

    ages, similarities, ratios, psnrs, ssims, grid = [], [], [], [], [], []
    num_faces = len(held_out.faces)
    for i in track(range(num_faces), "rendering held-out faces", num_faces):
        own_age = float(held_out.ages_years[i])
        images = renderer.render(held_out.faces[i : i + 1], [*anchors_years, own_age])[0]
        anchored, own = images[:-1], images[-1:]
        source = resize_rgb(held_out.faces[i], images.shape[1])[None]
        if age_judge is not None:
            ages.append(read_ages(age_judge, anchored))
        if identity_judge is not None:
            embedded = embed(identity_judge, np.concatenate([source, anchored]))
            similarities.append(embedded[1:] @ embedded[0])
        ratios.append(sharpness(anchored) / np.maximum(sharpness(source), 1e-6))
        psnrs.append(psnr(own, source)[0])
        ssims.append(ssim(own, source)[0])
        if i < num_grid_faces:
            grid.append(anchored)
    return Rendered(
        tuple(anchors_years),
        np.stack(ages) if ages else None,
        np.stack(similarities) if similarities else None,
        np.stack(ratios),
        np.array(psnrs),
        np.array(ssims),
        np.stack(grid),
    )


def measure_ages(
    read_NA: np.ndarray, anchors_years: Sequence[float], identities: np.ndarray, sampling: Sampling
) -> dict[str, Measure]:
    """Measure how the ages read follow the target ages.

    Args:
        read_NA: Ages read in years (N, A), anchors ascending.
        anchors_years: The target ages (A,).
        identities: Person of each face (N,).
        sampling: How intervals are made; n counts faces.
    """
    target_NA = np.broadcast_to(np.asarray(anchors_years, np.float64), read_NA.shape)
    both = [target_NA, read_NA]
    per_face = np.array([spearman(t, r) for t, r in zip(target_NA, read_NA, strict=True)])
    # A face whose readings never change has no rank correlation: it did not age at all.
    per_face = np.nan_to_num(per_face, nan=0.0)
    measures = {
        "renderings/age_mae_years": measure_mean(
            np.abs(read_NA - target_NA).mean(axis=1), identities, sampling, "years"
        ),
        "renderings/age_bias_years": measure_mean(
            (read_NA - target_NA).mean(axis=1), identities, sampling, "years"
        ),
        "renderings/age_slope": measure(
            lambda t, r: slope(t.ravel(), r.ravel()), both, identities, sampling
        ),
        "renderings/age_spearman": measure(
            lambda t, r: spearman(t.ravel(), r.ravel()), both, identities, sampling
        ),
        "renderings/age_spearman_per_face": measure_mean(per_face, identities, sampling),
        "renderings/order_violation_rate": measure(
            order_violation_rate, [read_NA], identities, sampling
        ),
    }
    for a, anchor in enumerate(anchors_years):
        read, key = read_NA[:, a], f"{anchor:g}"
        for name, values in (
            ("age_read_years", read),
            ("age_mae_years", np.abs(read - anchor)),
            ("age_bias_years", read - anchor),
        ):
            measures[f"renderings/{name}/{key}"] = measure_mean(
                values, identities, sampling, "years"
            )
        measures[f"renderings/age_sd_years/{key}"] = measure(
            lambda values: float(values.std(ddof=1)), [read], identities, sampling, "years"
        )
    return measures


def measure_quality(
    rendered: Rendered, identities: np.ndarray, sampling: Sampling
) -> dict[str, Measure]:
    """Measure what needs no evaluator: reconstruction at the source's age, and sharpness."""
    return {
        "renderings/source_psnr": measure_mean(rendered.source_psnr, identities, sampling, "dB"),
        "renderings/source_ssim": measure_mean(rendered.source_ssim, identities, sampling),
        "renderings/sharpness_ratio": measure_mean(
            rendered.sharpness_ratio.mean(axis=1), identities, sampling
        ),
        "renderings/source_lpips": absent(LPIPS_REASON, synthetic=sampling.synthetic),
        "renderings/kid": absent(KID_REASON, synthetic=sampling.synthetic),
    }


def missing_ages(reason: str, sampling: Sampling) -> dict[str, Measure]:
    """Return the figures of ages read as not computed, with the reason."""
    names = ("age_mae_years", "age_bias_years", "age_slope", "age_spearman",
             "age_spearman_per_face", "order_violation_rate")  # fmt: skip
    return {f"renderings/{name}": absent(reason, synthetic=sampling.synthetic) for name in names}
