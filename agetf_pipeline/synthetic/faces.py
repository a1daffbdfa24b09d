"""Faces: one picture from an identity and an age, drawn back to front."""

import numpy as np

from agetf_pipeline.synthetic import bust, features, head
from agetf_pipeline.synthetic.ageing import Proportions, age_cues, proportions
from agetf_pipeline.synthetic.fields import (
    bump,
    clouds,
    edge,
    ellipse,
    encode,
    grid,
    groove,
    lay,
    linear,
    mix,
)
from agetf_pipeline.synthetic.folds import folds
from agetf_pipeline.synthetic.hair import Hair, hair_colour, paint_facial_hair
from agetf_pipeline.synthetic.identity import Identity, draw_identity
from agetf_pipeline.synthetic.view import View, make_view, rows

__all__ = ["Identity", "draw_face", "draw_identity"]

MIN_SIZE_PX, MAX_SIZE_PX = 32, 512


def draw_face(identity: Identity, age_years: float, size_px: int) -> np.ndarray:
    """Draw a person at an age. The same arguments give the same bytes.

    Args:
        identity: Who, and how photographed.
        age_years: 0 to 100; beyond, the nearest end is drawn.
        size_px: Side of the picture, 32 to 512 (made for 64 to 256).

    Returns:
        uint8 (S, S, 3), RGB. The face fills the picture as in FFHQ.

    Raises:
        ValueError: The age is not finite, or the size out of range.
    """
    if not np.isfinite(age_years):
        raise ValueError(f"age_years must be finite, got {age_years}")
    if not MIN_SIZE_PX <= size_px <= MAX_SIZE_PX:
        raise ValueError(f"size_px must be {MIN_SIZE_PX} to {MAX_SIZE_PX}, got {size_px}")
    cues = age_cues(identity, age_years)
    p = proportions(identity, cues)
    view = make_view(identity, size_px)
    rgb = _background(identity, size_px)
    hair = Hair(view, p, identity, cues)
    outline = head.head_distance(view, p, identity, cues)
    hair.lay_behind(rgb)
    bust.paint_bust(rgb, view, p, identity, cues, outline)
    bust.paint_ears(rgb, view, p, identity, cues)
    depth = folds(view, p, cues)
    z = head.relief(view, p, identity, cues, outline, depth)
    lay(rgb, head.paint_skin(view, p, identity, cues, z, depth), edge(outline, 1.3 * view.px))
    features.paint_nostrils(rgb, view, p)
    features.paint_mouth(rgb, view, p, identity, cues)
    features.paint_eyes(rgb, view, p, identity, cues)
    hair.shade_skin(rgb)
    features.paint_brows(
        rgb, view, p, identity, cues,
        features.brow_colour(identity, cues, *hair_colour(identity, cues)),
    )  # fmt: skip
    paint_facial_hair(rgb, view, p, identity, cues, outline)
    hair.lay_before(rgb)
    _glasses(rgb, view, p, identity)
    return encode(rgb)


def _background(who: Identity, size_px: int) -> np.ndarray:
    """Two colours out of focus, with a vignette; float32 (3, S, S)."""
    x, y = grid(size_px)
    first, second = (linear(colour) for colour in who.background)
    angle = np.float32(who.light_azimuth / 30)
    t = np.clip(
        np.float32(0.5) + np.float32(0.35) * (y + angle * x) + clouds(size_px) * np.float32(0.7),
        0,
        1,
    )
    rgb = mix(first, second, t)
    return rgb * (1 - np.float32(0.16) * (x * x + y * y))


def _glasses(rgb: np.ndarray, view: View, p: Proportions, who: Identity) -> None:
    if who.glasses == "None":
        return
    band = rows(view, p.eye_y - 0.22, p.eye_y + 0.22)
    rgb = rgb[:, band]
    ax, fy, px = view.ax[band], view.fy[band], view.px
    dx, dy = ax - np.float32(p.eye_x + 0.006), fy - np.float32(p.eye_y + 0.022)
    d = ellipse(
        dx, dy, 0.195, 0.150 - 0.02 * (1 - who.glasses_roundness), 0.9 - 0.9 * who.glasses_roundness
    )
    lens = edge(d, 1.2 * px)
    if who.glasses == "Dark":
        tint = linear((0.07, 0.07, 0.08)) * (
            np.float32(1) + np.float32(3) * np.clip(dy + 0.1, 0, 1)
        )
        lay(rgb, tint, lens * np.float32(0.93))
    glare = np.exp(-(((dx * np.float32(0.7) + dy + np.float32(0.05)) * np.float32(1 / 0.035)) ** 2))
    rgb += lens * glare * np.float32(0.07)
    rgb *= 1 - np.float32(0.16) * bump(dx, dy - np.float32(0.16), 0.2, 0.03)
    frame = groove(d, 0.0175, px)
    bridge = groove(fy - np.float32(p.eye_y - 0.02) - np.float32(0.9) * ax * ax, 0.014, px)
    frame = np.maximum(frame, bridge * edge(ax - np.float32(p.eye_x - 0.18), 2 * px))
    arm = groove(fy - np.float32(p.eye_y - 0.015), 0.017, px)
    arm *= edge(np.float32(p.eye_x + 0.195) - ax, 2 * px) * edge(
        ax - np.float32(p.cranium_rx * 0.96), 0.03
    )
    frame = np.maximum(frame, arm)
    dark = linear(tuple(0.12 + 0.25 * c for c in who.clothes))
    lay(rgb, dark, np.minimum(frame * np.float32(1.15), 1))
