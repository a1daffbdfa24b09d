"""Captions of synthetic faces, from what was drawn: the truth of the captioner's training."""

from agetf_pipeline.synthetic.ageing import age_cues, visible_facial_hair
from agetf_pipeline.synthetic.identity import Identity

_CUTS = {
    "buzz": "very short {}hair",
    "short": "short {}hair",
    "parted": "parted {}hair",
    "curly": "curly {}hair",
    "bob": "a {}bob",
    "long": "long {}hair",
    "fringe": "long {}hair with a fringe",
}
_GLASSES = {"None": "", "Normal": "glasses", "Dark": "dark glasses"}
_FACIAL_HAIR = {"none": "", "moustache": "a moustache", "beard": "a beard"}

_HALF_GREY = 0.46
"""`greying` at which half of the hair that is seen is grey (docs/decisions/0006-janus.md)."""


def describe(
    identity: Identity, age_years: float, with_age: bool = False, in_colour: bool = True
) -> str:
    """Return a short English caption of the face that `draw_face` gives for the same arguments.

    Args:
        identity: Who.
        age_years: Decides what shows (grey hair, facial hair), and the words of age.
        with_age: Add words of age, which captions of a real model contain and the filter removes.
        in_colour: False for a black-and-white picture, on which hair has no colour to be named.

    Returns:
        A sentence such as "A woman with long brown hair and glasses, smiling."
    """
    noun = {"male": "man", "female": "woman"}[identity.gender]
    glasses, colour, facial_hair = visible_attributes(identity, age_years, in_colour)
    things = [_CUTS[identity.hair_cut].format(f"{colour} " if colour else "")]
    things += [facial_hair, glasses]
    things = [thing for thing in things if thing]
    listed = things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"
    who = _aged(noun, age_years) if with_age else f"a {noun}"
    ending = ", smiling" if identity.smile > 0.5 else ""
    sentence = f"{who} with {listed}{ending}."
    return sentence[0].upper() + sentence[1:]


def visible_attributes(
    identity: Identity, age_years: float, in_colour: bool = True
) -> tuple[str, str, str]:
    """Return glasses, hair colour and facial hair as `describe` names them, "" where it does not.

    The arguments are those of `describe`.
    """
    return (
        _GLASSES[identity.glasses],
        visible_hair_colour(identity, age_years) if in_colour else "",
        _FACIAL_HAIR[visible_facial_hair(identity, age_years)],
    )


def visible_hair_colour(identity: Identity, age_years: float) -> str:
    """Return the colour that a person would name: grey once half of the hair is."""
    return "grey" if age_cues(identity, age_years).greying > _HALF_GREY else identity.hair_colour


def _aged(noun: str, age_years: float) -> str:
    if age_years < 3:
        return "a baby"
    if age_years < 13:
        return "a young " + {"man": "boy", "woman": "girl"}[noun]
    if age_years < 20:
        return f"a teenage {'boy' if noun == 'man' else 'girl'}"
    if age_years < 30:
        return f"a young {noun} in {'his' if noun == 'man' else 'her'} twenties"
    if age_years >= 75:
        return f"an elderly {noun}"
    decade = ("thirties", "forties", "fifties", "sixties", "seventies")[int(age_years // 10) - 3]
    return f"a {noun} in {'his' if noun == 'man' else 'her'} {decade}"
