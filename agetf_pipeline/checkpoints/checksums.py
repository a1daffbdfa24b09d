"""The workspace's record of accepted files: `models/checkpoints/checksums.json`."""

import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from agetf_pipeline.checkpoints.catalogue import RECORD_FILE, checkpoints_folder
from agetf_pipeline.config.base import Section
from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.files import read_json, write_json
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.workspace import Workspace


class Accepted(Section):
    """One file that was fetched, or that a person imported."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)
    how: Literal["fetched", "imported"]
    checkpoint: str = Field(description="The catalogue's name, or the one given with --name.")
    mismatch_accepted: bool = Field(
        default=False, description="A person took it although the published hash is another."
    )
    recorded_on: str = Field(description="Date, for a person to read; nothing depends on it.")


def read_record(workspace: Workspace) -> dict[str, Accepted]:
    """Return the accepted files by their path below models/checkpoints; empty where none is.

    Raises:
        WeightsError: The record is damaged.
    """
    path = checkpoints_folder(workspace) / RECORD_FILE
    if not path.is_file():
        return {}
    try:
        values = read_json(path)
        return {str(key): Accepted.model_validate(value) for key, value in values.items()}
    except (OSError, ValueError, AttributeError, ValidationError) as error:
        raise WeightsError(
            f"Expected the record of accepted checksums in {path}; could not read it: {error}. "
            "Restore it from a backup, or delete it and import the files again."
        ) from error


def accept(
    workspace: Workspace,
    path: Path,
    sha256: str,
    how: Literal["fetched", "imported"],
    checkpoint: str,
    mismatch_accepted: bool = False,
) -> None:
    """Enter one file of models/checkpoints into the record."""
    entry = Accepted(
        sha256=sha256,
        size_bytes=path.stat().st_size,
        how=how,
        checkpoint=checkpoint,
        mismatch_accepted=mismatch_accepted,
        recorded_on=datetime.date.today().isoformat(),
    )
    key = record_key(path, workspace)
    assert key is not None, f"{path} lies outside models/checkpoints"
    with exclusive_lock(workspace.state / "locks" / "checksums.lock", "the checksum record"):
        record = {**read_record(workspace), key: entry}
        write_json(
            checkpoints_folder(workspace) / RECORD_FILE,
            {name: value.model_dump() for name, value in record.items()},
        )


def record_key(path: Path, workspace: Workspace) -> str | None:
    """Return a file's name in the record; None for a file outside models/checkpoints."""
    folder = checkpoints_folder(workspace)
    # As named first, so that a link in the folder keeps its name; then as it really is.
    for file, root in (
        (path.absolute(), folder.absolute()),
        (path.resolve(), folder.resolve()),
    ):
        if file.is_relative_to(root):
            return file.relative_to(root).as_posix()
    return None
