"""Taking words of age out of captions, so that a caption cannot tell training how old a face is.

What is decided here:
- Ages ("34 years old", "aged 45", "in her early thirties"), words for them ("young", "elderly",
  "middle-aged") and nouns that are ages ("toddler", "teenager", "senior") go.
- Nouns that are age and gender keep their gender: "boy" becomes "male person", "grandmother"
  becomes "woman". "Man", "woman" and the like stay: they are gender, and cover eighty years.
- Attributes stay even where they come with age ("grey hair", "wrinkles"): they are what the
  picture shows, not a word for an age.
- A sentence that still speaks of age after all that is dropped whole.
"""

import re

_DECADE = (
    r"(?:teens|tens|twenties|thirties|forties|fourties|fifties|sixties|seventies|eighties|nineties"
    r"|[1-9]?0['’]?s)"
)
_UNIT = r"(?:one|two|three|four|five|six|seven|eight|nine)"
_TENS = r"(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)"
_NUMBER = (
    rf"(?:\d{{1,3}}|{_TENS}(?:[- ]{_UNIT})?|{_UNIT}|ten|eleven|twelve|(?:thir|four|fif|six|seven"
    r"|eigh|nine)teen|(?:a|one) hundred)"
)
_ABOUT = (
    r"(?:(?:approximately|about|around|roughly|probably|likely|perhaps|maybe|possibly|somewhere"
    r"|apparently|clearly|quite|rather|fairly|very|relatively|still|just|nearly|almost|over|under"
    r"|only|estimated|at least)\s+)*"
)
_RANGE = rf"(?:between\s+)?{_NUMBER}(?:\s*(?:-|–|to|or|and)\s*{_NUMBER})?"
_YEARS = r"(?:years?|yrs?|months?|weeks?|days?)"
_PART = r"(?:(?:very\s+)?(?:early|mid|middle|late|later|upper|lower)(?:\s+|-))?"
_PART_RANGE = rf"{_PART}(?:(?:to|or|and)(?:\s+|-){_PART})?"
_TIME_OF_LIFE = (
    r"(?:middle[- ]age|old age|youth|prime(?: of life)?|childhood|infancy|adolescence|adulthood"
    r"|boyhood|girlhood|(?:golden|twilight|later|senior|teenage|teen|elderly|formative|young) years"
    r"|teenage|puberty)"
)

# "in her early to mid thirties", "aged around 45", "34 years old", "at the age of 40"
_PHRASE = (
    rf"(?:{_ABOUT}(?:"
    rf"in\s+(?:(?:his|her|their|its|the|early)\s+)?{_ABOUT}{_PART_RANGE}{_DECADE}"
    rf"(?:\s*(?:to|or|and|-)\s*{_PART}{_DECADE})?"
    rf"|in\s+(?:(?:his|her|their|its|the)\s+)?{_PART}{_TIME_OF_LIFE}"
    rf"|(?:at|of|with)\s+(?:the\s+|an?\s+)?(?:(?:advanced|tender|young|old|ripe|middle)\s+)*age"
    rf"(?:\s+(?:of\s+)?{_ABOUT}{_RANGE}(?:\s+{_YEARS})?)?"
    rf"|aged?\s+(?:of\s+)?{_ABOUT}{_RANGE}(?:\s+{_YEARS}(?:\s+old)?)?"
    rf"|(?:of\s+)?{_RANGE}[- ]{_YEARS}[- ](?:old|of\s+age)s?"
    rf"|(?:of\s+)?{_RANGE}\s+{_YEARS}(?=\s*[.,;]|\s*$)"
    rf"))"
)

_ADJECTIVE = (
    r"(?:(?:very|quite|rather|fairly|relatively|extremely|visibly|slightly|somewhat|still)\s+)?"
    r"(?:\w+-aged|middle[- ]aged?|(?:young|old|older|younger|youthful|mature)-looking|youngish"
    r"|oldish|youthful|younger|youngest|young|older|oldest|old|elderly|elder|aged|ageing|aging"
    r"|ageless|senior|teenaged?|teen|adolescent|juvenile|mature|adult|pre-?teen|retired|grown-?up"
    r"|full-grown|fully[- ]grown|newly[- ]born|new-?born|infant|baby|toddler|child-?like|childish"
    r"|boyish|girlish|baby-faced|matronly|grandmotherly|grandfatherly|prepubescent|pubescent)"
)

_NOUNS = {
    "person": (
        r"senior citizen|senior|elder|oldster|pensioner|retiree|old-timer|adult|grown-?up|teenager"
        r"|teen|pre-?teen|tween|adolescent|youth|youngster|young one|juvenile|kid|toddler|infant"
        r"|newborn|baby|preschooler|schoolkid|(?:sexa|septua|octo|nona)genarian|centenarian"
    ),
    "male person": r"boy|schoolboy|lad",
    "female person": r"girl|schoolgirl|lass",
    "woman": r"grandmother|grandma|granny",
    "man": r"grandfather|grandpa|granddad",
}
_PLURALS = {
    "person": "people",
    "male person": "male people",
    "female person": "female people",
    "woman": "women",
    "man": "men",
}

_LINK = (
    r"(?:appears?|appeared|seems?|looks?|looked|is|was|are|were|appearing|seeming|looking|being"
    r"|estimated)(?:\s+(?:to\s+be|like|as\s+if))?"
)
_AGE = rf"(?:{_PHRASE}|{_ABOUT}{_ADJECTIVE})"
_BARE_NUMBER = rf"(?:{_ABOUT}{_RANGE})"
_STOP = r"(?=\s*(?:[.,;!]|$)|\s+(?:and|with|who|wearing|but|has)\b)"
_NOT_A_NOUN = "with|without|and|or|who|that|in|at|of|on|aged?|is|has|wearing|possibly|probably"
_MARK = "\x00"  # where words were taken out

_LEFT = re.compile(
    rf"\b(?:ages?|aged|ageing|aging|{_YEARS}\s+old|year-old|young\w*|old|older|elderly|{_DECADE}"
    r"|teen\w*|toddler|infant|baby|babies|child\w*|adult\w*|adolescen\w*)\b(?!-)",
    re.IGNORECASE,
)


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_REWRITES: tuple[tuple[re.Pattern[str], str], ...] = (
    # ", who appears to be in his forties," and ", possibly in her thirties,"
    (_compile(rf",\s*(?:(?:who|that)\s+)?{_LINK}\s+(?:{_AGE}|{_BARE_NUMBER}){_STOP},?"), _MARK),
    (_compile(rf"\s+(?:who|that)\s+{_LINK}\s+(?:{_AGE}|{_BARE_NUMBER}){_STOP}"), _MARK),
    (_compile(rf"\s+(?:appearing|seeming|looking)(?:\s+to\s+be)?\s+{_AGE}{_STOP}"), _MARK),
    # "is elderly and has ..." keeps the second verb; "is old, with ..." the rest
    (_compile(rf"\s+{_LINK}\s+{_AGE}\s+(?:and|but)\s+(?=(?:has|have|wears?|is|are|smiles?)\b)"),
     " "),
    (_compile(rf"\s+{_LINK}\s+(?:{_AGE}|{_BARE_NUMBER})\s*,?\s+(?=with\b)"), " has " + _MARK),
    # "34-year-old man": the phrase stands before its noun
    (_compile(rf"\b{_ABOUT}{_RANGE}[- ]{_YEARS}[- ]olds?\s+(?=[a-z])(?!(?:{_NOT_A_NOUN})\b)"),
     _MARK),
    # "a ten-year-old" is a noun
    (_compile(rf"(?<=\ban )({_RANGE}-{_YEARS}-old)\b|(?<=\ba )({_RANGE}-{_YEARS}-old)\b"),
     _MARK + "person"),
    (_compile(rf"\b{_RANGE}-{_YEARS}-olds\b"), _MARK + "people"),
    (_compile(rf"\s+of\s+{_ABOUT}{_RANGE}\s+{_YEARS}\b(?:\s+(?:old|of\s+age))?"), _MARK),
    (_compile(rf"(?:(?<=\bhe)|(?<=\bshe))\s+{_LINK}\s+{_BARE_NUMBER}(?=\s*[.!]|\s*$)"), _MARK),
    (_compile(rf"\s*\(\s*{_AGE}\s*\)"), _MARK),
    (_compile(rf",\s*{_PHRASE}\s*,"), _MARK),
    (_compile(rf"(?:,\s*|\s+|\b){_PHRASE}(?=\W|$)"), _MARK),
)  # fmt: skip


def remove_age_words(caption: str) -> str:
    """Return a caption without words of age, still grammatical; empty where nothing else was said.

    Args:
        caption: English text of any number of sentences.
    """
    sentences = re.split(r"(?<=[.!?])\s+", " ".join(caption.split()))
    cleaned = (_clean_sentence(sentence) for sentence in sentences if sentence)
    return " ".join(sentence for sentence in cleaned if sentence)


def mentions_age(text: str) -> bool:
    """Whether a text still holds a word of age."""
    return _LEFT.search(text) is not None


def _clean_sentence(sentence: str) -> str:
    text = sentence
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = _drop_adjectives(_replace_nouns(text))
    if text == sentence and not mentions_age(text):
        return sentence
    text = _tidy(text)
    if mentions_age(text) or not _says_something(text):
        return ""
    return text[0].upper() + text[1:] if sentence[0].isupper() else text


def _replace_nouns(text: str) -> str:
    for neutral, pattern in _NOUNS.items():
        # Only heads of noun phrases: "baby blue" and "senior manager" are adjectives.
        head = r"(?![-'’\w])(?=\s*(?:[.,;:!?\x00]|$)|\s+(?:" + _AFTER_NOUN + r")\b)"
        plural = pattern.replace("baby", "babie")
        text = _compile(rf"\b(?:{plural})s{head}").sub(_MARK + _PLURALS[neutral], text)
        text = _compile(rf"\b(?:{pattern}){head}").sub(_MARK + neutral, text)
        if neutral == "person":
            text = _compile(rf"\bchildren{head}").sub(_MARK + "people", text)
            text = _compile(rf"\bchild{head}").sub(_MARK + neutral, text)
    return text


_AFTER_NOUN = (
    r"with|without|in|on|at|of|from|by|who|whose|that|is|are|was|has|have|had|wearing|wears?|and|or"
    r"|smil\w+|look\w*|star\w+|fac\w+|sitting|sits|standing|stands|holding|holds|against|under|near"
    r"|appear\w*|seems?|gaz\w+|posing|poses|laugh\w+|to|for|next|outdoors|indoors"
)


def _drop_adjectives(text: str) -> str:
    # A list of two adjectives loses its comma or "and" with the first of them.
    joined = _compile(rf"\b{_ADJECTIVE}(?:\s*,\s*|\s+and\s+|\s+to\s+)(?={_ADJECTIVE}\b)")
    text = joined.sub(_MARK, text)
    return _compile(rf"\b{_ADJECTIVE}(?![-'’\w])\s*(?:,\s*(?=[a-z]+\s+[a-z]+))?").sub(_MARK, text)


def _tidy(text: str) -> str:
    """Close the gaps: articles agree with what follows, no stray spaces, commas and joints."""
    article = re.compile(rf"\b(a)n?(?=\s*{_MARK})[\s{_MARK}]*(?=([a-z]))", re.IGNORECASE)
    text = article.sub(lambda m: m[1] + ("n " if m[2].lower() in "aeiou" else " "), text)
    text = re.sub(rf"\s*{_MARK}[\s{_MARK}]*", " ", text)
    text = re.sub(r"\s+([.,;:!?])", r"\1", text)
    text = re.sub(r"([,;])\s*(?=[.,;!?])", "", text)
    text = re.sub(r",?\s+(?:and|or|but|who|that)(?=\s*[.!?]|\s*$)", "", text)
    text = re.sub(r"\b(?:and|with)\s+(?=and\b)", "", text)
    text = re.sub(r"^[\s,;]*(?:and\s+|but\s+)?", "", text)
    return re.sub(r"\s{2,}", " ", text).strip()


def _says_something(text: str) -> bool:
    """Whether more is left than a subject with a verb that has lost its object."""
    bare = re.sub(r"[.!?,;]", "", text).strip().lower()
    if not bare:
        return False
    subject = r"(?:he|she|it|they|(?:the|this|that|a|an) (?:\w+ )?\w+)"
    return re.fullmatch(rf"{subject} {_LINK}(?: {_ABOUT.rstrip('*')}*)?", bare) is None and (
        re.fullmatch(r"(?:he|she|it|they|his|her|their)", bare) is None
    )
