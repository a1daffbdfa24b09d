"""Published weights: what the configuration names and what was let in, by their checksums."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agetf_pipeline.checkpoints.catalogue import checkpoints_folder, find_catalogue
from agetf_pipeline.checkpoints.checksums import read_record
from agetf_pipeline.checkpoints.hashes import hash_now, known_hash
from agetf_pipeline.checkpoints.verifying import judge, loadable_files
from agetf_pipeline.core.errors import AgetfError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.upkeep.verify_survey import Survey

_KEYS = ("weights", "init_weights")


def verify_published(survey: Survey) -> None:
    """Check the weights that the configuration names, and all that stand on record."""
    configured = {path: key for key, path in _configured(survey)}
    try:
        record = read_record(survey.workspace)
        catalogue = find_catalogue(survey.config.runtime)
    except AgetfError as error:
        folder = checkpoints_folder(survey.workspace)
        survey.add("models/published", folder, "a record of checksums", str(error))
        return
    folder = checkpoints_folder(survey.workspace)
    for path, key in sorted(configured.items()):
        if not path.exists():
            survey.add("models/configured_missing", path, key, "nothing")
    files = {folder / key for key in record}
    for path in configured:
        files.update(loadable_files(path) if path.is_dir() else [path] if path.is_file() else [])
    for path in sorted(files):
        try:
            # Hashed without remembering it: nothing in the workspace changes.
            verdict = judge(path, survey.workspace, catalogue, _hash(survey))
        except (AgetfError, OSError) as error:
            survey.add("models/published", path, "weights that can be judged", str(error))
            continue
        survey.count("models", published=1)
        if verdict.status in ("mismatch", "missing"):
            expected = "the published bytes, or those let in"
            survey.add("models/published", path, expected, verdict.sha256 or "nothing")


def _hash(survey: Survey):
    def anew(path: Path, _: Workspace) -> str | None:
        return hash_now(path)

    return known_hash if survey.quick else anew


def _configured(survey: Survey) -> Iterator[tuple[str, Path]]:
    """Yield every setting that names weights, with the path."""
    values = survey.config.model_dump()
    for key, value in _leaves(values):
        last = key.rpartition(".")[2]
        names_weights = last in _KEYS or last.endswith("_weights")
        if names_weights and isinstance(value, str | Path):
            yield key, survey.workspace.root / value


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
