"""What is wrong with the database of the registry, where it is a file: full, read-only, damaged."""

from pathlib import Path

from agetf_pipeline.core.errors import AgetfError, DataError
from agetf_pipeline.core.storage_errors import storage_error

_SQLITE = "sqlite:///"
_DAMAGE = ("malformed", "file is not a database", "file is encrypted or is not a database")
_MAX_CAUSES = 8


def database_error(error: BaseException, tracking_uri: str) -> AgetfError | None:
    """Return what an error of MLflow says of its SQLite file; None where it is about another thing.

    Args:
        error: What MLflow, or SQLAlchemy below it, raised.
        tracking_uri: The registry.
    """
    if not tracking_uri.startswith(_SQLITE):
        return None
    path = Path(tracking_uri.removeprefix(_SQLITE).partition("?")[0])
    found = next((text for text in _texts(error) if any(word in text for word in _DAMAGE)), None)
    if found is None:
        return storage_error(error, path)
    return DataError(
        f"Expected an SQLite database in {path}; found damage: {found.splitlines()[0][:200]}. "
        f"Put a copy of it back, or move it away: the next registration makes a new one. Models "
        "stay where they are, under mlruns/; what is lost with the file is the list of runs and "
        "versions, and which one is the champion. `sqlite3 FILE .recover` may save most of it."
    )


def _texts(error: BaseException) -> list[str]:
    texts: list[str] = []
    seen: BaseException | None = error
    while seen is not None and len(texts) < _MAX_CAUSES:
        texts.append(str(seen))
        seen = seen.__cause__ or seen.__context__
    return texts
