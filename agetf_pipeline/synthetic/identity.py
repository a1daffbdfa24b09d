"""Who a synthetic face is: everything about it that does not change with age."""

from dataclasses import dataclass

import numpy as np

HAIR_COLOURS: tuple[str, ...] = ("black", "brown", "blond", "red")
HAIR_CUTS: tuple[str, ...] = ("buzz", "short", "parted", "curly", "bob", "long", "fringe")
FACIAL_HAIR: tuple[str, ...] = ("none", "moustache", "beard")
GLASSES: tuple[str, ...] = ("None", "Normal", "Dark")
EYE_COLOURS: tuple[str, ...] = ("brown", "hazel", "green", "blue", "grey")

_CUTS_MALE = (0.16, 0.34, 0.26, 0.14, 0.02, 0.05, 0.03)
_CUTS_FEMALE = (0.01, 0.08, 0.07, 0.14, 0.22, 0.28, 0.20)


@dataclass(frozen=True)
class Identity:
    """One synthetic person and one way of photographing them. Age is not part of it.

    Shape fields are standardised, about -1 to 1, with 0 the average face; `skin_tone`, `freckles`
    and `balding` run from 0 to 1; angles are in degrees. `grey_onset_years` is when hair begins
    to grey, `ageing_rate` scales how strongly wrinkles show.
    """

    seed: int
    gender: str
    skin_tone: float
    skin_warmth: float
    freckles: float
    face_width: float
    face_length: float
    jaw_width: float
    jaw_squareness: float
    cheeks: float
    eye_size: float
    eye_spacing: float
    eye_tilt: float
    eye_openness: float
    eye_colour: str
    brow_thickness: float
    brow_arch: float
    brow_height: float
    nose_width: float
    nose_length: float
    nose_bridge: float
    mouth_width: float
    lip_fullness: float
    smile: float
    hair_colour: str
    hair_shade: float
    hair_cut: str
    hair_volume: float
    hair_part: float
    hairline: float
    facial_hair: str
    glasses: str
    glasses_roundness: float
    ear_size: float
    background: tuple[tuple[float, float, float], tuple[float, float, float]]
    clothes: tuple[float, float, float]
    light_azimuth: float
    light_elevation: float
    light_softness: float
    light_warmth: float
    head_yaw: float
    head_pitch: float
    head_roll: float
    gaze: float
    balding: float
    grey_onset_years: float
    ageing_rate: float

    @property
    def name(self) -> str:
        """The identity's name in truth tables, unique per seed."""
        return f"synthetic-{self.seed:08d}"


def draw_identity(seed: int) -> Identity:
    """Draw a person from the population; the same seed gives the same person.

    Args:
        seed: Any integer >= 0.
    """
    rng = np.random.default_rng([7_340_033, seed])

    def shape() -> float:
        return min(max(float(rng.normal(0, 0.5)), -1.2), 1.2)

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def choice(names: tuple[str, ...], weights: tuple[float, ...]) -> str:
        limits = np.cumsum(weights)
        return names[int(np.searchsorted(limits, rng.uniform(0, limits[-1]), side="right"))]

    gender = choice(("female", "male"), (0.5, 0.5))
    male = gender == "male"
    tone = between(0, 1) ** 1.3
    # Dark skin goes with dark hair and eyes far more often than with blond or red.
    fair = max(0.0, 1 - 1.6 * tone)
    return Identity(
        seed=seed,
        gender=gender,
        skin_tone=tone,
        skin_warmth=shape(),
        freckles=between(0, 1) * (between(0, 1) < 0.25 * fair),
        face_width=shape(),
        face_length=shape(),
        jaw_width=shape(),
        jaw_squareness=between(0, 1),
        cheeks=shape(),
        eye_size=shape(),
        eye_spacing=shape(),
        eye_tilt=shape(),
        eye_openness=shape(),
        eye_colour=choice(
            EYE_COLOURS, (0.35 + tone * 3, 0.2, 0.1 * fair + 0.01, 0.3 * fair + 0.005, 0.12 * fair)
        ),
        brow_thickness=shape(),
        brow_arch=shape(),
        brow_height=shape(),
        nose_width=shape() + 0.5 * (tone - 0.4),
        nose_length=shape(),
        nose_bridge=shape(),
        mouth_width=shape(),
        lip_fullness=shape() + 0.6 * (tone - 0.4),
        smile=between(-0.15, 1.0),
        hair_colour=choice(
            HAIR_COLOURS, (0.22 + 1.5 * tone, 0.4, 0.34 * fair + 0.01, 0.14 * fair + 0.01)
        ),
        hair_shade=shape(),
        hair_cut=choice(HAIR_CUTS, _CUTS_MALE if male else _CUTS_FEMALE),
        hair_volume=shape(),
        hair_part=between(-1, 1),
        hairline=shape(),
        facial_hair=choice(FACIAL_HAIR, (0.52, 0.18, 0.30)) if male else "none",
        glasses=choice(GLASSES, (0.76, 0.20, 0.04)),
        glasses_roundness=between(0, 1),
        ear_size=shape(),
        background=(_colour(rng, 0.5), _colour(rng, 0.5)),
        clothes=_colour(rng, 0.8),
        light_azimuth=between(-55, 55),
        light_elevation=between(15, 55),
        light_softness=between(0.35, 0.75),
        light_warmth=shape(),
        head_yaw=float(np.clip(rng.normal(0, 12), -32, 32)),
        head_pitch=float(np.clip(rng.normal(0, 6), -16, 16)),
        head_roll=float(np.clip(rng.normal(0, 3.5), -10, 10)),
        gaze=shape(),
        balding=between(0, 1) ** 0.8 if male else 0.25 * between(0, 1),
        grey_onset_years=between(30, 44),
        ageing_rate=between(0.88, 1.12),
    )


def _colour(rng: np.random.Generator, max_saturation: float) -> tuple[float, float, float]:
    """Draw a colour as sRGB in 0..1, evenly over hues, rarely glaring."""
    hue, saturation, value = (
        rng.uniform(0, 1),
        rng.uniform(0, max_saturation),
        rng.uniform(0.15, 0.9),
    )
    channels = [np.clip(abs((hue * 6 + k) % 6 - 3) - 1, 0, 1) for k in (0, 4, 2)]
    red, green, blue = (float(value * (1 - saturation * (1 - c))) for c in channels)
    return red, green, blue
