import math

import pytest

from agetf_pipeline.experts.free_text import PRIOR_SIGMA_YEARS, parse_age
from agetf_pipeline.experts.free_text_numbers import digits_for_words


@pytest.mark.parametrize(
    ("answer", "age_years"),
    [
        ("34", 34),
        (" 34.", 34),
        ("**34**", 34),
        ("34 years old", 34),
        ("34-year-old", 34),
        ("34yo", 34),
        ("The person is 34 years old, born in 1985.", 34),
        ("Age: 34 (confidence 90%)", 34),
        ("He was aged about 34 on this, his 2nd photograph", 34),
        ("The one in image 1 is 34", 34),
        ("thirty-four", 34),
        ("Thirty four years old.", 34),
        ("a thirty-five-year-old man", 35),
        ("around 45 or so", 45),
        ("just over 30", 30),
        ("one", 1),
        ("a one-year-old", 1),
        ("A year old.", 1),
        ("nineteen", 19),
        ("a hundred", 100),
        ("0", 0),
        ("about 2 years", 2),
        ("2.5 years", 2.5),
        ("two and a half years", 2.5),
        ("2 years and 6 months", 2.5),
        ("7 years, 3 months", 7.25),
        ("6 months", 0.5),
        ("18 months old", 1.5),
        ("3 weeks old", 21 / 365.25),
        ("10 days", 10 / 365.25),
        ("half a year", 0.5),
    ],
)
def test_one_age_with_the_assumed_spread(answer: str, age_years: float):
    parsed = parse_age(answer)
    assert parsed.reason is None
    assert parsed.age_years == pytest.approx(age_years)
    assert parsed.sigma_years == PRIOR_SIGMA_YEARS


@pytest.mark.parametrize(
    ("answer", "low", "high"),
    [
        ("30-35", 30, 35),
        ("30 – 35 years", 30, 35),
        ("35-30", 30, 35),
        ("30 to 35", 30, 35),
        ("30 or 35", 30, 35),
        ("between 30 and 35", 30, 35),
        ("somewhere between the ages of thirty and thirty-five", 30, 35),
        ("thirty-forty", 30, 40),
        ("in the 25-30 range, perhaps 28", 25, 30),
        ("6-9 months", 0.5, 0.75),
        ("6 months to 2 years", 0.5, 2),
        ("in her mid-30s", 34, 36),
        ("early 20s", 20, 23),
        ("late twenties", 27, 29),
        ("in his forties", 40, 49),
        ("thirty-something", 30, 39),
        ("early to mid 30s", 30, 36),
        ("late 20s to early 30s", 27, 33),
        ("20s or 30s", 20, 39),
        ("a teenager", 13, 19),
        ("late teens", 17, 19),
    ],
)
def test_a_range_widens_the_spread(answer: str, low: float, high: float):
    parsed = parse_age(answer)
    assert parsed.reason is None
    assert parsed.age_years == pytest.approx((low + high) / 2)
    variance = PRIOR_SIGMA_YEARS**2 + (high - low) ** 2 / 12
    assert parsed.sigma_years == pytest.approx(math.sqrt(variance))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "wrote nothing"),
        ("  ", "wrote nothing"),
        ("unknown", "no age in the answer: 'unknown'"),
        ("I cannot determine the age of this person.", "no age in the answer: 'I cannot"),
        ("There are 2 people in this picture", "no age"),
        ("512x512", "no age"),
        ("a few weeks", "no age"),
        ("No one is in the picture.", "no age"),
        ("150", "from 0 to 100"),
        ("I was trained in 2023", "from 0 to 100"),
        ("95-105", "from 0 to 100"),
        ("one hundred and two", "from 0 to 100"),
        ("-1", "from 0 to 100"),
        ("Answer: -1", "from 0 to 100"),
        ("34, 36", "several numbers"),
        ("two people, 34 and 36", "several numbers"),
        ("over 60", "a bound"),
        ("60 or older", "a bound"),
        ("18+", "a bound"),
        ("at least 18 years old", "a bound"),
    ],
)
def test_no_age_is_a_missing_value_that_quotes_the_answer(answer: str, reason: str):
    parsed = parse_age(answer)
    assert math.isnan(parsed.age_years)
    assert math.isnan(parsed.sigma_years)
    assert parsed.reason is not None
    assert reason in parsed.reason


def test_a_long_answer_is_quoted_in_part():
    reason = parse_age("I am sorry, but " * 50).reason
    assert reason is not None
    assert "I am sorry" in reason
    assert len(reason) < 100


def test_the_last_word_of_an_unfinished_answer_does_not_count():
    assert parse_age("34 years and 1", finished=False).age_years == 34
    # "10" may have been going to be "100".
    assert parse_age("10", finished=False).reason == "the network wrote no whole word"
    assert math.isnan(parse_age("She is 3", finished=False).age_years)


@pytest.mark.parametrize("age", range(101))
def test_every_age_is_read_in_digits_and_words(age: int):
    assert parse_age(str(age)).age_years == age
    assert parse_age(f"She looks {age} years old.").age_years == age
    assert parse_age(_spelled(age)).age_years == age


_SMALL = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def _spelled(age: int) -> str:
    if age < 20:
        return _SMALL[age]
    if age == 100:
        return "one hundred"
    tens = _TENS[age // 10 - 2]
    return tens if age % 10 == 0 else f"{tens}-{_SMALL[age % 10]}"


def test_number_words_become_digits_and_pronouns_stay():
    assert digits_for_words("twenty one, forty-two and the fifties") == "21, 42 and the 50s"
    assert (
        digits_for_words("the one on the left, no one else") == "the one on the left, no one else"
    )
    assert digits_for_words("often seven or eight") == "often 7 or 8"
