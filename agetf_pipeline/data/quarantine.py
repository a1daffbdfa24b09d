"""Why a file was not taken: the reasons, and the rows of the table `quarantine`."""

from typing import Any

import polars as pl

from agetf_pipeline.data.schemas import QUARANTINE
from agetf_pipeline.data.tables import to_frame

FORGOTTEN = "forgotten"
HARMLESS = frozenset({"duplicate", FORGOTTEN})
"""Reasons that do not count as failures: nothing was lost, or somebody asked for it."""

REASONS: dict[str, str] = {
    # Found on the file's bytes.
    "empty": "The file has no bytes.",
    "not_an_image": "The content is no picture, whatever the name says.",
    "unsupported_format": "A picture, but neither JPEG, PNG nor WebP.",
    "animated": "More than one frame.",
    "truncated": "The file ends before the picture does.",
    "unreadable": "The file cannot be read, or the decoder finds it damaged.",
    "too_many_bytes": "Larger than ingest.limits.max_bytes.",
    "too_many_pixels": "More pixels than ingest.limits.max_pixels.",
    "too_small": "A side is shorter than ingest.limits.min_side_px.",
    "extreme_aspect": "Longer against its width than ingest.limits.max_aspect.",
    "transparent": "Some pixels are not opaque: what is behind the person is not known.",
    "decoder_crash": "Decoding it killed the process, or took too much memory or time.",
    "decompression_bomb": "Small, and made to take much memory or time to decode.",
    "changed_while_read": "Something wrote to the file while it was read.",
    "no_face": "No face was found in a source whose images are not aligned.",
    # Found on the corpus.
    "duplicate": "The same bytes as another file, which was kept.",
    "missing_file": "Listed, but not there.",
    "not_listed": "In the shard's folder, but not in its manifest.",
    "bad_age": "The manifest's age is not a number of years from 0 to 120.",
    "conflicting_rows": "One file, or identical ones, listed as different people or ages.",
    "outside_folder": "The path, or the link, leads out of the corpus folder.",
    "linked_folder": "A link to a folder that is read anyway.",
    "not_a_file": "A pipe, socket or device.",
    # Asked for.
    FORGOTTEN: "An image or a person that was forgotten on request (`agetf forget`).",
}
"""Every reason word, and what it means."""


def quarantine_row(
    path: str,
    partition: str,
    reason: str,
    detail: str,
    image_id: str | None = None,
    num_bytes: int | None = None,
    duplicate_of: str | None = None,
) -> dict[str, Any]:
    """Return one row of the table `quarantine`.

    Args:
        path: The file's path, escaped to ASCII.
        partition: Its partition.
        reason: One of `REASONS`.
        detail: A sentence for a person: what was found, and where it helps, what to do.
        image_id: sha256 of its bytes; None where they could not be read.
        num_bytes: Its size.
        duplicate_of: Path of the file that was kept instead, escaped.
    """
    assert reason in REASONS, reason
    return {
        "path": path,
        "partition": partition,
        "image_id": image_id,
        "reason": reason,
        "detail": detail,
        "num_bytes": num_bytes,
        "duplicate_of": duplicate_of,
    }


def quarantine_frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Return the rows as a frame of the table's types, one per path (the first one wins)."""
    return to_frame(rows, QUARANTINE).unique("path", keep="first", maintain_order=True)


def describe_counts(counts: dict[str, int]) -> str:
    """Return `3 truncated, 1 no_face`, the most frequent reason first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {reason}" for reason, count in ordered)
