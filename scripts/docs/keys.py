"""The spec's reference: every key with its type, range and default, from the values that hold it.

What a key means is its docstring, or stands in the docstring of its section.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from presplit.core.sections import SECTIONS, Spec
from presplit.core.value import Value

BOUNDS = {"gt": "above", "ge": "from", "lt": "below", "le": "up to"}
NAMES = {int: "whole number", float: "number", str: "text", bool: "true or false"}


def text() -> str:
    """One page of Markdown."""
    parts = [
        "# Keys of a spec\n",
        "What each section is for, with examples: [the spec](../spec.md). "
        "`presplit train SPEC --set SECTION.KEY=VALUE` changes one of them.\n",
        "## At the top\n",
        _table(Spec, skip=tuple(SECTIONS)),
    ]
    for section, kinds in SECTIONS.items():
        parts.append(f"## [{section}]\n")
        for kind in kinds:
            parts += [inspect.getdoc(kind) or "", "", _table(kind)]
    return "\n".join(parts)


def _table(kind: type[Value], skip: tuple[str, ...] = ()) -> str:
    """The fields of ``kind``, a line each."""
    hints = get_type_hints(kind, include_extras=True)
    notes = _notes(kind)
    rows = ["| key | is | usual | meaning |", "|---|---|---|---|"]
    for field in msgspec.structs.fields(kind):
        if field.name in skip:
            continue
        note = " ".join(notes.get(field.name, "").split())
        rows.append(f"| `{field.name}` | {_said(hints[field.name])} | {_usual(field)} | {note} |")
    return "\n".join([*rows, ""])


def _usual(field: Any) -> str:
    """The default of a field as TOML would say it."""
    if field.required:
        return "must be given"
    value = field.default
    if value is None or value is msgspec.NODEFAULT or value in ((), {}):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def _said(hint: Any) -> str:
    """A type in words.

    >>> _said(Annotated[int, msgspec.Meta(ge=1)] | None)
    'whole number from 1'
    >>> _said(Literal["a", "b"])
    '`a` or `b`'
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        metas = [meta for meta in inner[1:] if isinstance(meta, msgspec.Meta)]
        return " ".join([_said(inner[0]), *(word for meta in metas for word in _bounds(meta))])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return ", or ".join(_said(each) for each in inner if each is not type(None))
    if origin is tuple:
        return f"list of: {_said(inner[0])}"
    if origin is dict:
        return f"table of: {_said(inner[1])}"
    return NAMES.get(hint, f"`{getattr(hint, '__name__', hint)}`")


def _bounds(meta: msgspec.Meta) -> list[str]:
    """The range that ``meta`` says."""
    said: list[str] = []
    for name, word in BOUNDS.items():
        bound = getattr(meta, name)
        if bound is not None and bound < 2**31 - 1:
            said.append(f"{word} {bound:g}")
    return said


def _notes(kind: type[Value]) -> dict[str, str]:
    """The docstrings that stand below the fields of ``kind`` and of what it is built on."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if not issubclass(each, Value):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, note in zip(body.body, body.body[1:], strict=False):
            if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
                continue
            match note:
                case ast.Expr(value=ast.Constant(value=str(words))):
                    found[field.target.id] = words
                case _:
                    pass
    return found
