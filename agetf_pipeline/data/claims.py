"""What two lists say of one and the same picture, and whether both can be true.

A picture listed as two people would stand on both sides of a split by identity, and one listed with
two ages calibrates nothing: which of them is right nobody here can tell.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from agetf_pipeline.data.corpus_store import SLICE, CorpusStore
from agetf_pipeline.data.listing import escape_name

_SAME_YEARS = 1e-3  # tables hold ages with 32 bits
_ABOVE_ALL = b"\xff" * 4097  # of all names: the longest path has 4096 bytes


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


def settle_claims(store: CorpusStore, base: str) -> None:
    """Decide which of the files with the same bytes is kept, in a store whose contents are hashed.

    Files that are listed otherwise than one with the same bytes are refused, all of them. Of the
    others the one is kept that says most (a person before an age), of equals the first by path.

    Args:
        store: Takes the refusals, and what is kept of each content that several files have.
        base: Folder of the corpus, for the paths.
    """
    groups = "SELECT image_id FROM contents GROUP BY image_id HAVING COUNT(*) > 1"
    for rows in store.slices(groups):
        for (image_id,) in rows:
            _refuse_contradictions(store, image_id, base)
            kept: Claim | None = None
            for _, claim in claims_of(store, image_id, base):
                if kept is None or _told(claim) > _told(kept):
                    kept = claim
            if kept is not None:
                values = image_id, kept.path, kept.subject, kept.true_age_years
                store.run("INSERT INTO kept VALUES (?, ?, ?, ?)", values)
    # What an earlier partition holds, it keeps.
    store.run(
        "INSERT OR REPLACE INTO kept SELECT image_id, escaped(path), subject, age FROM elsewhere"
    )


def claims_of(
    store: CorpusStore, image_id: bytes, base: str, descending: bool = False
) -> Iterator[tuple[bytes, Claim]]:
    """Yield the files of a content that nothing speaks against, by name, with what is said of each.

    Who takes them may refuse those that came already.
    """
    last, beyond, order = (_ABOVE_ALL, "<", "DESC") if descending else (b"", ">", "ASC")
    while rows := store.run(
        "SELECT c.name, l.subject, l.age FROM contents c CROSS JOIN files f ON f.name = c.name "
        f"LEFT JOIN listed l ON l.number = f.row WHERE c.image_id = ? AND c.name {beyond} ? "
        f"AND f.reason IS NULL ORDER BY c.name {order} LIMIT {SLICE}",
        (image_id, last),
    ).fetchall():
        last = rows[-1][0]
        for name, subject, age in rows:
            yield name, Claim(escape_name(f"{base}/{os.fsdecode(name)}"), subject, age)


def _told(claim: Claim) -> tuple[int, bool]:
    has_subject, has_age = claim.subject is not None, claim.true_age_years is not None
    return has_subject + has_age, has_subject


def _refuse_contradictions(store: CorpusStore, image_id: bytes, base: str) -> None:
    """Refuse the files of a content that is listed as two people or ages.

    The sentence names no people: what is forgotten of one must not stay in a row about another.
    """
    # One of each statement: of a placeholder picture there may be a hundred thousand copies.
    others = {
        (claim.subject, claim.true_age_years): claim
        for _, claim in claims_of(store, image_id, base, descending=True)
    }
    if len(others) < 2:
        return
    refused: list[tuple[str, str, bytes]] = []
    verdicts: dict[tuple[str | None, float | None], str | None] = {}
    for name, claim in claims_of(store, image_id, base):
        said = claim.subject, claim.true_age_years
        if said not in verdicts:
            against = ((other, conflict_between(claim, other)) for other in others.values())
            other, why = next(((o, w) for o, w in against if w is not None), (claim, None))
            verdicts[said] = why and (
                f"The same bytes as {other.path}, which is listed with {why}: keep the right "
                "row and file."
            )
        if (detail := verdicts[said]) is not None:
            refused.append(("conflicting_rows", detail, name))
        if len(refused) == SLICE:
            store.refuse(refused)
            refused.clear()
    store.refuse(refused)
