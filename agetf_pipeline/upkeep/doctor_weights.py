"""Weights that the configuration names: there, and vouched for. Large files are not hashed."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agetf_pipeline.config.base import Section
from agetf_pipeline.upkeep.doctor import Item, Patient, ill

_EVERY_NETWORK = ("weights", "init_weights", "init_from")


def configured_check(patient: Patient) -> Iterator[Item]:
    """Whether every file of weights that the config names is there, and what vouches for it."""
    if patient.config is None or patient.workspace is None:
        return
    from agetf_pipeline.checkpoints.catalogue import find_catalogue
    from agetf_pipeline.checkpoints.hashes import known_hash
    from agetf_pipeline.checkpoints.verifying import judge, loadable_files

    catalogue = find_catalogue(patient.config.runtime)
    counts: Counter[str] = Counter()
    lenient = patient.config.runtime.allow_unverified_weights
    for name, path in _named(patient.config):
        if not path.exists():
            listed = [each for each, _ in catalogue.listed_as(path)]
            fetch = f"`agetf models fetch {listed[0]}`, or " if listed else ""
            yield ill(
                "error", "weights/missing", name, f"weights at {path}", "nothing there",
                f"Get them: {fetch}`agetf models import FILE`; `agetf models list` says what "
                "there is.",
            )  # fmt: skip
            continue
        for file in loadable_files(path) if path.is_dir() else [path]:
            verdict = judge(file, patient.workspace, catalogue, known_hash)
            counts[verdict.status] += 1
            if verdict.status in ("unverified", "mismatch"):
                yield ill(
                    "warning" if lenient else "error", f"weights/{verdict.status}", name,
                    "weights that something vouches for", verdict.problem or verdict.status,
                    "See `agetf models verify`.",
                )  # fmt: skip
    if counts:
        spelled = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
        yield Item("files named", f"{spelled}; `agetf models verify` hashes them all")
    else:
        yield Item("files named", "none: the workspace trains its own networks")


def trained_check(patient: Patient) -> Iterator[Item]:
    """Which of its own networks the workspace has."""
    if patient.workspace is None or not patient.workspace.models.is_dir():
        return
    from agetf_pipeline.core.errors import WeightsError
    from agetf_pipeline.core.weights import read_card

    folder = patient.workspace.models
    found = [
        path for path in sorted(folder.rglob("*.safetensors"))
        if (folder / "checkpoints") not in path.parents and not path.name.startswith(".tmp-")
    ]  # fmt: skip
    damaged = 0
    for path in found:
        try:
            read_card(path)
        except WeightsError as error:
            damaged += 1
            yield ill(
                "error", "weights/damaged", patient.workspace.relative(path),
                "a whole safetensors file", str(error).partition("found damage: ")[2][:200],
                "Delete it, and run the stage that makes it.",
            )  # fmt: skip
    if found and not damaged:
        yield Item("trained here", f"{len(found)} files below {folder.name}/, all whole")


def _named(value: Any, prefix: str = "") -> Iterator[tuple[str, Path]]:
    """Yield the dotted name and the path of every setting that names weights."""
    if isinstance(value, Section):
        items = [(name, getattr(value, name)) for name in type(value).model_fields]
    elif isinstance(value, Mapping):
        items = list(value.items())
    else:
        return
    for name, item in items:
        dotted = f"{prefix}.{name}".lstrip(".")
        if isinstance(item, Path) and (name in _EVERY_NETWORK or name.endswith("_weights")):
            yield dotted, item
        else:
            yield from _named(item, dotted)


CHECKS = (configured_check, trained_check)
