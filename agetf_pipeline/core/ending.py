"""How a command ends: what it says, and its exit code, whatever reached the top."""

import os
import select
import signal
import sys
import traceback
from pathlib import Path

from agetf_pipeline.core.errors import AgetfError
from agetf_pipeline.core.secrets import redact
from agetf_pipeline.core.storage_errors import storage_error

FAILED = 1
INTERRUPTED = 128 + signal.SIGINT
NOBODY_READS = 128 + signal.SIGPIPE
"""Exit codes as a shell gives them to commands that a signal ended."""


def describe_ending(error: BaseException, place: Path) -> tuple[str, int] | None:
    """Return what to say of an error that reached the top, and the exit code.

    Args:
        error: The error.
        place: Folder that was worked in, for errors of the disk that name none.

    Returns:
        None where a traceback says more: the error is our own bug, or a library's. See
        `describe_bug`.
    """
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted. What was finished is kept: run the same again to go on.", INTERRUPTED
    if isinstance(error, AgetfError):
        return redact(str(error)), FAILED
    if isinstance(error, BrokenPipeError) and _nobody_reads(1):
        _write_nowhere()
        return "", NOBODY_READS
    if isinstance(error, Exception) and (found := storage_error(error, place)) is not None:
        return redact(str(found)), FAILED
    return None


def describe_bug(error: BaseException) -> tuple[str, int]:
    """Return the traceback of an error, without what it holds of credentials, and the exit code."""
    return redact("".join(traceback.format_exception(error))).rstrip(), FAILED


def _nobody_reads(descriptor: int) -> bool:
    """Whether what is written there ends nowhere: the other end of the pipe is closed."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))


def _write_nowhere() -> None:
    """Let the lines that are still buffered go, instead of failing once more at the exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.__stdout__.fileno() if sys.__stdout__ is not None else 1)
    os.close(nowhere)
