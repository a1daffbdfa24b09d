"""The sidecar of an enhanced picture: a small JSON that a person can read without the tables.

It says from which original the picture was made, by which versions of the networks, what was
decided and why, what was measured, and when. A checksum over the rest makes every later change
visible. Ages before and after are read by a later stage and stand in the table `enhanced_ages`.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import write_json
from agetf_pipeline.core.hashing import canonical_json, hash_bytes

SCHEMA = 1
_MAX_BYTES = 1 << 20
_MEASURE_TOLERANCE = 1e-4

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Pixels = Annotated[int, Field(ge=1)]


def _is_moment(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("no time zone")
    return text


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Original(_Part):
    """The original file, and the face image that the networks saw (the same file, or a crop)."""

    path: str
    sha256: _Sha256
    face_path: str
    face_width_px: _Pixels
    face_height_px: _Pixels


class Output(_Part):
    """The enhanced picture, a file beside the sidecar."""

    file: str
    sha256: _Sha256
    width_px: _Pixels
    height_px: _Pixels


class Decided(_Part):
    """What was done to the picture, and why."""

    colourised: bool
    super_resolved: bool
    reason: str


class Models(_Part):
    """Versions of the networks that the picture went through; null: it did not."""

    ddcolor_version: str | None
    esrgan_version: str | None


class Measured(_Part):
    """Measures of the original and of the result, see `enhance.measures`."""

    colourfulness_before: float
    colourfulness_after: float
    sharpness_before: float
    sharpness_after: float
    blockiness_before: float
    blockiness_after: float


class Sidecar(_Part):
    """One sidecar. `version` stands in the file as `schema`."""

    version: Literal[1] = Field(alias="schema")
    original: Original
    output: Output
    decision: Decided
    models: Models
    settings_version: str
    measures: Measured
    written_at: Annotated[str, AfterValidator(_is_moment)]
    checksum: _Sha256


def write_sidecar(path: Path, content: Mapping[str, Any]) -> None:
    """Complete a sidecar by its schema and checksum, validate it, and write it atomically.

    Args:
        path: File to write.
        content: Everything else, JSON-compatible.

    Raises:
        DataError: The content is not that of a sidecar.
    """
    whole = {**content, "schema": SCHEMA}
    _validated({**whole, "checksum": "0" * 64}, path)
    write_json(path, {**whole, "checksum": _checksum(whole)})


def read_sidecar(path: Path) -> Sidecar:
    """Read and validate a sidecar.

    Raises:
        DataError: It is absent, no JSON, of another version, invalid, or was changed afterwards.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise _refusal(path, error.strerror or str(error)) from error
    if len(data) > _MAX_BYTES:
        raise _refusal(path, f"more than {_MAX_BYTES} bytes")
    try:
        content = json.loads(data)
    # A deeply nested file exhausts the parser's stack.
    except (ValueError, RecursionError) as error:
        raise _refusal(path, f"no JSON ({error})") from error
    if not isinstance(content, dict):
        raise _refusal(path, f"a {type(content).__name__} instead of an object")
    if content.get("schema") != SCHEMA:
        found = content.get("schema", "none")
        raise _refusal(path, f"schema {found!r} instead of {SCHEMA}")
    sidecar = _validated(content, path)
    if sidecar.checksum != _checksum(content):
        raise _refusal(path, "content that does not fit its checksum: it was changed afterwards")
    return sidecar


def differences(
    sidecar: Sidecar, row: Mapping[str, Any], image: Mapping[str, Any] | None
) -> Iterator[tuple[str, str, str]]:
    """Yield where a sidecar disagrees with its row and its original: field, expected, found.

    Args:
        sidecar: As read.
        row: Of the table `enhanced`, status ok.
        image: `path` and `face_path` of the original; None: not compared.
    """
    original, output, decision = sidecar.original, sidecar.output, sidecar.decision
    pairs: list[tuple[str, Any, Any]] = [
        ("original.sha256", row["image_id"], original.sha256),
        ("original.face_width_px", row["input_width_px"], original.face_width_px),
        ("original.face_height_px", row["input_height_px"], original.face_height_px),
        ("output.file", Path(row["enhanced_path"]).name, output.file),
        ("output.sha256", row["enhanced_sha256"], output.sha256),
        ("output.width_px", row["output_width_px"], output.width_px),
        ("output.height_px", row["output_height_px"], output.height_px),
        ("decision.colourised", row["colourised"], decision.colourised),
        ("decision.super_resolved", row["super_resolved"], decision.super_resolved),
        ("decision.reason", row["decision"], decision.reason),
        ("models.ddcolor_version", row["ddcolor_version"], sidecar.models.ddcolor_version),
        ("models.esrgan_version", row["esrgan_version"], sidecar.models.esrgan_version),
        ("settings_version", row["settings_version"], sidecar.settings_version),
    ]
    if image is not None:
        pairs.append(("original.path", image["path"], original.path))
        pairs.append(("original.face_path", image["face_path"], original.face_path))
    yield from ((name, str(want), str(got)) for name, want, got in pairs if want != got)
    for what in ("colourfulness", "sharpness"):
        for when in ("before", "after"):
            name = f"{what}_{when}"
            want, got = row[name], getattr(sidecar.measures, name)
            # The table holds single precision.
            if want is None or abs(want - got) > _MEASURE_TOLERANCE * max(1.0, abs(got)):
                yield f"measures.{name}", str(want), str(got)


def _checksum(content: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in content.items() if name != "checksum"}
    return hash_bytes(canonical_json(rest).encode())


def _validated(content: Mapping[str, Any], path: Path) -> Sidecar:
    try:
        return Sidecar.model_validate(content)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors()[:3]
        )
        raise _refusal(path, wrong) from error


def _refusal(path: Path, found: str) -> DataError:
    return DataError(
        f"Expected a sidecar of schema {SCHEMA} at {path}; found {found}. Run the stage enhance: "
        "it makes the picture and its sidecar again."
    )
