"""Finding ages in English: a sentence becomes tokens with one-letter tags, and rules over the
string of tags join the tokens of an age into one.

The letters are explained in `age_vocabulary`. A rule sees "she is about 34 years old" as "SLB#YO"
and makes "SLQ" of it, so that a rule is short and its time grows with the length of the text.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple

from agetf_pipeline.captions.age_idioms import IDIOM_WORDS, TOKEN
from agetf_pipeline.captions.age_vocabulary import STAND_IN, TAGS

HARD = "AGDOUQRXYZNz"
"""Tags of words that always are words of age."""


class Token(NamedTuple):
    """A word, a sign or a phrase: its text, tag, the space before it and a noun's stand-in."""

    text: str
    tag: str
    gap: str
    neutral: str = ""


_TRIGGERS = frozenset(
    [
        *(word for word, tag in TAGS.items() if tag in HARD + "Dutehr"),
        *IDIOM_WORDS.split(),
        *"0123456789",
    ]
)
_WORDS = re.compile(r"[a-z]+|\d")
_ENDINGS = re.compile(
    r"(?P<N>\w+genarians|(?:pre|step)?grand(?:kid|son|daughter|child|parent|m|p)\w*)"
    r"|(?P<Z>\w+genarian|(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)\w+)"
    r"|(?P<l>(?!(?:cur|bur|fami|bel|jel|friend|surly|ug|love|live|like|wool|sil|hol|sto|ho)ly)\w+ly)"
    r"|(?P<g>(?!cloth|ear|r?ing$|k?ing$|w?ing$|str?ing$|noth|some|any|ever)\w{2,}ing)"
)


def fold(text: str) -> str:
    """Write typographic signs, full-width digits and short forms of "years old" the plain way."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(_PLAIN))
        text = _DASH.sub("-", text)
    if _HAS_SHORT_FORM.search(text):
        for pattern, plain in _SHORT_FORMS:
            text = pattern.sub(plain, text)
    return text


_PLAIN = str.maketrans(
    {"’": "'", "‘": "'", "ʼ": "'", "´": "'", "‐": "-", "‑": "-", "−": "-", "“": '"', "”": '"'}
    | {"İ": "I"}
    | dict.fromkeys("½¼¾⅓⅔\u00ad\u200b\u200c\u200d\u2060\ufeff", "")
)
_DASH = re.compile(r"(?<=[^\W_])–(?=[\w\s])|(?<=[^\W_]) –(?=\w)|(?<=\d)\s?[–—]\s?(?=\d)")
_HAS_SHORT_FORM = re.compile(r"[\d*_`]|olds?\b", re.IGNORECASE)
_SHORT_FORMS = tuple(
    (re.compile(pattern, re.IGNORECASE), plain)
    for pattern, plain in (
        (r"(?<=\d)(\s*-?\s*)(?:y\s?/\s?o|y\.\s?o\b\.?|yo)(?![\w])", " years old"),
        (r"(?<=\d)\s?-?(?:yrs?|y)\.?(?=[\s-]+old\b)", " years"),
        (r"(?<=\d)\s?(?:yrs?\.|y\.(?=\s?[,a-z])|y)(?=\s|[.,;)]|$)", " years"),
        (r"(?<=[\d\w])\s?-?(years?|months?|weeks?)-?(olds?)\b", r"-\1-\2"),
        (r"\bb/w\b", "between"),
        (r"\b(?:approx|ca|c)\.\s?(?=\d)", "about "),
        (r"[*`]+|(?<!\w)_+|_+(?!\w)", ""),
        (r"(?<=\d)(?:m|f)\b(?=\s*[,.)])|\b(?:m|f)(?=\d\d\b)", ""),
    )
)


def may_mention_age(text: str) -> bool:
    """Whether a folded text has any word or digit with which an age can be said: quick and wide."""
    return not _TRIGGERS.isdisjoint(_WORDS.findall(text.lower())) or (
        "genarian" in text or "grand" in text
    )


def tokenize(text: str) -> list[Token]:
    """Cut a folded sentence into tagged tokens; their gaps and texts make the sentence again."""
    tokens, end = [], 0
    for match in TOKEN.finditer(text.lower()):
        kind = match.lastgroup or ""
        start, stop = match.span(kind)
        gap, word, lower = text[end:start], text[start:stop], match[kind]
        end = stop
        if kind in ("word", "other", "count"):
            tag = TAGS.get(lower) or _by_ending(lower)
        elif kind == "number":
            tag = "d" if _is_age(word) else "w"
        else:
            tag = "w" if kind in ("kept", "sign") else kind
        if lower == "'s" and tokens and tokens[-1].tag in "SWH":
            tag = "L"
        elif lower in ("look", "looks") and tokens and tokens[-1].tag in "XTKZG":
            tag = "v"
        elif lower in _TAKEN_FOR and tokens and tokens[-1].tag in "pN,":
            tag = "j"
        elif lower == "youth" and tokens and tokens[-1].tag == "K":
            tag = "R"
        tokens.append(Token(word, tag, gap, _stand_in(lower) if tag in "NZ" else ""))
    return tokens


_TAKEN_FOR = ("estimated", "guessed", "thought", "believed", "assumed", "judged", "said")


def _by_ending(word: str) -> str:
    match = _ENDINGS.fullmatch(word)
    return "w" if match is None else match.lastgroup or "w"


def _is_age(number: str) -> bool:
    return number.replace(".", "", 1).isdecimal() and float(number) <= 130


def _stand_in(noun: str) -> str:
    """Return the word that keeps a noun's gender and number, and leaves its age out."""
    found = STAND_IN.get(noun)
    if found is None:
        female = re.search(r"girl|daughter|m[oa]|nan", noun)
        male = re.search(r"boy|son\b|sons\b|pa|father|dad", noun)
        many = noun.endswith(("s", "children"))
        found = "woman" if female else "man" if male else "person"
        if many:
            found = found.replace("person", "people").replace("man", "men")
    return found


Change = Callable[[list[Token]], list[Token]]


def rewrite(tokens: list[Token], rules: Sequence[tuple[re.Pattern[str], Change]]) -> list[Token]:
    """Change, rule by rule, the runs of tokens whose tags match the rule's pattern."""
    tags = "".join([token.tag for token in tokens])
    for pattern, change in rules:
        first = pattern.search(tags)
        if first is None:
            continue
        out: list[Token] = []
        last = 0
        for match in pattern.finditer(tags, first.start()):
            start, stop = match.span()
            if stop > start:
                out += tokens[last:start]
                out += change(tokens[start:stop])
                last = stop
        tokens = out + tokens[last:]
        tags = "".join([token.tag for token in tokens])
    return tokens


def spell(tokens: list[Token]) -> str:
    """Join tokens into a text that begins with its first word."""
    return "".join(token.gap + token.text for token in tokens).strip()


_NUMBER = r"(?:[#u])"
_PARTS = r"(?:[PB]-?(?:[2o&/-]-?)?){0,6}"
_STOP = r"(?=$|[.,;:)/xWgILViSBmCcojy&-]|Q)"
_DECADE = rf"{_PARTS}(?:{_NUMBER}[2o-])?D"


def _compiled(pattern: str) -> re.Pattern[str]:
    """Compile a rule; runs of hedges are bounded, so that no text takes more than linear time."""
    return re.compile(pattern.replace("B*", "B{0,4}").replace("[Bl]*", "[Bl]{0,4}"))


def _joiner(tag: str) -> Change:
    def join(run: list[Token]) -> list[Token]:
        text = spell(run)
        neutral = run[0].neutral
        if tag in "zUXZ":
            neutral = "people" if tag == "U" or text.lower().endswith("somethings") else "person"
        return [Token(text, "N" if tag == "U" else tag, run[0].gap, neutral)]

    return join


# Each rule joins the tokens that it matches into one with the tag behind it; their order matters.
_JOINS: tuple[tuple[re.Pattern[str], Change], ...] = tuple(
    (_compiled(pattern), _joiner(tag))
    for pattern, tag in (
        (r"K[o/&]K", "K"),
        (r"d|t-?u|t|e|(?:u|T(?!h-))?h(?:&?(?:t-?u?|[ued]))?", "#"),
        (r"#(?:(?:-|2|o|/|-2-?)B*[#u])+|u(?:(?:-|2|o|/|-2-?)B*#)|<[#u]&B*#|<#&[#u]", "#"),
        (r"(?<=[pN])'(?=I[Kk]|B{0,4}#(?:$|[.,;&)x]))", "L"),
        (r"(?:X|Z|P-?G|D)-?E", "X"),
        (r"u(?:-|2|o)u|<u&u", "u"),
        (r"(?:m2?)?(?:B{1,3}2)?[Bl]*L(?:[Bl]*(?:2L|y(?:y|[Bl]*SL)?))*", "L"),
        (r"[#u]-?E(?=-?[YM])", "#"),
        (r"#-?E", "z"),
        (rf"{_NUMBER}-?[YM]-?U|[YM]-U", "U"),
        (rf"(?:B-)?{_NUMBER}-[YM](?:-O|-X|O)|{_NUMBER}(?:(?<!#)|(?<!u))[YM]-O", "z"),
        (rf"(?<=[TkKs])B*{_NUMBER}-?[YM]-?[OX]", "z"),
        (rf"F?B*{_NUMBER}-?Y(?:E|F[XB]?A|&[#uT][wr]?)?(?:-?[OX])?", "Q"),
        (rf"F?B*{_NUMBER}-?M-?(?:[OX]|FA)|F?B*{_NUMBER}M{_STOP}", "Q"),
        (r"(?:T?rF?|T|w)?[YM]-O", "X"),
        (r"F?B*(?:T?rF?|T)[YM](?:O|FA)|F?B*T?rF?Y", "Q"),
        (r"(?<=[TkI])P?-?D(?=[wf])|(?<=[TkK])R(?=[wf])", "X"),
        (rf"(?:[IxFa][KkT]?|[Kk])?{_DECADE}(?:,?[2o&/-]I?K?{_DECADE})*", "Q"),
        (r"(?:I|a|F|x|B+)[Kk]?[BPXOZ]{0,4}-?R(?!-?A)", "Q"),
        (rf"(?:[aFxIy][TKk]?|[Kk]?p'|[Kk]|^w)?(?:[XOPBZ]-?){{0,3}}A-?v?[:=L,-]*F?B*(?:{_NUMBER}|Q|z)(?:YO?)?",
         "Q"),
        (r"P-?G|[PXO]-?A(?=-?[pNwf])", "X"),
        (r"(?:^w)?[aFxIy]?K?B*[XP]?A-?v?[:-]B*T?[XZN]+", "Q"),
        (rf"(?<![TkKs])B*G[:FIa]?B*(?:{_NUMBER}(?:YO?)?|Q|z)", "Q"),
        (r"(?:[aFxIy]|B+)[TKk]?(?:[#u]-?)?[XOPBZNRw]{0,2}-?A(?:v|&v)?", "Q"),
        (r"(?<=[LVicC])[TKk]?[XOPBZRw]{0,2}A(?=$|[.,;:&)])", "Q"),
        (r"(?<=[cCVi])K[XPB]?Y", "Q"),
        (r"[FaIx]G(?=$|[.,;:&)])", "Q"),
        (r"[aFIx][KkT]?[XOPBZNwR]{0,2}Y|[aFIx][KkT]?[XO]M", "Q"),
        (r"[wBl]-G|G|[XNZO](?:-2-[PXZOG]+)+", "X"),
        (r"(?:[XNZO]|z)-(?:[wglpfvLjyn]|XL)(?:-w)*|[wlPg]-[XO](?:-[wgl])?", "X"),
        (r"[wlPgp]-[NZ]", "Z"),
        (rf"(?:B|n|l)*[XO]>B*{_NUMBER}Y?|yXy{_NUMBER}(?:o|&)?(?:yXy{_NUMBER})?|yXyQ", "Q"),
        (rf"(?<=[pNZz])FB*[#u](?:o[#u])?{_STOP}", "Q"),
        (rf"(?:(?:(?<=[LBj,(:pNZS&zXQ/])|(?<=[pNZ]F)|^F?|a|<)B*|B{{1,4}})#{_STOP}B?", "Q"),
        (r"B*X>(?:[KkTS][XNZwpfYAL]{0,3}|[pw])(?:akw)?", "Q"),
        (rf"(?<=L)(?<!HL)B{{1,4}}u{_STOP}|(?<=L)(?<!HL)u(?=$|[.,;)x]|&[iVL])", "Q"),
        (rf"(?<=[,pNZ])B{{1,4}}u{_STOP}", "Q"),
        (r"(?:[aFxI][TkK]?)?B*#v", "Q"),
        (r"O", "X"),
    )
)  # fmt: skip


def join_ages(tokens: list[Token]) -> list[Token]:
    """Join the tokens of each age into one token; see `HARD`. Numbers of other things stay."""
    return _choose(rewrite(tokens, _JOINS))


_VERB = re.compile(r"\w+(?:s|ed)", re.IGNORECASE)
_NOUN_FOLLOWS = "pNZzXfv"


def _choose(tokens: list[Token]) -> list[Token]:
    """Decide of words that may be nouns or adjectives ("teen") what they are here."""
    tags = ["^", *(token.tag for token in tokens), ".", "."]
    out = []
    for index, token in enumerate(tokens):
        before, after, second = tags[index], tags[index + 2], tags[index + 3]
        tag = token.tag
        if tag in "ZN" and (after in _NOUN_FOLLOWS or after == "-") and not _many(token):
            tag = "X" if not (tag == "N" and after in "XZ") else "N"
        elif tag == "Z":
            verb_follows = after == "w" and _VERB.fullmatch(tokens[index + 1].text)
            adjective = before in "LjBNp"  # "looks adult", "boy child"
            tag = "X" if adjective or (after == "w" and not verb_follows) else "N"
        elif tag == "z":
            adjective = after == "," and second in "XZzN"
            noun = not adjective and before in "TkKsXbu" and after not in _NOUN_FOLLOWS + "w-"
            tag = "N" if noun or _many(token) else "X" if after in _NOUN_FOLLOWS + "w" else "Q"
        elif (
            tag == "X"
            and (before in "TkKs" or _is_one(tokens, index - 1))
            and after not in _NOUN_FOLLOWS + "wuglYBQ#n-"
        ):
            alone = after not in "&,o2/" or second in "kTKViLSWxjm."
            tag = "N" if alone else "X"
            if alone and before == "k" and not token.text.lower().endswith(("est", "er")):
                token = Token(token.text, "X", token.gap, "people")
        if tag != token.tag:
            tags[index + 1] = tag
            token = Token(token.text, tag, token.gap, token.neutral)
        out.append(token)
    return out


def _is_one(tokens: list[Token], index: int) -> bool:
    return index >= 0 and tokens[index].text.lower() in ("one", "another")


def _many(token: Token) -> bool:
    return token.neutral.endswith(("people", "men", "students"))
