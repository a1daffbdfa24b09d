"""What good captions look like: rules on the table `captions`, which holds several versions.

Rules that compare captions with one another do so within a version. What would spoil training
blocks: a caption that tells the age, an embedding that is no direction. What a person should look
at warns; when that is, the configuration says.
"""

import polars as pl

from agetf_pipeline.captions import flags
from agetf_pipeline.config.caption import CaptionChecks
from agetf_pipeline.quality.rule import Rule

_OK = pl.col("status") == "ok"
_EMBEDDINGS = ("image_embedding", "text_embedding")


def _any_value(column: str, condition: pl.Expr) -> pl.Expr:
    return pl.col(column).list.eval(condition).list.any()


CAPTION_RULES: tuple[Rule, ...] = (
    Rule("succeeded", "Captions are written", ~_OK, "warning", 0.02),
    Rule("mostly_succeeded", "Captions are mostly written", ~_OK, "critical", 0.2),
    Rule(
        "failure_explained",
        "A missing caption says why",
        ~_OK & pl.col("reason").is_null(),
    ),
    Rule("no_age_words", "No caption tells an age", flags.has_age_words()),
    Rule("not_empty", "A caption has words", flags.is_empty(), "warning", 0.02),
    Rule(
        "more_than_age",
        "Something is left of a caption without its words of age",
        flags.is_wordless(),
        "warning",
        0.02,
    ),
    Rule(
        "embeddings_there",
        "Every caption has its embeddings",
        pl.any_horizontal(pl.col(_EMBEDDINGS).is_null()),
        applies=_OK,
    ),
    Rule(
        "embeddings_finite",
        "Embeddings are finite",
        pl.any_horizontal(
            _any_value(column, ~pl.element().is_finite()).fill_null(False) for column in _EMBEDDINGS
        ),
        applies=_OK,
    ),
    Rule(
        "embeddings_not_zero",
        "Embeddings are not zero",
        pl.any_horizontal(
            ~_any_value(column, pl.element() != 0).fill_null(True) for column in _EMBEDDINGS
        ),
        applies=_OK,
    ),
)


def configured_caption_rules(checks: CaptionChecks) -> list[Rule]:
    """Return the rules whose limits stand in the configuration; all of them warn."""
    allowed = checks.max_flagged_fraction

    def rule(name: str, description: str, broken: pl.Expr, whole: bool = False) -> Rule:
        return Rule(name, description, broken, "warning", allowed, flags.is_usable(), whole)

    return [
        rule(
            "not_short",
            f"A caption has at least {checks.min_words} words",
            flags.is_short(checks),
        ),
        rule("not_long", f"A caption has at most {checks.max_words} words", flags.is_long(checks)),
        rule("not_cut", "A caption comes to its end by itself", flags.is_cut()),
        rule("english", "Captions are English", flags.is_not_english(checks)),
        rule(
            "varied",
            f"No caption is that of over {checks.max_repeated_fraction:.0%} of the images",
            flags.is_repeated(checks),
            whole=True,
        ),
    ]
