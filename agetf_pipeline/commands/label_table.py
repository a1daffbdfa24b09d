"""`agetf check-labels`: a file of age labels read, judged and counted."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from agetf_pipeline.core.files import write_json, write_text
from agetf_pipeline.data.label_statistics import WITHIN_YEARS, LabelStatistics, label_statistics
from agetf_pipeline.data.label_table import LabelTable, read_label_table
from agetf_pipeline.quality.label_rules import LABEL_FILE_RULES
from agetf_pipeline.quality.suites import judge
from agetf_pipeline.quality.verdict import SuiteResult, Verdict


@dataclass(frozen=True)
class CheckedLabels:
    """What came of checking one file of labels."""

    table: LabelTable
    result: SuiteResult
    statistics: LabelStatistics
    written: tuple[Path, ...]

    def lines(self) -> list[str]:
        """Return the whole as lines for a terminal."""
        return [
            f"{self.table.path}: {self.statistics.num_images} images, layout {self.table.layout}",
            "",
            *_aligned(_group_rows(self.statistics)),
            "",
            f"images within {WITHIN_YEARS:g} years of each anchor; ages are taken as spread evenly "
            "over their group",
            *_aligned(_anchor_rows(self.statistics)),
            "",
            *_aligned(_verdict_rows(self.result)),
            "",
            _conclusion(self.result),
            *(f"written: {path}" for path in self.written),
        ]


def check_labels(path: Path, out: Path | None = None) -> CheckedLabels:
    """Read a file of labels, judge it and count it.

    Args:
        path: CSV in FFHQ-Aging's layout or in that of a relabelling (`data.label_table`).
        out: Folder for `groups.csv`, `cross_table.csv`, `anchors.csv`, `expectations.json` and
            `labels.png`; None writes nothing.

    Raises:
        DataError: The file cannot be read as labels; the message names line and value.
    """
    table = read_label_table(path)
    statistics = label_statistics(table.frame)
    result = judge("label_file", table.frame, LABEL_FILE_RULES)
    written = () if out is None else _write(out, table, statistics, result)
    return CheckedLabels(table, result, statistics, written)


def _write(
    out: Path, table: LabelTable, statistics: LabelStatistics, result: SuiteResult
) -> tuple[Path, ...]:
    frames = {
        "groups.csv": statistics.groups,
        "cross_table.csv": statistics.cross,
        "anchors.csv": statistics.anchors,
    }
    for name, frame in frames.items():
        write_text(out / name, frame.write_csv())
    write_json(
        out / "expectations.json",
        {
            "file": table.path.name,
            "layout": table.layout,
            "num_rows": result.num_rows,
            "passed": result.passed,
            "blocks": result.blocks,
            "expectations": [vars(verdict) for verdict in result.verdicts],
        },
    )
    plot_labels(out / "labels.png", statistics, table.path.name)
    return tuple(out / name for name in (*frames, "expectations.json", "labels.png"))


def plot_labels(path: Path, statistics: LabelStatistics, subtitle: str) -> None:
    """Draw images per age group by gender, by race, and around each anchor.

    Args:
        path: PNG to write.
        statistics: The counts.
        subtitle: Which labels these are.
    """
    from agetf_pipeline.core.plotting import BLUE, GREY, ORANGE, PALETTE, figure, save_figure

    groups, anchors = statistics.groups, statistics.anchors
    panels = [kind for kind in ("gender", "race") if _columns_of(groups, kind)]
    fig = figure(5.5 * (len(panels) + 1), 3.8)
    axes = list(fig.subplots(1, len(panels) + 1, squeeze=False)[0])
    place = range(groups.height)
    for axis, kind in zip(axes[:-1], panels, strict=True):
        below = pl.Series([0] * groups.height)
        colours = iter(PALETTE)
        for column in _columns_of(groups, kind):
            value = column.removeprefix(f"{kind}_")
            colour = GREY if value == "unknown" else next(colours, GREY)
            axis.bar(
                place, groups[column], bottom=below, color=colour,
                label=f"{value} ({groups[column].sum():,})",
            )  # fmt: skip
            below += groups[column]
        axis.set_xticks(list(place), groups["age_group"].to_list(), rotation=45, ha="right")
        axis.set(xlabel="age group", ylabel="images")
        axis.set_title(f"{kind.capitalize()}, {subtitle}" if axis is axes[0] else kind.capitalize())
        axis.legend()
    last = axes[-1]
    for extrapolated, colour, name in (
        (False, BLUE, "images"), (True, ORANGE, "inside one open group: extrapolation"),
    ):  # fmt: skip
        rows = anchors.filter(pl.col("extrapolated") == extrapolated)
        last.bar(rows["anchor_years"], rows["effective_images"], 7, color=colour, label=name)
    for row in anchors.iter_rows(named=True):
        last.annotate(
            f"{row['effective_images']:,.0f}", (row["anchor_years"], row["effective_images"]),
            ha="center", va="bottom", fontsize=7,
        )  # fmt: skip
    last.set_xticks(anchors["anchor_years"].to_list())
    last.set(xlabel="anchor (years)", ylabel=f"effective images within {WITHIN_YEARS:g} years")
    last.set_title("Support of the anchors (ages even within a group)")
    last.legend()
    save_figure(path, fig)


def _columns_of(groups: pl.DataFrame, kind: str) -> list[str]:
    return [name for name in groups.columns if name.startswith(f"{kind}_")]


def _group_rows(statistics: LabelStatistics) -> list[list[str]]:
    groups = statistics.groups
    values = [name for kind in ("gender", "race") for name in _columns_of(groups, kind)]
    names = [name.partition("_")[2] for name in values]
    names = [
        name if names.count(name) == 1 else full for name, full in zip(names, values, strict=True)
    ]
    rows = [["age group", "images", "share", *names]]
    for row in groups.iter_rows(named=True):
        counts = [f"{row[name]:,}" for name in values]
        rows.append([row["age_group"], f"{row['images']:,}", f"{row['share']:.1%}", *counts])
    totals = [f"{groups[name].sum():,}" for name in values]
    return [*rows, ["all", f"{statistics.num_images:,}", "100.0%", *totals]]


def _anchor_rows(statistics: LabelStatistics) -> list[list[str]]:
    rows = [["anchor", "effective", "certain", "possible", "note"]]
    for row in statistics.anchors.iter_rows(named=True):
        counts = [f"{row[name]:,.0f}" for name in ("effective_images", "certain_images")]
        note = "extrapolation: no label reaches into it" if row["extrapolated"] else ""
        rows.append([f"{row['anchor_years']:g}", *counts, f"{row['possible_images']:,}", note])
    return rows


def _verdict_rows(result: SuiteResult) -> list[list[str]]:
    rows = [["expectation", "verdict", "broken", "limit", ""]]
    return rows + [
        [
            verdict.description,
            _word(verdict),
            f"{verdict.num_broken:,} of {verdict.num_rows:,}",
            f"{verdict.max_broken_fraction:.0%}",
            "" if verdict.passed else f"such as {', '.join(verdict.examples)}",
        ]
        for verdict in result.verdicts
    ]


def _word(verdict: Verdict) -> str:
    if not verdict.num_rows:
        return "no such column"
    return "holds" if verdict.passed else "FAILS" if verdict.severity == "critical" else "warning"


def _conclusion(result: SuiteResult) -> str:
    applied = [verdict for verdict in result.verdicts if verdict.num_rows]
    num_failed = sum(not verdict.passed for verdict in applied)
    if result.passed:
        return f"all {len(applied)} expectations hold"
    what = "these labels must not be used" if result.blocks else "a person should look"
    return f"{num_failed} of {len(applied)} expectations do not hold: {what}"


def _aligned(rows: list[list[str]]) -> list[str]:
    """Return rows of text in columns: the first to the left, numbers to the right."""
    last = len(rows[0]) - 1
    widths = [max(len(row[column]) for row in rows) for column in range(last + 1)]
    numeric = [
        column > 0 and all(row[column][:1].isdigit() for row in rows[1:])
        for column in range(last + 1)
    ]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in rows
    ]
