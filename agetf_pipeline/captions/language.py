"""Whether a caption is English, told by its letters and its commonest words.

A language detector would be a model to download and to keep, made for whole pages. Captions are a
line each and of one kind, and the ways that a captioner leaves English are coarse: another script
(Janus was taught Chinese, too), or another European language throughout. Words of grammar and those
that every caption of a face is made of tell these apart; words that two languages write alike do
no harm, because a caption with more words of grammar of other languages than English ones is
theirs.
"""

import polars as pl

MIN_WORDS_JUDGED = 5
"""Of fewer words the script alone is judged: "Braunes Haar." has no word of grammar."""

_WORD = r"[\p{L}\p{N}]+(?:['’-][\p{L}\p{N}]+)*"
_ENGLISH = (
    "a an the and or with without of in on at to from by for as is are was has have had be being "
    "been he she his her him they their this that these those who whose which it its there not no "
    "very some both over under behind against while but into up "
    "man woman men women person people male female face faces hair eyes glasses beard moustache "
    "mustache smile smiling wearing looking camera background expression skin head shirt short "
    "long dark light black white brown grey gray blond blonde red blue green image photo portrait"
)
_OTHERS = (
    "der das den dem ein eine einem einen einer mit und ist auf im von sie "  # German
    "le la les un une des du et avec est dans sur aux qui au cheveux "  # French
    "el los las una con y en del que por su para "  # Spanish
    "il lo gli uno che di della con è sul capelli "  # Italian
    "o os um uma com e do da dos não cabelo "  # Portuguese
    "de het een met van zijn haar draagt op "  # Dutch
    "en ett och med på är som har av "  # Scandinavian
    "bir ve ile w z na i się jest"  # Turkish, Polish
)


def num_words(column: str) -> pl.Expr:
    """Return the number of words of a text."""
    return pl.col(column).str.count_matches(_WORD)


def is_foreign(
    column: str, min_english_fraction: float, max_other_script_fraction: float
) -> pl.Expr:
    """Return whether a text is of another language than English; null where there is no text.

    Args:
        column: Of strings.
        min_english_fraction: Least share of words that are common English ones.
        max_other_script_fraction: Greatest share of letters that are not Latin ones.
    """
    text, words = pl.col(column), num_words(column)
    letters, latin = text.str.count_matches(r"\p{L}"), text.str.count_matches(r"\p{Latin}")
    english, others = _count(column, _ENGLISH), _count(column, _OTHERS)
    other_script = latin < (1 - max_other_script_fraction) * letters
    other_words = (english < min_english_fraction * words) | (others > english)
    return other_script | ((words >= MIN_WORDS_JUDGED) & other_words)


def _count(column: str, words: str) -> pl.Expr:
    # \b knows letters of every script; a hyphenated word counts by its parts.
    return pl.col(column).str.count_matches(rf"(?i)\b(?:{'|'.join(words.split())})\b")
