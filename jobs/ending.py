"""How `make demo`, `make run` and `make ui` end: with what happened, and what to do about it."""

import sqlite3
from pathlib import Path

from dagster._core.errors import DagsterExecutionInterruptedError

from agetf_pipeline.core.ending import FAILED, describe_ending

_DAMAGE = ("malformed", "file is not a database")
_MAX_CAUSES = 8


def describe_end(error: BaseException, home: Path) -> tuple[str, int] | None:
    """Return what to say of an error that reached the top, and the exit code.

    Args:
        error: The error.
        home: Folder of the Dagster instance.

    Returns:
        None where a traceback says more.
    """
    if isinstance(error, DagsterExecutionInterruptedError):
        error = KeyboardInterrupt()
    damaged = _damaged_databases(home) if _speaks_of_damage(error) else []
    if not damaged:
        return describe_ending(error, home)
    return (
        f"Expected Dagster's databases in {home} to be whole; found damage in "
        f"{', '.join(damaged)}. Move the folder away (mv {home} {home}.damaged) and run the same "
        "again. Tables, models, pictures and the registry are not in it: they stay, and nothing "
        "is computed again. What is lost is Dagster's own history: runs, events, and the "
        "partitions and asset versions that the UI shows; the next run records them anew.",
        FAILED,
    )


def _speaks_of_damage(error: BaseException) -> bool:
    seen: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if seen is None:
            return False
        if any(word in str(seen) for word in _DAMAGE) or isinstance(seen, sqlite3.DatabaseError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _damaged_databases(home: Path) -> list[str]:
    # It brings the tables with it, which a server that only serves has no use for.
    from agetf_pipeline.upkeep.verify_sqlite import integrity_of

    found = []
    for path in sorted(home.rglob("*.db")):
        damage = integrity_of(path, quick=True)
        if damage is not None:
            found.append(f"{path.relative_to(home)} ({damage.splitlines()[0][:100]})")
    return found
