"""Taking what names somebody out of JSON: decided on what it says, not on how it is written."""

from typing import Any

from agetf_pipeline.upkeep.forget_match import PEOPLE, Target


def pruned(
    value: Any, target: Target, key: str = "", partition: str | None = None
) -> tuple[Any, int]:
    """Return a JSON value without what names the target, and how many values went.

    A record in a list goes whole where one of its own fields names it; elsewhere the field goes.
    Names of people are compared where people stand: in fields of `PEOPLE`, as `caf:<name>`, and,
    where they are no common words, in longer texts.

    Args:
        value: As parsed.
        target: What is to go.
        key: Of the field that holds the value.
        partition: Of the record that holds it.
    """
    if isinstance(value, list):
        kept, num = [], 0
        for item in value:
            if _names(item, target, key, partition):
                num += 1
                continue
            left, fewer = pruned(item, target, key, partition)
            kept.append(left)
            num += fewer
        return kept, num
    if isinstance(value, dict):
        left_of, num = {}, 0
        partition = _partition_of(value, partition)
        for name, item in value.items():
            is_its = _is_key(name, target, key, partition)
            if is_its or (isinstance(item, str) and _names(item, target, name, partition)):
                num += 1
                continue
            left_of[name], fewer = pruned(item, target, name, partition)
            num += fewer
        return left_of, num
    return value, 0


def _is_key(name: str, target: Target, above: str, partition: str | None) -> bool:
    """Whether a record's key names it: `{"people": {"Ann": ...}}`, or an image's hash."""
    is_person = above.casefold() in PEOPLE and target.is_person(name, partition)
    return is_person or target.is_key(name)


def _names(item: Any, target: Target, key: str, partition: str | None) -> bool:
    """Whether a value is a text that names the target, or a record of it."""
    if isinstance(item, str):
        if key.strip().casefold() in PEOPLE and target.is_person(item, partition):
            return True
        return target.is_identity(item, partition) or target.is_in(item)
    if isinstance(item, dict):
        inside = _partition_of(item, partition)
        return any(
            isinstance(field, str) and _names(field, target, name, inside)
            for name, field in item.items()
        )
    return False


def _partition_of(record: dict[str, Any], otherwise: str | None) -> str | None:
    its = record.get("partition")
    return its if isinstance(its, str) else otherwise
