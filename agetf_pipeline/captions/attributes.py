"""What a caption says of glasses, hair colour and facial hair, and how often that is right.

A caption is right about an attribute when it says what shows, no more and no less: another colour,
glasses left out, or a beard on a face without one are wrong.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.statistics import Measure, Sampling, measure_mean

JOINT = "all"
"""Key of the share of captions that are right about every attribute at once."""


@dataclass(frozen=True)
class Attributes:
    """What a caption names, or what shows on a face.

    Attributes:
        glasses: "none", "glasses" or "dark glasses".
        hair_colour: "black", "brown", "blond", "red", "grey" or "white"; None where none is named.
        facial_hair: "none", "moustache" or "beard", with a moustache or without.
    """

    glasses: str
    hair_colour: str | None
    facial_hair: str


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_COLOURS = {
    "black": "black",
    "brown": "brown|brunette|chestnut",
    "blond": "blonde?|golden",
    "red": "red|ginger|auburn",
    "grey": "gr[ea]y|silver|silvery|salt-and-pepper",
    "white": "white",
}
_COLOUR = rf"\b({'|'.join(_COLOURS.values())})\b"
_HAIR = r"\b(?:hair|bob|bangs|fringe|curls|locks|braids?|ponytail|bun|dreadlocks)\b"
_OTHER_THING = (
    r"(?:eyes?|eyebrows?|brows?|skin|face|beard|goatee|stubble|moustache|mustache|facial|glasses"
    r"|sunglasses|rimmed|framed|shirt|t-shirt|top|dress|jacket|coat|suit|sweater|hat|cap|tie|scarf"
    r"|background|backdrop|wall|photo\w*|picture|with|has|is|wearing|wears|against|on|in)"
)
_WORN = rf"(?:[\s,-]+(?!{_OTHER_THING}\b)[\w-]+){{0,4}}?[\s,-]+"
# "brown, slightly wavy hair" and "hair that is light brown"; then nouns that speak of hair alone.
_HAIR_COLOUR = (
    _compile(rf"{_COLOUR}(?={_WORN}{_HAIR})"),
    _compile(rf"{_COLOUR}(?=-haired\b)"),
    _compile(rf"{_HAIR}[\s,]+(?:that\s+|which\s+)?(?:is|are|was|looks|appears)"
             rf"(?:\s+(?!{_OTHER_THING}\b)[\w-]+){{0,3}}?\s+{_COLOUR}"),
    _compile(r"\b(brunette|blonde)\b"),
    _compile(r"\b(red)head"),
)  # fmt: skip
_DARK = _compile(
    r"\bsunglasses\b|\b(?:dark|tinted)[\s-]+(?:glasses|lenses|eyeglasses|spectacles)\b"
)
_GLASSES = _compile(r"\b(?:eye)?glasses\b|\bspectacles\b|\beyewear\b|\bbespectacled\b")
_BEARD = _compile(r"\b(?:beard(?:ed)?|goatee|stubble)\b")
_MOUSTACHE = _compile(r"\b(?:moustache|mustache)[ds]?\b")
_FACIAL_HAIR = _compile(r"\bfacial hair\b")
_DENIED = _compile(
    r"\b(?:no|without|not\s+(?:have|has|wear|wearing)|clean-shaven)\b"
    r"((?:(?!\b(?:but|with|wears|wearing|has|who|smiling)\b)[^.;])*)"
)


def named_attributes(caption: str) -> Attributes:
    """Return what an English caption names; "no glasses" and "without a beard" name nothing.

    Args:
        caption: Of any number of sentences, about one face.
    """
    text = _DENIED.sub(_after_denial, caption)
    if _DARK.search(text):
        glasses = "dark glasses"
    else:
        glasses = "glasses" if _GLASSES.search(text) else "none"
    if _BEARD.search(text):
        facial_hair = "beard"
    elif _MOUSTACHE.search(text):
        facial_hair = "moustache"
    else:
        # What is not said to be a moustache alone is taken for a beard.
        facial_hair = "beard" if _FACIAL_HAIR.search(text) else "none"
    return Attributes(glasses, _hair_colour(text), facial_hair)


def score(
    captions: Sequence[str | None],
    truths: Sequence[Attributes],
    identities: Sequence[str],
    sampling: Sampling | None = None,
) -> dict[str, Measure]:
    """Return the share of captions that are right, per attribute and about all at once (`JOINT`).

    Args:
        captions: N captions; None where there is none, which is wrong about everything.
        truths: What shows on each face, N.
        identities: Whose face each is, N: people, not faces, are drawn for the intervals.
        sampling: How intervals are made; None: 95 %.

    Returns:
        By name of the attribute, and `JOINT`: share, interval, number of captions and people.

    Raises:
        DataError: The three are of different lengths.
    """
    if not len(captions) == len(truths) == len(identities):
        raise DataError(
            f"Expected a truth and an identity for each of {len(captions)} captions; found "
            f"{len(truths)} truths and {len(identities)} identities. Pass one of each a face."
        )
    names = [field.name for field in fields(Attributes)]
    right_NA = np.zeros((len(captions), len(names)), bool)
    for row, (caption, truth) in enumerate(zip(captions, truths, strict=True)):
        if caption is not None:
            named = named_attributes(caption)
            right_NA[row] = [getattr(named, name) == getattr(truth, name) for name in names]
    columns: dict[str, np.ndarray] = dict(zip(names, right_NA.T, strict=True))
    columns[JOINT] = np.all(right_NA, axis=1)
    sampling = sampling or Sampling()
    return {name: measure_mean(right, identities, sampling) for name, right in columns.items()}


def _after_denial(match: re.Match[str]) -> str:
    """Return what is left of a denial's reach: "no glasses, grey hair" denies the glasses alone."""
    reach = match[1]
    last = max(reach.lower().rfind(" or "), reach.lower().rfind(" nor "))
    end = reach.find(",", last + 1)
    return "" if end < 0 else reach[end:]


def _hair_colour(text: str) -> str | None:
    """Return the colour that stands last before the hair: "reddish brown" is brown."""
    for pattern in _HAIR_COLOUR:
        found = pattern.findall(text)
        if found:
            word = found[-1].lower()
            return next(name for name, forms in _COLOURS.items() if re.fullmatch(forms, word))
    return None
