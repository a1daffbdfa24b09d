"""Hair of the head and of the face, in strands, greying strand by strand."""

import numpy as np

from agetf_pipeline.synthetic.ageing import AgeCues, Proportions
from agetf_pipeline.synthetic.fields import (
    Field,
    bump,
    clouds,
    edge,
    ellipse,
    grain,
    lay,
    linear,
    mix,
    sample,
    step,
    strands,
)
from agetf_pipeline.synthetic.head import light_of
from agetf_pipeline.synthetic.identity import Identity
from agetf_pipeline.synthetic.view import View

_COLOURS = {
    "black": ((0.10, 0.085, 0.08), (0.20, 0.16, 0.14)),
    "brown": ((0.28, 0.18, 0.12), (0.48, 0.32, 0.21)),
    "blond": ((0.66, 0.52, 0.32), (0.88, 0.76, 0.54)),
    "red": ((0.46, 0.20, 0.09), (0.70, 0.36, 0.18)),
}
# Depth over the skull, how far down it hangs (y), how far it comes over the cheeks.
_CUTS = {
    "buzz": (0.022, 0.02, 0.0),
    "short": (0.085, 0.06, 0.0),
    "parted": (0.110, 0.08, 0.0),
    "curly": (0.190, 0.22, 0.03),
    "bob": (0.130, 0.56, 0.085),
    "long": (0.130, 1.30, 0.075),
    "fringe": (0.120, 0.80, 0.085),
}


def hair_colour(who: Identity, cues: AgeCues) -> tuple[np.ndarray, np.ndarray]:
    """Return the pigmented and the grey hair's colour, linear light (3, 1, 1) each."""
    dark, light = _COLOURS[who.hair_colour]
    t = 0.5 + 0.4 * who.hair_shade - 0.25 * cues.growth
    if who.hair_colour in ("blond", "red"):
        t += 0.25 * (1 - cues.growth)
    white = 0.56 + 0.34 * cues.greying
    return mix(linear(dark), linear(light), min(max(t, 0.0), 1.0)), linear(
        (white, white * 0.985, white * 0.96)
    )


def grey_share(strand: Field | float, cues: AgeCues) -> Field:
    """Return how grey strands of rank `strand` (-1 to 1) are; never falls with age."""
    rank = np.float32(0.5) + np.float32(0.5) * np.asarray(strand, np.float32)
    return step(cues.greying * np.float32(1.6) - rank, 0.0, 0.6)


class Hair:
    """The head's hair: its masks and texture, worked out once, laid behind and before the face."""

    def __init__(self, view: View, p: Proportions, who: Identity, cues: AgeCues) -> None:
        self.view, self.p, self.who, self.cues = view, p, who, cues
        depth, length, over = _CUTS[who.hair_cut]
        grown = cues.hair_growth
        # A baby's hair is short whatever its cut will be.
        depth *= (1 + 0.22 * who.hair_volume) * (0.02 + 0.98 * grown**2)
        self.length = -0.05 + (length + 0.05) * (0.1 + 0.9 * grown**1.5)
        self.over = over * grown
        self.long = length > 0.4
        x, y = view.x, view.y
        down = y - np.float32(p.cranium_y)
        falling = np.minimum(down, 0) if self.long else down
        wave = clouds(view.size_px) * np.float32(0.02)
        if who.hair_cut == "curly":
            wave = wave + np.float32(0.022) * np.sin(x * np.float32(31) + 4 * wave) * np.cos(
                y * np.float32(29)
            )
        self.outer = (
            ellipse(x, falling, p.cranium_rx + depth * 0.85, p.cranium_ry + depth * 1.0) + wave
        )
        if self.long:
            self.outer = self.outer - np.float32(0.03) * step(down, 0.1, 0.9)
        self.strand = self._strands(depth)
        self._set_opening()

    def _strands(self, depth: float) -> Field:
        view, who = self.view, self.who
        part = np.float32(0.34 * who.hair_part)
        top = self.p.cranium_y - self.p.cranium_ry - depth
        fall = np.sqrt(np.maximum(view.y - np.float32(top) + np.float32(0.10), np.float32(0.02)))
        across = (view.x - part) / fall
        if who.hair_cut == "curly":
            across = across + np.float32(0.05) * np.sin(
                view.y * np.float32(26) + view.x * np.float32(9)
            )
        elif who.hair_cut == "buzz":
            across = across + np.float32(0.08) * grain(view.size_px)
        self.across = across + np.float32(4)
        return sample(strands(who.seed), self.across * np.float32(6.5))

    def _set_opening(self) -> None:
        view, p, who, cues = self.view, self.p, self.who, self.cues
        hairline = p.hairline_y
        if who.hair_cut == "fringe":
            hairline += (p.brow_y - 0.035 - hairline) * cues.hair_growth
        recede = np.float32(cues.receding) * (
            np.float32(0.09 + 0.17 * who.balding)
            + np.float32(0.10) * bump(np.abs(view.x) - np.float32(0.27), np.float32(0), 0.14, 1.0)
        )
        middle = 0.10
        swept = np.float32(0.0)
        if who.hair_cut == "parted":
            swept = np.float32(0.05) * view.x * np.float32(np.sign(who.hair_part) or 1.0)
        self.opening = ellipse(
            np.float32(0.45) * view.x + np.float32(0.55) * view.fx,
            np.minimum(view.y + recede * step(-view.y, -0.05, 0.35) + swept - np.float32(middle), 0)
            if self.long
            else view.y + recede * step(-view.y, -0.05, 0.35) + swept - np.float32(middle),
            p.cranium_rx * 0.955 - self.over,
            middle - hairline,
            0.25,
        )
        ragged = 0.045 if who.hair_cut == "fringe" else 0.022
        self.opening = self.opening + self.strand * np.float32(ragged)

    def _density(self) -> Field:
        """How much of the scalp the hair hides: less in babies and on thinning crowns."""
        cues, view = self.cues, self.view
        crown = bump(view.x, view.y + np.float32(0.80), 0.40, 0.36)
        cover = np.float32(min(1.0, 0.22 + 0.95 * cues.hair_growth)) - crown * np.float32(
            1.05 * cues.thinning
        )
        if self.who.hair_cut == "buzz":
            cover = cover * np.float32(0.86)
        return np.clip(
            cover * np.float32(1.25) + self.strand * np.float32(0.25) * (1 - cover), 0, 1
        )

    def _colour(self) -> np.ndarray:
        view, who, cues = self.view, self.who, self.cues
        base, grey = hair_colour(who, cues)
        temples = np.float32(0.25) * bump(np.abs(view.x) - np.float32(0.5), view.y, 0.2, 0.35)
        fine = sample(strands(who.seed + 1), self.across * np.float32(31))
        sharp = np.float32(0.55 * min(1.0, self.view.size_px / 180))
        rank = sharp * fine + np.float32(0.3) * self.strand - temples * 2
        colour = mix(base, grey, grey_share(rank, cues))
        lx = light_of(who)[0]
        side = view.x * lx * np.float32(0.55)
        rim = np.clip(self.outer * np.float32(-1 / 0.22), 0, 1)
        shade = np.float32(0.50) + np.float32(0.34) * rim + side + self.strand * np.float32(0.24)
        band = (
            view.y
            - np.float32(self.p.cranium_y - self.p.cranium_ry * 0.86)
            - np.float32(0.55) * view.x * view.x
        )
        shine = np.exp(-((band * np.float32(1 / 0.10)) ** 2)) * (1 + self.strand)
        lower = step(view.y, 0.1, 0.9)
        shade = np.clip(shade - np.float32(0.16) * lower, 0.12, 1.4)
        gloss = shine * np.float32(0.05) * (base + np.float32(0.25))
        return colour * shade + gloss

    def lay_behind(self, rgb: np.ndarray) -> None:
        """Lay what falls behind face and neck, in place."""
        self.colour = self._colour()
        self.density = self._density()
        end = np.float32(self.length) + self.strand * np.float32(0.05)
        cover = edge(self.outer, 0.02 + 1.3 * self.view.px) * (
            1 - step(self.view.y - end, -0.03, 0.03)
        )
        strength = self.density * np.float32(self.cues.hair_growth**2)
        lay(rgb, self.colour * np.float32(0.55), cover * strength)

    def shade_skin(self, rgb: np.ndarray) -> None:
        """Darken the skin along the hairline, in place."""
        near = step(self.opening, -0.10, 0.03) * (
            1 - step(self.view.y - np.float32(self.length), -0.1, 0.1)
        )
        near *= edge(self.outer, 0.02 + 1.3 * self.view.px)
        rgb *= 1 - near * np.float32(0.30) * self.density

    def lay_before(self, rgb: np.ndarray) -> None:
        """Lay what comes over forehead, temples and ears, in place."""
        px = self.view.px
        end = np.float32(self.length) + self.strand * np.float32(0.05)
        cover = edge(self.outer, 0.02 + 1.3 * px) * edge(
            -self.opening, 0.025 + px + 0.22 * (1 - self.cues.hair_growth)
        )
        cover *= 1 - step(self.view.y - end, -0.05, 0.05)
        lay(rgb, self.colour, cover * self.density)


def paint_facial_hair(
    rgb: np.ndarray, view: View, p: Proportions, who: Identity, cues: AgeCues, outline: Field
) -> None:
    """Lay moustache or beard in place; before puberty there is none."""
    growth = np.float32(min(max((cues.puberty - 0.4) / 0.6, 0.0), 1.0) ** 1.5)
    if who.facial_hair == "none" or growth <= 0:
        return
    fx, fy = view.fx, view.fy
    base, grey = hair_colour(who, cues)
    t = fx * np.float32(1 / (p.mouth_w * 1.22))
    above = np.float32(p.mouth_y - 0.052) + np.float32(0.085) * t * t
    cover = edge(np.abs(fy - above) - np.float32(0.034) * (1 - np.float32(0.55) * t * t), 0.035)
    cover *= 1 - step(np.abs(t), 0.85, 1.1)
    if who.facial_hair == "beard":
        clear = ellipse(fx, fy + np.float32(0.02), p.jaw_rx * 1.02, p.mouth_y - 0.055)
        full = (
            step(clear, -0.02, 0.07) * step(fy, 0.02, 0.22) * edge(outline - np.float32(0.02), 0.04)
        )
        lips = ellipse(fx, fy - np.float32(p.mouth_y + 0.012), p.mouth_w * 0.98, 0.062)
        cover = np.maximum(cover * edge(-lips - np.float32(0.02), 0.03), full * edge(-lips, 0.035))
    hairs = sample(strands(who.seed), fx * np.float32(11) + fy * np.float32(2.5) * np.sign(fx))
    hairs = hairs * np.float32(min(1.0, view.size_px / 128)) + grain(view.size_px) * np.float32(
        0.35
    )
    # Beards grey before the head does.
    share = grey_share(np.float32(0.9) * np.clip(hairs, -1, 1) - np.float32(0.25), cues)
    lx = light_of(who)[0]
    shade = np.float32(0.78) + np.float32(0.32) * hairs + np.float32(0.4) * fx * lx
    colour = mix(base * np.float32(0.9), grey * np.float32(0.95), share) * np.clip(shade, 0.2, 1.4)
    strength = np.float32(0.93) * growth * np.clip(np.float32(0.95) + np.float32(0.3) * hairs, 0, 1)
    lay(rgb, colour, cover * strength)
