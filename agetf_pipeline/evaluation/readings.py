"""Renderings of held-out faces, and what the panel reads from them.

Shapes: N faces, A anchors, S side of an image, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from agetf_pipeline.core.progress import track
from agetf_pipeline.evaluation.image_metrics import psnr, sharpness, ssim
from agetf_pipeline.evaluation.panel import FeatureExtractor, Panel

ESTIMATOR, MIXTURE = "estimator", "mixture"
"""Who reads ages: the estimator outside training, and the mixture of experts."""


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
        groups: What is known of each, by axis (`age_group`, `gender`): str (N,), empty where it is
            not known.
    """

    image_ids: list[str]
    identities: np.ndarray
    faces: np.ndarray
    ages_years: np.ndarray
    groups: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Rendered:
    """What was read from the renderings of N faces at A ages; None where nobody could read it.

    Attributes:
        anchors_years: (A,), the target ages.
        read_years: float64 (N, A) by who read it; NaN where no age was read.
        similarity: float64 (N, A), cosine to the source.
        found: bool (N, A), whether a face is found in the rendering.
        source_found: bool (N,), whether one is found in the source.
        kept: bool (N, A) by attribute: it reads as in the source.
        features: float32 (N, A, D) by extractor, `inception` or `own_features`.
        sharpness_ratio: float64 (N, A), over the source's.
        source_psnr: float64 (N,), of the rendering at the source's own age against the source.
        source_ssim: float64 (N,), likewise.
        source_lpips: float64 (N,), likewise.
        grid: uint8 (G, A, S, S, 3), renderings of the first G faces.
    """

    anchors_years: tuple[float, ...]
    read_years: dict[str, np.ndarray]
    similarity: np.ndarray | None
    found: np.ndarray | None
    source_found: np.ndarray | None
    kept: dict[str, np.ndarray]
    features: dict[str, np.ndarray]
    sharpness_ratio: np.ndarray
    source_psnr: np.ndarray
    source_ssim: np.ndarray
    source_lpips: np.ndarray | None
    grid: np.ndarray


def render_and_read(
    renderer: RendersAges,
    held_out: HeldOutFaces,
    anchors_years: Sequence[float],
    panel: Panel,
    num_grid_faces: int = 0,
    chunk: int = 8,
    size_px: int | None = None,
) -> Rendered:
    """Render each face at every anchor and at its own age, and read the results.

    A few faces at a time: memory stays that of their renderings, whatever the number of faces.
    Renderings are read at the side of the faces: two models of different sizes are judged on
    pictures of one size, the smaller one's enlarged as whoever looks at it would enlarge it.

    Args:
        renderer: The model under test.
        held_out: The faces, at least one.
        anchors_years: Target ages.
        panel: Who reads.
        num_grid_faces: Renderings of so many faces are kept for the picture.
        chunk: Faces read together.
        size_px: Side of the faces that the renderer takes; None for the faces' own.
    """
    num_faces = len(held_out.faces)
    parts: list[dict[str, np.ndarray]] = []
    starts = range(0, num_faces, chunk)
    for start in track(starts, "rendering held-out faces", len(starts)):
        faces = held_out.faces[start : start + chunk]
        ages = held_out.ages_years[start : start + chunk]
        anchored, own = _render(renderer, faces, ages, anchors_years, size_px)
        part = _read(panel, faces, anchored, own)
        part["grid"] = anchored[: max(0, num_grid_faces - start)]
        parts.append(part)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def named(prefix: str) -> dict[str, np.ndarray]:
        return {
            name.removeprefix(prefix): values
            for name, values in joined.items()
            if name.startswith(prefix)
        }

    return Rendered(
        tuple(anchors_years),
        named("read/"),
        joined.get("similarity"),
        joined.get("found"),
        joined.get("source_found"),
        named("kept/"),
        named("features/"),
        joined["sharpness_ratio"],
        joined["source_psnr"],
        joined["source_ssim"],
        joined.get("source_lpips"),
        joined["grid"],
    )


def _render(
    renderer: RendersAges,
    faces: np.ndarray,
    ages: np.ndarray,
    anchors_years: Sequence[float],
    size_px: int | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return renderings at the anchors (n, A, S, S, 3) and at each face's own age (n, S, S, 3)."""
    taken = faces if size_px is None else at_size(faces, size_px)
    rendered = [
        renderer.render(face[None], [*anchors_years, float(age)])[0]
        for face, age in zip(taken, ages, strict=True)
    ]
    images = np.stack(rendered)
    flat = at_size(images.reshape(-1, *images.shape[2:]), faces.shape[1])
    images = flat.reshape(*images.shape[:2], *flat.shape[1:])
    return images[:, :-1], images[:, -1]


def at_size(images_NHWC: np.ndarray, size_px: int) -> np.ndarray:
    """Return square images, uint8, at one side; the same array where they have it."""
    from agetf_pipeline.data.images import resize_rgb

    if images_NHWC.shape[1] == size_px:
        return images_NHWC
    return np.stack([resize_rgb(image, size_px) for image in images_NHWC])


def _read(
    panel: Panel, sources: np.ndarray, anchored: np.ndarray, own: np.ndarray
) -> dict[str, np.ndarray]:
    """Return what the panel reads of n faces: arrays of n rows by name."""
    n, num_anchors = anchored.shape[:2]
    flat = anchored.reshape(n * num_anchors, *anchored.shape[2:])
    read: dict[str, np.ndarray] = {
        "sharpness_ratio": sharpness(flat).reshape(n, num_anchors)
        / np.maximum(sharpness(sources), 1e-6)[:, None],
        "source_psnr": psnr(own, sources),
        "source_ssim": ssim(own, sources),
    }
    for name, reader in ((ESTIMATOR, panel.age_estimator), (MIXTURE, panel.mixture)):
        if reader is not None:
            read[f"read/{name}"] = reader.read(flat).reshape(n, num_anchors)
    if panel.embedder is not None:
        embedded = panel.embedder.embed(np.concatenate([sources, flat]))
        rendered_NAD = embedded[n:].reshape(n, num_anchors, -1)
        read["similarity"] = np.einsum("nd,nad->na", embedded[:n], rendered_NAD)
    if panel.face_finder is not None:
        read["source_found"] = panel.face_finder.found(sources)
        read["found"] = panel.face_finder.found(flat).reshape(n, num_anchors)
    if panel.attributes is not None:
        of_sources, of_rendered = panel.attributes.read(sources), panel.attributes.read(flat)
        for name, values in of_sources.items():
            rendered = of_rendered[name].reshape(n, num_anchors)
            read[f"kept/{name}"] = rendered == values[:, None]
    if panel.lpips is not None:
        read["source_lpips"] = panel.lpips.distances(own, sources)
    for name, extractor in extractors(panel).items():
        read[f"features/{name}"] = extractor.features(flat).reshape(n, num_anchors, -1)
    return read


def extractors(panel: Panel) -> dict[str, FeatureExtractor]:
    """Return who maps images to features, by name: those of the panel that are there."""
    named = {"inception": panel.inception, "own_features": panel.own_features}
    return {name: extractor for name, extractor in named.items() if extractor is not None}
