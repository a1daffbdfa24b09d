"""Keeping the checksums of a release right after rows left its tables."""

from pathlib import Path

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import write_text
from agetf_pipeline.core.hashing import hash_file, read_checksums
from agetf_pipeline.release import CHECKSUMS

_TEXTS = frozenset({".json", ".md", ".yaml", ".txt"})


def renew_checksums(folder: Path) -> int:
    """Bring a release's checksums, and hashes in its descriptions, in line with its files.

    Only files that the list names count: what is missing of them leaves it. Killed in between, the
    same call finishes it.

    Returns:
        How many files had changed.
    """
    path = folder / CHECKSUMS
    if not path.is_file():
        return 0
    try:
        former = read_checksums(path)
    except (DataError, ValueError, OSError) as error:
        raise DataError(
            f"Expected the checksums of a release in {path}; found: {error}. Delete the release, "
            "or restore the file."
        ) from error
    found = {name: hash_file(folder / name) for name in former if (folder / name).is_file()}
    moved = {former[name]: found[name] for name in found if former[name] != found[name]}
    if not moved and len(found) == len(former):
        return 0
    for name in sorted(found):
        file = folder / name
        if file.suffix in _TEXTS:
            text = file.read_text(encoding="utf-8")
            renewed = text
            for before, after in moved.items():
                renewed = renewed.replace(before, after)
            if renewed != text:
                write_text(file, renewed)
                found[name] = hash_file(file)
    lines = [f"{digest}  {name}\n" for name, digest in sorted(found.items())]
    write_text(path, "".join(lines))
    return len(moved)
