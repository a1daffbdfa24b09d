"""An age in years from an answer in words, such as "34", "in her mid-30s" or "6 months".

The text becomes a list of spans of years (a number is a span of no width); spans joined by "to",
"or", a dash, or "between ... and" become one. A span that says it is an age ("34 years old", "aged
34", "30s") wins over bare numbers. More than one left, a bound ("over 60"), none at all, or more
than 100 years: no age, with the reason and the answer beside it.
"""

import math
import re
from dataclasses import dataclass, replace

from agetf_pipeline.experts.free_text_numbers import digits_for_words

MAX_AGE_YEARS = 100.0
PRIOR_SIGMA_YEARS = 5.0
"""Spread of an answer that is one number. Assumed, not measured: calibration scales it."""

_QUOTE_LENGTH = 60
_YEARS_IN = {"y": 1.0, "m": 1 / 12, "w": 7 / 365.25, "d": 1 / 365.25}
_PARTS = {"early": (0, 3), "mid": (4, 6), "middle": (4, 6), "late": (7, 9), None: (0, 9)}
_TEENS = {"early": (13, 14), "mid": (15, 16), "middle": (15, 16), "late": (17, 19), None: (13, 19)}

_PART = r"early|mid|middle|late"
_UNIT = r"(?P<unit>years?|yrs?|y\.?/?o\.?|months?|mos?|weeks?|wks?|days?)\b"
_SPAN = re.compile(
    rf"(?:\b(?P<part>{_PART})[\s-]*(?:(?:to|or)[\s-]*(?P<part2>{_PART})[\s-]*)?)?"
    r"(?:\b(?P<decade>\d0)(?:'?s\b|[\s-]?something\b)|\b(?P<teens>teens|teenagers?|teenaged?)\b)"
    rf"|(?<![\w.])(?P<number>\d+(?:\.\d+)?)(?:[\s-]*{_UNIT}(?:[\s-]*olds?\b)?|(?![\w%]|\.\d))"
)
_FILLER = r"(?:(?:about|around|maybe|perhaps|possibly|her|his|their|the|in|ages?|of)\s+)*"
_JOINT = re.compile(rf"\s*(?P<joint>-|to\b|or\b|and\b|,|)\s*{_FILLER}")
_IS_AGE = re.compile(r"\bage[ds]?\W*(?:(?:is|of|about|around|approximately|roughly)\W*)*$")
_BETWEEN = re.compile(r"\b(?:between|from)\b[^.;]{0,30}$")
_BOUND = re.compile(
    r"(?<!just )(?<!little )(?<!slightly )"
    r"\b(?:over|above|under|below|at (?:least|most)|(?:more|less|older|younger) than)\s+"
    r"(?:the age of\s+)?$"
)
_BOUND_AFTER = re.compile(r"\s*(?:\+|(?:and|or) (?:older|younger|over|above|under|below|up)\b)")
# "2 people" is no age: a bare number counts at the end of a phrase.
_COUNTS_THINGS = re.compile(
    r"\s+(?!(?:or|and|at|in|maybe|perhaps|probably|i|but|based|with|as|give|though|if)\b)[a-z]"
)
_NEGATIVE = re.compile(r"(?:^|[:=(]\s*)-$")


@dataclass(frozen=True)
class ParsedAge:
    """What an answer says.

    Attributes:
        age_years: 0 to 100; NaN where it says no age.
        sigma_years: Spread of the answer, uncalibrated; NaN where it says no age.
        reason: None, or why there is no age, with the answer.
    """

    age_years: float
    sigma_years: float
    reason: str | None = None


@dataclass(frozen=True)
class _Span:
    """Years from `low` to `high`, in `unit` where the text names one, at `start:end` of it."""

    low: float
    high: float
    unit: str | None
    says_age: bool
    start: int
    end: int

    def in_years(self) -> tuple[float, float]:
        """Return both ends in years."""
        factor = _YEARS_IN[self.unit or "y"]
        return self.low * factor, self.high * factor


def parse_age(answer: str, finished: bool = True) -> ParsedAge:
    """Return the age that an answer gives.

    Args:
        answer: What was written.
        finished: Whether the network came to its end. Otherwise the last word, perhaps half a
            number, does not count.

    Returns:
        The middle of the span of years. The spread is `PRIOR_SIGMA_YEARS` and that of a uniform
        distribution over the span, added as variances: width^2 / 12.
    """
    text = _plain(answer)
    if not finished:
        text = text.rpartition(" ")[0]
    if not text:
        what = "no whole word" if answer.strip() else "nothing"
        return _missing(f"the network wrote {what}")
    text = digits_for_words(text)
    spans = _joined(_spans(text), text)
    if any(span.says_age for span in spans):
        spans = [span for span in spans if span.says_age]
    else:
        spans = [span for span in spans if not _COUNTS_THINGS.match(text, span.end)]
    quote = f": {_short(answer)!r}"
    if not spans:
        return _missing(f"no age in the answer{quote}")
    if len({span.in_years() for span in spans}) > 1:
        return _missing(f"several numbers in the answer{quote}")
    span = spans[0]
    if _is_bound(span, text):
        return _missing(f"a bound, not an age, in the answer{quote}")
    low, high = span.in_years()
    if high > MAX_AGE_YEARS or _NEGATIVE.search(text[: span.start]):
        return _missing(f"no age from 0 to 100 in the answer{quote}")
    sigma = math.sqrt(PRIOR_SIGMA_YEARS**2 + (high - low) ** 2 / 12)
    return ParsedAge((low + high) / 2, sigma)


def _plain(answer: str) -> str:
    text = re.sub(r"[‐-―−~]", "-", answer.lower()).replace("’", "'")
    return " ".join(re.sub(r"[*_`\"“”]", "", text).split())


def _spans(text: str) -> list[_Span]:
    spans = []
    for match in _SPAN.finditer(text):
        low, high, unit = _values(match)
        named = unit is not None or match["number"] is None
        says_age = named or _IS_AGE.search(text[: match.start()]) is not None
        spans.append(_Span(low, high, unit, says_age, *match.span()))
    return spans


def _values(match: re.Match[str]) -> tuple[float, float, str | None]:
    """Return both ends of a span, and the first letter of its unit."""
    if match["number"] is not None:
        value, unit = float(match["number"]), match["unit"]
        return value, value, None if unit is None else unit[0]
    first, last = match["part"], match["part2"] or match["part"]
    if match["teens"] is not None:
        return _TEENS[first][0], _TEENS[last][1], None
    decade = int(match["decade"])
    return decade + _PARTS[first][0], decade + _PARTS[last][1], None


def _joined(spans: list[_Span], text: str) -> list[_Span]:
    """Make one span of those that belong together."""
    joined: list[_Span] = []
    for span in spans:
        merged = _merge(joined[-1], span, text) if joined else None
        if merged is None:
            joined.append(span)
        else:
            joined[-1] = merged
    return joined


def _merge(first: _Span, second: _Span, text: str) -> _Span | None:
    """Return the span of "2 years and 6 months" or "30 to 35"; None where both stand alone."""
    match = _JOINT.fullmatch(text[first.end : second.start])
    if match is None:
        return None
    joint, place = match["joint"], {"start": first.start, "end": second.end}
    if first.unit == "y" and second.unit in ("m", "w", "d") and joint in ("and", ",", ""):
        rest = second.in_years()[0]
        return replace(first, low=first.low + rest, high=first.high + rest, says_age=True, **place)
    is_range = joint in ("-", "to", "or") or (
        joint == "and" and _BETWEEN.search(text[: first.start]) is not None
    )
    if not is_range:
        return None
    first = replace(first, unit=first.unit or second.unit)
    ends = sorted([*first.in_years(), *second.in_years()])
    return _Span(ends[0], ends[-1], "y", True, first.start, second.end)


def _is_bound(span: _Span, text: str) -> bool:
    before, after = text[: span.start], text[span.end :]
    return _BOUND.search(before) is not None or _BOUND_AFTER.match(after) is not None


def _short(answer: str) -> str:
    text = " ".join(answer.split())
    return text if len(text) <= _QUOTE_LENGTH else f"{text[: _QUOTE_LENGTH - 3]}..."


def _missing(reason: str) -> ParsedAge:
    return ParsedAge(math.nan, math.nan, reason)
