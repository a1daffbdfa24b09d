"""Faces on the page: pictures with texts for whoever does not see them, and what age they look."""

import base64
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from agetf_pipeline.core.errors import AgetfError
from agetf_pipeline.demo.services import Services

_MAX_SHOWN_PX = 256


def readings_of(services: Services, faces_NHWC: np.ndarray) -> list[dict[str, Any]] | str:
    """Return the estimator's rows for aligned faces, or why there are none.

    Args:
        services: Whose estimator reads.
        faces_NHWC: uint8 (N, H, H, 3), RGB.
    """
    from agetf_pipeline.synthetic.degrade import encode_png

    try:
        with services.lock:
            rows = services.estimator().estimate_all(
                [encode_png(face) for face in faces_NHWC], aligned=True
            )
    except AgetfError as error:
        return f"No ages are read: {error}"
    return rows.to_dicts()


def face_row(
    renderings_AHWC: np.ndarray,
    ages_years: Sequence[float],
    readings: list[dict[str, Any]] | str,
    trained_on: str,
) -> str:
    """Return HTML: a figure an age with the reading below, and what to know of them."""
    figures = "".join(
        _figure(rendering, f"{age:g} years", f"The face rendered at {age:g} years", reading)
        for rendering, age, reading in zip(
            renderings_AHWC, ages_years, _each(readings, len(ages_years)), strict=True
        )
    )
    return f'<div class="faces">{figures}</div>{_notes(readings, trained_on)}'


def pair(
    face: np.ndarray, rendering: np.ndarray, age_years: float,
    readings: list[dict[str, Any]] | str,
) -> str:  # fmt: skip
    """Return HTML: the original and one rendering, side by side."""
    original, rendered = _each(readings, 2)
    return (
        '<div class="pair">'
        + _figure(face, "original", "The original face", original)
        + _figure(rendering, f"{age_years:g} years",
                  f"The face rendered at {age_years:g} years", rendered)
        + "</div>"
    )  # fmt: skip


def reading_text(reading: dict[str, Any] | None) -> str:
    """Return what is said of one face: age and interval, or why there is none."""
    if reading is None:
        return ""
    if reading["age_years"] is None:
        return f"not read: {reading['reason']}"
    low, high = reading["interval_low_years"], reading["interval_high_years"]
    return f"looks {reading['age_years']:.0f} ({low:.0f} to {high:.0f})"


def _each(
    readings: list[dict[str, Any]] | str, number: int
) -> Sequence[dict[str, Any] | None]:  # fmt: skip
    return [None] * number if isinstance(readings, str) else readings


def _notes(readings: list[dict[str, Any]] | str, trained_on: str) -> str:
    notes = [f"The model was trained on: {trained_on}."]
    if trained_on == "synthetic":
        notes = ["The model was trained on drawn faces alone: do not expect it to age photographs."]
    if isinstance(readings, str):
        notes.append(readings)
    elif readings and readings[0]["note"]:
        notes.append(f"Of the readings: {readings[0]['note']}.")
    return "".join(f'<p class="note">{escape(note)}</p>' for note in notes)


def _figure(rgb: np.ndarray, title: str, alt: str, reading: dict[str, Any] | None) -> str:
    said = reading_text(reading)
    text = f"{alt}; {said}" if said else alt
    return (
        f'<figure><img src="{_data_uri(rgb)}" alt="{escape(text, quote=True)}">'
        f"<figcaption><strong>{escape(title)}</strong><br>{escape(said)}</figcaption></figure>"
    )


def _data_uri(rgb: np.ndarray) -> str:
    from agetf_pipeline.data.images import resize_rgb
    from agetf_pipeline.synthetic.degrade import encode_png

    if rgb.shape[0] > _MAX_SHOWN_PX:
        rgb = resize_rgb(rgb, _MAX_SHOWN_PX)
    return f"data:image/png;base64,{base64.b64encode(encode_png(rgb)).decode()}"
