"""What age does to a face: proportions while it grows, then skin, hair and soft tissue.

Every cue is a smooth function of age and never turns back; what an identity adds is when a cue
begins and how far it goes.
"""

from dataclasses import dataclass

from agetf_pipeline.synthetic.identity import Identity

MAX_AGE_YEARS = 100.0


def ramp(age_years: float, start: float, end: float) -> float:
    """Return a smooth rise from 0 at `start` to 1 at `end` (years), flat outside."""
    t = min(max((age_years - start) / (end - start), 0.0), 1.0)
    return t * t * (3 - 2 * t)


def rise(age_years: float, start: float, end: float = MAX_AGE_YEARS) -> float:
    """Return a rise that begins gently at `start`, then goes on evenly to `end` (years)."""
    t = min(max((age_years - start) / (end - start), 0.0), 1.0)
    return 1.06 * t * t / (t + 0.06)


def early_rise(age_years: float, start: float, end: float = MAX_AGE_YEARS) -> float:
    """Return a rise that begins gently at `start`, is fastest after it, and slows until `end`.

    Skin changes most between 20 and 60: with an even rise, 20 and 45 could hardly be told apart.
    """
    return 1 - (1 - min(rise(age_years, start, end), 1.0)) ** 1.7


@dataclass(frozen=True)
class AgeCues:
    """How far each sign of age has come, 0 to about 1; none ever falls with age.

    Attributes:
        growth: Of the head's proportions, 0 at birth, 1 when grown up.
        puberty: Of the differences between the sexes, and of facial hair.
        hair_growth: Of a baby's hair.
        fullness_loss: Of cheeks and lips.
        skin_dulling: Rosy and even to sallow and pale.
        roughness: Of the skin's relief.
        spots: Of age spots.
        nasolabial: Of the folds from nose to mouth.
        crows_feet: Of the lines beside the eyes.
        forehead: Of the lines across the forehead.
        frown: Of the lines between the brows.
        eye_bags: Under the eyes.
        marionette: Of the lines below the mouth's corners.
        mouth_lines: Of the fine lines over the lips.
        jowls: Along the jaw.
        lid_droop: Of the upper lids.
        neck: Of the folds of the neck.
        greying: Share of grey hair.
        receding: Of the hairline.
        thinning: Of the hair's density on top.
    """

    growth: float
    puberty: float
    hair_growth: float
    fullness_loss: float
    skin_dulling: float
    roughness: float
    spots: float
    nasolabial: float
    crows_feet: float
    forehead: float
    frown: float
    eye_bags: float
    marionette: float
    mouth_lines: float
    jowls: float
    lid_droop: float
    neck: float
    greying: float
    receding: float
    thinning: float


def age_cues(identity: Identity, age_years: float) -> AgeCues:
    """Return the signs of age of a person at an age.

    Args:
        identity: The person.
        age_years: 0 to 100; beyond, the nearest end.
    """
    age = min(max(float(age_years), 0.0), MAX_AGE_YEARS)
    rate = identity.ageing_rate
    child = min(age / 19.0, 1.0)
    return AgeCues(
        growth=1 - (1 - child) ** 1.5,
        puberty=ramp(age, 11, 20),
        hair_growth=ramp(age, -1.2, 4),
        fullness_loss=rise(age, 6),
        skin_dulling=early_rise(age, 4),
        roughness=rate * early_rise(age, 16),
        spots=rate * rise(age, 36, 98),
        nasolabial=rate * early_rise(age, 14, 88),
        crows_feet=rate * early_rise(age, 21, 88),
        forehead=rate * early_rise(age, 22, 92),
        frown=rate * rise(age, 29, 92),
        eye_bags=rate * early_rise(age, 15, 90),
        marionette=rate * rise(age, 38, 95),
        mouth_lines=rate * rise(age, 52),
        jowls=rise(age, 32),
        lid_droop=rise(age, 24),
        neck=rate * rise(age, 34),
        greying=rise(age, identity.grey_onset_years - 10, identity.grey_onset_years + 54),
        receding=(0.25 + 0.75 * identity.balding) * ramp(age, 20, 86),
        thinning=identity.balding**1.5 * ramp(age, 26, 88) + 0.22 * rise(age, 60),
    )


@dataclass(frozen=True)
class Proportions:
    """Where everything of a face is, in half pictures: x right, y down, 0 in the middle."""

    cranium_y: float
    cranium_rx: float
    cranium_ry: float
    jaw_y: float
    jaw_rx: float
    jaw_ry: float
    squareness: float
    eye_x: float
    eye_y: float
    eye_w: float
    eye_up: float
    eye_low: float
    iris_r: float
    brow_y: float
    brow_thick: float
    nose_y: float
    nose_w: float
    nose_h: float
    mouth_y: float
    mouth_w: float
    lip_up: float
    lip_low: float
    neck_w: float
    hairline_y: float


def proportions(identity: Identity, cues: AgeCues) -> Proportions:
    """Return the geometry of a person at the age that `cues` stand for."""
    g, who = cues.growth, identity
    male = cues.puberty * (1.0 if who.gender == "male" else 0.0)
    old = cues.fullness_loss

    def grow(baby: float, adult: float) -> float:
        return baby + (adult - baby) * g

    chin = grow(0.61, 0.735) + 0.045 * male + 0.045 * who.face_length * g
    jaw_y = grow(0.25, 0.20)
    cranium_y = grow(-0.13, -0.165)
    cranium_ry = grow(0.715, 0.64) + 0.02 * who.face_length
    eye_y = grow(0.085, -0.06) - 0.01 * who.face_length
    mouth_y = grow(0.385, 0.385) + 0.02 * male + 0.025 * who.face_length * g
    openness = 1 + 0.16 * who.eye_openness - 0.30 * cues.lid_droop
    size = 1 + 0.10 * who.eye_size
    lips = (1 + 0.28 * who.lip_fullness) * (1 - 0.14 * male) * (1 - 0.45 * old)
    return Proportions(
        cranium_y=cranium_y,
        cranium_rx=grow(0.605, 0.525) * (1 + 0.05 * who.face_width),
        cranium_ry=cranium_ry,
        jaw_y=jaw_y,
        jaw_rx=grow(0.49, 0.40) * (1 + 0.07 * who.jaw_width + 0.03 * who.face_width)
        + 0.035 * male
        + 0.02 * (who.cheeks + 1) * (1 - 0.8 * old),
        jaw_ry=chin - jaw_y,
        squareness=0.12 + g * (0.25 * who.jaw_squareness + 0.25 * male),
        eye_x=grow(0.262, 0.245) + 0.014 * who.eye_spacing,
        eye_y=eye_y,
        eye_w=grow(0.140, 0.108) * size,
        eye_up=grow(0.090, 0.052) * openness * size,
        eye_low=grow(0.052, 0.036) * size,
        iris_r=grow(0.074, 0.051) * (1 + 0.05 * who.eye_size),
        brow_y=eye_y - grow(0.175, 0.150) - 0.02 * who.brow_height + 0.03 * male + 0.022 * old,
        brow_thick=(grow(0.014, 0.026) + 0.008 * male)
        * (1 + 0.3 * who.brow_thickness)
        * (1 - 0.3 * old),
        nose_y=grow(0.215, 0.185) + 0.02 * who.nose_length * g + 0.025 * old,
        nose_w=(grow(0.082, 0.100) + 0.010 * male + 0.010 * old) * (1 + 0.16 * who.nose_width),
        nose_h=grow(0.045, 0.115) + 0.02 * who.nose_bridge * g,
        mouth_y=mouth_y,
        mouth_w=grow(0.135, 0.182) * (1 + 0.10 * who.mouth_width) + 0.02 * max(who.smile, 0.0),
        lip_up=grow(0.034, 0.036) * lips,
        lip_low=grow(0.044, 0.052) * lips,
        neck_w=grow(0.235, 0.275) + 0.055 * male,
        hairline_y=grow(-0.60, -0.565) - 0.03 * who.hairline,
    )


def visible_facial_hair(identity: Identity, age_years: float) -> str:
    """Return the facial hair that shows at an age: a boy who will have a beard has none yet."""
    return identity.facial_hair if age_years >= 19 else "none"
