"""Writes docs/configuration.md from the models: `python -m agetf_pipeline.config.describe`."""

import types
import typing
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from agetf_pipeline.config.base import Section
from agetf_pipeline.config.pipeline import PipelineConfig

_HEAD = """# Configuration

Order: defaults < YAML < overrides on the command line (`agetf train train.batch_size=8`). A YAML
file may build on another with `extends: other.yaml`. Unknown keys are refused. Relative paths are
taken from the folder above the one that the YAML file lies in: the repository, for `configs/`.

This page is written by `python -m agetf_pipeline.config.describe`.
"""


def describe() -> str:
    """Return the page as Markdown: a table per section."""
    parts = [_HEAD]
    for name, field in PipelineConfig.model_fields.items():
        model = typing.cast("type[Section]", field.annotation)
        parts.append(f"## `{name}`\n\n{(model.__doc__ or '').strip()}\n")
        parts.append("| key | type | default | what it is |\n|---|---|---|---|")
        parts += _rows(model, "")
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _rows(model: type[Section], prefix: str) -> list[str]:
    rows = []
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            rows += _rows(annotation, f"{prefix}{name}.")
            continue
        default = "required" if field.default is PydanticUndefined else _spell(field.default)
        if field.default_factory is not None:
            default = "`{}`"
        what = (field.description or "").replace("|", "\\|")
        rows.append(f"| `{prefix}{name}` | {_type_name(annotation)} | {default} | {what} |")
        # Sections by name, such as the experts.
        for inner in typing.get_args(annotation) if annotation is not None else ():
            if isinstance(inner, type) and issubclass(inner, Section):
                rows += _rows(inner, f"{prefix}{name}.<name>.")
    return rows


def _spell(value: Any) -> str:
    return "none" if value is None else f"`{value}`"


def _type_name(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    inner = typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type_name(inner[0])
    if origin is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_name(part) for part in inner)
    if origin is not None:
        return f"{origin.__name__} of {', '.join(_type_name(part) for part in inner)}"
    return "none" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))


if __name__ == "__main__":
    target = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
    target.write_text(describe(), encoding="utf-8")
