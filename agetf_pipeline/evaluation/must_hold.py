"""What a run must show, as statements that hold, do not hold, or could not be judged."""

from collections.abc import Mapping
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


def judge(measures: Mapping[str, Measure], config: EvaluateConfig) -> list[Statement]:
    """Return the statements that a run must show, judged on its figures.

    Args:
        measures: Every figure by name.
        config: The thresholds.
    """
    mixture, midpoints = "labels/mae_years/mixture", "labels/mae_years/group_midpoints"
    best = best_expert(measures)
    best_name = f"labels/mae_years/{best or 'expert'}"
    ratio = "labels/mae_ratio_to_best_expert"
    spearman = "renderings/age_spearman"
    psnr = ("enhancement/psnr/enhanced", "enhancement/psnr/bicubic")
    ssim = ("enhancement/ssim/enhanced", "enhancement/ssim/bicubic")
    grey = tuple(f"{name}/grey" for name in (*psnr, *ssim))
    allowed = config.max_mixture_to_best_expert
    expert = "expert" if best is None else f"expert ({best.removeprefix('expert_')})"
    return [
        _statement(
            "mixture_below_group_midpoints",
            "The mixture's ages are closer to the truth than the corpus labels' group midpoints.",
            measures,
            (mixture, midpoints),
            lambda a, b: a < b,
        ),
        _statement(
            "mixture_near_best_expert",
            f"The mixture's error is at most {allowed:g} times that of the best single {expert}.",
            measures,
            (mixture, best_name, ratio),
            lambda a, b, _: a <= allowed * b,
        ),
        _statement(
            "enhancement_beats_bicubic",
            "Enhanced degraded images are closer to their clean originals than the degraded ones "
            "resized bicubically, by PSNR and by SSIM.",
            measures,
            (*psnr, *ssim),
            lambda a, b, c, d: a > b and c > d,
        ),
        _statement(
            "colour_beats_grey_copy",
            "Of faces that had lost their colour, enhanced ones are closer to their clean "
            "originals than the grey copies, by PSNR and by SSIM.",
            measures,
            grey,
            lambda a, b, c, d: a > b and c > d,
        ),
        _statement(
            "rendered_age_rises",
            "The age that an estimator outside training reads rises with the target age: "
            f"Spearman of at least {config.min_age_spearman:g} over the anchors.",
            measures,
            (spearman,),
            lambda value: value >= config.min_age_spearman,
        ),
    ]


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
    name: str, text: str, measures: Mapping[str, Measure], metrics: tuple[str, ...], holds
) -> Statement:
    found = [measures.get(metric) for metric in metrics]
    values = [None if item is None else item.value for item in found]
    judged = None if None in values else bool(holds(*values))
    detail = "; ".join(
        f"{metric}: {'not measured' if item is None else describe(item)}"
        for metric, item in zip(metrics, found, strict=True)
    )
    return Statement(name, text, judged, detail, metrics)
