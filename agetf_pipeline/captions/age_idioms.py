"""Idioms of age, compounds that only sound of it, and how a sentence is cut into tokens.

All patterns are for lower-case text with plain hyphens and apostrophes.
"""

import re


def any_of(*patterns: str) -> str:
    """Return a pattern of alternatives."""
    return "(?:" + "|".join(patterns) + ")"


_COUNT = r"(?:\d+|one|two|three|four|five|six|seven|a few|several|a couple of|a)"
_WHOSE = r"(?:(?:his|her|their|its|the|an?|this|that|my|your|our|one's)\s)?"
_ORDINAL = (
    r"(?:\d+(?:st|nd|rd|th)|(?:(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)-?)?"
    r"(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth"
    r"|thirteenth|fourteenth|fifteenth|sixteenth|seventeenth|eighteenth|nineteenth"
    r"|(?:twen|thir|for|fif|six|seven|eigh|nine)tieth"
    r"|hundredth))"
)
_TENS = r"(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)"
_UNIT = r"(?:one|two|three|four|five|six|seven|eight|nine)"
_NUMBER = rf"(?:\d+|{_TENS}(?:[ -]{_UNIT})?|[a-z]+teen|{_UNIT}|ten|eleven|twelve)"
_LIFE = _WHOSE + r"(?:life|lives|lifetime|existence|development|years)"

# What looks like an age and is none. Ages of things and counts of days of stubble stay.
_KEPT = any_of(
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
    r"\d/\d(?!\d)|\d+\s?[x×]\s?\d+|f/\d[\d.]*|\d{1,2}:\d\d|\d{4}(?:'?s)?(?!\d)|(?:one|two|three)-quarters?",
    r"(?<!his )(?<!her )(?<!their )(?<!mid-)(?<!early )(?<!late )(?<!mid )(?:the )?'?[2-9]0'?s[- ]"
    r"(?:styled?|era|fashion|look|vibes?|hair\w*|glasses|music|movie|film|band|aesthetic|inspired"
    r"|retro|outfit|disco|rock)",
    r"pupils?|boyfriends?|girlfriends?|newborn photography",
)

# Idioms that behave as an adjective of age ("wise beyond her years") ...
_ADJECTIVES = any_of(
    r"(?:little|wee|tiny)(?= (?:m[ae]n|wom[ae]n|lad(?:y|ies)|fellows?|guys?|gentlem[ae]n|dudes?"
    r"|chaps?|person|people|humans?|brothers?|sisters?)\b)",
    r"young[- ]at[- ]heart|over[- ]the[- ]hill|long in the tooth|no spring chicken"
    r"|wet behind the ears|(?:as )?old as the hills|in arms(?= |[.,;])",
    r"(?:wise|mature|old|older|aged|skilled|experienced|serious)\s(?:far |well )?beyond\s"
    r"(?:his|her|their)(?:\s\w+)?\s(?:years|age)",
    r"(?:not |no )?(?:so |as |too )?(?:young|old)[- ]as[- ](?:he|she|they)\s(?:looks?|seems?)",
    r"(?:junior |senior )?(?:high|middle|elementary|primary|grade|grammar|secondary|nursery|pre)"
    r"[- ]school(?:ing|ed)?|school[- ]?age[ds]?|college[- ]aged?|pre-?school(?=[ -])",
    r"(?:college|university)(?=[- ](?:student|freshm|kid|boy|girl|undergrad))",
    rf"{_ORDINAL}(?=[- ](?:birthday|year\b))|{_ORDINAL}[- ]grade"
    r"|age-related|age(?= spots?| lines?| marks?)"
    r"|age-defying|anti-?age?ing|aged (?=[a-z]+ly\b)[a-z]+|aged well|sweet sixteen"
    r"|(?:fresh|smooth)-faced",
    r"grown(?= (?:man|men|woman|women|male|female|person|people|child))",
    r"(?:not?|never)[- ](?:so|too|longer|very|that|all that|quite)[- ](?:young|old)(?!er)",
    r"(?:full[- ]?grown|fully[- ]grown)(?! (?:beard|hair|mous))|newly[- ]born|new[- ]born",
    r"baby-?faced|gen(?:eration)?[- ]?(?:[xyz]|alpha|beta)(?:'s)?(?![\w])|baby[- ]boom\b",
    r"\d{4}-born|u-?\d\d(?:s|'s)?"
    r"|(?:early|late|mid|later|upper)[- ](?:career|life)|mid-?life|end-of-life",
    r"(?:well[- ])?preserved|(?:past|over)[- ](?:retirement|middle)[- ]age",
    r"of (?:a certain|an uncertain|legal|drinking|voting|working|advanced|tender|college"
    r"|(?:pre-?)?school) age",
    r"(?:advanced|up|on|along|old|young|older|rich|well on) in (?:years|age|days)",
    r"getting on(?= in|[.,;])",
)
# ... or as a phrase behind a noun or a verb ("past his prime").
_PHRASES = any_of(
    r"(?:past|beyond|in|at|nearing|approaching|over|entering|reaching|near)\s"
    rf"{_WHOSE}(?:very |absolute )?(?:prime|salad days|golden years|autumn years|twilight years"
    r"|second childhood|silver years|best years)(?: of (?:his |her |their )?(?:life|youth))?",
    rf"(?:at|in|of|from|to|into|near|through)\s{_WHOSE}(?:(?!(?:in|at|of|and|with)\s)[\w'-]+\s){{0,3}}?"
    r"(?:stages?|phases?|time|times|chapters?|parts?|periods?|years|half|decades?|autumn|winter"
    rf"|spring|summer|evening|sunset|twilight|season|dawn|end|point|flower|bloom)\s(?:of|in)\s{_LIFE}",
    rf"(?:in|of|with|during|since|from|for|past|at)\s{_WHOSE}(?:early |late |first |full |eternal"
    r" |own )?(?:bloom of |flush of |flower of |vigou?r of )?(?:(?:his|her|their) )?youth(?!s|\w)",
    r"b\. ?\d{4}|born (?:on |in )?(?:the )?\w+ \d{1,2}(?:st|nd|rd|th)?,? \d{4}",
    r"(?:born|birth(?:day|date)?)\s(?:in|on|around|during|before|after|year)?\s?(?:the )?"
    r"(?:(?:early|late|mid)[- ])?(?:\w+ )?\d{4}'?s?|(?:only |just |recently |newly )+born"
    r"|born (?:recently|yesterday|not long ago)|class of \d{4}|c[ao]m(?:e|ing) of age",
    r"(?:in|attends?|at) (?:pre-?school|kindergarten|nursery|college|university"
    r"|(?:junior |senior )?(?:high|middle|elementary|primary|grade|secondary)[- ]school)"
    r"(?!-)(?! \w+ing)",
    rf"(?:in|of)\s(?:the |an? )?(?:{_ORDINAL} grade|grade \w+)|(?:year|date) of birth",
    rf"(?:in|into) (?:his|her|their)\s(?:\w+\s)?(?:{_ORDINAL} (?:or|to|and) )?{_ORDINAL}"
    r" (?:decade|year)s?",
    r"(?:(?:over|about|nearly|almost|around) )?(?:half|quarter|three[- ]quarters)"
    r"(?: of)?(?: a| an|-a)?[- ]century(?:[- ]old|(?: of)? age)?|a century old|century-old",
    r"years (?:his|her|their) (?:junior|senior)",
    r"(?:his|her|their) (?:junior|senior)(?=[.,;]|$)",
    rf"(?:just |recently )?turn(?:s|ed|ing)\s{_NUMBER}(?!-)"
    r"(?: (?:last|this|next) \w+| today| recently)?",
    rf"(?:who (?:has|have) |having )?(?:seen )?{_NUMBER} (?:summers|winters|springs|birthdays)",
    r"(?:three|four) ?score(?: years)?(?: and (?:ten|five))?(?: years)?",
    r"(?:of |like |that of )?(?:someone |a \w+ )?(?:half|twice|double|triple|thrice)"
    r" (?:his|her|their|its|my) age",
    r"(?:(?:just|barely) )?(?:old|young) enough to \w+(?: (?:an?|the|his|her|their) \w+)?",
    r"too (?:young|old) (?:to \w+(?: (?:an?|the|his|her|their) \w+)?|for \w+)",
    r"an? (?:clear |sure |telltale )?sign of (?:his |her |their |the )?"
    r"(?:advanced |old |increasing )?(?:age|aging|ageing|maturity)",
    r"from (?:the )?cradle|one foot in the grave|(?:still )?in diapers",
)
# ... and those around a number.
_ABOUT = any_of(
    r"(?:quite |just )?a (?:bit|lot|tad|little|touch)"
    r"(?= (?:over|under|older|younger|past|above|below|shy))",
    r"(?:just |a little )?shy of|(?:no |not )?(?:more|less|fewer|later|earlier) than"
    r"|upwards? of|north of|south of|in excess of|in the (?:neighbou?rhood|region|vicinity|range)"
    r" of"
    r"|on the (?:wrong|right|other|far|good|young|younger|older|old) side of|close to|well into"
    r"|at (?:the )?(?:very )?(?:least|most)|anywhere (?:from|between)|give or take|up to"
    r"|(?:barely|just|hardly|scarcely|only just|not long|fresh) out of|getting on for|going on"
    r"|(?:on|at) the (?:cusp|verge|brink|threshold|edge|dawn|door|doorstep) of|on the far side of"
    r"|(?:no|not any) longer|or thereabouts|a day (?:over|past|under|older than|younger than)",
)
_AFTER = (
    r"or so|if (?:he|she|they)(?: is|'s| are) a day"
    r"|or (?:older|younger|over|above|under|more|less|thereabouts)|and (?:older|over|above|up"
    r"|under|younger)(?=\W)|-?odd|-?plus|\+|-?ish|-?somethings?"
    r"|-and-(?:over|older|up|above|under|younger)|-?and-a-half|and a half"
)
_NOUN = (
    r"(?:over|under)-?(?:\d\ds|(?:twen|thir|for|fif|six|seven|eigh|nine)ties|eighteens)|"
    r"o\.a\.p\.?|(?:great-){1,4}grand[a-z]+|step-?grand[a-z]+|grown-?ups?|old-?timers?|ankle-?biters?"
    r"|middle-?agers?|minors|minor(?= and (?:an?|the|his|her|two)\b)"
    r"|minor(?=\s*(?:[.,;:!?)]|$)|\s(?:with|in|who|is|has|\w+ing)\b)"
    r"|school[- ](?:child(?:ren)?|kids?|boys?|girls?)|(?:first|second|third|fourth|fifth|sixth"
    r"|seventh|eighth|ninth|tenth|eleventh|twelfth|\d+th)[- ]graders?|(?:grade|high|middle)[- ]"
    r"schoolers?|golden[- ]agers?|little ones?|young (?:ones?|'uns?)|gen[- ]?(?:z|x)ers?"
    r"|(?:baby[- ])boomers?|senior citizens?"
)
# Over lower-case text: several times as fast as ignoring case.
TOKEN = re.compile(
    rf"\b(?P<N>{_NOUN})(?!\w)|\b(?P<X>{_ADJECTIVES})(?!\w)|\b(?P<Q>{_PHRASES})(?!\w)"
    rf"|\b(?P<kept>{_KEPT})(?!\w)|(?P<sign>[#$€£]\s?\d[\d,.]*)"
    rf"|\b(?P<B>{_ABOUT})(?!\w)|(?<=\w)\s?(?P<E>{_AFTER})(?!\w)"
    rf"|(?P<D>'?\b[1-9]0(?:'?s|-?i?es)\b|\b{_TENS}'?s\b)"
    r"|(?P<number>\d+(?:[.,]\d+)*)"
    rf"|(?P<count>(?:{_UNIT}|ten|eleven|twelve|\w+teen|{_TENS})(?=-?(?:ish|somethings?|odd|plus)\b))"
    r"|(?P<word>[^\W\d_]+n't\b|[^\W\d_]+)|(?P<other>'(?:s|re|m|d|ll|ve)\b|\S)"
)
IDIOM_WORDS = (
    "prime salad tooth chicken ears hills arms preserved school schooling aged first birthday sweet"
    " faced gen career life lives lifetime existence development baby boom days getting bloom flush"
    " flower born birth century class grave diapers cradle minor minors grand great little grown"
    " timer timers biter biters up turn turns turned turning college university z x hearted hill"
    " granddaughter grandchild summers winters springs birthdays score second third fourth fifth"
    " sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth sixteenth"
    " seventeenth eighteenth nineteenth twentieth thirtieth fortieth fiftieth sixtieth seventieth"
    " eightieth ninetieth hundredth hoary kindergarten preschool oap"
    " p cradle fresh smooth gray grandkid sixty st nd th"
)
"""A word that every idiom above has one of, or one of the vocabulary, or a digit."""
