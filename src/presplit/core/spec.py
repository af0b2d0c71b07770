"""The spec: everything that makes a run again, read from ``spec.toml`` and checked once.

Reading is strict: an unknown key, a wrong type and a value out of range are errors that name the
key. Names of data sets, pattern families, layers and profiles stay names here; whoever uses them
looks them up on its shelf.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, cast, get_args, get_type_hints

import msgspec
from msgspec import Meta

from presplit.core.errors import SpecError, context
from presplit.core.types import canonical_json
from presplit.core.value import Positive, Share, Value

NAME_PATTERN = r"\A[a-z0-9][a-z0-9_-]{0,62}\Z"
"""What a net may be called.

Its name becomes part of file names and of the name that a server hosts.
"""

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Text = Annotated[str, Meta(min_length=1)]
Seed = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Size = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Density = Annotated[float, Meta(gt=0, le=1)]
NotNegative = Annotated[float, Meta(ge=0)]


class Data(Value, frozen=True):
    """``[data]``: the samples, and how they are prepared.

    It also says which share of the training set is held out for validation, and what the flat input
    of an MLP is.
    """

    name: Text = "digits"
    """A data set on the shelf, or the path of an .npz or .csv file or a folder.

    The shelf has "digits", "mnist" and "cifar10".
    """
    validation: Annotated[float, Meta(gt=0, lt=0.5)] = 0.1
    pad_to: Size | None = None
    """Flatten each image and add zeros up to so many features."""
    size: Size | None = None
    """Pixels: each image of a folder is scaled, and its middle ``size`` x ``size`` taken.

    None: all have one size.
    """
    grey: bool = False
    """The images of a folder are read with one channel."""
    standardise: bool = False
    """The net begins by taking each column's mean away and dividing by its deviation.

    Both are those of the training set.
    """


class Model(Value, frozen=True):
    """``[model]``: an MLP, a small CNN, or a net of one's own.

    An MLP is given by its ``layers``, input and classes included, a small CNN by its ``width``.

    ``factory``: ``module:factory`` of a net of kind "own", code that the command line imports.
    """

    kind: Literal["mlp", "cnn", "own"] = "cnn"
    factory: Text | None = None
    layers: tuple[Size, ...] = ()
    width: Size = 32
    bottleneck: Size = 8
    """Channels at the narrow place of a CNN."""


class Sparsity(Value, frozen=True):
    """``[sparsity]``: the pattern family, and how many connections exist.

    The number is said in one of three ways.

    Either ``density`` for all layers and ``layers`` for those whose name matches a glob; or
    ``budget``, the share of the dense net's weights, multiplications or bytes (``unit``) that all
    layers together may cost, divided by ``profile`` and met within ``tolerance``; or ``fan_out``:
    the out-degree of each junction of an MLP, the vocabulary of arXiv 2407.11763.
    """

    family: Text | None = None
    """None is biregular with ``fan_out``, grouped otherwise."""
    density: Density | None = None
    layers: dict[Text, Density] = {}
    budget: Density | None = None
    unit: Literal["weights", "macs", "bytes"] = "weights"
    profile: Literal["uniform", "uniform+", "erk", "early_sparse"] = "erk"
    tolerance: Density = 0.05
    fan_out: tuple[Size, ...] = ()


class Exits(Value, frozen=True):
    """``[exits]``: which modules an early exit follows, and what the loss of each exit counts.

    ``weights`` has one number for each early exit (the net's own classifier counts 1); empty leaves
    them to training. ``policy`` scores how sure an exit is.
    """

    after: Annotated[tuple[Text, ...], Meta(min_length=1)]
    weights: tuple[Positive, ...] = ()
    policy: Text = "confidence"


class Training(Value, frozen=True):
    """``[training]``: a recipe, and what differs from it.

    A field that is None takes what the recipe says (`presplit.train.Recipe`).

    ``teacher``: the directory of a finished run to distil from; without one, ``distil`` trains the
    dense parent first.
    """

    recipe: Literal["default", "paper"] = "default"
    epochs: Size | None = None
    batch: Size | None = None
    rate: Positive | None = None
    bf16: bool | None = None
    optimiser: Text | None = None
    schedule: Text | None = None
    decay: NotNegative | None = None
    weight_decay: NotNegative | None = None
    fan_in: Literal["sparse", "dense"] | None = None
    bias: float | None = None
    augment: Text | None = None
    regime: Literal["joint", "separate", "mixed"] | None = None
    backbone_epochs: Size | None = None
    label_smoothing: Share | None = None
    distil: Share | None = None
    self_distil: Share | None = None
    temperature: Positive | None = None
    ema: Share | None = None
    patience: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    teacher: Text | None = None


class Planning(Value, frozen=True):
    """``[plan]``: for which profiles, deadline and loss of accuracy the net is planned.

    The deadline is in seconds, the loss in 0..1.

    A profile that is None is named when planning.
    """

    device: Text | None = None
    link: Text | None = None
    server: Text | None = None
    deadline_s: Positive | None = None
    max_accuracy_drop: Share = 0.005


class Spec(Value, frozen=True):
    """A whole run.

    Without ``sparsity`` the net is dense, without ``exits`` it has only its own classifier.
    """

    name: Name = "net"
    seed: Seed = 0
    data: Data = Data()
    model: Model = Model()
    sparsity: Sparsity | None = None
    exits: Exits | None = None
    training: Training = Training()
    plan: Planning | None = None


SECTIONS: dict[str, type[Value]] = {
    "data": Data,
    "model": Model,
    "sparsity": Sparsity,
    "exits": Exits,
    "training": Training,
    "plan": Planning,
}


def read_spec(path: str | Path, *, set: Sequence[str] = ()) -> Spec:
    """The spec in a ``.toml`` file (or ``.json``, as `spec_json` writes it), changed by ``set``.

    Each of ``set`` is ``KEY=VALUE`` with a dotted key, as in ``training.epochs=5``; the value is
    read as TOML, and as a string if it is none. Raises `SpecError` that begins with the file's
    name.
    """
    path = Path(path)
    with context(str(path)):
        return spec_from(_parse(_text(path), is_json=path.suffix == ".json"), set=set)


def spec_from(raw: Mapping[str, object], *, set: Sequence[str] = ()) -> Spec:
    """The spec that nested dicts describe, changed by ``set`` as in `read_spec`.

    Raises `SpecError` naming the key.

    >>> spec_from({"training": {"recipe": "paper"}}, set=["training.epochs=5"]).training.epochs
    5
    >>> spec_from({"sparsity": {"fan_outs": [2, 9, 10]}})
    Traceback (most recent call last):
        ...
    presplit.core.errors.SpecError: unknown key 'sparsity.fan_outs' (nearest: fan_out)
    >>> spec_from({"training": {"epochs": 0}})
    Traceback (most recent call last):
        ...
    presplit.core.errors.SpecError: training.epochs: expected `int` >= 1, got 0
    """
    for assignment in set:
        raw = _merged(raw, _assigned(assignment))
    _refuse_unknown(raw)
    _refuse_infinite(raw)
    try:
        spec = msgspec.convert(raw, Spec)
    except msgspec.ValidationError as error:
        raise SpecError(_explained(str(error), raw)) from error
    except RecursionError as error:
        raise SpecError("nested too deeply") from error
    _consistent(spec)
    return spec


def spec_json(spec: Spec) -> bytes:
    """The whole spec as indented JSON, defaults included.

    A run directory keeps this text and `read_spec` reads it back.

    >>> msgspec.json.decode(spec_json(Spec(seed=3)))["seed"]
    3
    """
    return msgspec.json.format(canonical_json(spec), indent=2) + b"\n"


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
    _refuse_strange_keys(raw, Spec, "")
    for name, section in SECTIONS.items():
        table = raw.get(name)
        if isinstance(table, Mapping):
            _refuse_strange_keys(cast("Mapping[str, object]", table), section, f"{name}.")


def _refuse_strange_keys(table: Mapping[str, object], kind: type[Value], prefix: str) -> None:
    known = kind.__struct_fields__
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"nearest: {near[0]}" if near else f"there are: {', '.join(known)}"
            raise SpecError(f"unknown key '{prefix}{key}' ({hint})")


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
        legal = get_args(get_type_hints(SECTIONS[section])[field])
        what = f"expected one of {', '.join(map(str, legal))}"
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


def _consistent(spec: Spec) -> None:
    """Raise `SpecError` where sections contradict each other."""
    layers, sparsity, exits = spec.model.layers, spec.sparsity, spec.exits
    if spec.model.kind == "mlp" and len(layers) < 2:
        raise SpecError(
            "model.layers: an mlp needs the sizes of input and classes at least, got "
            f"{list(layers)}"
        )
    kind = spec.model.kind
    if kind != "mlp" and (layers or spec.data.pad_to):
        key = "model.layers" if layers else "data.pad_to"
        raise SpecError(f"{key}: only an mlp has it, and model.kind is {kind!r}")
    for key in ("width", "bottleneck"):
        if kind != "cnn" and getattr(spec.model, key) != getattr(Model(), key):
            raise SpecError(f"model.{key}: only a cnn has it, and model.kind is {kind!r}")
    if (kind == "own") != (spec.model.factory is not None):
        raise SpecError(
            "model.factory: a net of kind 'own' has one, module:factory, and only it; got "
            f"{spec.model.factory!r}"
        )
    if spec.data.pad_to and spec.data.pad_to != layers[0]:
        raise SpecError(
            f"data.pad_to: expected the first of model.layers, {layers[0]}, got {spec.data.pad_to}"
        )
    if sparsity is not None:
        _consistent_sparsity(sparsity, layers)
    if exits is not None and len(set(exits.after)) < len(exits.after):
        raise SpecError(f"exits.after: expected different names, got {list(exits.after)}")
    if exits is not None and exits.weights and len(exits.weights) != len(exits.after):
        raise SpecError(
            f"exits.weights: expected one for each of {list(exits.after)}, got "
            f"{list(exits.weights)}"
        )


def _consistent_sparsity(sparsity: Sparsity, layers: tuple[int, ...]) -> None:
    if sparsity.fan_out and sparsity.family not in (None, "biregular"):
        raise SpecError(
            "sparsity.family: fan_out is the vocabulary of biregular patterns, got "
            f"{sparsity.family!r}"
        )
    fan_out, by_density = sparsity.fan_out, sparsity.density is not None or bool(sparsity.layers)
    ways = {
        "density (or layers)": by_density,
        "budget": sparsity.budget is not None,
        "fan_out": bool(fan_out),
    }
    said = [way for way, is_said in ways.items() if is_said]
    if len(said) != 1:
        raise SpecError(
            f"sparsity: expected one of {', '.join(ways)}, got {' and '.join(said) or 'none'}"
        )
    if sparsity.budget is None:
        for key in ("unit", "profile", "tolerance"):
            if getattr(sparsity, key) != getattr(Sparsity(), key):
                raise SpecError(
                    f"sparsity.{key}: only a budget has it, and sparsity.budget is not given"
                )
    if fan_out and len(fan_out) != len(layers) - 1:
        expected = (
            f"one for each of the {len(layers) - 1} junctions of model.layers"
            if layers
            else "an mlp"
        )
        raise SpecError(f"sparsity.fan_out: expected {expected}, got {list(fan_out)}")
    for number, (degree, n_out) in enumerate(zip(fan_out, layers[1:], strict=bool(fan_out))):
        if degree > n_out:
            raise SpecError(
                f"sparsity.fan_out[{number}]: expected 1..{n_out}, the next layer's size, got "
                f"{degree}"
            )
