"""Whether a new version may become the champion: gates on paired intervals, with their reasons."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agetf_pipeline.config.register import GatesConfig

AGE_MAE, IDENTITY = "renderings/age_mae_years", "renderings/id_similarity"
AGAINST = "against_champion"
RISES = "rendered_age_rises"
HOLDS, FAILS, NOT_MEASURED = "holds", "fails", "not measured"
EVALUATE_AGAIN = "run evaluate again"
BY_HAND = "to have it all the same: agetf registry promote"

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
        required: Whether the gate fails where it was not measured.
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
        required: Whether the figure is one that decides: see `decide_by`.
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
    num_cells: int = 0
    num_suppressed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-compatible values."""
        return asdict(self)


@dataclass(frozen=True)
class Decision:
    """Whether to promote, why or why not in sentences, and the gates where any were judged."""

    promote: bool
    reasons: tuple[str, ...]
    gates: tuple[Gate, ...] = ()


@dataclass(frozen=True)
class Compared:
    """A version that another is compared with: its number and the sha256 of its weights."""

    version: str
    weights_sha256: str


def transformer_rules(gates: GatesConfig) -> list[Rule]:
    """Return the gates of an AgeTransformer, from the configured margins."""
    age, identity = f"{AGAINST}/age_mae_years", f"{AGAINST}/id_similarity"
    return [
        Rule(age, "age MAE (years)", gates.max_age_mae_increase_years, required=True),
        Rule(identity, "identity similarity", gates.max_identity_decrease, True, True),
        Rule(f"{AGAINST}/source_ssim", "SSIM at the own age", gates.max_ssim_decrease, True),
        Rule(f"{AGAINST}/source_lpips", "LPIPS at the own age", gates.max_lpips_increase),
        Rule(f"{AGAINST}/face_found_rate", "faces found", gates.max_face_found_decrease, True),
        Rule(age, "age MAE (years)", gates.max_group_age_mae_increase_years, by_cell=True),
        Rule(
            identity, "identity similarity", gates.max_group_identity_decrease, True, by_cell=True
        ),
    ]


def decide(
    evaluation: Mapping[str, Any], champion: Compared | None, gates: GatesConfig
) -> Decision:
    """Decide whether an evaluated AgeTransformer may take the champion's place.

    Args:
        evaluation: The contents of metrics.json.
        champion: Who is champion now; None where nobody is.
        gates: The margins.

    Returns:
        Promotion where every gate holds; without a champion, where the least was measured and the
        rendered age is not shown to fall short.
    """
    found = evaluation.get("champion")
    compared = None if found is None else Compared(str(found["version"]), found["weights_sha256"])
    if champion is None:
        if compared is None:
            return _decide_first(evaluation)
        return Decision(
            False,
            (f"compared with version {compared.version}, there is no champion now: "
             f"{EVALUATE_AGAIN}",),
        )  # fmt: skip
    if compared is None:
        return Decision(
            False,
            (f"compared with no champion, the champion is {champion.version} now: "
             f"{EVALUATE_AGAIN}",),
        )  # fmt: skip
    if compared.version != champion.version:
        return Decision(
            False,
            (f"compared with version {compared.version}, the champion is {champion.version} now: "
             f"{EVALUATE_AGAIN}",),
        )  # fmt: skip
    if compared.weights_sha256 != champion.weights_sha256:
        return Decision(
            False,
            (f"compared with other weights of version {compared.version} than it has now: "
             f"{EVALUATE_AGAIN}",),
        )  # fmt: skip
    return decide_by(judge(evaluation["metrics"], transformer_rules(gates)))


def decide_by(gates: Sequence[Gate]) -> Decision:
    """Return the decision that judged gates come to: promotion where none of them closes.

    Margins are there for trades: a little of one thing for more of another. A loss within the
    margin that is shown, in a figure that decides, is no trade where no such figure is shown to
    gain; a hundred promotions in a row could lose a hundred margins.
    """
    reasons = [gate.reason for gate in gates]
    promote = not any(gate.closes for gate in gates)
    deciding = [gate for gate in gates if gate.required]
    lost = [gate.figure for gate in deciding if gate.shown == "worse"]
    if lost and not any(gate.shown == "better" for gate in deciding):
        promote = False
        reasons.append(f"shown to be worse in {', '.join(lost)}, and better in nothing that counts")
    return Decision(promote, tuple(reasons), tuple(gates))


def judge(figures: Figures, rules: Sequence[Rule]) -> list[Gate]:
    """Judge each rule on the figures."""
    return [
        _judge_cells(figures, rule) if rule.by_cell else _judge_one(figures, rule) for rule in rules
    ]


def spell(item: Mapping[str, Any], signed: bool = False) -> str:
    """Return a figure as `4.92 [4.7, 5.13] (n = 1400)`; `not measured` where there is none."""
    if not _is_number(item.get("value")):
        return NOT_MEASURED
    form = "+.4g" if signed else ".4g"
    interval = ""
    if _is_number(item.get("low")) and _is_number(item.get("high")):
        interval = f" [{item['low']:{form}}, {item['high']:{form}}]"
    return f"{item['value']:{form}}{interval} (n = {item.get('n', 0)})"


def _decide_first(evaluation: Mapping[str, Any]) -> Decision:
    """Decide without a champion: nothing to compare with, but the least must be known."""
    figures: Figures = evaluation["metrics"]
    reasons, promote = ["there is no champion yet"], True
    for name, label in ((AGE_MAE, "age MAE (years)"), (IDENTITY, "identity similarity")):
        item = figures.get(name, {})
        if _is_number(item.get("value")):
            reasons.append(f"{label}: {spell(item)}")
        else:
            promote = False
            reasons.append(f"{label}: not measured ({_why(item)})")
    for statement in evaluation.get("must_hold", ()):
        if statement["name"] == RISES and statement["verdict"] == "does not hold":
            promote = False
            reasons.append(f"'{statement.get('text', RISES)}' does not hold")
    if not promote:
        reasons.append(BY_HAND)
    return Decision(promote, tuple(reasons))


def _judge_one(figures: Figures, rule: Rule) -> Gate:
    item = figures.get(rule.figure, {})
    loss = _worst_loss(item, rule)
    if loss is None:
        close = "; it must be" if rule.required else ""
        reason = f"{rule.label}: not measured ({_why(item)}){close}"
        return Gate(rule.figure, NOT_MEASURED, reason, rule.margin, closes=rule.required)
    return _gate(rule.figure, item, rule, loss, rule.label)


def _judge_cells(figures: Figures, rule: Rule) -> Gate:
    """Judge a rule in every cell; the gate is that of the cell that lost most."""
    prefix = f"{rule.figure}/"
    cells = {
        name: item
        for name, item in figures.items()
        if name.startswith(prefix) and "=" in name.removeprefix(prefix)
    }
    losses = {name: _worst_loss(item, rule) for name, item in cells.items()}
    known = {name: loss for name, loss in losses.items() if loss is not None}
    suppressed = len(cells) - len(known)
    if not known:
        reason = f"{rule.label} by group: not measured (groups suppressed: {suppressed})"
        return Gate(
            rule.figure, NOT_MEASURED, reason, rule.margin, num_suppressed=suppressed
        )  # fmt: skip
    worst = max(sorted(known), key=lambda name: known[name])
    label = f"{rule.label} in the worst of {len(known)} groups, {worst.removeprefix(prefix)}"
    further = f"; groups suppressed: {suppressed}" if suppressed else ""
    return _gate(worst, cells[worst], rule, known[worst], label, further, len(known), suppressed)


def _gate(
    figure: str, item: Mapping[str, Any], rule: Rule, loss: float, label: str, further: str = "",
    num_cells: int = 0, num_suppressed: int = 0,
) -> Gate:  # fmt: skip
    holds = loss <= rule.margin
    bound = -rule.margin if rule.more_is_better else rule.margin
    verdict = "no worse than" if holds else "may be worse than"
    reason = f"{label}: {spell(item, signed=True)}, {verdict} {bound:+.4g}{further}"
    return Gate(
        figure, HOLDS if holds else FAILS, reason, rule.margin, float(item["value"]),
        float(item["low"]), float(item["high"]), int(item.get("n", 0)), not holds,
        _shown(item, rule), rule.required, num_cells, num_suppressed,
    )  # fmt: skip


def _worst_loss(item: Mapping[str, Any], rule: Rule) -> float | None:
    """Return how much worse the worse end of the interval is; None where there is no interval."""
    if not all(_is_number(item.get(key)) for key in ("value", "low", "high")):
        return None
    return -float(item["low"]) if rule.more_is_better else float(item["high"])


def _shown(item: Mapping[str, Any], rule: Rule) -> str:
    """Return `better` or `worse` where the interval excludes 0, else an empty text."""
    low, high = float(item["low"]), float(item["high"])
    if low <= 0 <= high:
        return ""
    return "better" if (low > 0) == rule.more_is_better else "worse"


def _why(item: Mapping[str, Any]) -> str:
    return item.get("reason") or "the evaluation has no such figure"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
