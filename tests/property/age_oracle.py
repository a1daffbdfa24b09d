"""What no cleaned caption may hold: words of age, and sentences that were broken."""

import re

# No caption may hold any of these, whatever brought them in.
FORBIDDEN = re.compile(
    r"\b(?:young(?:er|est|ish|ster|sters|ling|sters?)?|old(?!-(?:fashioned|school)\b|\sstubble)"
    r"(?:er|est|ish|sters?|ies)?|elder(?:ly|s)?|eldest|aged?|ages|age?ing|ageless|middle-aged"
    r"|underaged?|teen\w*|\w*teens|tweens?|adolescen\w+|youth\w*|juveniles?|juniors?|seniors?"
    r"|senior citizens?|adult\w*|grown-?ups?|child(?!ess)\w*|kid(?:s|do|dos|die)?|toddler\w*"
    r"|infan(?:t|ts|cy|tile)|newborns?|neonat\w+|bab(?:y(?! blue\b| pink\b)|ies)|tots?"
    r"|preschool\w*|schoolers?|school(?:boy|girl|child|kid|children)s?|first-graders?|boys?|girls?"
    r"|boyish|girlish|boyhood|girlhood|lads?|lass(?:es|ie)?|minors|(?:is|be|a) minor\b(?! scar)"
    r"|matur\w+|immature|geriatrics?|retire(?:e|es|d|ment)|pensioners?|\w+genarians?|centenarians?"
    r"|grand(?!s?tand)\w+|great-grand\w+|grann(?:y|ies)|millennials?|boomers?"
    r"|gen(?:eration)? ?-?[xyz]"
    r"|zoomers?|generations?|years?|yrs?|yo|y/o|decades?|months?(?!' growth)|\w+something\w*"
    r"|twenties|thirties|forties|fifties|sixties|seventies|eighties|nineties|\d0'?s(?! style)"
    r"|puberty|pubescent|menopaus\w+|prime|childbearing|birth(?! ?mark)|born|heyday"
    r"|old-timers?|over-the-hill|long in the tooth|spring chicken|ancient|wizened|senile"
    r"|kindergart\w+|undergrad\w*|freshm[ae]n|sophomores?|golden days|mid-?life|later life)\b",
    re.IGNORECASE,
)
BROKEN = (
    (re.compile(r"\s{2,}|^\s|\s$"), "stray space"),
    (re.compile(r"\s[,.;:!?)]|\(\s|[,;:]\s*[,.;:!?]|\(\s*\)"), "stray sign"),
    (re.compile(r"\ba (?!un[ii]|us|eu|one\b)[aeiou]|\ban [bcdfgjklmnpqrstvwxyz]", re.I), "article"),
    (re.compile(r"\b(?:and|or|with|of|in|at|a|an|the|who|which|that|is|are|was|appears|seems"
                r"|appears to be|seems to be|looks like|to be|her|his|their|about|around|very)\s*"
                r"(?:[.,;:!?]|$)", re.I), "dangling word"),
    (re.compile(r"\b(?:and and|with with|with and|is with|is has|is wears|a a|a the|the the"
                r"|has with|who with|who and|is is|has has|a (?:with|and|who|in|is|has|wearing)"
                r"|the (?:with|and|who|is|has|wearing)|an? an?|of with|to with|in with|be with"
                r"|but but|and but|is and|appears with|looks with"
                r"|seems with)\b", re.I), "lost word"),
    (re.compile(r"(?:^|[.!?]\s)(?:is|are|has|and|but|or|with|who|which|that|of|wears|appears)\s",
                re.I), "lost subject"),
)  # fmt: skip
