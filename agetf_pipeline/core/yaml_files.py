"""YAML from outside: data alone, of a size that a person writes, and no more than it looks like.

`safe_load` builds no objects; what is left are files that blow up. An alias stands for a whole
branch, so nine lines can spell a thousand million values, of which everything that walks through
them dies.
"""

from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 1 << 20
MAX_VALUES = 50_000
"""Scalars, lists and mappings, each alias counted as what it stands for."""
MAX_DEPTH = 50


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        ValueError: It is too large, no UTF-8, no YAML, or stands for too much; the message says
            which. (`yaml.YAMLError` is turned into it, too.)
        OSError: It cannot be read.
    """
    with path.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    return parse_yaml(data.decode("utf-8"))


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML document.

    Raises:
        ValueError: As `read_yaml`.
    """
    try:
        _check_nesting(text)
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            _count(root, {}, ())
            return loader.construct_document(root)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _check_nesting(text: str) -> None:
    """Refuse what the parser itself would not come back from: it recurses, and it is slow."""
    depth = count = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        count += not isinstance(event, yaml.CollectionEndEvent)
        if count > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values")
        if depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} levels")


def _count(node: yaml.Node, known: dict[int, int], above: tuple[int, ...]) -> int:
    """Return how many values a node stands for."""
    if id(node) in above:
        raise ValueError("an alias within what it stands for")
    if id(node) not in known:
        below = [*above, id(node)]
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [each for pair in node.value for each in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        known[id(node)] = 1 + sum(_count(child, known, tuple(below)) for child in children)
    if known[id(node)] > MAX_VALUES:
        raise ValueError(f"aliases that stand for more than {MAX_VALUES} values")
    return known[id(node)]
