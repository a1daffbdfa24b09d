"""The cards of a release: what the data and the model are, measured where it was measured."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agetf_pipeline.config.register import ReleaseConfig
from agetf_pipeline.core.statistics import Measure
from agetf_pipeline.data.ages import AGE_GROUPS
from agetf_pipeline.evaluation.must_hold import describe
from agetf_pipeline.release.croissant import Contents
from agetf_pipeline.release.redaction import names_a_path

_BY_GROUP = "labels/mae_years/mixture/"
_LICENCES = {
    "apache-2.0", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-4.0", "mit",
}  # fmt: skip
"""Identifiers that the front matter of a card knows; every other is named beside `other`."""

_LABEL_METRICS = (
    "labels/mae_years/mixture",
    "labels/mae_years/group_midpoints",
    "labels/mae_gain_years",
    "labels/interval_coverage",
    "labels/interval_width_years",
    "enhancement/psnr/gain",
    "enhancement/ssim/gain",
)
_MODEL_METRICS = (
    "renderings/age_spearman",
    "renderings/age_mae_years",
    "renderings/mixture_age_mae_years",
    "worst_cell/age_mae_years",
    "renderings/age_slope",
    "renderings/order_violation_rate",
    "real/age_estimator_mae_years",
    "renderings/id_similarity",
    "renderings/verification_rate",
    "real/genuine_rate",
    "worst_cell/id_similarity",
    "renderings/attributes_kept",
    "renderings/face_found_rate",
    "real/face_found_rate",
    "renderings/source_psnr",
    "renderings/source_ssim",
)


def errors_by(evaluation: Mapping[str, Any]) -> tuple[str, ...]:
    """Return by which groups the labels' errors were measured: `age group`, `gender`, ..."""
    measured = [
        name.removeprefix(_BY_GROUP)
        for name, item in evaluation["metrics"].items()
        if name.startswith(_BY_GROUP) and item["value"] is not None
    ]
    axes = {name.partition("=")[0] if "=" in name else "age group" for name in measured}
    return tuple(sorted(axes))


def dataset_card(
    settings: ReleaseConfig,
    statistics: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    contents: Contents,
) -> str:
    """Return the dataset card as Markdown.

    Args:
        settings: Version and licence.
        statistics: Counts, as in statistics.json.
        evaluation: metrics.json of the run.
        contents: What the release holds.
    """
    synthetic, labels = contents.synthetic, _label_metrics(evaluation)
    ffhq, caf, splits = (statistics[key] for key in ("ffhq_aging", "caf_enhanced", "splits"))
    return _join(
        _front_matter(["face-age", "age-labels"], synthetic, settings.licence),
        f"# FFHQ-Aging relabelled and CAF enhanced, {settings.version}",
        _notice(synthetic),
        "Age labels of face images by a mixture of age experts, with their uncertainty, what "
        "enhancement did to the CAF images, and splits that keep each person in one part. "
        f"{contents.pictures} An image is named by the sha256 of its original file (`image_id`), "
        "and the originals have to be had from their publishers.",
        "## Files",
        "- `ffhq_aging_relabelled.{json,csv,parquet}`: a row per FFHQ-Aging image. `age_years` is "
        "the mixture's estimate, `variance_years2` its variance, `interval_low_years` and "
        "`interval_high_years` its prediction interval, `experts` every expert's part (JSON), "
        "`decision` whether the corpus's own group was kept, `filter_keep` whether training used "
        "it.\n"
        "- `caf_enhanced.{json,csv,parquet}`: a row per CAF image: what was done and why, the "
        "versions of the networks, and the age read before and after.\n"
        "- `identity_splits.{csv,parquet}`: train, val and test by person. Persons are keyed "
        "hashes: without the key, which is not released, no name can be tried against them.\n"
        "- `statistics.json`: counts. `checksums.sha256`: check with `sha256sum -c`.",
        "## Counts",
        f"- FFHQ-Aging: {ffhq['num_images']} images, {ffhq['num_labelled']} labelled; decisions "
        f"{_list(ffhq['by_decision'])}.\n"
        f"- CAF: {caf['num_images']} images, {caf['num_colourised']} colourised, "
        f"{caf['num_super_resolved']} super-resolved, {caf['num_age_shift_flagged']} flagged for "
        "a shift of age.\n"
        f"- Splits: {splits['num_identities']} people in {splits['num_images']} images; "
        f"{_list(splits['by_split'])}.",
        "## Measured",
        _figures(evaluation, labels),
        "## Limits and licence",
        "Ages are estimates of apparent age by networks; they are wrong more often for ages and "
        "groups of people that are rare in the training data. Do not use them to decide about a "
        "person. FFHQ-Aging and CAF allow non-commercial use only. This metadata is under "
        f"{settings.licence}.",
        _versions(evaluation),
    )


def model_card(
    settings: ReleaseConfig, run_name: str, evaluation: Mapping[str, Any], synthetic: bool
) -> str:
    """Return the model card as Markdown.

    Args:
        settings: Version and licence.
        run_name: Of the training run.
        evaluation: metrics.json of the run.
        synthetic: Whether the faces are synthetic.
    """
    statements = "\n".join(
        f"- {item['text']} **{item['verdict'].capitalize()}.**" for item in evaluation["must_hold"]
    )
    return _join(
        _front_matter(["face-age", "image-to-image"], synthetic, settings.licence),
        f"# AgeTransformer `{run_name}`, release {settings.version}",
        _notice(synthetic),
        "Renders an aligned face at any age from 0 to 100 years, ten ages in one pass. The "
        "weights are in the model registry; this release holds none.",
        "## Use",
        "`agetf render --input FILE --model models:/age-transformer@champion --out DIR`",
        "For research on ageing and for pictures that everybody shown agreed to. Not for "
        "identification, not for estimating how a real person will look as a matter of fact, and "
        "not for pictures meant to deceive.",
        "## Measured",
        statements or "- nothing was judged",
        _figures(evaluation, _MODEL_METRICS),
        "## Limits and licence",
        "The code is permissively licensed. Weights trained on FFHQ-Aging or CAF are for "
        "non-commercial use. A rendering shows what is typical in the training data, not what "
        "will happen to one person.",
        _versions(evaluation),
    )


def _front_matter(tags: list[str], synthetic: bool, licence: str) -> str:
    names = [*tags, "synthetic"] if synthetic else tags
    lines = "\n".join(f"- {name}" for name in names)
    known = licence.lower() in _LICENCES
    its = licence.lower() if known else f"other\nlicense_name: {json.dumps(licence)}"
    return f"---\nlicense: {its}\ntags:\n{lines}\n---"


def _label_metrics(evaluation: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the figures of labels that the card shows: all together, then group by group."""
    groups = [f"{_BY_GROUP}{group}" for group in AGE_GROUPS]
    cells = sorted(
        name for name in evaluation["metrics"] if name.startswith(f"{_BY_GROUP}") and "=" in name
    )
    return (*_LABEL_METRICS, *groups, *cells)


def _notice(synthetic: bool) -> str:
    if not synthetic:
        return ""
    return "**Synthetic: drawn faces, no photographs of people. Every figure here is synthetic.**"


def _figures(evaluation: Mapping[str, Any], names: tuple[str, ...]) -> str:
    metrics = evaluation["metrics"]
    rows = [f"| `{name}` | {_spell(metrics[name])} |" for name in names if name in metrics]
    header = "| Figure | Value [interval], sample size |\n|---|---|\n"
    return header + "\n".join(rows) if rows else "Nothing was measured."


def _spell(item: Mapping[str, Any]) -> str:
    measure = Measure(**item)
    if names_a_path(f"{measure.reason or ''}{measure.note or ''}"):
        measure = replace(measure, reason="see the report of the run", note=None)
    return describe(measure)


def _versions(evaluation: Mapping[str, Any]) -> str:
    rows = [f"- {name}: `{value}`" for name, value in sorted(evaluation["versions"].items())]
    return "\n".join(["## Versions", "", *rows])


def _list(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def _join(*blocks: str) -> str:
    return "\n\n".join(block for block in blocks if block) + "\n"
