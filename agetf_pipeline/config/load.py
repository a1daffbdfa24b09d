"""`load_config`: the one way to get a configuration. Defaults < YAML < dotted overrides."""

import itertools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agetf_pipeline.config.base import rooted
from agetf_pipeline.config.pipeline import PipelineConfig
from agetf_pipeline.core.errors import ConfigError
from agetf_pipeline.core.secrets import holds_credentials, redact, redact_address, redacted
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.core.yaml_files import parse_yaml, read_yaml

_MAX_PARENTS = 10
_MAX_SHOWN = 200
_MAX_READ = 4000
"""Characters of a value that are looked through for secrets before it is cut to be shown."""
_MAX_PROBLEMS = 10
_MAX_ITEMS = 20


def load_config(path: Path, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Read a configuration.

    Args:
        path: YAML file. Its key `extends` names another, relative to it, that it builds on.
        overrides: `section.key=value`, values in YAML spelling (`training.lr=1e-4`, `x=null`).

    Returns:
        The frozen configuration, every path that was given absolute, and the workspace root in
        any case. Relative ones are taken from the folder above the one the YAML file lies in: the
        repository, for `configs/demo.yaml`.

    Raises:
        ConfigError: The file is absent or not YAML, a key is unknown, or a value does not fit.
    """
    values = _read(path)
    for override in overrides:
        _apply(values, override)
    try:
        config = PipelineConfig.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False)
        problems = [
            f"{_named(item['loc'])}: {item['msg'][:_MAX_READ]}, "
            f"found {_shown(item['loc'], item['input'])}"
            for item in found[:_MAX_PROBLEMS]
        ]
        if len(found) > _MAX_PROBLEMS:
            problems.append(f"and {len(found) - _MAX_PROBLEMS} more")
        told = redact("; ".join(problems))
        # Pydantic's own error repeats the values, passwords among them: it is not handed on.
        raise ConfigError(
            f"Expected settings that fit in {path}; found {told}. "
            "Change these keys; docs/configuration.md lists what there is."
        ) from None
    root = path.resolve().parent.parent
    loaded = rooted(config, root)
    assert isinstance(loaded, PipelineConfig)
    # The default, too, is a place beside the configuration, not beside the code.
    workspace_root = (root / loaded.workspace.root).resolve()
    workspace = loaded.workspace.model_copy(update={"root": workspace_root})
    return loaded.model_copy(update={"workspace": workspace})


def workspace_of(config: PipelineConfig) -> Workspace:
    """Return the workspace of a loaded configuration."""
    return Workspace(config.workspace.root)


def _read(path: Path, num_above: int = 0) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(
            f"Expected a config file at {path}; found nothing. "
            "Give one of configs/*.yaml, or copy configs/folder.yaml and change it."
        )
    try:
        values = read_yaml(path) or {}
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"Expected YAML in {path}; found: {_cut(str(error))}. Correct the file."
        ) from None
    if not isinstance(values, dict):
        raise ConfigError(f"Expected sections in {path}; found {type(values).__name__}.")
    parent = values.pop("extends", None)
    if parent is None:
        return values
    if num_above == _MAX_PARENTS or not isinstance(parent, str):
        raise ConfigError(
            f"Expected `extends` in {path} to name a file, at most {_MAX_PARENTS} of them one upon "
            f"the other; found {_cut(str(parent))!r}. See that none extends itself."
        )
    return _merge(_read(path.parent / parent, num_above + 1), values)


def _named(place: tuple[int | str, ...]) -> str:
    name = ".".join(str(part) for part in place)
    return name if len(name) <= _MAX_SHOWN else f"{name[:_MAX_SHOWN]}..."


def _shown(place: tuple[int | str, ...], value: Any) -> str:
    """Return a value that does not fit, for a message: no secrets, and not the whole of it."""
    value = _some(value)
    if isinstance(value, str) and holds_credentials(value):
        value = redact_address(value)
    named = {str(place[-1]): value} if place else {"": value}
    text = repr(next(iter(redacted(named).values())))
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _cut(text: str) -> str:
    """Return text from outside for a message, without secrets and no more than a page of it."""
    text = redact(text[:_MAX_READ])
    return text if len(text) <= 5 * _MAX_SHOWN else f"{text[: 5 * _MAX_SHOWN]}..."


def _some(value: Any, depth: int = 4) -> Any:
    """Return the beginning of a value: what is cut off is not shown anyway."""
    if isinstance(value, str):
        return value[:_MAX_READ]
    if isinstance(value, Mapping):
        items = itertools.islice(value.items(), _MAX_ITEMS if depth else 0)
        return {_some(name): _some(item, depth - 1) for name, item in items}
    if isinstance(value, list | tuple):
        return [_some(item, depth - 1) for item in value[: _MAX_ITEMS if depth else 0]]
    return value


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(dict(old or {}), value) if both else value
    return merged


def _apply(values: dict[str, Any], override: str) -> None:
    name, separator, text = override.partition("=")
    keys = name.strip().split(".")
    if not separator or not all(keys):
        raise ConfigError(
            f"Expected an override such as train.batch_size=8; found {_cut(override)!r}. "
            "Write section.key=value without spaces."
        )
    try:
        value = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(
            f"Expected YAML after '=' in {_cut(override)!r}; found: {_cut(str(error))}. Correct it."
        ) from None
    # YAML 1.1 reads 1e-4 as text; people write it as a number.
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value)
    section = values
    for key in keys[:-1]:
        inner = section.get(key)
        section[key] = dict(inner) if isinstance(inner, Mapping) else {}
        section = section[key]
    section[keys[-1]] = value
