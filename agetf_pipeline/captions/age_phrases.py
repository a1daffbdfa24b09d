"""Finding ages in English: a sentence becomes tokens with one-letter tags, and rules over the
string of tags join the tokens of an age into one.

The letters are explained in `age_vocabulary`. A rule sees "she is about 34 years old" as "SLB#YO"
and makes "SLQ" of it, so that a rule is short and its time grows with the length of the text.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple

from agetf_pipeline.captions.age_vocabulary import STAND_IN, TAGS

HARD = "AGDOUQRXYZNz"
"""Tags of words that always are words of age."""


class Token(NamedTuple):
    """A word, a sign or a phrase: its text, tag, the space before it and a noun's stand-in."""

    text: str
    tag: str
    gap: str
    neutral: str = ""


def _any(*patterns: str) -> str:
    return "(?:" + "|".join(patterns) + ")"


_COUNT = r"(?:\d+|one|two|three|four|five|six|seven|a few|several|a couple of|a)"
_WHOSE = r"(?:(?:his|her|their|its|the|an?|this|that|my|your|our|one's)\s)?"
_ORDINAL = (
    r"(?:\d+(?:st|nd|rd|th)|(?:(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)-?)?"
    r"(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth"
    r"|thirteenth|fourteenth|fifteenth|sixteenth|seventeenth|eighteenth|nineteenth|\w+tieth"
    r"|hundredth))"
)
_TENS = r"(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)"
_UNIT = r"(?:one|two|three|four|five|six|seven|eight|nine)"
_LIFE = _WHOSE + r"(?:life|lives|lifetime|existence|development|years)"

# What looks like an age and is none. Ages of things and counts of days of stubble stay.
_KEPT = _any(
    r"old[- ](?:fashioned|school|world|style|glory|navy)",
    r"baby[- ](?:blues?|pink|hairs?|bangs|doll|powder|yellow|green|lavender|'?s[- ]breath)",
    r"kid (?:gloves|leather)|space[- ]age|ice age|new age|middle ages|school years?",
    r"new years?(?:'s?)?(?: eve| day)?|happy new year|age of empires",
    rf"(?:{_COUNT}[- ])?(?:day|days|days'|week|weeks|weeks')[- ](?:(?:old|of|worth of)[- ])?"
    r"(?:facial |beard )?(?:stubble|beard|growth|scruff)",
    r"(?:numbers?|no\.|nos\.|sizes?|page|channel|room|route|figure|fig\.|model|lot|bus|level|iphone"
    r"|formula|highway|apollo|boeing|track|team|player)"
    r"\s?(?:is\s|reads\s|says\s)?[\"'#]?\d+[\"']?",
    r"(?:number|no\.|#)\s?[\"']?(?:[a-z]+teen|ten|eleven|twelve|(?:twen|thir|for|fif|six|seven"
    r"|eigh|nine)ty(?:-\w+)?)",
    r"\d[\d.,]*\s?(?:%|°|percent|per cent|mm|cm|ft|feet|foot|inch(?:es)?|kg|lbs?|pounds?|px|pixels?"
    r"|degrees?|megapixels?|mp|k|o'?clock|pm|am|a\.m\.|p\.m\.|stars?|st\b|nd\b|rd\b|th\b|d\b)(?!\w)",
    r"\d+\s?[x×]\s?\d+|f/\d[\d.]*|\d{1,2}:\d\d|\d{4}(?:'?s)?(?!\d)|(?:one|two|three)-quarters?",
    r"(?<!his )(?<!her )(?<!their )(?<!mid-)(?<!early )(?<!late )(?<!mid )(?:the )?'?[2-9]0'?s[- ]"
    r"(?:styled?|era|fashion|look|vibes?|hair\w*|glasses|music|movie|film|band|aesthetic|inspired"
    r"|retro|outfit|disco|rock)",
    r"pupils?|boyfriends?|girlfriends?|newborn photography",
)

# Idioms that behave as an adjective of age ("wise beyond her years") ...
_ADJECTIVES = _any(
    r"young[- ]at[- ]heart|over[- ]the[- ]hill|long in the tooth|no spring chicken"
    r"|wet behind the ears|old as the hills|in arms(?= |[.,;])",
    r"(?:wise|mature|old|older|aged|skilled|experienced|serious)\s(?:far |well )?beyond\s"
    r"(?:his|her|their)(?:\s\w+)?\s(?:years|age)",
    r"(?:not |no )?(?:so |as |too )?(?:young|old)[- ]as[- ](?:he|she|they)\s(?:looks?|seems?)",
    r"(?:junior |senior )?(?:high|middle|elementary|primary|grade|grammar|secondary|nursery|pre)"
    r"[- ]school(?:ing|ed)?|school[- ]?age[ds]?|college[- ]aged?|pre-?school(?=[ -])",
    r"(?:college|university)(?=[- ](?:student|freshm|kid|boy|girl|undergrad))",
    rf"{_ORDINAL}(?=[- ](?:birthday|grade|year\b))|age(?= spots?| lines?| marks?)|age-related"
    r"|age-defying|anti-?age?ing|aged (?=[a-z]+ly\b)[a-z]+|aged well|sweet sixteen"
    r"|(?:fresh|smooth)-faced",
    r"grown(?= (?:man|men|woman|women|male|female|person|people|child))",
    r"(?:full[- ]?grown|fully[- ]grown)(?! (?:beard|hair|mous))|newly[- ]born|new[- ]born",
    r"baby-?faced|gen(?:eration)?[- ]?(?:[xyz]|alpha|beta)(?:'s)?(?![\w])|baby[- ]boom\b",
    r"(?:early|late|mid|later|upper)[- ](?:career|life)|mid-?life|end-of-life",
    r"(?:well[- ])?preserved|(?:past|over)[- ](?:retirement|middle)[- ]age",
    r"of (?:a certain|an uncertain|legal|drinking|voting|working|advanced|tender|(?:pre-?)?school|college) age",
    r"(?:advanced|up|on|along|old|young|older|rich|well on) in (?:years|age|days)",
    r"getting on(?= in|[.,;])",
)
# ... or as a phrase behind a noun or a verb ("past his prime").
_PHRASES = _any(
    r"(?:past|beyond|in|at|nearing|approaching|over|entering|reaching|near)\s"
    rf"{_WHOSE}(?:very |absolute )?(?:prime|salad days|golden years|autumn years|twilight years"
    r"|second childhood|silver years|best years)(?: of (?:his |her |their )?(?:life|youth))?",
    rf"(?:at|in|of|from|to|into|near|through)\s{_WHOSE}(?:[\w'-]+\s){{0,3}}?"
    r"(?:stages?|phases?|time|times|chapters?|parts?|periods?|years|half|decades?|autumn|winter"
    rf"|spring|summer|evening|sunset|twilight|season|dawn|end|point|flower|bloom)\s(?:of|in)\s{_LIFE}",
    rf"(?:in|of|with|during|since|from|for|past|at)\s{_WHOSE}(?:early |late |first |full |eternal"
    r" |own )?(?:bloom of |flush of |flower of |vigou?r of )?(?:(?:his|her|their) )?youth(?!s|\w)",
    r"(?:born|birth(?:day|date)?)\s(?:in|on|around|during|before|after|year)?\s?(?:the )?"
    r"(?:(?:early|late|mid)[- ])?(?:\w+ )?\d{4}'?s?|(?:only |just |recently |newly )+born"
    r"|born (?:recently|yesterday|not long ago)|class of \d{4}",
    rf"(?:in|of)\s(?:the |an? )?(?:{_ORDINAL} grade|grade \w+)|(?:year|date) of birth",
    r"(?:in|into) (?:his|her|their)\s(?:\w+\s)?" + _ORDINAL + r" (?:decade|year)s?",
    r"(?:(?:over|about|nearly|almost|around) )?(?:half|quarter|three[- ]quarters)"
    r"(?: of)?(?: a| an|-a)?[- ]century(?:[- ]old|(?: of)? age)?|a century old|century-old",
    r"(?:\w+ )?years (?:his|her|their) (?:junior|senior)",
    r"(?:his|her|their) (?:junior|senior)(?=[.,;]|$)",
    rf"(?:just |recently )?turn(?:s|ed|ing)\s(?:\d+|{_TENS}(?:[ -]{_UNIT})?|\w+teen|{_UNIT}|ten|eleven)(?!-)"
    r"(?: (?:last|this|next) \w+| today| recently)?",
    r"from (?:the )?cradle|one foot in the grave|(?:still )?in diapers",
)
# ... and those around a number.
_ABOUT = _any(
    r"(?:just |a little )?shy of|(?:no |not )?(?:more|less|fewer|later|earlier) than"
    r"|upwards? of|north of|south of|in excess of|in the (?:neighbou?rhood|region|vicinity|range)"
    r" of"
    r"|on the (?:wrong|right|other|far|good|young|younger|older|old) side of|close to|well into"
    r"|at (?:the )?(?:very )?(?:least|most)|anywhere (?:from|between)|give or take|up to"
    r"|or thereabouts|a day (?:over|past|under|older than|younger than)"
)
_AFTER = (
    r"or so|or (?:older|younger|over|above|under|more|less|thereabouts)|and (?:older|over|above|up"
    r"|under|younger)(?=\W)|-?odd|-?plus|\+|-?ish|-?somethings?|-?and-a-half|and a half"
)
_NOUN = (
    r"(?:great-){1,4}grand[a-z]+|step-?grand[a-z]+|grown-?ups?|old-?timers?|ankle-?biters?"
    r"|middle-?agers?|minors|minor(?= and (?:an?|the|his|her|two)\b)|minor(?=\s*(?:[.,;:!?)]|$)|\s(?:with|in|who|is|has|\w+ing)\b)"
    r"|school[- ](?:child(?:ren)?|kids?|boys?|girls?)|(?:first|second|third|fourth|fifth|sixth"
    r"|seventh|eighth|ninth|tenth|eleventh|twelfth|\d+th)[- ]graders?|(?:grade|high|middle)[- ]"
    r"schoolers?|golden[- ]agers?|little ones?|young (?:ones?|'uns?)|gen[- ]?(?:z|x)ers?"
    r"|(?:baby[- ])boomers?|senior citizens?"
)
# Over lower-case text: several times as fast as ignoring case.
_TOKEN = re.compile(
    rf"\b(?P<N>{_NOUN})(?!\w)|\b(?P<X>{_ADJECTIVES})(?!\w)|\b(?P<Q>{_PHRASES})(?!\w)"
    rf"|\b(?P<kept>{_KEPT})(?!\w)|(?P<sign>[#$€£]\s?\d[\d,.]*)"
    rf"|\b(?P<B>{_ABOUT})(?!\w)|(?<=\w)\s?(?P<E>{_AFTER})(?!\w)"
    r"|(?P<D>'?\b[1-9]0'?s\b)|(?P<number>\d+(?:[.,]\d+)*)"
    rf"|(?P<count>(?:{_UNIT}|ten|eleven|twelve|\w+teen|{_TENS})(?=-?(?:ish|somethings?|odd|plus)\b))"
    r"|(?P<word>[^\W\d_]+n't\b|[^\W\d_]+)|(?P<other>'(?:s|re|m|d|ll|ve)\b|\S)"
)
_IDIOM_WORDS = (
    "prime salad tooth chicken ears hills arms preserved school schooling aged first birthday sweet"
    " faced gen career life lives lifetime existence development baby boom days getting bloom flush"
    " flower born birth century class grave diapers cradle minor minors grand great little grown"
    " timer timers biter biters up turn turns turned turning college university z x hearted hill"
    " granddaughter grandchild"
)
_TRIGGERS = frozenset(
    [
        *(word for word, tag in TAGS.items() if tag in HARD + "Dutehr"),
        *_IDIOM_WORDS.split(),
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
    {"’": "'", "‘": "'", "ʼ": "'", "‐": "-", "‑": "-", "−": "-", "“": '"', "”": '"'}
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
        (r"(?<=\d)\s?(?:yrs?\.|y)(?=\s|[.,;)]|$)", " years"),
        (r"(?<=[\d\w])\s?-?(years?|months?|weeks?)-?(olds?)\b", r"-\1-\2"),
        (r"\b(?:approx|ca|c)\.\s?(?=\d)", "about "),
        (r"[*_`]+(?=\S)|(?<=\S)[*_`]+", ""),
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
    for match in _TOKEN.finditer(text.lower()):
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
        elif lower == "look" and tokens and tokens[-1].tag in "XTKZG":
            tag = "v"
        tokens.append(Token(word, tag, gap, _stand_in(lower) if tag in "NZ" else ""))
    return tokens


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
        kin = re.search(r"grand(?!son|daughter|child|kid|parent)", noun)
        young = "female person" if female else "male person"
        found = ("woman" if female else "man") if kin else young if female or male else "person"
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
_PARTS = r"(?:[PB]-?(?:[2o&-]-?)?){0,6}"
_STOP = r"(?=$|[.,;:)xWgILViSBmCcoj&-]|Q)"
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
        (r"u(?:-|2|o)u|<u&u", "u"),
        (r"m?[Bl]*L(?:[Bl]*(?:2L|y(?:y|[Bl]*SL)?))*", "L"),
        (r"#-?E(?=-?[YM])", "#"),
        (r"#-?E", "z"),
        (rf"{_NUMBER}-?[YM]-?U|[YM]-U", "U"),
        (rf"{_NUMBER}-[YM](?:-O|-X|O)|{_NUMBER}(?:(?<!#)|(?<!u))[YM]-O", "z"),
        (rf"F?B*{_NUMBER}-?Y(?:E|F[XB]?A|&[#uT][wr]?)?(?:-?[OX])?", "Q"),
        (rf"F?B*{_NUMBER}-?M-?(?:[OX]|FA)|F?B*{_NUMBER}M{_STOP}", "Q"),
        (r"(?:T?rF?|T|w)?[YM]-O", "X"),
        (r"F?B*(?:T?rF?|T)[YM](?:O|FA)|F?B*T?rF?Y", "Q"),
        (rf"(?:[IxFa][KkT]?|[Kk])?{_DECADE}(?:,?[2o&-]I?K?{_DECADE})*", "Q"),
        (r"(?:I|a)[Kk]?[BPXOZ]*-?R", "Q"),
        (rf"(?:[aFxIy][TKk]?|[Kk])?(?:[XOPBZ]-?){{0,3}}A-?v?[:=L,-]*F?B*(?:{_NUMBER}|Q|z)(?:YO?)?",
         "Q"),
        (r"P-?G", "X"),
        (r"[aFxIy]?K?B*[XP]?A-?v?[:-]B*T?[XZN]+", "Q"),
        (rf"B*G[:FIa]?B*(?:{_NUMBER}(?:YO?)?|Q|z)", "Q"),
        (r"[aFxIy](?:[TKk]?[XOPBZNRw]{0,2}-?)A(?:v|&v)?", "Q"),
        (r"(?<=[LVicC])[TKk]?[XOPBZRw]{0,2}A(?=$|[.,;:&)])", "Q"),
        (r"[FaIx]G(?=$|[.,;:&)])", "Q"),
        (r"[aFIx][KkT]?[XOPBZNwR]{0,2}Y|[aFIx][KkT]?[XO]M", "Q"),
        (r"[wBl]-G|G|[XNZO](?:-2-[PXZOG]+)+", "X"),
        (r"(?:[XNZO]|z)-(?:[wglpfvLj]|XL)(?:-w)*|[wlPg]-[XO](?:-[wgl])?", "X"),
        (r"[wlPgp]-[NZ]", "Z"),
        (rf"(?:B|n|l)*[XO]>B*{_NUMBER}Y?|yXy{_NUMBER}(?:o|&)?(?:yXy{_NUMBER})?|yXyQ", "Q"),
        (rf"(?<=[pNZz])FB*[#u](?:o[#u])?{_STOP}", "Q"),
        (rf"(?:(?:(?<=[LBj,(:pNZSa&zXQ])|(?<=[pNZ]F)|^[Fa]?)B*|B{{1,4}})#{_STOP}B?", "Q"),
        (r"B*X>(?:[KkTS][XNZwpfYAL]{0,3}|[pw])(?:akw)?", "Q"),
        (rf"(?<=L)(?<!HL)B*u(?=$|[.,;)])|(?<=[,pNZ])B+u{_STOP}", "Q"),
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
            noun = before in "TkKsXbu" and after not in _NOUN_FOLLOWS + "w-"
            tag = "N" if noun or _many(token) else "X" if after in _NOUN_FOLLOWS + "w" else "Q"
        elif tag == "X" and before in "TkKs" and after not in _NOUN_FOLLOWS + "wuglYBQ#n-":
            alone = after not in "&,o" or second in "kTKViLSWxjm."
            tag = "N" if alone else "X"
            if alone and before == "k" and not token.text.lower().endswith(("est", "er")):
                token = Token(token.text, "X", token.gap, "people")
        if tag != token.tag:
            tags[index + 1] = tag
            token = Token(token.text, tag, token.gap, token.neutral)
        out.append(token)
    return out


def _many(token: Token) -> bool:
    return token.neutral.endswith(("people", "men", "students"))
