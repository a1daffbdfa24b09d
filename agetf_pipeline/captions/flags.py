"""What may be wrong with a caption: one condition per flag, on rows of the table `captions`.

The audit, the page and the expectations on the table all go by these conditions.
"""

from collections.abc import Callable

import polars as pl

from agetf_pipeline.captions.age_words import mentions_age, remove_age_words
from agetf_pipeline.captions.language import is_foreign, num_words
from agetf_pipeline.config.caption import CaptionChecks

MIN_REPEATS = 5
"""Fewer images of one caption are no sign of a network that says one thing, however few there are
in all."""

FLAGS = {
    "failed": "no usable caption",
    "empty": "no words",
    "wordless": "nothing but words of age",
    "age_words": "a word of age is left",
    "short": "too short",
    "long": "too long",
    "cut": "cut before its end",
    "not_english": "not English",
    "repeated": "the same for many images",
    "embedding": "no embedding, or an odd one",
    "twin": "another image has the same embedding",
}
"""Flag to what it says; the gravest first."""

VERSION_KEY = ("model_version", "prompt_hash")


def is_usable() -> pl.Expr:
    """Return whether a row has a caption with words in it."""
    return (pl.col("status") == "ok") & _has_words("caption")


def is_empty() -> pl.Expr:
    """Return whether the network was asked and gave no words."""
    asked = (pl.col("status") == "ok") | pl.col("num_tokens").is_not_null()
    return asked & ~_has_words("caption") & ~_has_words("raw_caption")


def is_wordless() -> pl.Expr:
    """Return whether the filter of age words left nothing of what was written."""
    lost = _has_words("raw_caption") & ~_has_words("caption")
    # A caption may be withheld for another reason, such as an embedding that is not finite.
    written = pl.when(lost).then(pl.col("raw_caption"))
    return _of_text(written, lambda text: not remove_age_words(text))


def has_age_words() -> pl.Expr:
    """Return whether a clean caption still tells an age."""
    return _of_text(pl.col("caption"), mentions_age)


def is_short(checks: CaptionChecks) -> pl.Expr:
    """Return whether a usable caption has fewer words than it should."""
    return is_usable() & (num_words("caption") < checks.min_words)


def is_long(checks: CaptionChecks) -> pl.Expr:
    """Return whether a usable caption has more words than it should."""
    return is_usable() & (num_words("caption") > checks.max_words)


def is_cut() -> pl.Expr:
    """Return whether a usable caption met its greatest length before its end."""
    return is_usable() & ~pl.col("finished").fill_null(True)


def is_not_english(checks: CaptionChecks) -> pl.Expr:
    """Return whether a usable caption is of another language."""
    return is_usable() & is_foreign(
        "caption", checks.min_english_fraction, checks.max_other_script_fraction
    )


def is_repeated(checks: CaptionChecks) -> pl.Expr:
    """Return whether too many images have this caption, of those of the same version."""
    of_version = is_usable().sum().over(VERSION_KEY)
    same = is_usable().sum().over([*VERSION_KEY, "caption"])
    return is_usable() & (same >= MIN_REPEATS) & (same > checks.max_repeated_fraction * of_version)


def is_changed() -> pl.Expr:
    """Return whether the filter took something out of a usable caption."""
    return is_usable() & (pl.col("raw_caption") != pl.col("caption"))


def word_flags(checks: CaptionChecks) -> dict[str, pl.Expr]:
    """Return the flags that rows without embeddings can have, each with its condition."""
    return {
        "failed": pl.col("status") != "ok",
        "empty": is_empty(),
        "wordless": is_wordless(),
        "age_words": has_age_words(),
        "short": is_short(checks),
        "long": is_long(checks),
        "cut": is_cut(),
        "not_english": is_not_english(checks),
        "repeated": is_repeated(checks),
    }


def _has_words(column: str) -> pl.Expr:
    return pl.col(column).str.strip_chars().str.len_chars().fill_null(0) > 0


def _of_text(texts: pl.Expr, judge: Callable[[str], bool]) -> pl.Expr:
    """Judge texts in Python, each different one once; false where there is none."""

    def judge_all(values: pl.Series) -> pl.Series:
        verdicts = {text: bool(text) and judge(text) for text in values.unique().to_list()}
        return pl.Series([verdicts[text] for text in values.to_list()], dtype=pl.Boolean)

    return texts.map_batches(judge_all, return_dtype=pl.Boolean, is_elementwise=True)
