"""What two lists say of one and the same picture, and whether both can be true.

A picture listed as two people would stand on both sides of a split by identity, and one listed with
two ages calibrates nothing: which of them is right nobody here can tell.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from agetf_pipeline.data.corpus import Corpus
from agetf_pipeline.data.listing import Found, escape_name

_SAME_YEARS = 1e-3  # tables hold ages with 32 bits


@dataclass(frozen=True)
class Claim:
    """Who is said to be on a picture, and how old; None where nothing is said."""

    path: str
    subject: str | None
    true_age_years: float | None


def conflict_between(one: Claim, other: Claim) -> str | None:
    """Return what two claims about one picture disagree on, None where both can be true.

    People are compared as splits take them apart: not by capitals.
    """
    subjects = one.subject, other.subject
    ages = one.true_age_years, other.true_age_years
    found = []
    if None not in subjects and len({(s or "").casefold() for s in subjects}) > 1:
        found.append("another subject")
    if ages[0] is not None and ages[1] is not None and abs(ages[0] - ages[1]) > _SAME_YEARS:
        found.append("another age")
    return " and ".join(found) or None


def says_more(one: Claim, other: Claim) -> bool:
    """Whether a claim says who is on a picture, or how old, where another one is silent."""
    return (one.subject is not None and other.subject is None) or (
        one.true_age_years is not None and other.true_age_years is None
    )


def claims_kept(corpus: Corpus, candidates: Iterable[Found], base: str) -> dict[str, Claim]:
    """Return content to the claim of the file that is kept of those with the same bytes.

    The one that says most (a person before an age), of equals the first.
    """
    kept: dict[str, Claim] = {}
    for found in candidates:
        claim, image_id = claim_of(corpus, found, base), corpus.ids[found.relative]
        if image_id not in kept or _told(claim) > _told(kept[image_id]):
            kept[image_id] = claim
    return kept


def _told(claim: Claim) -> tuple[int, bool]:
    has_subject, has_age = claim.subject is not None, claim.true_age_years is not None
    return has_subject + has_age, has_subject


def claim_of(corpus: Corpus, found: Found, base: str) -> Claim:
    """Return what a corpus says of one of its files; `base` is its folder, for the path."""
    row = corpus.rows.get(found.relative)
    path = escape_name(f"{base}/{found.relative}")
    return Claim(path, None, None) if row is None else Claim(path, row.subject, row.true_age_years)


def conflicts_within(
    corpus: Corpus, candidates: Iterable[Found], base: str
) -> dict[str, tuple[str, str]]:
    """Return the files that a corpus's own list contradicts itself about.

    Args:
        corpus: The corpus.
        candidates: Its files that nothing else speaks against.
        base: Its folder, for the paths in sentences.

    Returns:
        Relative path of each file that has the same bytes as one that is listed otherwise, to the
        reason and a sentence. It names no people: what is forgotten of one must not stay in a row
        about another.
    """
    by_content: dict[str, list[tuple[str, Claim]]] = {}
    for found in candidates:
        claim = claim_of(corpus, found, base)
        by_content.setdefault(corpus.ids[found.relative], []).append((found.relative, claim))
    conflicts: dict[str, tuple[str, str]] = {}
    for same in by_content.values():
        # One of each statement: of a placeholder picture there may be a hundred thousand copies.
        others = {(claim.subject, claim.true_age_years): claim for _, claim in reversed(same)}
        for relative, claim in same if len(others) > 1 else ():
            against = ((other, conflict_between(claim, other)) for other in others.values())
            other, why = next(((o, w) for o, w in against if w is not None), (None, None))
            if other is not None:
                conflicts[relative] = (
                    "conflicting_rows",
                    f"The same bytes as {other.path}, which is listed with {why}: keep the right "
                    "row and file.",
                )
    return conflicts
