"""The head: its outline, its relief with every fold of age, its skin, and the light on them."""

import numpy as np

from agetf_pipeline.synthetic.ageing import AgeCues, Proportions
from agetf_pipeline.synthetic.fields import (
    Field,
    bump,
    clouds,
    ellipse,
    grain,
    linear,
    mix,
    smooth_union,
    step,
)
from agetf_pipeline.synthetic.identity import Identity
from agetf_pipeline.synthetic.view import View, pixel_finder

# sRGB of skin from the lightest to the darkest tone.
_SKIN = np.asarray(
    [
        (0.97, 0.83, 0.75),
        (0.90, 0.70, 0.58),
        (0.76, 0.54, 0.40),
        (0.56, 0.37, 0.26),
        (0.40, 0.26, 0.19),
    ],
    np.float32,
)


def skin_albedo(who: Identity, cues: AgeCues) -> np.ndarray:
    """Return the skin's colour at an age, linear light, float32 (3, 1, 1)."""
    position = who.skin_tone * (len(_SKIN) - 1)
    low = min(int(position), len(_SKIN) - 2)
    srgb = _SKIN[low] + (_SKIN[low + 1] - _SKIN[low]) * np.float32(position - low)
    warm = np.float32(who.skin_warmth) * np.asarray((0.012, 0.0, -0.022), np.float32)
    grown = np.asarray((-0.045, -0.03, -0.03), np.float32) * np.float32(cues.growth)
    dull = np.asarray((-0.055, -0.045, -0.075), np.float32) * np.float32(cues.skin_dulling)
    return linear(tuple(np.clip(srgb + warm + grown + dull, 0.05, 0.98)))


def head_distance(view: View, p: Proportions, who: Identity, cues: AgeCues) -> Field:
    """Return the signed distance to the head\'s outline (skull, jaw, cheeks, jowls)."""
    x, y, ax = view.x, view.y, np.abs(view.x)
    skull = ellipse(x, y - np.float32(p.cranium_y), p.cranium_rx, p.cranium_ry)
    jaw = ellipse(x, y - np.float32(p.jaw_y), p.jaw_rx, p.jaw_ry, p.squareness)
    d = smooth_union(skull, jaw, 0.10)
    # What is added only counts near its own rim: deeper inside it must not dent the relief.
    full = (0.45 + 0.25 * who.cheeks) * (1 - cues.fullness_loss) * (1 - 0.55 * cues.growth)
    cheek = ellipse(ax - np.float32(p.jaw_rx * 0.72), y - np.float32(0.27), 0.16 + 0.05 * full, 0.2)
    d = smooth_union(d, _rim(cheek) + np.float32(0.05 * (1 - full)), 0.10)
    jowl = ellipse(
        ax - np.float32(p.jaw_rx * 0.68), y - np.float32(p.jaw_y + p.jaw_ry * 0.66), 0.115, 0.12
    )
    hang = np.float32(0.070 * (1 - cues.jowls))
    return smooth_union(d, _rim(jowl) + hang, 0.06)


def _rim(distance: Field) -> Field:
    """Return a distance that gets no deeper than 0.02 inside, without a crease."""
    return -smooth_union(-distance, np.full_like(distance, 0.02), 0.035)


def relief(
    view: View, p: Proportions, who: Identity, cues: AgeCues, outline: Field, depth: Field
) -> Field:
    """Return the height of the skin over the picture's plane, in the picture's units."""
    ax, fx, fy, nx = view.ax, view.fx, view.fy, view.nose_x
    inner = np.clip(outline * np.float32(-1 / 0.5), 0, 1)
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
    ax, fy = view.ax, view.fy
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
    to_pixel = pixel_finder(view)
    for (u, v), radius, onset in zip(places, sizes, onsets, strict=True):
        aged = min(max((cues.spots - onset) / 0.25, 0.0), 1.0)
        if aged <= 0:
            continue
        side, height = u * 0.46, -0.62 + 1.2 * (v * 0.5 + 0.5)
        row, column = to_pixel(side, height)
        reach = int(4 * radius / view.px) + 3
        box = (
            slice(max(row - reach, 0), max(row + reach, 0)),
            slice(max(column - reach, 0), max(column + reach, 0)),
        )
        drawn = max(radius, 0.8 * view.px)
        cover = bump(
            view.x[box] - np.float32(side), view.y[box] - np.float32(height), drawn, drawn * 0.85
        )
        albedo[(slice(None), *box)] *= mix(
            np.float32(1), brown, cover * np.float32(0.62 * aged * (radius / drawn) ** 2)
        )
    if who.freckles > 0:
        dots = np.clip(
            grain(view.size_px) * np.float32(256 / view.size_px) ** 0.5 - np.float32(0.9), 0, 1
        )
        where = bump(view.ax - np.float32(0.2), view.fy - np.float32(0.13), 0.24, 0.12)
        albedo *= mix(np.float32(1), brown, dots * where * np.float32(0.6 * who.freckles))
