"""Captions from a small grammar of ages: no word of age survives, what else was said does."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from agetf_pipeline.captions.age_words import mentions_age, remove_age_words

NUMBERS = ("5", "34", "8", "80", "seven", "twenty", "thirty-four", "eighteen")
PARTS = ("", "early ", "mid-", "mid ", "late ", "very early ", "early to mid ")
DECADES = ("twenties", "thirties", "forties", "seventies", "30s", "60s")
ADJECTIVES = (
    "young", "elderly", "old", "older", "middle-aged", "teenage", "adult", "very old", "youthful",
    "aged", "senior", "young-looking",
)  # fmt: skip
NOUNS = ("man", "woman", "boy", "girl", "toddler", "child", "senior", "teenager", "baby", "person")
LOOKS = ("short brown hair", "glasses", "a beard", "an earring and red hair", "dark glasses")
AGE_TOKENS = re.compile(
    r"\b(young|elderly|old|older|middle|aged?|teen\w*|adult|youthful|senior|boy|girl|toddler|child"
    r"|baby|years?|\w+ties|\d+s?|seven|twenty|thirty|four|eighteen|early|mid|late)\b",
    re.IGNORECASE,
)


def _article(words: str) -> str:
    spoken_vowel = words[0].lower() in "aeiou" or words.startswith(("8", "eight", "18", "80"))
    return ("an " if spoken_vowel else "a ") + words


NUMBER = st.sampled_from(NUMBERS)
PHRASE = st.one_of(
    st.builds(
        lambda whose, part, decade: f"in {whose} {part}{decade}",
        st.sampled_from(("his", "her", "their")), st.sampled_from(PARTS), st.sampled_from(DECADES),
    ),
    st.builds(lambda number: f"aged {number}", NUMBER),
    st.builds(lambda number: f"aged about {number}", NUMBER),
    st.builds(lambda number: f"of about {number} years", NUMBER),
    st.builds(lambda number: f"who is {number} years old", NUMBER),
    st.builds(lambda number: f"who appears to be around {number} years old", NUMBER),
    st.builds(lambda number: f"at the age of {number}", NUMBER),
    st.builds(lambda low, high: f"aged between {low} and {high}", NUMBER, NUMBER),
    st.builds(
        lambda part, decade: f", possibly in their {part}{decade},",
        st.sampled_from(PARTS), st.sampled_from(DECADES),
    ),
    st.sampled_from(("in middle age", "in old age", "(aged 20-30)", "in her later years")),
)  # fmt: skip
SUBJECT = st.one_of(
    st.sampled_from(NOUNS),
    st.builds(
        lambda word, noun: f"{word} {noun}", st.sampled_from(ADJECTIVES), st.sampled_from(NOUNS)
    ),
    st.builds(lambda number, noun: f"{number}-year-old {noun}", NUMBER, st.sampled_from(NOUNS)),
    st.builds(lambda number: f"{number}-year-old", NUMBER),
)


@st.composite
def captions(draw: st.DrawFn) -> tuple[str, str]:
    """A caption with words of age, and what it says besides."""
    subject, looks = draw(SUBJECT), draw(st.sampled_from(LOOKS))
    phrase = draw(st.one_of(st.just(""), PHRASE))
    gap = "" if phrase.startswith(",") else " "
    text = f"{_article(subject)}{gap if phrase else ''}{phrase} with {looks}."
    if draw(st.booleans()):
        text += " " + draw(st.sampled_from(("He looks young.", "She is in her forties.")))
    return text[0].upper() + text[1:], looks


@settings(max_examples=400, deadline=None)
@given(captions())
def test_no_word_of_age_survives_and_everything_else_does(case: tuple[str, str]) -> None:
    text, looks = case
    cleaned = remove_age_words(text)
    assert not AGE_TOKENS.search(cleaned), (text, cleaned)
    assert not mentions_age(cleaned)
    assert cleaned.endswith(f"with {looks}."), (text, cleaned)
    assert re.match(r"A (?:man|woman|person|male person|female person)\b", cleaned), (text, cleaned)
    assert not re.search(r"\s{2,}|\s[.,]|,,|\x00|\ba [aeiou]|\ban [^aeiou]", cleaned), (
        text,
        cleaned,
    )
    assert remove_age_words(cleaned) == cleaned


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_is_survived_and_stays_clean(text: str) -> None:
    cleaned = remove_age_words(text)
    assert "\x00" not in cleaned or "\x00" in text
    assert remove_age_words(cleaned) == cleaned
