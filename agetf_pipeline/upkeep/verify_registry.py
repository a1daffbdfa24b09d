"""Registered versions of models: their files are there, and are those that were registered.

MLflow's tables are read as they lie in its SQLite file. Its client would take seconds to start, and
might change the tables' form.
"""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from agetf_pipeline.core.errors import AgetfError
from agetf_pipeline.core.files import read_json
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.registry.mixture_packaging import CONFIG_FILE, MIXTURE_ARTIFACT
from agetf_pipeline.registry.versions import WEIGHTS_TAG, weights_in
from agetf_pipeline.upkeep.verify_sqlite import integrity_of, tracking_database
from agetf_pipeline.upkeep.verify_survey import Survey

_VERSIONS = "SELECT name, version, COALESCE(storage_location, source) FROM model_versions"
_TAGS = "SELECT name, version, value FROM model_version_tags WHERE key = ?"
_DELETED = "deleted_internal"
_MLMODEL = "MLmodel"


def verify_registry(survey: Survey) -> None:
    """Check every registered version whose files lie on this machine."""
    database = tracking_database(survey)
    if database is None or not database.is_file() or not database.stat().st_size:
        return
    if integrity_of(database, quick=True) is not None:
        return  # said already
    try:
        versions, tags = _read(database)
    except sqlite3.Error as error:
        survey.add("state/registry", database, "the tables of MLflow", str(error))
        return
    for (name, number), location in sorted(versions.items()):
        survey.count("state", versions=1)
        folder = _local(location)
        if folder is not None:
            _verify_version(survey, f"{name} version {number}", folder, tags.get((name, number)))


def _read(database: Path) -> tuple[dict[tuple[str, int], str], dict[tuple[str, int], str]]:
    # Immutable, so that nothing appears beside the file: see `verify_sqlite`.
    uri = f"file:{quote(str(database))}?immutable=1"
    connection = sqlite3.connect(uri, uri=True)
    try:
        rows = connection.execute(f"{_VERSIONS} WHERE lower(current_stage) != ?", (_DELETED,))
        versions = {(name, int(number)): str(place) for name, number, place in rows}
        tagged = connection.execute(_TAGS, (WEIGHTS_TAG,))
        return versions, {(name, int(number)): str(value) for name, number, value in tagged}
    finally:
        connection.close()


def _local(location: str) -> Path | None:
    """Return the folder that a location names; None where it lies elsewhere."""
    parts = urlsplit(location)
    if parts.scheme not in ("", "file") or not parts.path.startswith("/"):
        return None
    return Path(unquote(parts.path))


def _verify_version(survey: Survey, what: str, folder: Path, sha256: str | None) -> None:
    if not (folder / _MLMODEL).is_file():
        survey.add("state/registered_missing", folder, what, "no model there")
        return
    if (folder / "artifacts" / MIXTURE_ARTIFACT).is_dir():
        _verify_mixture(survey, what, folder / "artifacts" / MIXTURE_ARTIFACT, sha256)
        return
    weights = weights_in(folder)
    if weights is None:
        survey.add("state/registered_missing", folder, f"the weights of {what}", "none")
    elif sha256 is not None:
        try:
            found = hash_file(weights)
        except OSError as error:
            found = str(error)
        if found != sha256:
            survey.add("state/registered_changed", weights, sha256, found)


def _verify_mixture(survey: Survey, what: str, folder: Path, identity: str | None) -> None:
    """Compute a registered mixture's identity again, as registering did."""
    from agetf_pipeline.config import PipelineConfig
    from agetf_pipeline.registry.mixture_packaging import mixture_fingerprint

    config = folder / CONFIG_FILE
    try:
        values: Mapping = read_json(config)
        found = mixture_fingerprint(PipelineConfig.model_validate(values), Workspace(folder))
    except (OSError, ValueError, AgetfError) as error:
        survey.add("state/registered_missing", config, f"the files of {what}", str(error))
        return
    if found is None:
        survey.add("state/registered_missing", folder, f"the files of {what}", "some are gone")
    elif identity is not None and found != identity:
        survey.add("state/mixture_differs", folder, identity, found)
