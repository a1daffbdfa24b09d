"""What a good table looks like: rules on rows, written in Polars, with what may fail of each.

A rule marks the rows that break it. How many may do so, and whether a table that passes that limit
must not spread (critical) or a person should look (warning), stands beside the rule; the verdict
itself is given by Great Expectations on the counts (`suites.py`).
"""

import polars as pl

from agetf_pipeline.data.ages import AGE_GROUPS
from agetf_pipeline.data.quarantine import REASONS
from agetf_pipeline.data.schemas import LABEL_DECISIONS, NUM_AGE_BINS
from agetf_pipeline.quality.caption_rules import CAPTION_RULES
from agetf_pipeline.quality.rule import Rule

_MAX_AGE_YEARS = 120


def _outside(column: str, low: float, high: float) -> pl.Expr:
    value = pl.col(column)
    return value.is_nan() | (value < low) | (value > high)


def _null_without_reason(column: str) -> pl.Expr:
    return pl.col(column).is_null() & pl.col("reason").is_null()


def _flagged_by(guard: str) -> pl.Expr:
    return pl.col("flags").list.contains(guard)


_NOT_OK = pl.col("status") != "ok"

RULES: dict[str, tuple[Rule, ...]] = {
    "images": (
        Rule(
            "size_known",
            "Every face has a size",
            (pl.col("width_px") < 1) | (pl.col("height_px") < 1),
        ),
        Rule(
            "true_age_in_range",
            "Ages given by the corpus lie in 0-120 years",
            _outside("true_age_years", 0, _MAX_AGE_YEARS),
        ),
        Rule(
            "age_group_known", "Age groups are FFHQ-Aging's", ~pl.col("age_group").is_in(AGE_GROUPS)
        ),
        Rule(
            "image_id_is_sha256",
            "image_id is a sha256",
            ~pl.col("image_id").str.contains(r"^[0-9a-f]{64}$"),
        ),
        Rule(
            "age_label_confident",
            "Crowd labels have a confidence above 0.6",
            pl.col("age_group_confidence") <= 0.6,
            "warning",
            0.3,
        ),
        Rule(
            "few_conversions",
            "Few images had to be converted (CMYK, 16 bit, rotation)",
            pl.col("flags").list.len() > 0,
            "warning",
            0.5,
        ),
    ),
    "quarantine": (
        Rule(
            "reason_known",
            "Reasons are those that docs/own_data.md explains",
            ~pl.col("reason").is_in(list(REASONS)),
        ),
        Rule(
            "explained",
            "Every file that was not taken says why, in a sentence",
            pl.col("detail").str.strip_chars().str.len_chars() == 0,
        ),
        Rule(
            "duplicate_linked",
            "A duplicate names the file that was kept",
            (pl.col("reason") == "duplicate") & pl.col("duplicate_of").is_null(),
        ),
        Rule(
            "no_crash",
            "No file brings the decoder down",
            pl.col("reason") == "decoder_crash",
            "warning",
        ),
    ),
    "predictions": (
        Rule("answered", "Experts answer", _NOT_OK, "warning", 0.05),
        Rule("mostly_answered", "Experts answer on most images", _NOT_OK, "critical", 0.5),
        Rule("failure_explained", "A failed reading says why", _null_without_reason("age_years")),
        Rule("age_in_range", "Ages lie in 0-120 years", _outside("age_years", 0, _MAX_AGE_YEARS)),
        Rule(
            "sigma_positive",
            "A standard deviation is positive and finite",
            ~(pl.col("sigma_years") > 0) | ~pl.col("sigma_years").is_finite(),
            applies=pl.col("status") == "ok",
        ),
        Rule(
            "distribution_sums_to_one",
            "Distributions over ages sum to 1",
            ((pl.col("distribution").list.sum() - 1).abs() > 1e-3)
            | (pl.col("distribution").list.len() != NUM_AGE_BINS),
        ),
        Rule(
            "valid_mass",
            "Janus gives most of its probability to numbers",
            pl.col("valid_mass") < 0.5,
            "warning",
            0.05,
        ),
    ),
    "labels": (
        Rule("age_in_range", "Ages lie in 0-120 years", _outside("age_years", 0, _MAX_AGE_YEARS)),
        Rule("variance_not_negative", "Variances are not negative", pl.col("variance_years2") < 0),
        Rule(
            "variance_adds_up",
            "Variance = within + between",
            (
                pl.col("variance_years2")
                - pl.col("within_variance_years2")
                - pl.col("between_variance_years2")
            ).abs()
            > 1e-2 * (1 + pl.col("variance_years2")),
        ),
        Rule(
            "interval_ordered",
            "An interval's ends are in order",
            pl.col("interval_low_years") > pl.col("interval_high_years"),
        ),
        Rule(
            "unlabelled_explained",
            "An image without a label says why",
            _null_without_reason("age_years"),
        ),
        Rule("reliability_in_range", "Reliabilities lie in 0-1", _outside("reliability", 0, 1)),
        Rule("labelled", "Images get a label", pl.col("age_years").is_null(), "warning", 0.05),
        Rule(
            "mostly_labelled",
            "Most images get a label",
            pl.col("age_years").is_null(),
            "critical",
            0.5,
        ),
        Rule("calibrated", "The mixture is calibrated", ~pl.col("calibrated"), "warning"),
        Rule(
            "decision_known",
            "Decisions are keep, relabel, review, drop, none or unlabelled",
            ~pl.col("decision").is_in(LABEL_DECISIONS),
        ),
        Rule(
            "few_for_review",
            "Few labels need a person",
            pl.col("decision").is_in(["review", "drop"]),
            "warning",
            0.2,
        ),
        Rule(
            "few_relabelled",
            "Under half of the original labels are replaced",
            pl.col("decision") == "relabel",
            "warning",
            0.5,
            pl.col("original_age_group").is_not_null(),
        ),
    ),
    "keep_list": (
        Rule(
            "drop_explained",
            "A dropped image says why",
            ~pl.col("keep") & (pl.col("reasons").list.len() == 0),
        ),
        Rule(
            "kept_have_labels",
            "A kept image has an age",
            pl.col("keep") & pl.col("label_age_years").is_null(),
        ),
        Rule(
            "weight_in_range",
            "Curriculum weights lie in (0, 1]",
            (pl.col("curriculum_weight") <= 0) | (pl.col("curriculum_weight") > 1),
        ),
        Rule("kept", "Most images are kept", ~pl.col("keep"), "warning", 0.5),
        Rule("some_kept", "Some images are kept", ~pl.col("keep"), "critical", 0.999),
    ),
    "enhanced": (
        Rule("succeeded", "Enhancement succeeds", _NOT_OK, "warning", 0.02),
        Rule("mostly_succeeded", "Enhancement mostly succeeds", _NOT_OK, "critical", 0.2),
        Rule("failure_explained", "A failure says why", _null_without_reason("enhanced_path")),
        Rule(
            "linked",
            "Every output has its hash and its sidecar",
            pl.col("enhanced_sha256").is_null() | pl.col("sidecar_path").is_null(),
            applies=pl.col("status") == "ok",
        ),
    ),
    "enhanced_ages": (
        Rule("age_kept", "Enhancement leaves the age alone", _flagged_by("age"), "warning", 0.2),
        Rule(
            "identity_kept",
            "Enhancement leaves the person alone",
            _flagged_by("identity"),
            "warning",
            0.05,
            pl.col("identity_similarity").is_not_null(),
        ),
        Rule(
            "sharpness_kept", "Enhancement does not blur", _flagged_by("sharpness"), "warning", 0.1
        ),
        Rule("colour_kept", "Enhancement keeps colour", _flagged_by("colour"), "warning", 0.1),
        Rule(
            "similarity_in_range",
            "Cosines lie in -1 to 1",
            _outside("identity_similarity", -1, 1),
        ),
        Rule(
            "sharpness_ratio_in_range",
            "Ratios of sharpness are finite and not negative",
            ~pl.col("sharpness_ratio").is_finite() | (pl.col("sharpness_ratio") < 0),
        ),
        Rule(
            "flag_explained",
            "A flag says why",
            pl.col("flagged") & pl.col("reason").is_null(),
        ),
        Rule(
            "flags_agree",
            "An image is flagged where a guard flags it",
            pl.col("flagged") != (pl.col("flags").list.len() > 0),
        ),
        Rule(
            "unknown_explained",
            "What could not be compared says why",
            pl.any_horizontal(
                pl.col(
                    "age_shift_years",
                    "identity_similarity",
                    "sharpness_ratio",
                    "colourfulness_change",
                ).is_null()
            )
            & pl.col("not_compared").is_null(),
        ),
    ),
    "captions": CAPTION_RULES,
    "training_manifest": (
        Rule("age_in_range", "Ages lie in 0-120 years", _outside("age_years", 0, _MAX_AGE_YEARS)),
        Rule("variance_not_negative", "Variances are not negative", pl.col("variance_years2") < 0),
        Rule(
            "weight_in_range",
            "Curriculum weights lie in (0, 1]",
            (pl.col("curriculum_weight") <= 0) | (pl.col("curriculum_weight") > 1),
        ),
        Rule(
            "identities_in_one_split",
            "No identity is in two splits",
            pl.col("split").n_unique().over("identity") > 1,
            whole=True,
        ),
        Rule(
            "split_known",
            "Splits are train, val or test",
            ~pl.col("split").is_in(["train", "val", "test"]),
        ),
        Rule("captioned", "Images have captions", ~pl.col("has_caption"), "warning", 0.05),
    ),
}


MAY_BE_EMPTY = frozenset({"quarantine", "weights"})
"""What is good without a row: configured checkpoints leave no weights of ours."""


def enough_experts(num_required: int) -> Rule:
    """Return the rule that most labels rest on at least `num_required` experts."""
    return Rule(
        "enough_experts",
        f"Most labels rest on at least {num_required} experts, as the config requires",
        pl.col("num_experts") < num_required,
        "critical",
        0.5,
    )
