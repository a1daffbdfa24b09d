"""The commands that README.md and docs/ tell people to type."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
_FENCE = re.compile(r"^\s*```")
_BLOCK_COMMAND = re.compile(r"^(?:\$ )?((?:\.venv/bin/)?(?:agetf|make|python)\s.*)$")
_INLINE_COMMAND = re.compile(r"`((?:agetf|make|python -m) [^`]+)`")
_SHELL = ("|", ">", ">>", "&&")
# A synopsis's optional parts, and what stands for a list of more.
_OPTIONAL = re.compile(r"\s*\[[^\]]*\]|\s*\.\.\.(?=\s|$)")
_VALUES = {
    "FILE": "configs/demo.yaml",
    "NAME": "inception-fid",
    "PHOTO": "photo.jpg",
    "<yours>": "demo",
    "<shard>": "shard-0000",
}


@dataclass(frozen=True)
class DocumentedCommand:
    """One command: where it stands (`file:line`), its words, whether it is in a sentence."""

    place: str
    words: tuple[str, ...]
    inline: bool

    def __str__(self) -> str:
        return f"{self.place}: {shlex.join(self.words)}"


def documented_commands() -> list[DocumentedCommand]:
    """Return the commands of `agetf`, `make` and `python`, in the order of files and lines."""
    files = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
    return [command for file in files for command in _commands_of(file)]


def _commands_of(file: Path) -> list[DocumentedCommand]:
    found = []
    fenced = False
    name = file.relative_to(REPOSITORY).as_posix()
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if _FENCE.match(line):
            fenced = not fenced
            continue
        block = fenced or line.startswith("    ")
        match = _BLOCK_COMMAND.match(line.strip()) if block else None
        texts = [match[1]] if match else [] if fenced else _INLINE_COMMAND.findall(line)
        for text in texts:
            words = _words(text)
            if words:
                found.append(DocumentedCommand(f"{name}:{number}", words, match is None))
    return found


def _words(text: str) -> tuple[str, ...]:
    """Split as a shell does; leave out comments, optional parts and an open quotation."""
    text = _OPTIONAL.sub("", text)
    for placeholder, value in _VALUES.items():
        text = re.sub(rf"(?<![\w-]){re.escape(placeholder)}(?![\w-])", value, text)
    try:
        words = shlex.split(text, comments=True)
    except ValueError:
        return ()
    ends = [place for place, word in enumerate(words) if word in _SHELL]
    words = words[: ends[0]] if ends else words
    return (words[0].removeprefix(".venv/bin/"), *words[1:]) if words else ()
