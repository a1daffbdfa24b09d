"""Numbers written as words, as digits: "thirty-four" is "34", "in his forties" is "in his 40s"."""

import re

_UNITS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9,
}  # fmt: skip
_TEENS = {
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15,
    "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19,
}  # fmt: skip
_TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80,
    "ninety": 90,
}  # fmt: skip
_TENS_PATTERN = "|".join(_TENS)
_UNITS_PATTERN = "|".join(_UNITS)
_BELOW_100 = re.compile(
    rf"\b(?:(?P<tens>{_TENS_PATTERN})(?:[\s-]+(?P<unit>{_UNITS_PATTERN})\b)?"
    rf"|(?P<small>zero|{'|'.join(_TEENS)}|{_UNITS_PATTERN}))\b"
)
_DECADES = re.compile(rf"\b({'|'.join(word[:-1] for word in _TENS)})ies\b")
_HUNDRED = re.compile(r"\b(?:(?:a|one|1)\s+)?hundred(?:\s+(?:and\s+)?(?P<rest>\d{1,2})\b)?")
_HALF = re.compile(r"\b(\d+) and a half\b")
_HALF_A = re.compile(r"\bhalf[\s-]+(?:a[\s-]+)?(?=year)")
# "one" is a pronoun, unless a unit follows or nothing else is said.
_ONE_AS_NUMBER = re.compile(r"[\s-]*(?:year|month|week|day|hundred)|[.!]?$")
_A_YEAR = re.compile(r"\b(?:a|an)[\s-]+(?=(?:year|month|week|day)[\s-]+old)")


def digits_for_words(text: str) -> str:
    """Return a text with its number words as digits.

    Args:
        text: Lower case, words apart by single spaces.
    """
    text = _DECADES.sub(lambda match: f"{_TENS[match[1] + 'y']}s", text)
    text = _BELOW_100.sub(_spell_below_100, text)
    text = _HUNDRED.sub(lambda match: str(100 + int(match["rest"] or 0)), text)
    text = _HALF.sub(r"\1.5", text)
    return _A_YEAR.sub("1 ", _HALF_A.sub("0.5 ", text))


def _spell_below_100(match: re.Match[str]) -> str:
    if match["tens"] is not None:
        return str(_TENS[match["tens"]] + _UNITS.get(match["unit"] or "", 0))
    word = match["small"]
    if word == "one" and not (
        _ONE_AS_NUMBER.match(match.string, match.end())
        and (match.end() < len(match.string.rstrip(".!")) or match.start() == 0)
    ):
        return word
    return str(0 if word == "zero" else (_UNITS | _TEENS)[word])
