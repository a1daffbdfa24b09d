"""Taking words of age out of captions, so that a caption cannot tell training how old a face is.

What is decided here:
- Ages ("34 years old", "aged 45", "in her early thirties", "18+", "a man, 34, with ..."), words
  for them ("young", "elderly", "middle-aged", "past his prime", "Gen Z") and nouns that are ages
  ("toddler", "teenager", "senior") go.
- Nouns that are age and gender keep their gender: "boy" becomes "man", "grandmother" becomes
  "woman". A boy is no man, but whatever else stood there would be said of boys alone, and tell
  training that here is one. "Man", "woman" and the like stay, and here mean gender at any age. So
  do "mother", "father", "son" and "daughter", which are kin: sons have any age. Of "grandson" only
  the gender stays.
- "Student" stays, being an occupation as "teacher" is; "college", "high-school" and the like before
  it go, as do "pupil"-like words that name a grade ("first-grader"). "Little" goes before a child.
- Attributes stay even where they come with age ("grey hair", "wrinkles", "a receding hairline"):
  they are what the picture shows, not a word for an age. "Youthful", "childlike" and
  "baby-faced" are words for an age and go; of "age spots" the spots stay.
- Compounds that only sound of age stay: "old-fashioned hat", "baby blue eyes", "minor scars",
  "three-day-old stubble", "1980s style". In doubt a word goes: a lost adjective costs less than a
  leak, so "an old photograph" is "a photograph", and "years" are always years of age.
- Numbers that count or name something stay ("two earrings", "number 7", "5 o'clock").
- A clause that cannot be mended is dropped, and the sentence with it where the clause holds its
  subject. What is left of a caption never mentions age.

How ages are found stands in `age_phrases`, the words in `age_vocabulary` and `age_idioms`. This
file is the mending: rules over tags, as there.
"""

import itertools
import re

from agetf_pipeline.captions.age_phrases import (
    HARD,
    Token,
    fold,
    join_ages,
    may_mention_age,
    rewrite,
    spell,
    tokenize,
)

_MAX_PASSES = 6
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[.!?][\"')])\s+|(?<=[a-z][.!?])(?=[A-Z])|\n")
_NO_END = re.compile(
    r"\b(?:mr|mrs|ms|dr|st|approx|ca|c|yrs?|no|nos|vs|jr|sr|e\.g|i\.e|y\.o|fig|b|o\.a\.p)\.$",
    re.IGNORECASE,
)


def remove_age_words(caption: str) -> str:
    """Return a caption without words of age, still grammatical; empty where nothing else was said.

    A caption that mentions no age comes back as it is, but for white space.

    Args:
        caption: English text of any number of sentences.
    """
    text = caption
    for _ in range(_MAX_PASSES):
        sentences = _sentences(text)
        cleaned = [_clean_sentence(sentence) for sentence in sentences]
        if cleaned == sentences:
            return " ".join(text.split())
        text = " ".join(sentence for sentence in cleaned if sentence)
    return ""


def mentions_age(text: str) -> bool:
    """Whether a text holds a word of age."""
    return any(_tagged(sentence) for sentence in _sentences(text))


def find_age_words(text: str) -> list[str]:
    """Return the words and phrases of age in a text, in their order, as they are written there.

    Typographic signs and short forms ("34 y/o") come in their plain spelling ("34 years old").
    """
    return [
        token.text
        for sentence in _sentences(text)
        for token in _tagged(sentence)
        if token.tag in HARD
    ]


def _sentences(text: str) -> list[str]:
    sentences: list[str] = []
    for part in _SENTENCE_END.split(text):
        part = " ".join(part.split())
        if sentences and _NO_END.search(sentences[-1][-8:]):
            sentences[-1] += " " + part
        elif part:
            sentences.append(part)
    return sentences


def _tagged(sentence: str) -> list[Token]:
    """The tokens of a sentence, ages joined; empty where no age is mentioned."""
    folded = fold(sentence)
    if not may_mention_age(folded):
        return []
    tokens = join_ages(tokenize(folded))
    return tokens if any(token.tag in HARD for token in tokens) else []


def _clean_sentence(sentence: str) -> str:
    tokens = _tagged(sentence)
    if not tokens:
        return sentence
    tokens = rewrite(tokens, _MENDS)
    if _is_broken(tokens):
        tokens = _drop_clauses(tokens)
    if _is_broken(tokens) or _says_nothing(tokens):
        return ""
    text = _EMPTY_QUOTES.sub("", spell(_with_articles(tokens)))
    return text[0].upper() + text[1:] if not sentence[0].islower() else text


_EMPTY_QUOTES = re.compile(r"""(?<!\S)(?:""|''|'{4})\s?""")

# One age or several: "young", "in his forties or fifties", "old and, most likely, retired".
_AGE = r"(?:[Bl]{0,4}[XzQ])"
_AGES = rf"{_AGE}(?:(?:,?[o&2/-]?|,B,){_AGE}){{0,4}}"
_END = r"(?=$|[.,;:)&xWViLmSjCgaIo])"


def _nothing(run: list[Token]) -> list[Token]:
    return []


def _keep_first(run: list[Token]) -> list[Token]:
    return run[:1]


def _keep_last(run: list[Token]) -> list[Token]:
    return run[-1:]


def _to_has(run: list[Token]) -> list[Token]:
    """Make "is young, with a hat" into "has a hat"."""
    many = run[0].text.lower() in ("are", "were", "appear", "seem", "look")
    return [Token("have" if many else "has", "i", run[0].gap)]


def _owner_has(run: list[Token]) -> list[Token]:
    """Make "her wrinkles suggest that she is old" into "she has wrinkles"."""
    things = list(itertools.takewhile(lambda token: token.tag != "c", run))
    owner = {"his": "he has", "her": "she has", "their": "they have", "its": "it has"}
    for index, token in enumerate(things):
        if token.tag == "'":
            return [*things[:index], Token("has", "i", " "), *things[index + 1 :]]
    subject, verb = owner.get(things[0].text.lower(), "he has").split()
    return [Token(subject, "S", things[0].gap), Token(verb, "i", " "), *things[1:]]


def _plain_noun(run: list[Token]) -> list[Token]:
    token = run[-1]
    text = token.neutral or "person"
    if token.text.isupper() and len(token.text) > 1:
        text = text.upper()
    return [token._replace(text=text, tag="p", gap=run[0].gap, neutral="")]


def _relative(run: list[Token]) -> list[Token]:
    """Make "her grandson" into "her male relative"."""
    noun = run[-1]
    many = "s" if noun.neutral.endswith(("people", "men", "students")) else ""
    gender = {"w": "female ", "f": "female ", "m": "male "}.get(noun.neutral[:1], "")
    noun = noun._replace(neutral=f"{gender}relative{many}")
    return [*run[:-1], *_plain_noun([noun])]


def _adjective(run: list[Token]) -> list[Token]:
    """Drop adjectives of age with their adverbs; "pretty young" may have meant pretty."""
    return [token for token in run if token.text.lower() in ("pretty", "both", "either", "over")]


_MENDS = tuple(
    (re.compile(pattern), change)
    for pattern, change in (
        # "has a youthful look, red hair and ..." keeps the hair.
        (r"x(?:[TkK]?B{0,2}X+v)(?:,&|[,&])(?=[TKwfpu])", _keep_first),
        (r"[Vi](?:[Tk]?B{0,2}X+v)(?:,&|[,&])(?=[TKwfpu])", _keep_first),
        (r",?x[TkK]?B{0,2}(?:X[,&]?)+v" + _END, _nothing),
        (r"(?:,&|[,&])[TkK]?X+v(?=$|[.,;)])", _nothing),
        # "(aged 20-30)", ", who appears to be in his forties," and ", possibly in her thirties,"
        (rf"\(,?{_AGES}\)", _nothing),
        (rf",?WL{_AGES}(?:[&,]{{1,2}}(?=[ViL])|{_END},?)", _nothing),
        (rf",?j(?:2L)?{_AGES}{_END}", _nothing),
        (rf",(?:&|o)?{_AGES}(?:,(?=[&xWViLmSjCgaI])|(?=[.;)]|$)|(?=,))", _nothing),
        # "Her wrinkles suggest that she is in her seventies."
        (rf"^K[wfgl&,-]{{1,12}}c[WyST2kp]*L?{_AGES}(?=[.;]|$)", _owner_has),
        (rf"^[kT]w{{0,2}}[pf]'[wfgl&,-]{{1,12}}c[WyST2kp]*L?{_AGES}(?=[.;]|$)", _owner_has),
        (rf",?C[WyKkTSpw2]*(?:L)?[KkT]?{_AGES}{_END}", _nothing),
        (rf",?Wc[WyKkTSpw2]*(?:L)?[KkT]?{_AGES}{_END}", _nothing),
        (rf"^[SkKTpwfv]{{1,4}}L{_AGES}(?:,&|[,;:&])(?=[SKk])", _nothing),
        (rf"L{_AGES}(?:,?&|,)?(?=[Bl]{{0,3}}[LVi])", _nothing),
        (rf"[Li]{_AGES},?&?x", _to_has),
        (rf"[Li]{_AGES}W[^,.;]{{1,10}},x", _to_has),
        (r"(?<=[SpN])Q{1,3},?&(?=[Vi])", _nothing),
        (rf"L{_AGES}(?:,&|[,&])(?=B{{0,2}}[wglpTfI])", _keep_first),
        (rf"^{_AGES}[,:;]&?", _nothing),
        (rf"(?:,&|[,&]){_AGES}(?=[.;)]|$|,x)", _nothing),
        # Before a noun: "a young, tall man", "a tall, elderly man", "little girl"
        (rf"(?<=[TkKs]w),{_AGE}(?=[pNfw])|(?<=,w),{_AGE}(?=[pN])", _nothing),
        (rf"(?<=[TkKs]w)&{_AGE}(?=[pN])", _nothing),
        (r"(?:B{0,3}[XQ]-?(?:,&|[,&o2/])?)+(?=[wpNgfvXulT])", _adjective),
        (r"b+N", _keep_last),
        (r"K[w]?N", _relative),
        (r"N", _plain_noun),
        (rf"/{_AGES}(?=/)", _nothing),
        (rf"[,F]?{_AGES}", _nothing),
    )
)  # fmt: skip

_BROKEN = re.compile(
    rf"[{HARD}]|[LiTkKIFaxo&2mcC<>jyW](?=$|[.,;:!?)])|[Tk](?=[LViIFaxSTk])|[Ixa](?=[LVxI.&])"
    r"|^[ViLc2>]|^S[.,]|[(][)]|[,&]{3}|K(?=[LVxITk])|x&|L[LWx]|c(?=[LV])"
)
_CLAUSE = re.compile(r"[,;]&?|C|Wc|(?<=.)Wm?L|&(?=[SViL])")


def _is_broken(tokens: list[Token]) -> bool:
    """Whether age is left, or a word that has lost what it belongs to."""
    return _BROKEN.search("".join(token.tag for token in tokens)) is not None


def _drop_clauses(tokens: list[Token]) -> list[Token]:
    """Leave out the clauses that are broken; all of them where the first has to go."""
    tags = "".join(token.tag for token in tokens)
    end = tokens[-1:] if tags.endswith(".") else []
    body = tags[: len(tags) - len(end)]
    starts = [0, *(match.start() for match in _CLAUSE.finditer(body)), len(body)]
    kept: list[Token] = []
    for start, stop in itertools.pairwise(starts):
        clause = tokens[start:stop]
        if start == 0 or kept:
            if not _is_broken(clause[1:] if clause and clause[0].tag in ",;&" else clause):
                kept += clause
        else:
            rest = list(itertools.dropwhile(lambda token: token.tag in ",;&", clause))
            if rest and rest[0].tag in "SkKTps" and not _is_broken(rest):
                kept += [rest[0]._replace(gap=""), *rest[1:]]
    finite = re.search("[LViS]", "".join(token.tag for token in kept))
    if not kept or ((kept[0].tag in "aIxFygs" or kept[0].text in _OPENERS) and not finite):
        return []
    return kept + end


_OPENERS = ("Based", "Judging", "Judged", "Given", "According")


_FILLER = ("person", "people", "subject", "individual")
_NOTHING = re.compile(r"(?:[SkTKHps,]|w(?=L)){0,3}(?:L[TBy]?p?)?[.,:]*|[TkSKBl&,.:i]*")


def _says_nothing(tokens: list[Token]) -> bool:
    """Whether more is left than a subject with a verb that has lost its object."""
    tags = "".join(token.tag for token in tokens)
    if not any(char.isalnum() for token in tokens for char in token.text):
        return True
    if tags and tags[0] == "S" and tokens[0].text.lower() == "i":
        return True
    if "L" not in tags and "p" in tags:
        return False
    gendered = any(t.tag == "p" and t.text.lower() not in _FILLER for t in tokens)
    return not gendered and _NOTHING.fullmatch(tags) is not None


def _with_articles(tokens: list[Token]) -> list[Token]:
    """Let "a" and "an" agree with what follows now; close gaps before signs."""
    out = list(tokens)
    for index, token in enumerate(out):
        if token.tag in ".,;:)" and token.text != "—":
            out[index] = token = token._replace(gap="")
        if (
            index
            and not token.gap
            and token.text[0].isalpha()
            and out[index - 1].text[-1].isalpha()
        ):
            out[index] = token = token._replace(gap=" ")
        if token.tag == "T" and index + 1 < len(out):
            word = out[index + 1].text.lower()
            vowel = _VOWEL.match(word) is not None
            article = token.text[0] + (("N" if token.text[1:].isupper() else "n") if vowel else "")
            out[index] = token._replace(text=article)
            out[index + 1] = out[index + 1]._replace(gap=" ")
    return out


_VOWEL = re.compile(r"(?!uni(?!n)|use|eu|one|ut|ubiq)[aeiou]|hour|hono|heir|8|11\b|18\b")
