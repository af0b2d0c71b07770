"""What all stored values share: they are frozen, and checked when they are made.

A value is checked by the same rules whether it is made in Python or decoded from a file, so that
nobody has to check it again. Source: msgspec's constraints, which msgspec itself applies only when
it decodes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Annotated, Any, NoReturn, cast

import msgspec
import numpy as np
from msgspec import Meta, Struct
from msgspec.structs import FieldInfo

from presplit.core.errors import SpecError

NonNegative = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
PartialShare = Annotated[float, Meta(ge=0, lt=1)]
"""A share that leaves something of the rest."""
DAY_S = 86_400
Deadline = Annotated[float, Meta(gt=0, le=DAY_S)]
"""Seconds by which an answer is wanted, at most a day."""


LONGEST = 120
"""Characters of a wrong value that a message shows."""


class Value(Struct, frozen=True, forbid_unknown_fields=True):
    """A frozen value; a file with an unknown field is refused.

    Every field is checked and brought to its one form when the value is made: numbers of NumPy
    become Python's, lists become tuples, dicts become read-only. Raises `SpecError` that names the
    field, what was expected and what came; a number that is not finite is refused everywhere.

    >>> class Size(Value, frozen=True):
    ...     bytes: NonNegative
    >>> Size(np.float32(2)).bytes
    2.0
    >>> Size(-1)
    Traceback (most recent call last):
        ...
    presplit.core.errors.SpecError: Size.bytes: expected `float` >= 0.0, got -1
    """

    def __post_init__(self) -> None:
        kind = type(self)
        for field in _fields(kind):
            given: object = getattr(self, field.name)
            where = f"{kind.__name__}.{field.name}"
            try:
                value: object = msgspec.convert(_plain(given, where), field.type)
            except msgspec.ValidationError as error:
                raise SpecError(_explained(where, str(error), given)) from error
            if isinstance(value, dict):
                value = ReadOnly(cast("dict[Any, Any]", value))
            if value is not given:
                msgspec.structs.force_setattr(self, field.name, value)


class ReadOnly(dict[Any, Any]):
    """A dict that is not changed any more; it is written to files as any dict is.

    >>> ReadOnly(early=0.9)["early"] = 0.1
    Traceback (most recent call last):
        ...
    TypeError: this mapping is read-only: make a new one
    """

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("this mapping is read-only: make a new one")

    __setitem__ = __delitem__ = __ior__ = _refuse  # type: ignore[assignment]
    clear = pop = popitem = setdefault = update = _refuse  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return ReadOnly, (dict(self),)

    def __copy__(self) -> ReadOnly:
        return self

    def __deepcopy__(self, memo: Mapping[int, object]) -> ReadOnly:
        return self


@functools.cache
def _fields(kind: type[Value]) -> tuple[FieldInfo, ...]:
    """The fields of a class with their types, which cost much to resolve."""
    return msgspec.structs.fields(kind)


def _plain(value: object, where: str) -> object:
    """``value`` with Python's numbers in place of NumPy's; all of them must be finite."""
    if isinstance(value, np.generic):
        return _plain(cast("object", value.item()), where)
    if isinstance(value, float) and not math.isfinite(value):
        raise SpecError(f"{where}: expected a finite number, got {value}")
    if isinstance(value, dict):
        found = cast("dict[object, object]", value)
        return {key: _plain(inner, f"{where}[{key!r}]") for key, inner in found.items()}
    if isinstance(value, list | tuple):
        row = cast("tuple[object, ...]", value)
        return tuple(_plain(inner, f"{where}[{number}]") for number, inner in enumerate(row))
    return value


def _explained(where: str, problem: str, given: object) -> str:
    """Msgspec's ``problem`` as ``Class.field: expected .., got VALUE``."""
    what, _, place = problem.partition(" - at `")
    what = what[:1].lower() + what[1:].partition(", got ")[0].replace(" | null", "")
    shown = repr(given)
    shown = shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."
    return f"{where}{place.partition('$')[2].rstrip('`')}: {what}, got {shown}"
