"""In which keys specs differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import msgspec

from presplit.core.sections import Spec


def flat(tables: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Nested tables as one, with dotted keys; an empty one leaves nothing.

    >>> flat({"a": {"b": 1}, "c": 2, "d": {}})
    {'a.b': 1, 'c': 2}
    """
    found: dict[str, Any] = {}
    for key, value in tables.items():
        if isinstance(value, Mapping):
            found |= flat(cast("Mapping[str, Any]", value), f"{place}{key}.")
        else:
            found[f"{place}{key}"] = value
    return found


def differences(one: Spec, other: Spec) -> Iterator[tuple[str, Any, Any]]:
    """Each dotted key in which two specs differ, with both values."""
    first, second = (flat(msgspec.to_builtins(each)) for each in (one, other))
    for key in dict.fromkeys([*first, *second]):
        if first.get(key) != second.get(key):
            yield key, first.get(key), second.get(key)


def differing(specs: Sequence[Spec]) -> dict[str, list[Any]]:
    """The dotted keys in which not all ``specs`` agree, with the value of each; None for none."""
    tables = [flat(msgspec.to_builtins(spec)) for spec in specs]
    values = {
        key: [table.get(key) for table in tables]
        for key in dict.fromkeys(key for table in tables for key in table)
    }
    return {key: each for key, each in values.items() if any(value != each[0] for value in each)}
