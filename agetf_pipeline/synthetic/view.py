"""The coordinates that one face is drawn in: its pose, and where on the grid its parts lie."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from agetf_pipeline.synthetic.fields import Field, grid
from agetf_pipeline.synthetic.identity import Identity

_ZOOM = 1.09
"""How far the drawing is enlarged, so that the face fills the picture."""


@dataclass(frozen=True)
class View:
    """The coordinates one face is drawn in, float32 (S, S) each.

    Attributes:
        x: Rightwards, turned with the head: of outlines, hair, ears, shoulders.
        y: Downwards, likewise.
        fx: x of the features, shifted where the head is turned sideways.
        fy: y of the features, shifted where it is raised or lowered.
        ax: |fx|: most features come in pairs.
        nose_x: x of the nose, which stands out farther.
        px: Width of a pixel in the same units.
        size_px: S.
    """

    x: Field
    y: Field
    fx: Field
    fy: Field
    ax: Field
    nose_x: Field
    px: float
    size_px: int


def make_view(who: Identity, size_px: int) -> View:
    """Return the coordinates of a person's pose on a grid of `size_px`."""
    x, y = (plane * np.float32(1 / _ZOOM) for plane in grid(size_px))
    roll = np.deg2rad(who.head_roll)
    cos, sin = np.float32(np.cos(roll)), np.float32(np.sin(roll))
    turn_x = np.float32(0.34 * np.sin(np.deg2rad(who.head_yaw)))
    turn_y = np.float32(0.26 * np.sin(np.deg2rad(who.head_pitch)))
    # Aligned pictures keep the features in place: the head moves the other way.
    hx = cos * x + sin * y + np.float32(0.6) * turn_x
    hy = cos * y - sin * x + np.float32(0.6) * turn_y
    near = 1 - hx * hx * np.float32(1 / 0.62) - (hy - np.float32(0.05)) ** 2 * np.float32(1 / 1.1)
    np.clip(near, 0, 1, out=near)
    fx = hx - turn_x * near
    fy = hy - turn_y * near
    return View(
        x=hx, y=hy, fx=fx, fy=fy, ax=np.abs(fx), nose_x=fx - np.float32(0.28) * turn_x,
        px=2.0 / size_px / _ZOOM, size_px=size_px,
    )  # fmt: skip


def rows(view: View, low: float, high: float) -> slice:
    """Return the rows whose y lies between two heights, with room for a tilted head."""
    half = view.size_px / 2
    first = int((low - 0.16) / view.px + half)
    last = int((high + 0.16) / view.px + half) + 1
    return slice(max(first, 0), min(last, view.size_px))


def pixel_finder(view: View) -> Callable[[float, float], tuple[int, int]]:
    """Return a function from a place on the head (x, y) to its pixel (row, column)."""
    x0, y0 = float(view.x[0, 0]), float(view.y[0, 0])
    cos, sin = float(view.x[0, 1]) - x0, float(view.y[0, 1]) - y0
    scale = cos * cos + sin * sin

    def find(x: float, y: float) -> tuple[int, int]:
        dx, dy = x - x0, y - y0
        return int((dy * cos - dx * sin) / scale), int((dx * cos + dy * sin) / scale)

    return find
