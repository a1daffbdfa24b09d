"""Ingest of one shard the plain way: everything in memory, a file after the other.

What the stage does in slices over a store must come out the same.
"""

from dataclasses import dataclass, field
from pathlib import Path

from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.data.caf import MANIFEST_NAME, match_manifest, read_manifest
from agetf_pipeline.data.claims import Claim, conflict_between, says_more
from agetf_pipeline.data.corpus_lists import refusals_of
from agetf_pipeline.data.listing import escape_name, list_files
from agetf_pipeline.data.probe import Limits, Rejection, probe

Elsewhere = dict[str, tuple[str, str | None, float | None]]
"""Image id to path, subject and age, as an earlier shard has them."""


@dataclass
class Plain:
    """What became of a shard: images by path, and the others by path."""

    images: dict[str, tuple] = field(default_factory=dict)
    quarantine: dict[str, tuple] = field(default_factory=dict)


def read_plainly(folder: Path, base: str, elsewhere: Elsewhere) -> Plain:
    """Read a shard; no picture is over the limits, and nobody is forgotten."""
    files = list_files(folder, (MANIFEST_NAME,))
    listing = match_manifest(read_manifest(folder), files)
    refused = refusals_of(listing)
    refused |= {f.relative: (f.reason, f.detail) for f in files if f.reason is not None}
    ids = {f.relative: hash_file(f.path) for f in files if f.reason is None}
    paths = {f.relative: escape_name(f"{base}/{f.relative}") for f in files}

    def claim(relative: str) -> Claim:
        row = listing.rows[relative]
        return Claim(paths[relative], row.subject, row.true_age_years)

    groups: dict[str, list[str]] = {}
    for found in files:
        if found.relative not in refused:
            groups.setdefault(ids[found.relative], []).append(found.relative)
    plain = Plain()
    for image_id, names in groups.items():
        result = probe((folder / names[0]).read_bytes(), Limits())
        contradicted = {n: _contradiction(n, names, claim) for n in names}
        agreeing = [n for n in names if contradicted[n] is None]
        told = {n: _told(claim(n)) for n in agreeing}
        kept = max(agreeing, key=told.__getitem__, default=None)
        held = Claim(*elsewhere[image_id]) if image_id in elsewhere else kept and claim(kept)
        for name in names:
            if contradicted[name] is not None:
                refused[name] = ("conflicting_rows", contradicted[name])
            elif isinstance(result, Rejection):
                refused[name] = (result.reason, result.detail)
            elif held and held.path != paths[name]:
                plain.quarantine[paths[name]] = _as_duplicate(claim(name), held)
            else:
                row = listing.rows[name]
                said = row.subject, row.true_age_years, row.age_group
                plain.images[paths[name]] = (image_id, *said, name in listing.by_other_name)
    for name, why in refused.items():
        plain.quarantine[paths[name]] = (*why, None)
    for listed, *why in listing.rejected:
        plain.quarantine.setdefault(escape_name(f"{base}/{listed}"), (*why, None))
    return plain


def _contradiction(name: str, names: list[str], claim) -> str | None:
    """Why a file cannot be taken; of several statements against it the last new one counts."""
    others = {}
    for other in reversed(names):
        said = claim(other)
        others[said.subject, said.true_age_years] = said
    for other in others.values():
        if why := conflict_between(claim(name), other):
            return (
                f"The same bytes as {other.path}, which is listed with {why}: keep the right "
                "row and file."
            )
    return None


def _told(claim: Claim) -> tuple[int, bool]:
    return (claim.subject is not None) + (claim.true_age_years is not None), bool(claim.subject)


def _as_duplicate(claim: Claim, held: Claim) -> tuple[str, str, str]:
    same = f"The same bytes as {held.path}, which was kept"
    if differing := conflict_between(claim, held):
        detail = f"{same}; there it is listed with {differing}. Correct one of the two lists."
        return "conflicting_rows", detail, held.path
    detail = f"{same}."
    if says_more(claim, held):
        detail += (
            " This list names a person or an age where that one has none: it is not used. "
            "Put it there."
        )
    return "duplicate", detail, held.path
