"""SQLite files, looked at without changing them."""

import sqlite3
import time
from pathlib import Path
from urllib.parse import quote

_MAX_S = 1.0


def sqlite_damage(path: Path, max_s: float = _MAX_S) -> str | None:
    """Return what is wrong with an SQLite file; None where nothing was found.

    Args:
        path: The file.
        max_s: The check of a large file stops after so long, with what it found until then.
    """
    if path.stat().st_size == 0:
        return None  # SQLite's own form of a new database
    address = f"file:{quote(str(path.resolve()))}"
    try:
        return _check(f"{address}?mode=ro", max_s)
    except sqlite3.OperationalError:
        # A write-ahead log wants a file beside it, which a read-only folder does not take.
        try:
            return _check(f"{address}?mode=ro&immutable=1", max_s)
        except sqlite3.Error as error:
            return str(error)
    except sqlite3.Error as error:
        return str(error)


def _check(address: str, max_s: float) -> str | None:
    end_s = time.monotonic() + max_s
    connection = sqlite3.connect(address, uri=True, timeout=0.5)
    late = False

    def stop() -> bool:
        nonlocal late
        late = time.monotonic() > end_s
        return late

    connection.set_progress_handler(stop, 10_000)
    try:
        (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        return None if answer == "ok" else str(answer)
    except sqlite3.OperationalError as error:
        if late or "locked" in str(error):
            return None
        raise
    finally:
        connection.close()
