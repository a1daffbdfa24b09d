"""Whether a new version may become the champion: nothing lost beyond a margin, something gained."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agetf_pipeline.config.register import GatesConfig
from agetf_pipeline.registry.gates import (
    AGAINST,
    BETTER,
    NOT_MEASURED,
    WORSE,
    Figures,
    Gate,
    Rule,
    has_interval,
    is_number,
    judge,
    spell,
    why_not_measured,
)

AGE_MAE, IDENTITY = "renderings/age_mae_years", "renderings/id_similarity"
RISES = "rendered_age_rises"
FAILED = "does not hold"
SYNTHETIC = "synthetic"
EVALUATE_AGAIN = "run evaluate again"
BY_HAND = "to have it all the same: agetf registry promote"


@dataclass(frozen=True)
class Decision:
    """Whether to promote, why or why not in sentences, and the gates where any were judged."""

    promote: bool
    reasons: tuple[str, ...]
    gates: tuple[Gate, ...] = ()

    def refused(self, *reasons: str) -> "Decision":
        """Return the decision not to promote for these reasons; itself where there are none."""
        return replace(self, promote=False, reasons=(*reasons, *self.reasons)) if reasons else self


@dataclass(frozen=True)
class Compared:
    """A version that another is compared with.

    Attributes:
        version: Its number.
        weights_sha256: Of its weights; empty where nothing says so.
        trained_on: `synthetic`, or words for photographs; empty where nothing says so.
    """

    version: str
    weights_sha256: str = ""
    trained_on: str = ""


def transformer_rules(gates: GatesConfig, figures: Figures) -> list[Rule]:
    """Return the gates of an AgeTransformer, from the configured margins.

    KID is judged on Inception's features where these were measured, else on the judges' own.
    """
    age, identity = f"{AGAINST}/age_mae_years", f"{AGAINST}/id_similarity"
    kid, label = f"{AGAINST}/kid", "KID by Inception"
    if not has_interval(figures.get(kid, {})):
        kid, label = f"{AGAINST}/kid_own_features", "KID by own features, Inception's are absent"
    return [
        Rule(age, "age MAE (years)", gates.max_age_mae_increase_years, required=True),
        Rule(identity, "identity similarity", gates.max_identity_decrease, True, True),
        Rule(f"{AGAINST}/source_ssim", "SSIM at the own age", gates.max_ssim_decrease, True),
        Rule(f"{AGAINST}/source_lpips", "LPIPS at the own age", gates.max_lpips_increase),
        Rule(f"{AGAINST}/face_found_rate", "faces found", gates.max_face_found_decrease, True),
        Rule(kid, label, gates.max_kid_increase),
        Rule(
            f"{AGAINST}/sharpness_error", "error of sharpness", gates.max_sharpness_error_increase
        ),
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
        gates: The margins, and the least evidence.

    Returns:
        Promotion where every gate holds and what is shown to be gained outweighs what is shown to
        be lost; without a champion, where the least was measured and the rendered age is not shown
        to fall short.
    """
    mismatch = _mismatch(evaluation, champion)
    if mismatch is not None:
        return Decision(False, (mismatch,))
    weak = weak_evidence(evaluation.get("sampling"), gates)
    if champion is None:
        return _decide_first(evaluation, gates.min_faces).refused(*weak)
    figures: Figures = evaluation["metrics"]
    judged = judge(figures, transformer_rules(gates, figures))
    return decide_by(judged, gates.min_faces).refused(*weak)


def decide_by(gates: Sequence[Gate], min_faces: int = 0) -> Decision:
    """Return the decision that judged gates come to.

    Promoted is what closes no gate and is shown to be better in a figure that decides, by more than
    all that is shown to be lost, both counted in margins: a margin says how much of one figure is
    worth how much of another. Equal models do not change places, and a chain of promotions, each
    paying a shown loss with a smaller gain, does not begin.

    Args:
        gates: What was judged. Gates on cells count by their margin alone.
        min_faces: Faces or images that a deciding figure has to rest on.
    """
    deciding = [gate for gate in gates if gate.required]
    gains = [gate for gate in deciding if gate.shown == BETTER]
    losses = [gate for gate in gates if not gate.by_cell and gate.shown == WORSE]
    gained, lost = sum(map(_margins_gained, gains)), sum(map(_margins_lost, losses))
    against = [
        f"{_short(gate)} rests on {gate.n} faces, fewer than {min_faces}"
        for gate in deciding
        if gate.verdict != NOT_MEASURED and gate.n < min_faces
    ]
    if not gains and losses:
        against.append(f"shown to be worse in {_list(losses)}, and better in nothing that counts")
    elif not gains:
        against.append("as good as the champion as far as can be shown: the champion stays")
    elif losses and gained <= lost:
        against.append(
            f"shown to gain {gained:.2g} margins ({_list(gains)}) and to lose {lost:.2g} "
            f"({_list(losses)}): a shown loss has to be outweighed"
        )
    promote = not against and not any(gate.closes for gate in gates)
    return Decision(promote, (*(gate.reason for gate in gates), *against), tuple(gates))


def weak_evidence(sampling: Mapping[str, Any] | None, gates: GatesConfig) -> tuple[str, ...]:
    """Return why intervals are not evidence enough; nothing where they are.

    Args:
        sampling: How they were made, as metrics.json says: level, num_bootstrap; None: it does not.
        gates: The least.
    """
    if sampling is None:
        return (f"the evaluation does not say how its intervals were made: {EVALUATE_AGAIN}",)
    reasons = []
    if sampling["level"] < gates.min_interval_level:
        reasons.append(
            f"intervals of level {sampling['level']:g}, below {gates.min_interval_level:g} "
            "(register_model.gates.min_interval_level)"
        )
    if sampling["num_bootstrap"] < gates.min_bootstrap:
        reasons.append(
            f"intervals of {sampling['num_bootstrap']} resamples, fewer than {gates.min_bootstrap} "
            "(register_model.gates.min_bootstrap)"
        )
    return tuple(reasons)


def of_another_kind(synthetic: bool, champion: Compared) -> str | None:
    """Say that an evaluation on drawn faces judges no champion of photographs, nor the reverse."""
    if not champion.trained_on or (champion.trained_on == SYNTHETIC) == synthetic:
        return None
    measured = "synthetic faces" if synthetic else "photographs"
    return (
        f"measured on {measured}, and the champion, version {champion.version}, was trained on "
        f"{champion.trained_on}: neither says anything of the other; {BY_HAND}"
    )


def _mismatch(evaluation: Mapping[str, Any], champion: Compared | None) -> str | None:
    """Say that the evaluation is not one beside the present champion, or not of its kind."""
    found = evaluation.get("champion")
    compared = None if found is None else Compared(str(found["version"]), found["weights_sha256"])
    if champion is None and compared is None:
        return None
    if champion is None or compared is None or compared.version != champion.version:
        before = "no champion" if compared is None else f"version {compared.version}"
        now = "there is no champion" if champion is None else f"the champion is {champion.version}"
        return f"compared with {before}, {now} now: {EVALUATE_AGAIN}"
    # A version that was registered by other means may not say what it holds.
    if champion.weights_sha256 and compared.weights_sha256 != champion.weights_sha256:
        return (
            f"compared with other weights of version {compared.version} than it has now: "
            f"{EVALUATE_AGAIN}"
        )
    return of_another_kind(bool(evaluation["synthetic"]), champion)


def _decide_first(evaluation: Mapping[str, Any], min_faces: int) -> Decision:
    """Decide without a champion: nothing to compare with, but the least must be known."""
    figures: Figures = evaluation["metrics"]
    reasons, promote = ["there is no champion yet"], True
    for name, label in ((AGE_MAE, "age MAE (years)"), (IDENTITY, "identity similarity")):
        item = figures.get(name, {})
        if not is_number(item.get("value")):
            promote = False
            reasons.append(f"{label}: not measured ({why_not_measured(item)})")
            continue
        reasons.append(f"{label}: {spell(item)}")
        if item.get("n", 0) < min_faces:
            promote = False
            reasons.append(f"{label} rests on {item.get('n', 0)} faces, fewer than {min_faces}")
    failed = failed_statement(evaluation, RISES)
    if failed is not None:
        promote = False
        reasons.append(failed)
    if not promote:
        reasons.append(BY_HAND)
    return Decision(promote, tuple(reasons))


def failed_statement(evaluation: Mapping[str, Any], name: str) -> str | None:
    """Say that a statement of the evaluation does not hold; None where it does, or was not judged.

    Args:
        evaluation: The contents of metrics.json.
        name: Of the statement.
    """
    for statement in evaluation.get("must_hold", ()):
        if statement["name"] == name and statement["verdict"] == FAILED:
            return f"'{statement.get('text', name)}' {FAILED}"
    return None


def _margins_gained(gate: Gate) -> float:
    # Without a margin there is nothing to count the gain in: it is one, and pays for no loss.
    return abs(gate.value or 0.0) / gate.margin if gate.margin > 0 else 0.0


def _margins_lost(gate: Gate) -> float:
    return abs(gate.value or 0.0) / gate.margin if gate.margin > 0 else math.inf


def _short(gate: Gate) -> str:
    return gate.figure.removeprefix(f"{AGAINST}/")


def _list(gates: Sequence[Gate]) -> str:
    return ", ".join(map(_short, gates))
