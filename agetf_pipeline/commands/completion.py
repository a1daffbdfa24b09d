"""`agetf completion`: what a shell needs to complete commands and options, printed once.

A static script: the shell reads it, and no Python starts at a Tab.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

SHELLS = ("bash", "zsh", "tcsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `agetf completion` takes."""
    parser.add_argument("shell", choices=SHELLS)


def run(shell: str, parser: argparse.ArgumentParser, say: Callable[[str], None]) -> int:
    """Print the completion script of a shell for a parser; return 0."""
    import shtab

    _complete_files(parser)
    say(shtab.complete(parser, shell))
    return 0


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Let the shell offer files wherever a path is expected, in all commands."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command)
        elif action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
