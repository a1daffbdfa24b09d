"""Renderings of synthetic people against the true drawing of the same person at the target age."""

import re
from collections.abc import Sequence

import numpy as np
import polars as pl

from agetf_pipeline.core.progress import track
from agetf_pipeline.core.statistics import Measure, Sampling, absent, measure_mean
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.images import read_rgb, resize_rgb
from agetf_pipeline.evaluation.image_metrics import psnr, ssim
from agetf_pipeline.evaluation.readings import HeldOutFaces, RendersAges

_NAMES = ("truth_psnr", "truth_psnr_unchanged", "truth_ssim", "truth_ssim_unchanged")
_SAME_DRAWING_DB = 35.0


def compare_with_truth(
    workspace: Workspace,
    renderer: RendersAges,
    held_out: HeldOutFaces,
    truth: pl.DataFrame,
    anchors_years: Sequence[float],
    num_faces: int,
    sampling: Sampling,
    size_px: int,
) -> dict[str, Measure]:
    """Measure PSNR and SSIM of renderings, and of the unchanged source, against the true drawings.

    A face counts where its person can be drawn again exactly: the drawing at its own age must be
    the clean original.

    Args:
        workspace: The workspace.
        renderer: The model under test.
        held_out: The faces.
        truth: The truth table.
        anchors_years: Target ages.
        num_faces: At most so many faces: each is drawn at every anchor.
        sampling: How intervals are made; n counts faces.
        size_px: Side of the faces that the model takes, at which pictures are compared.
    """
    rows = {row["image_id"]: row for row in truth.iter_rows(named=True)}
    values, people = [], []
    for i in track(range(min(num_faces, len(held_out.faces))), "drawing the true faces"):
        row = rows.get(held_out.image_ids[i])
        source = resize_rgb(held_out.faces[i], size_px)
        drawn = None if row is None else _draw(workspace, row, anchors_years, size_px)
        if drawn is None:
            continue
        rendered = renderer.render(source[None], list(anchors_years))[0]
        unchanged = np.broadcast_to(source, rendered.shape)
        values.append(
            [psnr(rendered, drawn).mean(), psnr(unchanged, drawn).mean(),
             ssim(rendered, drawn).mean(), ssim(unchanged, drawn).mean()]
        )  # fmt: skip
        people.append(held_out.identities[i])
    if not values:
        reason = "no held-out person could be drawn again exactly"
        return {
            f"renderings/{name}": absent(reason, synthetic=sampling.synthetic) for name in _NAMES
        }
    columns = np.array(values).T
    asked = min(num_faces, len(held_out.faces))
    note = f"of {asked} people, those whom the drawing at their own age matches"
    return {
        f"renderings/{name}": measure_mean(
            column, people, sampling, "dB" if "psnr" in name else ""
        ).noted(note)
        for name, column in zip(_NAMES, columns, strict=True)
    }


def _draw(
    workspace: Workspace, row: dict, ages_years: Sequence[float], size_px: int
) -> np.ndarray | None:
    """Draw a person of the truth table at several ages, uint8 (A, S, S, 3); None if impossible."""
    from agetf_pipeline.synthetic.faces import draw_face
    from agetf_pipeline.synthetic.identity import draw_identity

    match = re.fullmatch(r"synthetic-(\d+)", row["identity"])
    if match is None:
        return None
    identity = draw_identity(int(match.group(1)))
    clean = read_rgb(workspace.resolve(row["clean_path"]))
    corpus_px = len(clean)
    again = draw_face(identity, float(row["true_age_years"]), corpus_px)
    if again.shape != clean.shape or psnr(again[None], clean[None])[0] < _SAME_DRAWING_DB:
        return None
    faces = [draw_face(identity, float(age), corpus_px) for age in ages_years]
    return np.stack([resize_rgb(face, size_px) for face in faces])
