"""Python, the packages against their lock, and what is needed to import them."""

import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from agetf_pipeline.upkeep.doctor import Item, Patient, ill

_PYTHONS = ((3, 11), (3, 13))
"""The first that works, and the first that does not."""
_HEAVY = (
    "torch", "torchvision", "transformers", "safetensors", "polars", "pyarrow", "cv2", "PIL",
    "mlflow", "dagster", "great_expectations",
)  # fmt: skip
_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)\s*(?:;([^\\]*))?")
_NUM_NAMED = 4
_QUIET = {
    "DAGSTER_DISABLE_TELEMETRY": "yes",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
}
_REINSTALL = "Run `make setup`, or `pip install --require-hashes -r requirements.lock`."


def python_check(patient: Patient) -> Iterator[Item]:
    """Whether this Python is one that everything runs on."""
    version = ".".join(map(str, sys.version_info[:3]))
    low, high = (".".join(map(str, each)) for each in _PYTHONS)
    if _PYTHONS[0] <= sys.version_info[:2] < _PYTHONS[1]:
        yield Item("Python", f"{version} ({sys.executable})")
    else:
        yield ill(
            "error", "installation/python", "Python", f"{low} or later, before {high}", version,
            "Make the environment with another Python: `make setup` brings one.",
        )  # fmt: skip


def packages_check(patient: Patient) -> Iterator[Item]:
    """Whether the installed packages are those of the lock."""
    if not patient.lock.is_file():
        yield Item("packages", "no requirements.lock beside the code: not compared")
        return
    pinned = _read_lock(patient.lock)
    installed = {
        _canonical(each.metadata["Name"] or ""): each.version
        for each in importlib.metadata.distributions()
    }
    missing = sorted(name for name in pinned if name not in installed)
    other = sorted(
        f"{name} {installed[name]} instead of {version}"
        for name, version in pinned.items()
        # A build's own suffix (+cu128) is no other version.
        if name in installed and installed[name].partition("+")[0] != version.partition("+")[0]
    )
    if missing:
        yield ill(
            "error", "installation/packages", "packages", f"the {len(pinned)} of {patient.lock}",
            f"{len(missing)} missing: {_some(missing)}", _REINSTALL,
        )  # fmt: skip
    if other:
        yield ill(
            "warning", "installation/packages", "packages", f"the versions of {patient.lock}",
            f"{len(other)} others: {_some(other)}", _REINSTALL,
        )  # fmt: skip
    if not missing and not other:
        yield Item("packages", f"{len(pinned)}, as requirements.lock has them")


def imports_check(patient: Patient) -> Iterator[Item]:
    """Whether the packages that take long to import are found."""
    absent = [name for name in _HEAVY if importlib.util.find_spec(name) is None]
    if absent:
        yield ill(
            "error", "installation/imports", "imports", f"{len(_HEAVY)} large packages",
            f"not found: {', '.join(absent)}", _REINSTALL,
        )  # fmt: skip
    else:
        yield Item("imports", f"{len(_HEAVY)} large packages found")
    build = torch_build()
    if build is not None:
        yield Item("PyTorch", f"{build[0]}, {f'CUDA {build[1]}' if build[1] else 'CPU alone'}")


def telemetry_check(patient: Patient) -> Iterator[Item]:
    """Whether the tools are kept from calling home."""
    loud = [name for name, value in _QUIET.items() if os.environ.get(name, "").lower() != value]
    if patient.dagster_home is not None and "DAGSTER_DISABLE_TELEMETRY" in loud:
        settings = patient.dagster_home / "dagster.yaml"
        if settings.is_file() and "enabled: false" in settings.read_text(errors="replace"):
            loud.remove("DAGSTER_DISABLE_TELEMETRY")
    # The library sets them for what it imports itself.
    named = " ".join(f"{name}={_QUIET[name]}" for name in loud)
    text = "off for `agetf` and `make`"
    yield Item("telemetry", text if not loud else f"{text}; for other tools set {named}")


def torch_build() -> tuple[str, str] | None:
    """Return PyTorch's version and its CUDA's (empty for a CPU build), without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    version = re.search(r"__version__\s*(?::.*?)?=\s*'([^']+)'", text)
    cuda = re.search(r"^cuda\s*(?::.*?)?=\s*'([^']+)'", text, re.MULTILINE)
    return version.group(1) if version else "?", cuda.group(1) if cuda else ""


def _read_lock(path: Path) -> dict[str, str]:
    """Return name to version of the lines that hold on this platform."""
    from packaging.markers import Marker

    pinned = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        found = _PINNED.match(line)
        if found is not None:
            name, version, marker = found.groups()
            if not marker or not marker.strip() or Marker(marker.strip()).evaluate():
                pinned[_canonical(name)] = version
    return pinned


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
    return f"{', '.join(names[:_NUM_NAMED])}{more}"


CHECKS = (python_check, packages_check, imports_check, telemetry_check)
