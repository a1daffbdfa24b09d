"""What a run must show, as statements that hold, do not hold, or could not be judged."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agetf_pipeline.config.evaluate import EvaluateConfig
from agetf_pipeline.core.statistics import Measure
from agetf_pipeline.evaluation.labels import best_expert


@dataclass(frozen=True)
class Statement:
    """One statement.

    Attributes:
        name: For machines.
        text: For people.
        holds: Whether the figures bear it out; None where they could not be computed.
        detail: The figures, with intervals and sample sizes, or why there are none.
        metrics: The figures' names in metrics.json.
    """

    name: str
    text: str
    holds: bool | None
    detail: str
    metrics: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """`holds`, `does not hold`, or `not judged`."""
        return {True: "holds", False: "does not hold", None: "not judged"}[self.holds]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields and the verdict as JSON-compatible values."""
        return asdict(self) | {"metrics": list(self.metrics), "verdict": self.verdict}


@dataclass(frozen=True)
class _Condition:
    """A figure whose whole interval has to lie above a bound, or below it."""

    metric: str
    bound: float
    above: bool = True

    def holds(self, item: Measure | None) -> bool | None:
        """Return whether it does; None where the figure or its interval could not be computed."""
        if item is None or item.value is None or item.low is None or item.high is None:
            return None
        return item.low > self.bound if self.above else item.high <= self.bound


def judge(measures: Mapping[str, Measure], config: EvaluateConfig) -> list[Statement]:
    """Return the statements that a run must show, judged by the intervals of its figures.

    Args:
        measures: Every figure by name.
        config: The thresholds.
    """
    mixture, midpoints = "labels/mae_years/mixture", "labels/mae_years/group_midpoints"
    best = best_expert(measures)
    psnr, ssim = "enhancement/psnr", "enhancement/ssim"
    allowed = config.max_mixture_to_best_expert
    expert = "expert" if best is None else f"expert ({best.removeprefix('expert_')})"
    return [
        _statement(
            "mixture_below_group_midpoints",
            "The mixture's ages are closer to the truth than the corpus labels' group midpoints.",
            measures,
            [_Condition("labels/mae_gain_years", 0)],
            (mixture, midpoints),
        ),
        _statement(
            "mixture_near_best_expert",
            f"The mixture's error is at most {allowed:g} times that of the best single {expert}.",
            measures,
            [_Condition("labels/mae_ratio_to_best_expert", allowed, above=False)],
            (mixture, f"labels/mae_years/{best or 'expert'}"),
        ),
        _statement(
            "enhancement_beats_bicubic",
            "Enhanced degraded images are closer to their clean originals than the degraded ones "
            "resized bicubically, by PSNR and by SSIM.",
            measures,
            [_Condition(f"{psnr}/gain", 0), _Condition(f"{ssim}/gain", 0)],
            (f"{psnr}/enhanced", f"{psnr}/bicubic", f"{ssim}/enhanced", f"{ssim}/bicubic"),
        ),
        _statement(
            "colour_beats_grey_copy",
            "Of faces that had lost their colour, enhanced ones are closer to their clean "
            "originals than the grey copies, by PSNR and by SSIM.",
            measures,
            [_Condition(f"{psnr}/gain/grey", 0), _Condition(f"{ssim}/gain/grey", 0)],
            tuple(f"{metric}/{name}/grey" for metric in (psnr, ssim)
                  for name in ("enhanced", "bicubic")),
        ),
        _statement(
            "rendered_age_rises",
            "The age that an estimator outside training reads rises with the target age: "
            f"Spearman above {config.min_age_spearman:g} over the anchors.",
            measures,
            [_Condition("renderings/age_spearman", config.min_age_spearman)],
        ),
    ]  # fmt: skip


def describe(measure: Measure) -> str:
    """Return a figure in words: value, unit, interval, n, and `synthetic` where it is so."""
    if measure.value is None:
        return f"not computed ({measure.reason})"
    unit = f" {measure.unit}" if measure.unit else ""
    interval = ""
    if measure.low is not None and measure.high is not None:
        interval = f" [{number(measure.low)}, {number(measure.high)}]"
    synthetic = ", synthetic" if measure.synthetic else ""
    note = f"; {measure.note}" if measure.note else ""
    return f"{number(measure.value)}{unit}{interval} (n = {measure.n}{synthetic}{note})"


def number(value: float) -> str:
    """Return a number as people read it: three significant digits or two decimals."""
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"


def _statement(
    name: str,
    text: str,
    measures: Mapping[str, Measure],
    conditions: Sequence[_Condition],
    beside: tuple[str, ...] = (),
) -> Statement:
    """Judge a statement; `beside` names figures that are shown with those that decide."""
    verdicts = [condition.holds(measures.get(condition.metric)) for condition in conditions]
    judged = None if None in verdicts else all(verdicts)
    metrics = (*(condition.metric for condition in conditions), *beside)
    found = [(metric, measures.get(metric)) for metric in metrics]
    detail = "; ".join(
        f"{metric}: {'not measured' if item is None else describe(item)}" for metric, item in found
    )
    return Statement(name, text, judged, detail, metrics)
