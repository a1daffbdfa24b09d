"""Identity-disjoint splits, decided by the identity's name alone: new data never moves old."""

import hashlib
import unicodedata
from collections.abc import Mapping

_NAMED = "caf:"


def split_of(identity: str, fractions: Mapping[str, float], seed: int) -> str:
    """Return the split of an identity.

    Names that differ in capitals alone get one split: they may well be one person, written by two.

    Args:
        identity: Name of the person; all of one person's images get one split.
        fractions: Split name to share, in order; they sum to 1.
        seed: Changes the assignment.

    Raises:
        ValueError: The fractions do not sum to 1.
    """
    if abs(sum(fractions.values()) - 1) > 1e-6:
        raise ValueError(f"fractions must sum to 1, got {dict(fractions)}")
    if identity.startswith(_NAMED):
        identity = unicodedata.normalize("NFC", identity.casefold())
    digest = hashlib.sha256(f"{seed}:{identity}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    total = 0.0
    for name, fraction in fractions.items():
        total += fraction
        if position < total:
            return name
    return list(fractions)[-1]


def identity_of(partition: str, image_id: str, subject: str | None) -> str:
    """Return the identity behind an image: its CAF subject, or the image itself (FFHQ has none)."""
    return f"{_NAMED}{subject}" if subject is not None else f"{partition}:{image_id}"
