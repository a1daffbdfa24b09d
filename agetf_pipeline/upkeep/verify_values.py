"""Which values the columns of each table may hold: words of a list, ranges, forms."""

from collections.abc import Collection
from dataclasses import dataclass

import polars as pl

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.data.ages import AGE_GROUPS
from agetf_pipeline.data.ffhq_aging import GENDERS, GLASSES
from agetf_pipeline.data.quarantine import REASONS
from agetf_pipeline.data.schemas import LABEL_DECISIONS, TableSpec

_STATUSES = ("ok", "failed")
_FORMATS = ("JPEG", "PNG", "WEBP")
_MAX_AGE_YEARS = 120
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Rule:
    """What a column may hold: a sentence, and the condition of a row that breaks it."""

    column: str
    expected: str
    wrong: pl.Expr


def rules_of(spec: TableSpec, config: PipelineConfig) -> list[Rule]:
    """Return the rules of a table; null is another matter, but where a status forbids it."""
    from agetf_pipeline.enhance.guards import GUARDS
    from agetf_pipeline.stages.filter import REASONS as FILTER_REASONS

    splits = tuple(config.assemble.split_fractions)
    rules = {
        "images": [
            _words("format", _FORMATS), _words("gender", GENDERS), _words("glasses", GLASSES),
            _words("age_group", AGE_GROUPS), _at_least("width_px", 1), _at_least("height_px", 1),
            _at_least("stored_width_px", 1), _at_least("stored_height_px", 1),
            _at_least("num_bytes", 1), _between("true_age_years", 0, _MAX_AGE_YEARS),
            _between("age_group_confidence", 0, 1), _between("gender_confidence", 0, 1),
        ],
        "quarantine": [_words("reason", REASONS)],
        "predictions": [
            _words("status", _STATUSES), _given("age_years"),
            _between("age_years", 0, _MAX_AGE_YEARS), _at_least("sigma_years", 0),
            _between("valid_mass", 0, 1),
        ],
        "labels": [
            _words("decision", LABEL_DECISIONS), _words("age_group", AGE_GROUPS),
            _words("original_age_group", AGE_GROUPS), _between("age_years", 0, _MAX_AGE_YEARS),
            _at_least("variance_years2", 0), _between("reliability", 0, 1),
            _at_least("num_experts", 0),
        ],
        "keep_list": [
            _all_words("reasons", FILTER_REASONS), _words("age_group", AGE_GROUPS),
            _between("curriculum_weight", 0, 1), _between("label_age_years", 0, _MAX_AGE_YEARS),
        ],
        "enhanced": [
            _words("status", _STATUSES), _given("enhanced_path"), _given("enhanced_sha256"),
            _given("sidecar_path"), _hash("enhanced_sha256"), _at_least("output_width_px", 1),
            _at_least("output_height_px", 1),
        ],
        "enhanced_ages": [
            _hash("enhanced_sha256"), _all_words("flags", GUARDS),
            _between("identity_similarity", -1, 1), _at_least("sharpness_ratio", 0),
            _between("age_before_years", 0, _MAX_AGE_YEARS),
            _between("age_after_years", 0, _MAX_AGE_YEARS),
        ],
        "captions": [
            _words("status", _STATUSES), _given("caption"), _at_least("num_tokens", 0),
        ],
        "training_manifest": [
            _words("split", splits), _words("age_group", AGE_GROUPS),
            _words("label_source", ("corpus", "moe")), _between("curriculum_weight", 0, 1),
            _between("age_years", 0, _MAX_AGE_YEARS), _at_least("variance_years2", 0),
        ],
        "examinations": [
            _words("reason", REASONS), _words("format", _FORMATS), _hash("face_sha256"),
        ],
    }  # fmt: skip
    return [_hash("image_id"), *rules[spec.name]] if _has_image_id(spec) else rules[spec.name]


def _has_image_id(spec: TableSpec) -> bool:
    return "image_id" in spec.schema.names


def _words(column: str, words: Collection[str]) -> Rule:
    known = sorted(words)
    return Rule(column, f"{column}: one of {', '.join(known)}", ~pl.col(column).is_in(known))


def _all_words(column: str, words: Collection[str]) -> Rule:
    known = sorted(words)
    odd = pl.col(column).list.eval(~pl.element().is_in(known)).list.any()
    return Rule(column, f"{column}: of {', '.join(known)}", odd)


def _between(column: str, low: float, high: float) -> Rule:
    value = pl.col(column)
    wrong = (value < low - _ROUNDING) | (value > high + _ROUNDING)
    return Rule(column, f"{column}: from {low:g} to {high:g}", wrong & value.is_finite())


def _at_least(column: str, low: float) -> Rule:
    return Rule(column, f"{column}: {low:g} or more", pl.col(column) < low)


def _hash(column: str) -> Rule:
    form = pl.col(column).str.contains(r"^[0-9a-f]{64}$")
    return Rule(column, f"{column}: 64 hexadecimal digits", ~form)


def _given(column: str) -> Rule:
    missing = (pl.col("status") == "ok") & pl.col(column).is_null()
    return Rule(column, f"{column} where the status is ok", missing)
