"""Grids of renderings as pictures: a row a face, a column an age."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import atomic_path

_INK = (34, 38, 46)
_FAINT = (122, 128, 140)
_PAPER = (255, 255, 255)


def save_grid(
    path: Path,
    sources: np.ndarray,
    renderings: np.ndarray,
    ages_years: Sequence[float],
    row_labels: Sequence[str] | None = None,
    title: str | None = None,
    footer: str | None = None,
    cell_px: int = 128,
) -> Path:
    """Draw faces and their renderings as a PNG: originals in the first column, then an age each.

    Args:
        path: File to write, atomically.
        sources: uint8 (N, S, S, 3), RGB.
        renderings: uint8 (N, A, S, S, 3), RGB.
        ages_years: The A ages, for the header.
        row_labels: N short texts at the left, of one line or several.
        title: A line at the top.
        footer: A line at the bottom, such as "synthetic faces".
        cell_px: Side of a face in the picture; faces are resized to it (Lanczos).

    Raises:
        DataError: The arrays do not belong together.
    """
    from PIL import Image, ImageDraw, ImageFont

    N, A = len(sources), len(ages_years)
    if renderings.shape[:2] != (N, A) or (row_labels is not None and len(row_labels) != N):
        raise DataError(
            f"Expected renderings of {N} faces at {A} ages and a label per row; found "
            f"{renderings.shape} and {None if row_labels is None else len(row_labels)} labels."
        )
    gap, margin, wide_gap = max(2, cell_px // 32), cell_px // 5, cell_px // 8
    font = ImageFont.load_default(size=max(10, cell_px // 7))
    small = ImageFont.load_default(size=max(9, cell_px // 9))
    large = ImageFont.load_default(size=max(12, cell_px // 5))
    label_width = 0
    if row_labels:
        lines = [line for text in row_labels for line in text.split("\n")]
        label_width = int(max(small.getlength(line) for line in lines)) + margin // 2
    top = margin + (int(cell_px * 0.34) if title else 0) + int(cell_px * 0.24)
    bottom = margin + (int(cell_px * 0.2) if footer else 0)
    first = margin + label_width
    ages_left = first + cell_px + wide_gap
    width = ages_left + A * (cell_px + gap) - gap + margin
    height = top + N * (cell_px + gap) - gap + bottom
    canvas = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(canvas)
    if title:
        draw.text((margin, margin * 0.7), title, fill=_INK, font=large)
    header = top - int(cell_px * 0.12)
    draw.text((first + cell_px / 2, header), "original", fill=_FAINT, font=font, anchor="mm")
    for column, age in enumerate(ages_years):
        x = ages_left + column * (cell_px + gap) + cell_px / 2
        draw.text((x, header), f"{age:g}", fill=_INK, font=font, anchor="mm")
    for row in range(N):
        y = top + row * (cell_px + gap)
        if row_labels:
            draw.text((margin, y + cell_px / 2), row_labels[row], _FAINT, small, anchor="lm")
        canvas.paste(_cell(sources[row], cell_px), (first, y))
        for column in range(A):
            cell = _cell(renderings[row, column], cell_px)
            canvas.paste(cell, (ages_left + column * (cell_px + gap), y))
    if footer:
        draw.text((margin, height - margin * 0.6), footer, _FAINT, small, anchor="ls")
    with atomic_path(path) as temporary:
        canvas.save(temporary)
    return path


def _cell(face_HWC: np.ndarray, cell_px: int):
    from PIL import Image

    image = Image.fromarray(face_HWC)
    if image.size == (cell_px, cell_px):
        return image
    return image.resize((cell_px, cell_px), Image.Resampling.LANCZOS)
