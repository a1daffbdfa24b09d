"""Whether a new version may become the champion: gates on measured figures, with their reasons."""

from collections.abc import Mapping
from dataclasses import dataclass

from agetf_pipeline.config.register import GatesConfig

AGE_MAE = "renderings/age_mae_years"
AGE_SPEARMAN = "renderings/age_spearman"
IDENTITY = "renderings/id_similarity"


@dataclass(frozen=True)
class Decision:
    """Whether to promote, and why or why not, a sentence a gate."""

    promote: bool
    reasons: tuple[str, ...]


def decide(
    challenger: Mapping[str, float],
    champion: Mapping[str, float] | None,
    gates: GatesConfig,
    same_judges: bool = True,
) -> Decision:
    """Decide on figures alone.

    Args:
        challenger: Figures of the new version by name; what was not computed is absent.
        champion: Figures of the champion; None where there is none.
        gates: How much worse each may be.
        same_judges: Whether the same evaluators measured both.

    Returns:
        Promotion where every gate holds. A figure that the champion has and the challenger lacks
        closes its gate; one that neither has closes none, and is said.
    """
    if champion is None:
        return Decision(True, ("there is no champion yet",))
    if not same_judges:
        return Decision(
            False,
            ("not comparable: other evaluators measured the champion; evaluate it again with the "
             "present ones, or set the alias by hand",),
        )  # fmt: skip
    checks = (
        (AGE_MAE, -1.0, gates.max_age_mae_increase_years, "age MAE (years)"),
        (AGE_SPEARMAN, 1.0, gates.max_age_spearman_decrease, "age Spearman"),
        (IDENTITY, 1.0, gates.max_identity_decrease, "identity similarity"),
    )
    results = [
        _check(challenger.get(name), champion.get(name), sign, tolerance, label)
        for name, sign, tolerance, label in checks
    ]
    return Decision(all(holds for holds, _ in results), tuple(reason for _, reason in results))


def _check(
    new: float | None, old: float | None, sign: float, tolerance: float, label: str
) -> tuple[bool, str]:
    """Judge one figure; `sign` is 1 where more is better, -1 where less is."""
    if old is None:
        found = "not measured either" if new is None else f"{new:.4g}"
        return True, f"{label}: not measured for the champion, {found} for the challenger"
    if new is None:
        return False, f"{label}: not measured for the challenger, {old:.4g} for the champion"
    holds = sign * (new - old) >= -tolerance
    verdict = "no worse" if holds else "worse"
    allowance = f" (allowed: {tolerance:.4g})" if tolerance else ""
    return holds, f"{label}: {new:.4g} is {verdict} than {old:.4g}{allowance}"
