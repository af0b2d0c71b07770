"""The spec: everything that makes a run again, read from ``spec.toml`` and checked once.

Reading is strict: an unknown key, a wrong type and a value out of range are errors that name the
key. What the sections may say stands in `presplit.core.sections`.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, cast, get_args, get_origin, get_type_hints

import msgspec

from presplit.core.errors import SpecError, context
from presplit.core.recipe import RECIPES, Recipe, Training
from presplit.core.sections import (
    NAME_PATTERN,
    NAME_WORDS,
    SECTIONS,
    ByBudget,
    ByDensity,
    ByFanOut,
    Cnn,
    Data,
    Exits,
    Mlp,
    Name,
    OwnModel,
    Planning,
    Spec,
    Start,
)
from presplit.core.types import canonical_json
from presplit.core.value import Value

__all__ = [
    "NAME_PATTERN",
    "ByBudget",
    "ByDensity",
    "ByFanOut",
    "Cnn",
    "Data",
    "Exits",
    "Mlp",
    "Name",
    "OwnModel",
    "Planning",
    "Spec",
    "Start",
    "Training",
    "assigned",
    "read_spec",
    "read_tables",
    "spec_from",
    "spec_json",
]


def read_spec(path: str | Path, *, set: Sequence[str] = ()) -> Spec:
    """The spec in a ``.toml`` file (or ``.json``, as `spec_json` writes it), changed by ``set``.

    Each of ``set`` is ``KEY=VALUE`` with a dotted key, as in ``training.epochs=5``; the value is
    read as TOML, and as a string if it is none. Raises `SpecError` that begins with the file's
    name.
    """
    raw = read_tables(path)
    with context(str(path)):
        return spec_from(raw, set=set)


def read_tables(path: str | Path) -> dict[str, object]:
    """The tables in a spec's file as they stand there, unchecked; raises `SpecError` if none."""
    path = Path(path)
    with context(str(path)):
        return _parse(_text(path), is_json=path.suffix == ".json")


def spec_from(
    raw: Mapping[str, object],
    *,
    over: Mapping[str, object] | None = None,
    set: Sequence[str] = (),
) -> Spec:
    """The spec that nested dicts describe, with ``over`` laid over them, changed by ``set``.

    ``set`` is as in `read_spec`. Raises `SpecError` naming the key.

    >>> spec_from({"training": {"recipe": "paper"}}, set=["training.epochs=5"]).training.batch
    256
    >>> spec_from({"sparsity": {"fan_outs": [2, 9, 10]}})
    Traceback (most recent call last):
        ...
    presplit.core.errors.SpecError: unknown key 'sparsity.fan_outs' (nearest: fan_out)
    >>> spec_from({"training": {"epochs": 0}})
    Traceback (most recent call last):
        ...
    presplit.core.errors.SpecError: training.epochs: expected `int` >= 1, got 0
    """
    changes = assigned(set, over=over or {})
    raw = _merged(_open_to(changes, raw), changes)
    _refuse_unknown(raw)
    _refuse_infinite(raw)
    raw = _filled(raw)
    try:
        return msgspec.convert(raw, Spec)
    except msgspec.ValidationError as error:
        raise SpecError(_explained(str(error), raw)) from error
    except RecursionError as error:
        raise SpecError("nested too deeply") from error
    except SpecError as error:
        raise SpecError(_by_key(str(error))) from error


def spec_json(spec: Spec) -> bytes:
    """The whole spec as indented JSON, defaults included.

    A run directory keeps this text and `read_spec` reads it back.

    >>> msgspec.json.decode(spec_json(Spec(seed=3)))["seed"]
    3
    """
    return msgspec.json.format(canonical_json(spec), indent=2) + b"\n"


def assigned(set: Sequence[str], *, over: Mapping[str, object]) -> dict[str, object]:
    """The tables ``over``, changed by each ``KEY=VALUE`` of ``set`` as in `read_spec`.

    >>> assigned(["training.epochs=5"], over={"training": {"rate": 0.1}, "seed": 2})
    {'training': {'rate': 0.1, 'epochs': 5}, 'seed': 2}
    """
    changes = _merged({}, over)
    for assignment in set:
        changes = _merged(changes, _assigned(assignment))
    return changes


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise SpecError(f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise SpecError(
            f"expected UTF-8 text, got byte {error.object[error.start]:#04x} at {error.start}"
        ) from error


def _parse(text: str, *, is_json: bool) -> dict[str, object]:
    try:
        return msgspec.json.decode(text, type=dict[str, object]) if is_json else tomllib.loads(text)
    except RecursionError as error:
        raise SpecError("nested too deeply") from error
    except (msgspec.MsgspecError, ValueError) as error:
        end = f"at line {len(text.splitlines())}, the end"
        problem = str(error).replace("at end of document", end)
        raise SpecError(f"not {'JSON' if is_json else 'TOML'}: {problem}") from error


def _assigned(assignment: str) -> dict[str, object]:
    """The table that ``KEY=VALUE`` says.

    >>> _assigned("training.rate=0.1"), _assigned("data.name=mnist")
    ({'training': {'rate': 0.1}}, {'data': {'name': 'mnist'}})
    >>> _assigned("sparsity.layers.'fc*'=0.5")
    {'sparsity': {'layers': {'fc*': 0.5}}}
    """
    key, _, value = assignment.partition("=")
    for written in (assignment, f"{key} = {json.dumps(value, ensure_ascii=False)}"):
        try:
            if "=" in assignment:
                return tomllib.loads(written)
        except RecursionError as error:
            raise SpecError("--set: nested too deeply") from error
        except ValueError:
            continue
    raise SpecError(
        f"--set {assignment!r}: expected KEY=VALUE with a dotted key, as in training.epochs=5"
    )


def _open_to(changes: Mapping[str, object], raw: Mapping[str, object]) -> Mapping[str, object]:
    """``raw`` as ``changes`` find it: a recipe that they name replaces one that is written out."""
    asked, written = changes.get("training"), raw.get("training")
    if not isinstance(asked, Mapping) or not isinstance(written, Mapping) or "recipe" not in asked:
        return raw
    table = cast("Mapping[str, object]", written)
    fields = Recipe.__struct_fields__
    if not all(key in table for key in fields):
        return raw
    return {**raw, "training": {key: table[key] for key in table if key not in fields}}


def _merged(raw: Mapping[str, object], change: Mapping[str, object]) -> dict[str, object]:
    """``raw`` with the leaves of ``change`` in their places."""
    merged = dict(raw)
    for key, value in change.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = (
            _merged(cast("dict[str, object]", old), cast("dict[str, object]", value))
            if both
            else value
        )
    return merged


def _refuse_unknown(raw: Mapping[str, object]) -> None:
    """Raise `SpecError` for a key that no section has, naming the nearest that it has."""
    _refuse_strange_keys(raw, Spec.__struct_fields__, "")
    for name, kinds in SECTIONS.items():
        table = raw.get(name)
        if isinstance(table, Mapping):
            known = [field for kind in kinds for field in kind.__struct_fields__]
            more = ["kind"] if len(kinds) > 1 else []
            more += ["recipe"] if name == "training" else []
            keys = cast("Mapping[str, object]", table)
            _refuse_strange_keys(keys, [*more, *dict.fromkeys(known)], f"{name}.")


def _refuse_strange_keys(table: Mapping[str, object], known: Sequence[str], prefix: str) -> None:
    for key in table:
        if key not in known:
            near = _nearest(str(key), known)
            hint = f"nearest: {near}" if near else f"there are: {', '.join(known)}"
            raise SpecError(f"unknown key '{prefix}{key}' ({hint})")


def _nearest(key: str, known: Sequence[str]) -> str:
    """The known key that is spelled most alike, or else is a word of ``key``; empty for none.

    >>> _nearest("epoch", ["epochs"]), _nearest("learning_rate", ["rates", "rate"])
    ('epochs', 'rate')
    """
    words = [each for each in known if each in key.split("_")]
    near = difflib.get_close_matches(key, known, n=1)
    return next(iter([*words, *near]), "")


def _filled(raw: Mapping[str, object]) -> dict[str, object]:
    """``raw`` with the kinds that its keys tell, and the recipe that it names written out."""
    filled = dict(raw)
    for name, kinds in SECTIONS.items():
        table = raw.get(name)
        if isinstance(table, Mapping) and len(kinds) > 1:
            filled[name] = _of_one_kind(name, cast("Mapping[str, object]", table))
    training = raw.get("training")
    if isinstance(training, Mapping):
        filled["training"] = _on_recipe(cast("Mapping[str, object]", training))
    return filled


def _of_one_kind(section: str, table: Mapping[str, object]) -> dict[str, object]:
    """``table`` with its ``kind``, which keys tell that no other kind has.

    >>> _of_one_kind("model", {"layers": [4, 2]})
    {'kind': 'mlp', 'layers': [4, 2]}
    >>> _of_one_kind("sparsity", {"density": 0.5, "unit": "macs"})
    Traceback (most recent call last):
        ...
    presplit.core.errors.SpecError: sparsity: expected the keys of one kind of density, budget, \
fan_out, got density (of density) and unit (of budget)
    """
    kinds = {_tag(kind): kind.__struct_fields__ for kind in SECTIONS[section]}
    owners = {key: [tag for tag, fields in kinds.items() if key in fields] for key in table}
    told = {key: tags[0] for key, tags in owners.items() if len(tags) == 1}
    kind = table.get("kind")
    if kind is None:
        if len(set(told.values())) > 1:
            said = " and ".join(f"{key} (of {tag})" for key, tag in told.items())
            raise SpecError(
                f"{section}: expected the keys of one kind of {', '.join(kinds)}, got {said}"
            )
        default = ["cnn"] if section == "model" else []
        kind = next(iter([*told.values(), *default]), None)
    if kind is None:
        raise SpecError(f"{section}: expected the keys of one of {', '.join(kinds)}, got none")
    if kind not in kinds:
        raise SpecError(f"{section}.kind: expected one of {', '.join(kinds)}, got {kind!r}")
    for key, tag in told.items():
        if tag != kind:
            raise SpecError(
                f"{section}.{key}: only kind {tag!r} has it, and {section}.kind is {kind!r}"
            )
    return {"kind": kind, **{key: value for key, value in table.items() if key != "kind"}}


def _on_recipe(table: Mapping[str, object]) -> dict[str, object]:
    """``[training]`` laid over the recipe that it names.

    >>> _on_recipe({"recipe": "paper", "epochs": 3})["batch"]
    256
    """
    name = table.get("recipe", "default")
    with context("training.recipe"):
        if not isinstance(name, str):
            raise SpecError(f"expected `str`, got {name!r}")
        recipe = cast("dict[str, object]", msgspec.to_builtins(RECIPES.find(name)))
    return recipe | {key: value for key, value in table.items() if key != "recipe"}


def _tag(kind: type[Value]) -> str:
    """What a section's ``kind`` says of this class."""
    return str(kind.__struct_config__.tag)


def _refuse_infinite(value: object, key: str = "") -> None:
    """Raise `SpecError` for a number that is not finite, wherever it stands."""
    if isinstance(value, float) and not math.isfinite(value):
        raise SpecError(f"{key}: expected a finite number, got {value}")
    if isinstance(value, Mapping):
        for name, inner in cast("Mapping[str, object]", value).items():
            _refuse_infinite(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(cast("Sequence[object]", value)):
            _refuse_infinite(inner, f"{key}[{number}]")


def _explained(problem: str, raw: object) -> str:
    """Msgspec's ``problem`` as ``KEY: expected .., got VALUE``."""
    what, _, where = problem.partition(" - at `$")
    where = where.rstrip("`").removeprefix(".").replace("[...]", "")
    what = (
        (what[:1].lower() + what[1:].partition(", got ")[0])
        .replace(" | null", "")
        .replace("`object`", "`table`")
    )
    section, _, field = where.partition(".")
    if what.startswith("invalid enum value"):
        legal = get_args(get_type_hints(_class(section, raw))[field])
        what = f"expected {_in_words(legal)}"
    elif "matching regex" in what:  # names alone have a pattern
        what = NAME_WORDS
    elif what.startswith("object missing"):
        return f"{where}: {what.removeprefix('object ')}"
    got = raw
    for step in re.findall(r"[^.\[\]]+", where):
        is_row = isinstance(got, list | tuple)
        got = (
            cast("Sequence[object]", got)[int(step)]
            if is_row
            else cast("Mapping[str, object]", got)[step]
        )
    return f"{where}: {what}, got {got!r}"


def _in_words(kinds: Sequence[object]) -> str:
    """What a key takes, of the kinds that its type lists.

    >>> _in_words((Literal["none", "root"], tuple[float, ...], type(None)))
    'one of none, root, or a list of numbers'
    """
    literal = [kind for kind in kinds if get_origin(kind) is Literal]
    names = [kind for kind in kinds if isinstance(kind, str)]
    names += [name for kind in literal for name in get_args(kind)]
    words = f"{'one of ' if len(names) > 1 else ''}{', '.join(names)}"
    is_list = any(get_origin(kind) is tuple for kind in kinds)
    return f"{words}, or {'a list of numbers' if is_list else 'a number'}" if literal else words


def _class(section: str, raw: object) -> type[Value]:
    """The class of a section that is filled."""
    table = cast("Mapping[str, Mapping[str, object]]", raw)[section]
    kinds = SECTIONS[section]
    return next((kind for kind in kinds if _tag(kind) == table.get("kind")), kinds[0])


def _by_key(problem: str) -> str:
    """The ``problem`` of a value with the key in the spec in place of its class.

    >>> _by_key("Exits.after: expected different names")
    'exits.after: expected different names'
    """
    owner, dot, rest = problem.partition(".")
    for section, kinds in SECTIONS.items():
        if owner in [kind.__name__ for kind in kinds]:
            return f"{section}{dot}{rest}"
    return problem
