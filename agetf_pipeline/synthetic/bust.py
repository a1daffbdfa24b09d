"""Neck, clothes and ears: what is seen of a person beside the face."""

import numpy as np

from agetf_pipeline.synthetic.ageing import AgeCues, Proportions
from agetf_pipeline.synthetic.fields import Field, bump, edge, ellipse, groove, linear, step
from agetf_pipeline.synthetic.head import light_of, skin_albedo
from agetf_pipeline.synthetic.identity import Identity
from agetf_pipeline.synthetic.view import View


def paint_bust(
    rgb: np.ndarray, view: View, p: Proportions, who: Identity, cues: AgeCues, outline: Field
) -> None:
    """Lay neck and clothes over the background in place."""
    x, y, ax, px = view.x, view.y, np.abs(view.x), view.px
    lx = light_of(who)[0]
    below = np.clip(y - np.float32(0.72), 0, 1)
    half_width = np.float32(p.neck_w) + np.float32(1.6) * below * below
    round_ = np.clip(x / half_width, -1, 1)
    lit = np.float32(0.72) + np.float32(0.30) * (round_ * lx) - np.float32(0.30) * round_ * round_
    # The chin's shadow falls on the neck.
    lit *= 1 - np.float32(0.52) * np.exp(-np.clip(outline, 0, 1) * np.float32(1 / 0.13))
    if cues.neck > 0:
        line = (y + np.float32(0.16) * ax * ax) * np.float32(1 / 0.07)
        nearest = (line - np.floor(line) - np.float32(0.5)) * np.float32(0.07)
        lit *= 1 - groove(nearest, 0.014, px) * np.float32(0.20 * cues.neck)
    neck = edge(ax - half_width, 1.3 * px) * step(y, 0.35, 0.4)
    skin = skin_albedo(who, cues) * np.asarray((1.0, 0.93, 0.9), np.float32).reshape(3, 1, 1)
    rgb += (skin * lit - rgb) * neck
    t = np.minimum(ax / np.float32(p.neck_w), 1)
    outside = np.maximum(ax - np.float32(p.neck_w), 0)
    collar = np.float32(0.845) + np.float32(0.14) * (1 - t * t) + np.float32(0.34) * outside
    cloth = edge(collar - y, 1.5 * px)
    # A darker hem, folds down the shoulders, and the light from its side.
    hem = np.exp(-np.clip(y - collar, 0, 1) * np.float32(1 / 0.02))
    drape = np.float32(0.07) * np.sin(ax * np.float32(23) + y * np.float32(9))
    shade = np.float32(0.72) + np.float32(0.35) * x * lx + drape - np.float32(0.22) * hem
    rgb += (linear(who.clothes) * shade - rgb) * cloth


def paint_ears(rgb: np.ndarray, view: View, p: Proportions, who: Identity, cues: AgeCues) -> None:
    """Lay the ears in place; the head comes over their inner half."""
    x, y = np.abs(view.x), view.y
    size = 1 + 0.14 * who.ear_size + 0.10 * cues.fullness_loss
    dx = x - np.float32(p.cranium_rx * 0.985)
    dy = y - np.float32(p.eye_y + 0.10) + np.float32(0.18) * dx
    d = ellipse(dx, dy, 0.075 * size, 0.145 * size)
    lx = light_of(who)[0]
    inside = ellipse(dx - np.float32(0.006), dy - np.float32(0.005), 0.045 * size, 0.095 * size)
    lit = np.float32(0.80) + np.float32(0.22) * lx * np.sign(view.x)
    lit = lit - np.float32(0.34) * edge(inside, 0.045) + np.float32(0.1) * bump(dx, dy, 0.02, 0.04)
    skin = skin_albedo(who, cues) * np.asarray((1.0, 0.84, 0.80), np.float32).reshape(3, 1, 1)
    rgb += (skin * lit - rgb) * edge(d, 1.3 * view.px)
