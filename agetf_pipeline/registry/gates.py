"""Gates: how much for the worse a paired difference may be, judged on its interval."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

AGAINST = "against_champion"
HOLDS, FAILS, NOT_MEASURED = "holds", "fails", "not measured"
BETTER, WORSE = "better", "worse"

Figures = Mapping[str, Mapping[str, Any]]
"""Figures of metrics.json by name: the fields of `core.statistics.Measure`."""


@dataclass(frozen=True)
class Rule:
    """One gate: which difference, challenger minus champion, may be how much for the worse.

    Attributes:
        figure: Name of the difference in the figures.
        label: For people.
        margin: How much worse its worse end may be.
        more_is_better: Whether a fall is the worse, not a rise.
        required: Whether the figure is one that decides: the gate fails where it was not measured,
            and a gain in it is one that counts.
        by_cell: Whether it is judged in every cell, `<figure>/<axis>=<value>`, by the worst.
    """

    figure: str
    label: str
    margin: float
    more_is_better: bool = False
    required: bool = False
    by_cell: bool = False


@dataclass(frozen=True)
class Gate:
    """What a gate found.

    Attributes:
        figure: Name of the difference; of the worst cell, for a gate on cells.
        verdict: `holds`, `fails` or `not measured`.
        reason: A sentence for people.
        margin: How much worse the worse end might have been.
        value: The difference; None where it was not measured.
        low: Lower end of its interval.
        high: Upper end.
        n: Faces or images behind it.
        closes: Whether it stands in the way of a promotion.
        shown: `better` or `worse` where the interval excludes 0, else empty.
        required: Whether the figure is one that decides: see `promotion.decide_by`.
        by_cell: Whether it is a gate on cells.
        num_cells: Cells that were judged, for a gate on cells.
        num_suppressed: Cells that were too small, or had no interval, and close nothing.
    """

    figure: str
    verdict: str
    reason: str
    margin: float
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    closes: bool = False
    shown: str = ""
    required: bool = False
    by_cell: bool = False
    num_cells: int = 0
    num_suppressed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-compatible values."""
        return asdict(self)


def judge(figures: Figures, rules: Sequence[Rule]) -> list[Gate]:
    """Judge each rule on the figures."""
    return [
        _judge_cells(figures, rule) if rule.by_cell else _judge_one(figures, rule) for rule in rules
    ]


def spell(item: Mapping[str, Any], signed: bool = False) -> str:
    """Return a figure as `4.92 [4.7, 5.13] (n = 1400)`; `not measured` where there is none."""
    if not is_number(item.get("value")):
        return NOT_MEASURED
    form = "+.4g" if signed else ".4g"
    interval = ""
    if is_number(item.get("low")) and is_number(item.get("high")):
        interval = f" [{item['low']:{form}}, {item['high']:{form}}]"
    return f"{item['value']:{form}}{interval} (n = {item.get('n', 0)})"


def why_not_measured(item: Mapping[str, Any]) -> str:
    """Return why a figure has no value."""
    return item.get("reason") or "the evaluation has no such figure"


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def has_interval(item: Mapping[str, Any]) -> bool:
    """Whether a figure has a value and both ends of its interval."""
    return all(is_number(item.get(key)) for key in ("value", "low", "high"))


def _judge_one(figures: Figures, rule: Rule) -> Gate:
    item = figures.get(rule.figure, {})
    if not has_interval(item):
        close = "; it must be" if rule.required else ""
        reason = f"{rule.label}: not measured ({why_not_measured(item)}){close}"
        return Gate(
            rule.figure, NOT_MEASURED, reason, rule.margin, closes=rule.required,
            required=rule.required,
        )  # fmt: skip
    return _gate(rule.figure, item, rule, rule.label)


def _judge_cells(figures: Figures, rule: Rule) -> Gate:
    """Judge a rule in every cell; the gate is that of the cell that lost most."""
    prefix = f"{rule.figure}/"
    cells = {
        name: item
        for name, item in figures.items()
        if name.startswith(prefix) and "=" in name.removeprefix(prefix)
    }
    known = {name: _worst_loss(item, rule) for name, item in cells.items() if has_interval(item)}
    suppressed = len(cells) - len(known)
    if not known:
        reason = f"{rule.label} by group: not measured (groups suppressed: {suppressed})"
        return Gate(
            rule.figure, NOT_MEASURED, reason, rule.margin, by_cell=True, num_suppressed=suppressed
        )
    worst = max(sorted(known), key=lambda name: known[name])
    label = f"{rule.label} in the worst of {len(known)} groups, {worst.removeprefix(prefix)}"
    further = f"; groups suppressed: {suppressed}" if suppressed else ""
    return _gate(worst, cells[worst], rule, label, further, len(known), suppressed)


def _gate(
    figure: str, item: Mapping[str, Any], rule: Rule, label: str, further: str = "",
    num_cells: int = 0, num_suppressed: int = 0,
) -> Gate:  # fmt: skip
    holds = _worst_loss(item, rule) <= rule.margin
    bound = -rule.margin if rule.more_is_better else rule.margin
    verdict = "no worse than" if holds else "may be worse than"
    reason = f"{label}: {spell(item, signed=True)}, {verdict} {bound:+.4g}{further}"
    return Gate(
        figure, HOLDS if holds else FAILS, reason, rule.margin, float(item["value"]),
        float(item["low"]), float(item["high"]), int(item.get("n", 0)), not holds,
        _shown(item, rule), rule.required, rule.by_cell, num_cells, num_suppressed,
    )  # fmt: skip


def _worst_loss(item: Mapping[str, Any], rule: Rule) -> float:
    """Return how much worse the worse end of the interval is."""
    return -float(item["low"]) if rule.more_is_better else float(item["high"])


def _shown(item: Mapping[str, Any], rule: Rule) -> str:
    """Return `better` or `worse` where the interval excludes 0, else an empty text."""
    low, high = float(item["low"]), float(item["high"])
    if low <= 0 <= high:
        return ""
    return BETTER if (low > 0) == rule.more_is_better else WORSE
