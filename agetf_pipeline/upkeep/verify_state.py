"""What keeps the state: SQLite files, the registry, ledgers, records, who was forgotten."""

import json
from pathlib import Path

from agetf_pipeline.captions.versions import recorded_version
from agetf_pipeline.config.synthesize import SynthesizeConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import read_json
from agetf_pipeline.core.progress import track
from agetf_pipeline.data.shards import ledger_path
from agetf_pipeline.release.redaction import KEY_BYTES, key_path
from agetf_pipeline.upkeep.verify_forgotten import verify_register
from agetf_pipeline.upkeep.verify_registry import verify_registry
from agetf_pipeline.upkeep.verify_sqlite import databases_of, integrity_of
from agetf_pipeline.upkeep.verify_survey import Survey


def verify_state(survey: Survey) -> None:
    """Check every SQLite file, the registry's links, the ledgers and records."""
    for path in track(list(databases_of(survey)), "verify SQLite"):
        if path.stat().st_size:  # made, and not yet written: no database
            survey.count("state", databases=1, bytes=path.stat().st_size)
            problem = integrity_of(path, survey.quick)
            if problem is not None:
                survey.add("state/sqlite", path, "integrity_check says ok", problem)
    verify_registry(survey)
    _verify_ledgers(survey)
    _verify_release_key(survey)
    _verify_drawn_corpus(survey)
    verify_register(survey)


def _verify_ledgers(survey: Survey) -> None:
    """Check the records among the state that other runs go by."""
    state = survey.workspace.state
    records = [ledger_path(survey.workspace), state / "checkpoints" / "hashes.json"]
    records += sorted((state / "shards").glob("requests-*.json"))
    records += [survey.workspace.stats / "accepted" / "labels.json"]
    for path in dict.fromkeys(records):
        if path.is_file():
            survey.count("state", records=1)
            try:
                if not isinstance(read_json(path), dict):
                    raise ValueError("it is no JSON object")
            except (OSError, ValueError) as error:
                survey.add("state/ledger", path, "a record in JSON", str(error))
    for path in sorted((state / "pull").glob("*.jsonl")):
        _verify_lines(survey, path)
    try:
        recorded_version(survey.workspace)
    except DataError as error:
        where = survey.workspace.root / "data" / "cache" / "captions" / "current.json"
        found = str(error).partition("; found: ")[2].partition(". Run")[0]
        survey.add("state/ledger", where, "the version of the captions in use", found)


def _verify_release_key(survey: Survey) -> None:
    """Check the form of the key; which one it was, nothing that is released tells."""
    path = key_path(survey.workspace)
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return  # nothing was released yet
    survey.count("state", keys=1)
    if size != KEY_BYTES:
        survey.add("state/release_key", path, f"{KEY_BYTES} bytes", f"{size} bytes")


def _verify_drawn_corpus(survey: Survey) -> None:
    """A drawn corpus is marked as drawn, with what drew it: nothing is drawn over photographs."""
    path = survey.workspace.truth / "corpus.json"
    if not survey.workspace.truth.is_dir():
        return
    try:
        SynthesizeConfig.model_validate(read_json(path))
    except (OSError, ValueError) as error:
        found = "nothing" if isinstance(error, FileNotFoundError) else str(error).partition("\n")[0]
        survey.add("state/drawn_corpus", path, "the mark of a drawn corpus", found)
    else:
        survey.count("state", records=1)


def _verify_lines(survey: Survey, path: Path) -> None:
    """A ledger of copied files: a line each; a kill may have cut the last one off."""
    survey.count("state", records=1)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        survey.add("state/ledger", path, "lines of JSON", str(error))
        return
    for number, line in enumerate(lines[:-1], start=1):
        try:
            name, num_bytes, tag = json.loads(line)
            fits = isinstance(name, str) and isinstance(num_bytes, int) and isinstance(tag, str)
        except (ValueError, TypeError):
            fits = False
        if not fits:
            survey.add("state/ledger", path, "name, size and tag", f"another line {number}")
            return
