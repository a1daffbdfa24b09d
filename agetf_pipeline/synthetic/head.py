"""The head: its outline, its relief with every fold of age, its skin, and the light on them."""

from dataclasses import dataclass

import numpy as np

from agetf_pipeline.synthetic.ageing import AgeCues, Proportions
from agetf_pipeline.synthetic.fields import (
    Field,
    bump,
    clouds,
    edge,
    ellipse,
    grain,
    linear,
    mix,
    smooth_union,
    step,
)
from agetf_pipeline.synthetic.identity import Identity

# sRGB of skin from the lightest to the darkest tone.
_SKIN = np.asarray(
    [(0.97, 0.83, 0.75), (0.90, 0.70, 0.58), (0.76, 0.54, 0.40), (0.55, 0.36, 0.25), (0.36, 0.23, 0.17)],
    np.float32,
)  # fmt: skip


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


def skin_albedo(who: Identity, cues: AgeCues) -> np.ndarray:
    """Return the skin's colour at an age, linear light, float32 (3, 1, 1)."""
    position = who.skin_tone * (len(_SKIN) - 1)
    low = min(int(position), len(_SKIN) - 2)
    srgb = _SKIN[low] + (_SKIN[low + 1] - _SKIN[low]) * np.float32(position - low)
    warm = np.float32(who.skin_warmth) * np.asarray((0.012, 0.0, -0.022), np.float32)
    grown = np.asarray((-0.045, -0.03, -0.03), np.float32) * np.float32(cues.growth)
    dull = np.asarray((-0.055, -0.045, -0.075), np.float32) * np.float32(cues.skin_dulling)
    return linear(tuple(np.clip(srgb + warm + grown + dull, 0.05, 0.98)))


def head_distance(view: View, p: Proportions, who: Identity, cues: AgeCues) -> tuple[Field, Field]:
    """Return signed distances to the bone (skull and jaw) and to the whole head's outline."""
    x, y, ax = view.x, view.y, np.abs(view.x)
    skull = ellipse(x, y - np.float32(p.cranium_y), p.cranium_rx, p.cranium_ry)
    jaw = ellipse(x, y - np.float32(p.jaw_y), p.jaw_rx, p.jaw_ry, p.squareness)
    bone = smooth_union(skull, jaw, 0.10)
    full = (0.45 + 0.25 * who.cheeks) * (1 - cues.fullness_loss) * (1 - 0.55 * cues.growth)
    cheek = ellipse(ax - np.float32(p.jaw_rx * 0.72), y - np.float32(0.27), 0.16 + 0.05 * full, 0.2)
    d = smooth_union(bone, cheek + np.float32(0.05 * (1 - full)), 0.10)
    jowl = ellipse(
        ax - np.float32(p.jaw_rx * 0.70),
        y - np.float32(p.jaw_y + p.jaw_ry * 0.66),
        0.115,
        0.12,
    )
    return bone, smooth_union(d, jowl + np.float32(0.075 * (1 - 1.15 * cues.jowls)), 0.06)


def groove(distance: Field, width: float, px: float) -> Field:
    """Return a soft line along distance 0; thinner than a pixel it fades instead of breaking up."""
    drawn = max(width, 0.75 * px)
    t = distance * np.float32(1.0 / drawn)
    return np.exp(-(t * t)) * np.float32(width / drawn)


def folds(view: View, p: Proportions, cues: AgeCues) -> Field:
    """Return the depth of every wrinkle and fold, 0 where there is none."""
    ax, fx, fy, px = view.ax, view.fx, view.fy, view.px
    total = np.zeros_like(ax)
    if cues.nasolabial > 0:
        top, bottom = p.nose_y - 0.01, p.mouth_y + 0.05
        t = np.clip((fy - np.float32(top)) * np.float32(1 / (bottom - top)), 0, 1)
        line = np.float32(p.nose_w + 0.022) + np.float32(p.mouth_w + 0.055 - p.nose_w) * t * t
        along = step(fy, top - 0.05, top + 0.05) * (1 - step(fy, bottom - 0.06, bottom + 0.05))
        total += (
            groove((ax - line) * np.float32(0.85), 0.021, px)
            * along
            * np.float32(1.15 * cues.nasolabial)
        )
    if cues.forehead > 0:
        middle = (p.brow_y + p.hairline_y) / 2 - 0.01
        waves = np.float32(0.012) * np.sin(fx * np.float32(13)) + np.float32(0.10) * ax * ax
        phase = (fy + waves - np.float32(p.brow_y)) * np.float32(1 / 0.082)
        nearest = (phase - np.floor(phase) - np.float32(0.5)) * np.float32(0.082)
        where = bump(fx, fy - np.float32(middle), 0.33, 0.125)
        total += groove(nearest, 0.013, px) * where * np.float32(1.0 * cues.forehead)
    if cues.frown > 0:
        where = bump(fx, fy - np.float32(p.brow_y + 0.015), 0.3, 0.062)
        total += groove(ax - np.float32(0.036), 0.012, px) * where * np.float32(0.9 * cues.frown)
    if cues.crows_feet > 0:
        dx = ax - np.float32(p.eye_x + p.eye_w * 0.92)
        dy = fy - np.float32(p.eye_y + 0.004)
        fan = dy / (np.abs(dx) + np.float32(0.035)) * np.float32(2.2)
        nearest = (fan - np.floor(fan) - np.float32(0.5)) * (np.abs(dx) + np.float32(0.035))
        where = bump(dx - np.float32(0.068), dy, 0.055, 0.085) * step(dx, 0.0, 0.04)
        total += (
            groove(nearest * np.float32(0.45), 0.010, px)
            * where
            * np.float32(1.25 * cues.crows_feet)
        )
    if cues.eye_bags > 0:
        dx = ax - np.float32(p.eye_x - 0.012)
        line = np.float32(p.eye_y + p.eye_low + 0.062) - np.float32(4.2) * dx * dx
        where = bump(dx, fy - line, 0.115, 0.2)
        total += groove(fy - line, 0.015, px) * where * np.float32(0.95 * cues.eye_bags)
    if cues.marionette > 0:
        line = np.float32(p.mouth_w + 0.012) + np.float32(0.22) * (fy - np.float32(p.mouth_y))
        where = bump(ax - line, fy - np.float32(p.mouth_y + 0.115), 0.2, 0.085)
        total += groove(ax - line, 0.017, px) * where * np.float32(0.95 * cues.marionette)
    if cues.mouth_lines > 0:
        phase = fx * np.float32(1 / 0.042)
        nearest = (phase - np.floor(phase) - np.float32(0.5)) * np.float32(0.042)
        where = bump(fx, fy - np.float32(p.mouth_y - 0.06), p.mouth_w * 0.75, 0.034)
        where += bump(fx, fy - np.float32(p.mouth_y + 0.085), p.mouth_w * 0.7, 0.03)
        total += groove(nearest, 0.008, px) * where * np.float32(0.7 * cues.mouth_lines)
        # The cheeks fold last, in arcs about the mouth.
        arc = np.sqrt(ax * ax + (fy - np.float32(p.mouth_y - 0.08)) ** 2) * np.float32(1 / 0.062)
        nearest = (arc - np.floor(arc) - np.float32(0.5)) * np.float32(0.062)
        where = bump(ax - np.float32(p.jaw_rx * 0.86), fy - np.float32(p.mouth_y - 0.03), 0.09, 0.2)
        total += groove(nearest, 0.011, px) * where * np.float32(0.75 * cues.mouth_lines)
    return total


def relief(
    view: View, p: Proportions, who: Identity, cues: AgeCues, bone: Field, depth: Field
) -> Field:
    """Return the height of the skin over the picture's plane, in the picture's units."""
    ax, fx, fy, nx = view.ax, view.fx, view.fy, view.nose_x
    inner = np.clip(bone * np.float32(-1 / 0.5), 0, 1)
    z = np.float32(0.46) * (1 - (1 - inner) ** 2)
    male = cues.puberty * (who.gender == "male")
    # Sockets and brow bones; deeper as the face loses its padding.
    z -= np.float32(0.030 + 0.022 * cues.growth + 0.014 * cues.fullness_loss) * bump(
        ax - np.float32(p.eye_x - 0.02), fy - np.float32(p.eye_y - 0.005), 0.15, 0.088
    )
    z += np.float32(0.010 + 0.018 * male) * bump(
        ax - np.float32(0.2), fy - np.float32(p.brow_y + 0.01), 0.2, 0.05
    )
    # Nose: a ridge that rises to the tip, the tip, the wings.
    along = step(fy, p.eye_y - 0.10, p.nose_y + 0.01) * (
        1 - step(fy, p.nose_y + 0.005, p.nose_y + 0.075)
    )
    width = 0.052 + 0.012 * who.nose_width
    z += np.float32(p.nose_h * 0.72) * along * bump(nx, np.float32(0.0), width, 1.0)
    z += np.float32(0.048) * bump(nx, fy - np.float32(p.nose_y), p.nose_w * 0.62, 0.058)
    z += np.float32(0.036) * bump(
        np.abs(nx) - np.float32(p.nose_w * 0.78), fy - np.float32(p.nose_y + 0.018), 0.036, 0.042
    )
    # Cheeks, muzzle, lips, chin.
    z += np.float32(0.045 + 0.02 * max(who.smile, 0.0) - 0.02 * cues.fullness_loss) * bump(
        ax - np.float32(0.30), fy - np.float32(0.17 + 0.05 * cues.jowls), 0.15, 0.13
    )
    z += np.float32(0.03) * bump(fx, fy - np.float32(p.mouth_y), p.mouth_w * 1.2, 0.12)
    z += np.float32(0.022) * bump(
        fx, fy - np.float32(p.mouth_y + p.lip_low * 0.55), p.mouth_w * 0.75, p.lip_low * 0.7
    )
    z += np.float32(0.016) * bump(
        fx, fy - np.float32(p.mouth_y - p.lip_up * 0.5), p.mouth_w * 0.75, p.lip_up * 0.7
    )
    z -= np.float32(0.016) * bump(
        fx, fy - np.float32(p.mouth_y + p.lip_low + 0.035), p.mouth_w * 0.7, 0.028
    )
    chin_y = p.jaw_y + p.jaw_ry - 0.115
    z += np.float32(0.032 + 0.014 * male) * bump(fx, fy - np.float32(chin_y), 0.13, 0.09)
    # Bags stand out over their crease, jowls hang beside the chin.
    z += np.float32(0.020 * cues.eye_bags) * bump(
        ax - np.float32(p.eye_x - 0.01),
        fy - np.float32(p.eye_y + p.eye_low + 0.030),
        0.10,
        0.032,
    )
    z += np.float32(0.04 * cues.jowls) * bump(
        ax - np.float32(p.jaw_rx * 0.72), fy - np.float32(chin_y - 0.07), 0.09, 0.10
    )
    return z - np.float32(0.016) * depth


def light_of(who: Identity) -> np.ndarray:
    """Return the direction towards the light, unit vector (3,) of x right, y down, z outwards."""
    azimuth, elevation = np.deg2rad(who.light_azimuth), np.deg2rad(who.light_elevation)
    return np.asarray(
        [
            np.sin(azimuth) * np.cos(elevation),
            -np.sin(elevation),
            np.cos(azimuth) * np.cos(elevation),
        ],
        np.float32,
    )


def illuminate(z: Field, view: View, who: Identity) -> tuple[Field, Field]:
    """Return diffuse light (about 0.25 to 1.1) and gloss (0 to 1) on a relief."""
    scale = np.float32(0.5 / view.px)
    gx, gy = np.zeros_like(z), np.zeros_like(z)
    gx[:, 1:-1] = (z[:, 2:] - z[:, :-2]) * scale
    gy[1:-1] = (z[2:] - z[:-2]) * scale
    norm = 1 / np.sqrt(gx * gx + gy * gy + 1)
    lx, ly, lz = light_of(who)
    facing = (lz - gx * lx - gy * ly) * norm
    soft = np.float32(who.light_softness)
    diffuse = np.clip((facing + soft) / (1 + soft), 0, 1)
    half = np.asarray([lx, ly, lz + 1], np.float32)
    half /= np.sqrt((half * half).sum())
    gloss = np.clip((half[2] - gx * half[0] - gy * half[1]) * norm, 0, 1)
    for _ in range(4):
        gloss = gloss * gloss
    ambient = np.float32(0.20 + 0.12 * who.light_softness)
    return ambient + (np.float32(1.10) - ambient) * diffuse, gloss


def paint_skin(
    view: View, p: Proportions, who: Identity, cues: AgeCues, z: Field, depth: Field
) -> np.ndarray:
    """Return the lit skin of the whole picture, linear light, float32 (3, S, S)."""
    ax, fx, fy = view.ax, view.fx, view.fy
    base = skin_albedo(who, cues)
    rosy = np.asarray((1.0, 0.74, 0.72), np.float32).reshape(3, 1, 1)
    flush = bump(ax - np.float32(0.31), fy - np.float32(0.18), 0.15, 0.12)
    flush += np.float32(0.55) * bump(view.nose_x, fy - np.float32(p.nose_y), 0.10, 0.07)
    flush *= np.float32((0.62 - 0.35 * cues.skin_dulling) * (1 - 0.5 * who.skin_tone))
    # Hollows round the eyes darken and turn bluish with age.
    hollow = bump(
        ax - np.float32(p.eye_x - 0.015), fy - np.float32(p.eye_y + p.eye_low + 0.035), 0.12, 0.05
    )
    ring = np.asarray((0.70, 0.62, 0.68), np.float32).reshape(3, 1, 1)
    fold = np.asarray((0.58, 0.44, 0.38), np.float32).reshape(3, 1, 1)
    albedo = base * mix(np.float32(1), rosy, flush)
    albedo *= mix(np.float32(1), ring, hollow * np.float32(0.12 + 0.62 * cues.eye_bags))
    albedo *= mix(np.float32(1), fold, np.minimum(depth, 1))
    uneven = clouds(view.size_px) * np.float32(0.03 + 0.10 * cues.roughness)
    uneven += grain(view.size_px) * np.float32(0.012 + 0.05 * cues.roughness)
    albedo *= 1 + uneven
    _spots(albedo, view, p, who, cues)
    diffuse, gloss = illuminate(z, view, who)
    # Light that has gone through skin comes out redder: shadows keep more red than blue.
    shade = np.stack([diffuse**0.88, diffuse, diffuse * (0.96 + 0.04 * diffuse)])
    tint = 1 + np.float32(0.05 * who.light_warmth) * np.asarray((1, 0, -1), np.float32)
    lit = albedo * shade * tint.reshape(3, 1, 1)
    return lit + gloss * np.float32(0.12 - 0.05 * cues.skin_dulling)


def _spots(albedo: np.ndarray, view: View, p: Proportions, who: Identity, cues: AgeCues) -> None:
    """Darken the skin in place where freckles and age spots lie; each spot has its own onset."""
    rng = np.random.default_rng([53, who.seed])
    brown = np.asarray((0.62, 0.46, 0.36), np.float32).reshape(3, 1, 1)
    places = rng.uniform(-1, 1, (26, 2))
    sizes, onsets = rng.uniform(0.014, 0.04, 26), rng.uniform(0.0, 0.85, 26)
    size = view.size_px
    for (u, v), radius, onset in zip(places, sizes, onsets, strict=True):
        aged = min(max((cues.spots - onset) / 0.25, 0.0), 1.0)
        if aged <= 0:
            continue
        side, height = u * 0.46, -0.62 + 1.2 * (v * 0.5 + 0.5)
        row, column = int((height + 1) / 2 * size), int((side + 1) / 2 * size)
        reach = int(4 * radius / view.px) + 3
        box = np.s_[max(row - reach, 0) : row + reach, max(column - reach, 0) : column + reach]
        drawn = max(radius, 0.8 * view.px)
        cover = bump(
            view.x[box] - np.float32(side), view.y[box] - np.float32(height), drawn, drawn * 0.85
        )
        albedo[(slice(None), *box)] *= mix(
            np.float32(1), brown, cover * np.float32(0.62 * aged * (radius / drawn) ** 2)
        )
    if who.freckles > 0:
        dots = np.clip(grain(size) * np.float32(256 / size) ** 0.5 - np.float32(0.9), 0, 1)
        where = bump(view.ax - np.float32(0.2), view.fy - np.float32(0.13), 0.24, 0.12)
        albedo *= mix(np.float32(1), brown, dots * where * np.float32(0.6 * who.freckles))


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
