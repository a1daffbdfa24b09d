"""The report of a run, as HTML that needs nothing from outside and as Markdown."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agetf_pipeline.core.files import write_text
from agetf_pipeline.core.statistics import Measure
from agetf_pipeline.data.ages import AGE_GROUPS
from agetf_pipeline.evaluation.identity import GAPS_YEARS, gap_name
from agetf_pipeline.evaluation.must_hold import Statement, number


@dataclass(frozen=True)
class Table:
    """A table of figures: a heading per column, and per row a label and figures."""

    caption: str
    columns: tuple[str, ...]
    rows: list[tuple[str, list[Measure]]]


@dataclass(frozen=True)
class Picture:
    """A picture of the run folder, with what it shows."""

    file: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    title: str
    intro: str
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


def build_sections(
    measures: Mapping[str, Measure], pictures: Mapping[str, Picture], anchors_years: Sequence[float]
) -> list[Section]:
    """Arrange figures and pictures into the report's parts.

    Args:
        measures: Every figure by name.
        pictures: Pictures that were drawn, by `grid`, `read_ages`, `identity`, `labels`,
            `histogram`, `enhancement`.
        anchors_years: The target ages.
    """
    shown = {name: [pictures[name]] if name in pictures else [] for name in (
        "grid", "read_ages", "identity", "labels", "histogram", "enhancement",
    )}  # fmt: skip
    return [
        Section(
            "Renderings",
            "Held-out faces, each rendered at every anchor. The first column of the picture is the "
            "original.",
            [],
            shown["grid"],
        ),
        Section(
            "Age of renderings",
            "Read by an estimator that training never used. Its own error on real held-out faces "
            "bounds what these figures can say.",
            [
                _list("Over all anchors", measures, _AGE_ROWS),
                _anchor_table(measures, anchors_years),
            ],
            shown["read_ages"],
        ),
        Section(
            "Identity",
            "Similarity to the source by an embedder that training never used. The threshold "
            "accepts one in a thousand pairs of different people; the rate of real people at the "
            "same gap of age stands beside the renderings'.",
            [_list("Overall", measures, _IDENTITY_ROWS), _gap_table(measures)],
            shown["identity"],
        ),
        Section(
            "Image quality",
            "Against the source, rendered at the source's own age.",
            [_list("Quality", measures, _QUALITY_ROWS)],
        ),
        Section(
            "Labels",
            "Every method on the same images, against the true age.",
            [_label_table(measures), _list("Mixture", measures, _LABEL_ROWS),
             _group_table(measures)],
            shown["labels"] + shown["histogram"],
        ),
        Section(
            "Enhancement",
            "Degraded images against their clean originals. `gain` is enhanced minus bicubic, "
            "image by image.",
            _enhancement_tables(measures),
            shown["enhancement"],
        ),
    ]  # fmt: skip


def write_report(
    folder: Path,
    title: str,
    summary: str,
    statements: Sequence[Statement],
    sections: Sequence[Section],
    versions: Mapping[str, str],
    synthetic: bool,
) -> None:
    """Write `report.html` and `report.md` into a run folder.

    Args:
        folder: The run folder; pictures named in the sections lie in it.
        title: Of the report.
        summary: A plain paragraph for the top.
        statements: What the run must show, judged.
        sections: From `build_sections`.
        versions: What made the figures, by name.
        synthetic: Whether the faces are synthetic.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("agetf_pipeline.evaluation", "."),
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    values: dict[str, Any] = {
        "title": title,
        "summary": summary,
        "statements": statements,
        "sections": sections,
        "versions": dict(sorted(versions.items())),
        "synthetic": synthetic,
        "number": number,
        "embed": lambda file: _data_uri(folder / file),
    }
    for name in ("report.html", "report.md"):
        write_text(folder / name, environment.get_template(f"{name}.j2").render(values))


_AGE_ROWS = {
    "Spearman, target against read age": "renderings/age_spearman",
    "Spearman, mean over faces": "renderings/age_spearman_per_face",
    "MAE": "renderings/age_mae_years",
    "Bias": "renderings/age_bias_years",
    "Slope": "renderings/age_slope",
    "Neighbouring anchors in the wrong order": "renderings/order_violation_rate",
    "Estimator's own MAE on real held-out faces": "real/age_estimator_mae_years",
}
_IDENTITY_ROWS = {
    "Similarity of renderings to their source": "renderings/id_similarity",
    "Similarity of real pairs of one person": "real/id_similarity_genuine",
    "Similarity of real pairs of two people": "real/id_similarity_impostor",
    "Verification threshold": "real/verification_threshold",
    "Renderings verified": "renderings/verification_rate",
    "Real pairs of one person verified": "real/genuine_rate",
}
_QUALITY_ROWS = {
    "PSNR": "renderings/source_psnr",
    "SSIM": "renderings/source_ssim",
    "LPIPS": "renderings/source_lpips",
    "KID": "renderings/kid",
    "Sharpness over the source's": "renderings/sharpness_ratio",
    "PSNR against the true drawing at the target age": "renderings/truth_psnr",
    "SSIM against the true drawing at the target age": "renderings/truth_ssim",
    "PSNR of the unchanged source, likewise": "renderings/truth_psnr_unchanged",
    "SSIM of the unchanged source, likewise": "renderings/truth_ssim_unchanged",
}
_LABEL_ROWS = {
    "Midpoints' MAE minus the mixture's": "labels/mae_gain_years",
    "Mixture's MAE over the best expert's": "labels/mae_ratio_to_best_expert",
    "Intervals that hold the true age": "labels/interval_coverage",
    "Width of the intervals": "labels/interval_width_years",
    "Mixture within 5 years": "labels/cs5/mixture",
    "Midpoints within 5 years": "labels/cs5/group_midpoints",
}


def _list(caption: str, measures: Mapping[str, Measure], rows: Mapping[str, str]) -> Table:
    present = [(label, [measures[name]]) for label, name in rows.items() if name in measures]
    return Table(caption, ("value",), present)


def _cells(measures: Mapping[str, Measure], names: Sequence[str]) -> list[Measure]:
    missing = Measure(None, reason="not measured")
    return [measures.get(name, missing) for name in names]


def _anchor_table(measures: Mapping[str, Measure], anchors_years: Sequence[float]) -> Table:
    names = ("age_read_years", "age_bias_years", "age_sd_years", "age_mae_years")
    rows = [
        (f"{anchor:g} years", _cells(measures, [f"renderings/{n}/{anchor:g}" for n in names]))
        for anchor in anchors_years
    ]
    return Table("By anchor, years", ("mean read", "bias", "SD", "MAE"), rows)


def _gap_table(measures: Mapping[str, Measure]) -> Table:
    names = ("renderings/verification_rate", "real/genuine_rate")
    rows = [
        (f"{gap_name(gap)} years", _cells(measures, [f"{n}/gap_{gap_name(gap)}" for n in names]))
        for gap in GAPS_YEARS
    ]
    return Table("Verified, by gap of age", ("renderings", "real people"), rows)


def _label_table(measures: Mapping[str, Measure]) -> Table:
    prefix = "labels/mae_years/"
    rows = [
        (name.removeprefix(prefix).removeprefix("expert_").replace("_", " "), [item])
        for name, item in measures.items()
        if name.startswith(prefix) and "/" not in name.removeprefix(prefix)
    ]
    return Table("Error of labels, MAE in years", ("MAE",), rows)


def _group_table(measures: Mapping[str, Measure]) -> Table:
    names = ("labels/mae_years/group_midpoints", "labels/mae_years/mixture")
    rows = [
        (group, _cells(measures, [f"{name}/{group}" for name in names])) for group in AGE_GROUPS
    ]
    return Table("By true age group, MAE in years", ("group midpoints", "mixture"), rows)


def _enhancement_tables(measures: Mapping[str, Measure]) -> list[Table]:
    tables = []
    for metric, caption in (("psnr", "PSNR, dB"), ("ssim", "SSIM")):
        prefix = f"enhancement/{metric}/enhanced"
        rows = []
        for name in sorted(name for name in measures if name.startswith(prefix)):
            kind = name.removeprefix(prefix)
            names = [f"enhancement/{metric}/{column}{kind}" for column in _ENHANCEMENT_COLUMNS]
            label = kind.removeprefix("/").replace("_", " ") or "all"
            rows.append((label, _cells(measures, names)))
        tables.append(Table(caption, _ENHANCEMENT_COLUMNS, rows))
    lpips = {"LPIPS": "enhancement/lpips/enhanced"}
    return [*tables, _list("Perceptual distance", measures, lpips)]


_ENHANCEMENT_COLUMNS = ("enhanced", "bicubic", "gain")


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
