"""Eyes, brows, nostrils and mouth: small, sharp things laid over the lit skin."""

import numpy as np

from agetf_pipeline.synthetic.ageing import AgeCues, Proportions
from agetf_pipeline.synthetic.fields import (
    bump,
    edge,
    groove,
    lay,
    linear,
    mix,
    sample,
    step,
    strands,
)
from agetf_pipeline.synthetic.head import light_of, skin_albedo
from agetf_pipeline.synthetic.identity import Identity
from agetf_pipeline.synthetic.view import View, rows

_IRIS = {
    "brown": (0.34, 0.20, 0.11),
    "hazel": (0.46, 0.33, 0.16),
    "green": (0.36, 0.46, 0.28),
    "blue": (0.33, 0.50, 0.68),
    "grey": (0.48, 0.54, 0.58),
}


def paint_eyes(
    rgb_full: np.ndarray, view: View, p: Proportions, who: Identity, cues: AgeCues
) -> None:
    """Lay both eyes with their lids and lashes in place."""
    band = rows(view, p.eye_y - 0.12, p.eye_y + 0.12)
    rgb, ax, px = rgb_full[:, band], view.ax[band], view.px
    sign = np.sign(view.fx[band])
    dx = ax - np.float32(p.eye_x)
    dy = view.fy[band] - np.float32(p.eye_y) + np.float32(0.05 + 0.10 * who.eye_tilt) * dx
    t = np.clip(dx * np.float32(1 / p.eye_w), -2, 2)
    arch = 1 - t * t
    # The lid is highest a little towards the nose, and hangs at its outer end in old age.
    droop = np.float32(1) - np.float32(0.30 * cues.lid_droop) * step(t, -0.2, 1.0)
    upper = np.float32(p.eye_up) * arch * (1 - np.float32(0.16) * t) * droop
    lower = np.float32(p.eye_low) * arch * (1 + np.float32(0.18) * t)
    inside = edge(np.maximum(-(dy + upper), dy - lower), 1.15 * px)

    iris_x = dx - np.float32(0.016 * who.gaze) * sign
    iris_y = dy + np.float32(0.008)
    r = np.sqrt(iris_x * iris_x + iris_y * iris_y)
    colour = linear(_IRIS[who.eye_colour])
    under = step(dy + upper, 0.0, 0.055)
    white = linear((0.93, 0.905 - 0.02 * cues.skin_dulling, 0.89 - 0.07 * cues.skin_dulling))
    ball = white * (np.float32(0.42) + np.float32(0.58) * under) * (1 - np.float32(0.22) * t * t)
    spokes = np.float32(0.8) + np.float32(0.9) * step(iris_y, -p.iris_r, p.iris_r)
    limbus = 1 - np.float32(0.62) * step(r, p.iris_r * 0.68, p.iris_r)
    iris = colour * (spokes * limbus * (np.float32(0.55) + np.float32(0.45) * under))
    haze = np.float32(0.22 * cues.skin_dulling)
    iris = iris + (linear((0.62, 0.64, 0.66)) - iris) * haze
    lay(ball, iris, edge(r - np.float32(p.iris_r), 1.2 * px))
    lay(ball, linear((0.03, 0.025, 0.025)), edge(r - np.float32(p.iris_r * 0.45), 1.2 * px))
    lay(rgb, ball, inside)

    lx, ly, _ = light_of(who)
    glint_x = dx - np.float32(0.016 * who.gaze + 0.020 * lx) * sign
    glint = bump(
        glint_x, dy + np.float32(0.022 + 0.010 * -ly), max(0.0115, 0.5 * px), max(0.0115, 0.5 * px)
    )
    lay(rgb, np.float32(1), glint * inside * np.float32(0.92))

    reach = step(t, -1.16, -0.92) * (1 - step(t, 1.0, 1.22))
    lash = skin_albedo(who, cues) * linear((0.30, 0.24, 0.22))
    female = who.gender == "female"
    thick = 0.0125 + (0.0055 * cues.puberty if female else 0.0)
    outer = np.float32(0.03 if female else 0.012) * step(t, 0.5, 1.15)
    lay(rgb, lash, groove(dy + upper + outer, thick, px) * reach * np.float32(0.92))
    rim = linear((0.52, 0.33, 0.29)) * (np.float32(0.35) + skin_albedo(who, cues))
    lay(rgb, rim, groove(dy - lower, 0.009, px) * reach * np.float32(0.45 + 0.25 * cues.lid_droop))
    crease = dy + upper * np.float32(1.05) + np.float32(0.026 + 0.010 * who.brow_height)
    crease_at = groove(crease, 0.010, px) * step(t, -1.0, -0.6) * (1 - step(t, 0.85, 1.25))
    rgb *= 1 - crease_at * np.float32(0.40 + 0.25 * cues.lid_droop)


def brow_colour(who: Identity, cues: AgeCues, hair: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """Return the brows' colour: hair darkened, greying later than the head."""
    return mix(hair * np.float32(0.62), grey * np.float32(0.75), 0.7 * cues.greying)


def paint_brows(
    rgb_full: np.ndarray,
    view: View,
    p: Proportions,
    who: Identity,
    cues: AgeCues,
    colour: np.ndarray,
) -> None:
    """Lay the brows in place, hair by hair along their direction."""
    band = rows(view, p.brow_y - 0.10, p.brow_y + 0.10)
    rgb, ax, fy = rgb_full[:, band], view.ax[band], view.fy[band]
    start, end = p.eye_x - p.eye_w * 1.22, p.eye_x + p.eye_w * 1.42
    s = (ax - np.float32(start)) * np.float32(1 / (end - start))
    bow = np.float32(0.030 + 0.018 * who.brow_arch)
    middle = np.float32(p.brow_y) - bow * np.sin(np.clip(s, 0, 1) * np.float32(2.3))
    middle = middle + np.float32(0.036) * s * s
    thick = np.float32(p.brow_thick) * (1 - np.float32(0.72) * np.clip(s, 0, 1) ** 2)
    hairs = sample(strands(who.seed), ax * np.float32(9) + fy * np.float32(5.5))
    d = np.abs(fy - middle) - thick - hairs * np.float32(0.006)
    cover = edge(d, 0.020 + 0.6 * view.px)
    cover *= step(s, -0.05, 0.14) * (1 - step(s, 0.85, 1.06))
    strength = 0.42 + 0.45 * cues.growth - 0.18 * cues.fullness_loss
    lay(rgb, colour, cover * np.float32(strength) * (np.float32(0.88) + np.float32(0.2) * hairs))


def paint_nostrils(rgb_full: np.ndarray, view: View, p: Proportions) -> None:
    """Darken nostrils, the crease beside the wings, and the shadow below the nose, in place."""
    band = rows(view, p.nose_y - 0.06, p.nose_y + 0.14)
    rgb, fy = rgb_full[:, band], view.fy[band]
    nx = np.abs(view.nose_x[band])
    hole = bump(nx - np.float32(p.nose_w * 0.44), fy - np.float32(p.nose_y + 0.046), 0.030, 0.0135)
    wing = bump(nx - np.float32(p.nose_w * 1.06), fy - np.float32(p.nose_y + 0.022), 0.014, 0.036)
    below = bump(nx, fy - np.float32(p.nose_y + 0.072), p.nose_w * 0.9, 0.024)
    shadow = np.asarray((0.40, 0.26, 0.22), np.float32).reshape(3, 1, 1)
    rgb *= mix(np.float32(1), shadow, np.minimum(0.95 * hole + 0.34 * wing + 0.28 * below, 1))


def paint_mouth(
    rgb_full: np.ndarray, view: View, p: Proportions, who: Identity, cues: AgeCues
) -> None:
    """Lay the lips in place, and teeth where the smile opens them."""
    band = rows(view, p.mouth_y - 0.10, p.mouth_y + 0.14)
    rgb, fx, px = rgb_full[:, band], view.fx[band], view.px
    t = np.clip(fx * np.float32(1 / p.mouth_w), -2, 2)
    arch = 1 - t * t
    smile = max(who.smile, 0.0) * (1 - 0.15 * cues.fullness_loss)
    curve = np.float32(0.052 * who.smile - 0.016 * cues.jowls)
    dy = view.fy[band] - np.float32(p.mouth_y + 0.4 * float(curve)) + curve * t * t
    gap = np.float32(0.062 * max(smile - 0.45, 0.0) / 0.55) * np.clip(arch, 0, 1)
    bow = 1 - np.float32(0.34) * np.exp(-((t * np.float32(1 / 0.15)) ** 2))
    upper = np.float32(p.lip_up) * arch * bow
    lower = np.float32(p.lip_low) * arch * (1 - np.float32(0.15) * t * t)
    lips = edge(np.maximum(-(dy + upper), dy - gap - lower), 0.012 + px)

    skin = skin_albedo(who, cues)
    red = np.asarray((0.80, 0.40, 0.42), np.float32).reshape(3, 1, 1)
    if who.gender == "female":
        made_up = np.asarray((0.80, 0.28, 0.33), np.float32).reshape(3, 1, 1)
        red = mix(red, made_up, cues.puberty * 0.7)
    pale = np.asarray((0.86, 0.60, 0.58), np.float32).reshape(3, 1, 1)
    colour = skin * mix(red, pale, 0.75 * cues.fullness_loss) + np.float32(0.004)
    lx = light_of(who)[0]
    lit = np.float32(0.92) + np.float32(0.16) * fx * lx
    roundness = step(dy, -p.lip_up, p.lip_up * 0.2) * (1 - step(dy, p.lip_up * 0.1, p.lip_up))
    plane = colour * (lit - np.float32(0.26) * roundness)
    lay(rgb, plane, lips * np.float32(0.86))
    shine = bump(
        t - np.float32(0.2 * lx), dy - gap - lower * np.float32(0.42), 0.42, p.lip_low * 0.3
    )
    rgb += shine * lips * np.float32(0.11 * (1 - 0.6 * cues.fullness_loss))

    mouth = edge(np.maximum(-dy, dy - gap), 1.1 * px) * step(gap, 0.004, 0.02)
    teeth = linear((0.92, 0.90 - 0.05 * cues.skin_dulling, 0.86 - 0.14 * cues.skin_dulling))
    ivory = teeth * (np.float32(0.86) - np.float32(0.55) * t * t)
    lay(rgb, ivory, mouth)
    line = np.minimum(np.abs(dy), np.abs(dy - gap) + np.float32(0.004))
    inside = 1 - step(np.abs(t), 0.92, 1.06)
    dark = skin * linear((0.36, 0.18, 0.17))
    lay(rgb, dark, groove(line, 0.0105, px) * inside * np.float32(0.85))
    corner = bump(np.abs(t) - np.float32(1.03), dy, 0.07, 0.022)
    rgb *= 1 - corner * np.float32(0.30 + 0.2 * smile)
