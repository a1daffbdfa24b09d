"""What the filter took out of a caption and put in, word by word."""

import re
from difflib import SequenceMatcher
from typing import Literal, NamedTuple
from unicodedata import category

Kind = Literal["kept", "removed", "added"]

# Words with the space before them, and marks of punctuation by themselves.
_TOKEN = re.compile(r"\s*(?:\w+(?:['’-]\w+)*|[^\w\s])|\s+")
_MARK = "\N{REPLACEMENT CHARACTER}"
_TURNS = {chr(code) for code in (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}


class Piece(NamedTuple):
    """A stretch of the raw caption that stayed or went, or of the clean one that is new."""

    kind: Kind
    text: str


def changes(raw: str, clean: str | None) -> list[Piece]:
    """Return a raw caption in pieces; without the added ones they are the raw caption again.

    Words that differ in their first letter's case alone, as at a new beginning of a sentence, count
    as kept.

    Args:
        raw: As the network wrote it.
        clean: As the filter left it; None or empty: all went.
    """
    before, after = _TOKEN.findall(raw), _TOKEN.findall(clean or "")
    matcher = SequenceMatcher(None, _keys(before), _keys(after), autojunk=False)
    pieces: list[Piece] = []
    for tag, start, end, new_start, new_end in matcher.get_opcodes():
        if tag == "equal":
            pieces.append(Piece("kept", "".join(before[start:end])))
            continue
        if end > start:
            pieces.append(Piece("removed", "".join(before[start:end])))
        if new_end > new_start:
            pieces.append(Piece("added", "".join(after[new_start:new_end])))
    return pieces


def removed_words(raw: str | None, clean: str | None) -> str:
    """Return what went, in a line: "young", "boy -> male person"."""
    pieces = changes(raw or "", clean)
    said = []
    for place, piece in enumerate(pieces):
        before = pieces[place - 1] if place else None
        text = " ".join(piece.text.split()).lstrip(", ") or piece.text.strip()
        if piece.kind == "removed" and text:
            said.append(text)
        elif piece.kind == "added" and text:
            follows = before is not None and before.kind == "removed" and said
            said[-1:] = [f"{said[-1]} -> {text}"] if follows else [*said[-1:], f"+ {text}"]
    return "; ".join(said)


def visible(text: str) -> str:
    """Return a text that can be shown: control characters, and those that turn the direction of
    writing, become a mark. A network may write anything, and a terminal obeys it."""
    return "".join(_MARK if _is_hidden(sign) else sign for sign in text)


def _is_hidden(sign: str) -> bool:
    return category(sign) in {"Cc", "Cs", "Cn", "Co"} or sign in _TURNS


def _keys(tokens: list[str]) -> list[str]:
    return [token.strip().casefold() for token in tokens]
