"""Captions from a grammar of ages: no word of age survives, what else was said does."""

import re

import pytest
from age_grammar import GENDER, Case, Grammar, plain
from age_oracle import BROKEN, FORBIDDEN
from hypothesis import given, settings
from hypothesis import strategies as st

from agetf_pipeline.captions.age_words import find_age_words, mentions_age, remove_age_words

NUM_CAPTIONS = 10_000
KEPT_NUMBERS = re.compile(r"number 7 shirt|5 o'clock|3 piercings|1980s style")


def _complaints(case: Case, cleaned: str) -> list[str]:
    """What is wrong with a cleaned caption; the filter's own vocabulary has no say in it."""
    said = plain(cleaned)
    found = [f"word of age: {match[0]}" for match in FORBIDDEN.finditer(said)]
    rest = KEPT_NUMBERS.sub("", said)
    found += [f"number: {n}" for n in case.numbers if re.search(rf"\b{n}\b", rest)]
    found += [f"{name}: {m[0]}" for pattern, name in BROKEN for m in pattern.finditer(cleaned)]
    return found


def _lost(case: Case, cleaned: str) -> int:
    said = plain(cleaned)
    return sum(attribute.lower() not in said for attribute in case.attributes)


@pytest.fixture(scope="module")
def cleaned_captions() -> list[tuple[Case, str]]:
    grammar = Grammar(seed=0)
    cases = [grammar.case() for _ in range(NUM_CAPTIONS)]
    return [(case, remove_age_words(case.text)) for case in cases]


def test_no_word_of_age_survives_in_ten_thousand_captions(
    cleaned_captions: list[tuple[Case, str]],
) -> None:
    assert len({case.text for case, _ in cleaned_captions}) > 0.97 * NUM_CAPTIONS
    wrong = [(case.text, cleaned, complaints) for case, cleaned in cleaned_captions
             if (complaints := _complaints(case, cleaned))]  # fmt: skip
    assert not wrong, (len(wrong), wrong[:5])


def test_what_else_the_captions_say_survives(cleaned_captions: list[tuple[Case, str]]) -> None:
    num_named = sum(len(case.attributes) for case, _ in cleaned_captions)
    num_lost = sum(_lost(case, cleaned) for case, cleaned in cleaned_captions)
    lost_all = [case.text for case, cleaned in cleaned_captions
                if _lost(case, cleaned) == len(case.attributes)]  # fmt: skip
    assert num_lost < 0.002 * num_named, (num_lost, num_named)
    assert len(lost_all) < 0.002 * NUM_CAPTIONS, lost_all[:5]
    lost_gender = [(case.text, cleaned) for case, cleaned in cleaned_captions
                   if GENDER[case.gender].search(case.text)
                   and not GENDER[case.gender].search(cleaned)]  # fmt: skip
    assert len(lost_gender) < 0.002 * NUM_CAPTIONS, lost_gender[:5]


def test_a_clean_caption_stays_as_it_is(cleaned_captions: list[tuple[Case, str]]) -> None:
    for case, cleaned in cleaned_captions:
        assert remove_age_words(cleaned) == cleaned, case.text
        assert find_age_words(cleaned) == [], case.text


def test_what_was_found_is_why_a_caption_changed(
    cleaned_captions: list[tuple[Case, str]],
) -> None:
    for case, cleaned in cleaned_captions[:2000]:
        changed = cleaned != " ".join(case.text.split())
        assert mentions_age(case.text) == changed == bool(find_age_words(case.text)), case.text


@settings(max_examples=300, deadline=None)
@given(st.integers(min_value=0, max_value=2**32))
def test_captions_of_any_seed(seed: int) -> None:
    case = Grammar(seed).case()
    cleaned = remove_age_words(case.text)
    assert not _complaints(case, cleaned), (case.text, cleaned)
    assert not mentions_age(cleaned)
    assert remove_age_words(cleaned) == cleaned


PIECES = st.sampled_from((
    "young", "old", "34", "year", "years", "-", "–", ",", ".", "and", "or", "to", "in", "his", "of",
    "aged", "age", "a", "an", "the", "about", "thirty", "forties", "boy", "baby", "teen", "is",
    "looks", "like", "who", "with", "hat", "man", "(", ")", "'s", "he", "suggests", "that", "than",
    "very", "mid", "late", "two", "hundred", "month", ";", ":", "\n", "A", "+", "ish", "has",
))  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=60), st.sampled_from((" ", "")))
def test_salad_of_words_of_age_is_cleaned(words: list[str], gap: str) -> None:
    cleaned = remove_age_words(gap.join(words))
    assert not mentions_age(cleaned)
    assert remove_age_words(cleaned) == cleaned
    assert gap == "" or not re.search(
        r"\b(?:young|old|aged?|forties|boy|baby|teen)\b(?!-)", cleaned
    ), cleaned


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=400) | st.text(alphabet="a0 -.,'\n", min_size=1000, max_size=4000))
def test_any_text_is_survived_and_stays_clean(text: str) -> None:
    cleaned = remove_age_words(text)
    assert remove_age_words(cleaned) == cleaned
    assert not mentions_age(cleaned)


@pytest.mark.parametrize(
    "piece",
    ["34 ", "old-", "great-", "in his ", "is likely to be ", "7,", "young, ", " ", "(", "a"],
)
def test_long_texts_are_survived(piece: str) -> None:
    text = piece * (20_000 // len(piece))
    assert not mentions_age(remove_age_words(text))
