"""The paragraph at the top of a report, in plain words."""

from collections.abc import Mapping, Sequence

from agetf_pipeline.core.statistics import Measure
from agetf_pipeline.evaluation.must_hold import Statement, describe


def summarise(
    measures: Mapping[str, Measure], statements: Sequence[Statement], synthetic: bool
) -> str:
    """Return a paragraph that says what was found.

    Args:
        measures: Every figure by name.
        statements: What the run must show, judged.
        synthetic: Whether the faces are synthetic.
    """
    holding = sum(item.holds is True for item in statements)
    open_ = sum(item.holds is None for item in statements)
    faces = "synthetic faces" if synthetic else "photographs"
    parts = [
        f"Measured on {faces}: {holding} of {len(statements)} statements that a run must show hold"
        + (f", {open_} could not be judged." if open_ else ".")
    ]
    for text, name in _SENTENCES:
        item = measures.get(name)
        if item is not None and item.value is not None:
            parts.append(f"{text} {describe(item)}.")
    return " ".join(parts)


_SENTENCES = (
    (
        "Rank correlation of target age with the age read from renderings:",
        "renderings/age_spearman",
    ),
    ("Mean error of the age read:", "renderings/age_mae_years"),
    ("Similarity of renderings to their source:", "renderings/id_similarity"),
    ("Error of the mixture's labels:", "labels/mae_years/mixture"),
    ("Error of the corpus labels' group midpoints:", "labels/mae_years/group_midpoints"),
    ("Gain of enhancement over bicubic resizing:", "enhancement/psnr/gain"),
)
