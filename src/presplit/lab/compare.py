"""Runs side by side on the same test set: what differs in their specs, and whether they do.

Two nets that answer the same samples are compared pair by pair: what counts are the samples that
one of them alone has right (McNemar, Psychometrika 12, 1947; the exact form, a binomial of 1/2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec

from presplit.core.sections import Spec


def flat(tables: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Nested tables as one, with dotted keys.

    >>> flat({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    found: dict[str, Any] = {}
    for key, value in tables.items():
        if isinstance(value, Mapping) and value:
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
