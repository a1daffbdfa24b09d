"""Looks into an exported program's archive before PyTorch opens it.

PyTorch's own reader unpickles what an archive marks as pickled and evaluates expressions out of it,
so that a file could bring code of its own. A program of an AgeTransformer needs none of that:
tensors as plain bytes, ATen operators, sizes that are products of sizes. Anything else is refused.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from agetf_pipeline.core.errors import WeightsError

CARD = "card.json"
_WORD = re.compile(r"[A-Za-z_]\w*")
# PyTorch names the sizes that may vary s0, s1, ...; the rest are SymPy's and its own functions.
_SIZE = re.compile(r"[su]\d+|int_oo|Integer|Symbol|positive|integer|nonnegative|True|False|"
                   r"Add|Mul|Pow|Max|Min|Mod|FloorDiv|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|"
                   r"L|faces|ages|size|and|or|not")  # fmt: skip
_OTHER_CHARACTERS = re.compile(r"[^\w\s()\[\],'=<>!*+/.-]")
_OPERATOR = re.compile(r"torch\.ops\.aten\.\w+\.\w+|_operator\.\w+")


def read_checked(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Return an archive's bytes, once looked through, and the card in it.

    Raises:
        WeightsError: There is no file, it is damaged, it is no exported program, it has no card,
            or it holds more than tensors and ATen operators.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"Expected an exported program at {path}; found nothing to read ({error.strerror}). "
            "Write one with `agetf model export`."
        ) from error
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            damaged = archive.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(f"{damaged} is damaged")
            parts = {_inner(name): archive.read(name) for name in archive.namelist()}
        card = json.loads(parts.get(f"extra/{CARD}", b"{}"))
        findings = list(_findings(parts))
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise WeightsError(
            f"Expected an exported program at {path}; could not read it: {error}. Copy the file "
            "again, or write it anew with `agetf model export`."
        ) from error
    if not card:
        raise WeightsError(
            f"Expected an exported program with a card at {path}; found none in it. Write it with "
            "`agetf model export`."
        )
    if findings:
        raise WeightsError(
            f"Expected a program of tensors and ATen operators at {path}; found "
            f"{'; '.join(sorted(set(findings))[:5])}. It was not opened, since opening it could "
            "run code. Write it anew with `agetf model export` and this version of PyTorch."
        )
    return data, card


def _findings(parts: dict[str, bytes]) -> Iterator[str]:
    """Yield what a program of ours would not hold."""
    import torch

    models = [name for name in parts if name.startswith("models/")]
    if len(models) != 1:
        yield f"{len(models)} programs"
    for name in models:
        for key, value in _walk(json.loads(parts[name])):
            if key == "target" and not _OPERATOR.fullmatch(value):
                yield f"the operator {value[:60]!r}"
            elif key in ("expr_str", "guards_code") and not _is_about_sizes(value):
                yield f"the expression {value[:60]!r}"
    for name, content in parts.items():
        if name.startswith(("data/weights/", "data/constants/")):
            yield from _payload_findings(name, content)
        elif name.startswith("data/aotinductor/"):
            yield "compiled code"
        elif name.startswith("data/sample_inputs/"):
            try:
                torch.load(io.BytesIO(content), weights_only=True)
            except Exception:
                yield f"{name}, which is more than tensors"


def _payload_findings(name: str, content: bytes) -> Iterator[str]:
    if name.endswith("_config.json"):
        if any(key == "use_pickle" and value for key, value in _walk(json.loads(content))):
            yield f"pickled objects named by {name}"
    elif not PurePosixPath(name).name.startswith(("weight_", "tensor_")) or name.endswith(".pt"):
        yield name


def _walk(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf of a JSON value with the key that it, or its list, stands under."""
    if isinstance(value, dict):
        for inner_key, inner in value.items():
            yield from _walk(inner, inner_key)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner, key)
    elif value is not None:
        yield key, value


def _is_about_sizes(expression: str) -> bool:
    words = _WORD.findall(expression)
    return not _OTHER_CHARACTERS.search(expression) and all(map(_SIZE.fullmatch, words))


def _inner(name: str) -> str:
    """Return a path within an archive without its first folder, which is the archive's name."""
    return name.partition("/")[2]
