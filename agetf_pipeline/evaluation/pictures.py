"""The report's grids: fixed faces, the best and the worst, and the champion's beside ours."""

from collections.abc import Mapping, Sequence

import numpy as np

from agetf_pipeline.evaluation.cases import choose_cases
from agetf_pipeline.evaluation.measuring import Findings
from agetf_pipeline.evaluation.readings import HeldOutFaces, Rendered, RendersAges, at_size

_NUM_BESIDE_CHAMPION = 4


def draw_grid(findings: Findings, held_out: HeldOutFaces, rendered: Rendered) -> None:
    """Draw the same few faces at every anchor: chosen by their hash, not by how they came out."""
    num = len(rendered.grid)
    _save(
        findings, "grid", "grid.png", "Held-out faces at ten ages, none chosen for its result.",
        held_out.faces[:num], rendered.grid, rendered.anchors_years,
        [_age(age) for age in held_out.ages_years[:num]],
    )  # fmt: skip


def draw_cases(
    findings: Findings,
    renderer: RendersAges,
    held_out: HeldOutFaces,
    face_scores: Mapping[str, np.ndarray],
    anchors_years: Sequence[float],
    num_cases: int,
    size_px: int,
) -> None:
    """Draw the best, the median and the worst faces at every anchor."""
    cases = choose_cases(face_scores, num_cases)
    indices = [case.index for case in cases]
    faces = at_size(held_out.faces[indices], size_px)
    # Rendered again: to keep every rendering of every face would take gigabytes at 512 px.
    images = np.stack([renderer.render(face[None], list(anchors_years))[0] for face in faces])
    labels = [f"{_age(held_out.ages_years[case.index])}\n{case.label}" for case in cases]
    _save(
        findings, "cases", "cases.png",
        "The best, the median and the worst faces, by age error, identity and reconstruction.",
        faces, images, anchors_years, labels,
    )  # fmt: skip


def draw_champion(
    findings: Findings,
    held_out: HeldOutFaces,
    rendered: Rendered,
    champion: Rendered,
    names: tuple[str, str],
) -> None:
    """Draw the same faces by both models, a row of each in turn."""
    num = min(_NUM_BESIDE_CHAMPION, len(rendered.grid))
    faces = np.repeat(held_out.faces[:num], 2, axis=0)
    both = np.stack([rendered.grid[:num], champion.grid[:num]], axis=1)
    images = both.reshape(-1, *rendered.grid.shape[1:])
    labels = [f"{_age(age)}\n{name}" for age in held_out.ages_years[:num] for name in names]
    _save(
        findings, "champion", "champion.png", "The same faces by this model and by the champion.",
        faces, images, rendered.anchors_years, labels,
    )  # fmt: skip


def _save(
    findings: Findings,
    name: str,
    file: str,
    caption: str,
    faces: np.ndarray,
    images: np.ndarray,
    anchors_years: Sequence[float],
    labels: Sequence[str],
) -> None:
    from agetf_pipeline.age_transformer.grid import save_grid

    synthetic = findings.sampling.synthetic
    save_grid(
        findings.draw(name, file, caption), faces, images, anchors_years, row_labels=labels,
        footer="synthetic faces, held out of training" if synthetic else "held out of training",
    )  # fmt: skip


def _age(age_years: float) -> str:
    return f"{age_years:.0f} years"
