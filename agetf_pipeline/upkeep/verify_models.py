"""Networks and what belongs to them: weights, cards, checkpoints, calibrations, releases."""

import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from agetf_pipeline.core.errors import AgetfError, DataError
from agetf_pipeline.core.files import read_json
from agetf_pipeline.core.hashing import hash_file, read_checksums
from agetf_pipeline.core.progress import track
from agetf_pipeline.data.storage import unsafe_name
from agetf_pipeline.quality.files import look_at_weights
from agetf_pipeline.release import CHECKSUMS
from agetf_pipeline.upkeep.verify_published import verify_published
from agetf_pipeline.upkeep.verify_survey import Survey

CHECKPOINT_STATE = "state.json"
CHECKPOINT_BEST = "best.json"
CHECKPOINT_OPTIMIZER = "optimizer.pt"
"""As training/checkpoints.py names them; that module would bring PyTorch in."""
_UNLIMITED = 1 << 62


def verify_models(survey: Survey) -> None:
    """Check every network, checkpoint, exported program, JSON file and release."""
    workspace = survey.workspace
    published = workspace.models / "checkpoints"
    weights = [p for p in _files(survey, "*.safetensors") if not p.is_relative_to(published)]
    for path in track(weights, "verify weights"):
        _verify_weights(survey, path)
    for path in _files(survey, "*.json"):
        if not path.is_relative_to(published) and not _is_release(survey, path):
            _verify_json(survey, path)
    calibration = workspace.models / "moe" / "calibration.json"
    if calibration.is_file():
        _verify_calibration(survey, calibration)
    for path in _files(survey, "*.pt2"):
        _verify_program(survey, path)
    for folder in sorted((workspace.models / "age_transformer").glob("*/checkpoints")):
        _verify_checkpoints(survey, folder)
    verify_published(survey)
    for folder in sorted((workspace.root / "outputs" / "release").glob("[!.]*")):
        if folder.is_dir():
            _verify_release(survey, folder)


def _files(survey: Survey, pattern: str) -> Iterator[Path]:
    for top in (survey.workspace.models, survey.workspace.root / "outputs"):
        for path in sorted(top.rglob(pattern)):
            hidden = any(part.startswith(".") for part in path.relative_to(top).parts)
            if path.is_file() and not hidden:
                yield path


def _is_release(survey: Survey, path: Path) -> bool:
    return path.is_relative_to(survey.workspace.root / "outputs" / "release")


def _verify_weights(survey: Survey, path: Path) -> None:
    """The header fits the length, every number is finite, the card can be read."""
    from safetensors import safe_open

    expected = "a whole weights file"
    try:
        # Its own reader refuses a header that does not fit the file's length, both ways.
        with safe_open(path, framework="np") as stream:
            metadata = stream.metadata() or {}
    except Exception as error:  # safetensors raises errors of its own
        survey.add("models/unreadable", path, expected, str(error))
        return
    limit = survey.config.quality.max_weights_mib * 2**20 if survey.quick else _UNLIMITED
    found = look_at_weights([path], survey.workspace.root, limit).row(0, named=True)
    survey.count("models", weights=1, parameters=found["num_parameters"])
    if found["unreadable"] is not None:
        survey.add("models/unreadable", path, expected, found["unreadable"])
    elif not found["num_parameters"]:
        survey.add("models/empty", path, "parameters", "none")
    elif found["num_not_finite"]:
        num = f"{found['num_not_finite']} of {found['num_looked_at']} are not"
        survey.add("models/not_finite", path, "finite weights", num)
    try:
        if not isinstance(json.loads(metadata.get("card", "{}")), dict):
            raise ValueError("it is no JSON object")
    except ValueError as error:
        survey.add("models/card", path, "a card that can be read", str(error))


def _verify_json(survey: Survey, path: Path) -> None:
    try:
        _parse(path)
    except (OSError, ValueError, RecursionError) as error:
        survey.add("models/json", path, "JSON with finite numbers", str(error))
        return
    survey.count("models", json_files=1)


def _parse(path: Path) -> Any:
    """Read a JSON file strictly.

    Raises:
        ValueError: It is none, or holds NaN, an infinity, or a number too large for one.
    """

    def refuse(word: str) -> NoReturn:
        raise ValueError(f"it holds {word}")

    def number(text: str) -> float:
        value = float(text)
        return value if math.isfinite(value) else refuse(text)

    text = path.read_text(encoding="utf-8")
    return json.loads(text, parse_constant=refuse, parse_float=number)


def _verify_calibration(survey: Survey, path: Path) -> None:
    from agetf_pipeline.moe.calibration import load_calibration

    try:
        load_calibration(path)
    except (DataError, OSError) as error:
        found = str(error).partition("; found: ")[2] or str(error)
        survey.add("models/calibration", path, "the mixture's calibration", found)


def _verify_program(survey: Survey, path: Path) -> None:
    """An exported program is an archive whose parts have checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged} is damaged")
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        survey.add("models/program", path, "a whole archive", str(error))
        return
    survey.count("models", programs=1)


def _verify_checkpoints(survey: Survey, folder: Path) -> None:
    """Every checkpoint of a run by its own list of checksums, and the best one, if named."""
    if survey.is_at_work(None, "train"):
        return
    for path in sorted(folder.glob("images-*[0-9]")):
        state = path / CHECKPOINT_STATE
        try:
            files = dict(read_json(state)["files"])
            if not (path / CHECKPOINT_OPTIMIZER).exists():
                files.pop(CHECKPOINT_OPTIMIZER, None)  # a finished run goes on from nothing
            wrong = [name for name, known in files.items() if hash_file(path / name) != known]
        except (OSError, ValueError, KeyError, TypeError) as error:
            survey.add("models/checkpoint", state, "a whole checkpoint", str(error))
            continue
        survey.count("models", checkpoints=1)
        for name in sorted(wrong):
            survey.add("models/checkpoint", path / name, "the bytes it was written with", "others")
    best = folder / CHECKPOINT_BEST
    if best.is_file():
        try:
            named = folder / str(read_json(best)["checkpoint"])
            if not (named / CHECKPOINT_STATE).is_file():
                survey.add("models/checkpoint", best, f"the checkpoint {named.name}", "nothing")
        except (OSError, ValueError, KeyError, TypeError) as error:
            survey.add("models/checkpoint", best, "the name of the best checkpoint", str(error))


def _verify_release(survey: Survey, folder: Path) -> None:
    """A release is the files that its checksums list, unchanged, and no other."""
    listing = folder / CHECKSUMS
    try:
        known = read_checksums(listing)
    except (OSError, ValueError) as error:
        survey.add("models/release", listing, "the checksums of the release", str(error))
        return
    here = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and path != listing
    }
    for name, digest in sorted(known.items()):
        if unsafe_name(name):
            survey.add("models/release", listing, "names below the folder", name)
        elif name not in here:
            survey.add("models/release", folder / name, "a listed file", "nothing")
        else:
            survey.count("models", release_files=1)
            try:
                found = hash_file(here[name])
            except (OSError, AgetfError) as error:
                found = str(error)
            if found != digest:
                survey.add("models/release", here[name], digest, found)
    for name in sorted(set(here) - set(known)):
        survey.add("models/release", here[name], f"a line in {CHECKSUMS}", "none")
