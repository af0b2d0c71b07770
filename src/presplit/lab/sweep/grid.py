"""The points of a grid: a spec for every combination of values, and the dense nets beside them.

A point whose layers all have density 1, or whose budget is all of the weights, is the dense net:
its spec has no ``[sparsity]``. Every other point gets the dense net that is like it in all else, so
that each has one to be compared with.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import msgspec

from presplit.core.errors import PresplitError, SpecError
from presplit.core.sections import ByBudget, ByDensity, Spec, Start
from presplit.core.spec import assigned, spec_from

DENSE = "dense"
"""What the point without sparsity is called."""
OF_SPARSE = ("start.values", "start.connections")
"""Keys of other sections that are said of sparse layers alone."""
WHOLE = ("sparsity.density", "sparsity.budget")
"""Keys that say of a dense net what share of its weights it has: all."""


@dataclass(frozen=True)
class Axis:
    """One key of the spec and the values that it takes, as they were written."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Point:
    """One spec of a grid.

    ``settings``: the grid's keys with their values here; ``baseline``: the name of the dense point
    that it is compared with, its own if it is dense.
    """

    name: str
    settings: Mapping[str, Any]
    spec: Spec
    baseline: str

    @property
    def is_dense(self) -> bool:
        """Whether it has no sparsity."""
        return self.spec.sparsity is None


def axis(text: str) -> Axis:
    """The axis that ``KEY=VALUE,VALUE,...`` says; commas inside of brackets part no values.

    >>> axis("sparsity.density=1,0.5").values, axis("model.layers=[8,4],[8,2]").values
    (('1', '0.5'), ('[8,4]', '[8,2]'))
    >>> axis("sparsity.density")
    Traceback (most recent call last):
        ...
    presplit.core.errors.SpecError: --grid 'sparsity.density': expected KEY=VALUE,VALUE,... with a \
dotted key, as in sparsity.density=1,0.5,0.25
    """
    key, _, rest = (part.strip() for part in text.partition("="))
    values = tuple(value.strip() for value in _parted(rest))
    if not re.fullmatch(r"[A-Za-z_][\w.'*-]*", key) or not all(values):
        raise SpecError(
            f"--grid {text!r}: expected KEY=VALUE,VALUE,... with a dotted key, as in "
            "sparsity.density=1,0.5,0.25"
        )
    if key == "seed":
        raise SpecError("--grid seed: every point is trained with several seeds: say --seeds 3")
    return Axis(key, tuple(dict.fromkeys(values)))


def grid(raw: Mapping[str, object], axes: Sequence[Axis]) -> list[Point]:
    """Every point of ``axes`` over the spec ``raw``, dense ones first in their places.

    ``raw``: the spec's tables, unchecked. Raises `SpecError` that lists all points that are no
    spec.
    """
    keys = [each.key for each in axes]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise SpecError(f"--grid {twice}: given twice; give all of its values in one --grid")
    found: dict[str, Point] = {}
    faults: list[tuple[str, str]] = []
    for values in itertools.product(*(each.values for each in axes)):
        said = dict(zip(keys, values, strict=True))
        name = _named({key: _read(key, value) for key, value in said.items()})
        try:
            baseline = ""
            for point in _points(raw, said, name):
                baseline = _placed(point, baseline, found)
        except PresplitError as error:
            faults.append((name, str(error)))
    refuse(faults, of=len(found) + len(faults))
    return sorted(found.values(), key=lambda point: not point.is_dense)


def _placed(point: Point, baseline: str, found: dict[str, Point]) -> str:
    """Put ``point`` among those ``found``, and give the name that it has there.

    If another spec has its name, as of ``a/b`` and ``a-b``, a number makes it one of its own.
    ``baseline``: the name of the dense point beside it, which a dense one has not.
    """
    name, number = point.name, 1
    while name in found and found[name].spec != point.spec:
        number += 1
        name = f"{point.name}-{number}"
    found.setdefault(name, replace(point, name=name, baseline=baseline or name))
    return name


def refuse(faults: Sequence[tuple[str, str]], *, of: int) -> None:
    """Raise `SpecError` that lists ``faults``, each a point's name and a sentence, if any."""
    if not faults:
        return
    by_sentence: dict[str, list[str]] = {}
    for name, sentence in faults:
        by_sentence.setdefault(sentence, []).append(name)
    lines = "".join(
        f"\n  {' and '.join(names)}: {sentence}" for sentence, names in by_sentence.items()
    )
    raise SpecError(
        f"{len(faults)} of {of} points of the grid cannot be trained, so none was:{lines}"
    )


def _points(raw: Mapping[str, object], said: Mapping[str, str], name: str) -> Iterable[Point]:
    """First the dense point that is like this one in all else, then this one unless it is that."""
    spec = spec_from(raw, set=[f"{key}={value}" for key, value in said.items()])
    settings = {key: _read(key, value) for key, value in said.items()}
    dense = {key: 1.0 if key in WHOLE else None for key in settings if _is_sparsity(key)}
    others = {key: value for key, value in settings.items() if not _is_sparsity(key)}
    is_only = spec.sparsity is None and len(others) == len(settings)
    own = name if is_only else ",".join([DENSE, *([_named(others)] if others else [])])
    kept = {key: value for key, value in dense.items() if value is not None} | others
    without = spec if spec.sparsity is None else _without(spec)
    yield Point(own, kept, without, own)
    if spec.sparsity is not None and not _is_whole(spec):
        yield Point(name, settings, spec, own)


def _is_sparsity(key: str) -> bool:
    """Whether ``key`` says something of sparse layers alone, so that a dense net is like any."""
    return key.split(".")[0] == "sparsity" or key in OF_SPARSE


def _is_whole(spec: Spec) -> bool:
    """Whether the sparsity that ``spec`` asks for takes nothing away."""
    if isinstance(spec.sparsity, ByBudget):
        return spec.sparsity.budget == 1
    if isinstance(spec.sparsity, ByDensity):
        asked = [spec.sparsity.density or 1.0, *spec.sparsity.layers.values()]
        return all(density == 1 for density in asked)
    return False


def _without(spec: Spec) -> Spec:
    """``spec`` without sparsity, and without what it says of a sparse layer's first values."""
    start = None if spec.start is None else Start(spec.start.net)
    return msgspec.structs.replace(spec, sparsity=None, start=start)


def _parted(text: str) -> list[str]:
    """``text`` at its commas, but not at those inside of brackets, braces or quotes."""
    parts, depth, quote = [""], 0, ""
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'" and letter in text[place + 1 :]:
            quote = letter
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        if letter == "," and depth <= 0 and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _read(key: str, value: str) -> Any:
    """``value`` as the spec reads it."""
    found: Any = assigned([f"{key}={value}"], over={})
    while isinstance(found, dict):
        found = next(iter(cast("dict[str, Any]", found).values()))
    return found


def _named(settings: Mapping[str, Any]) -> str:
    """What a point of these settings is called, which is the name of its folder too.

    >>> _named({"sparsity.density": 0.25, "model.layers": [8, 4]})
    'density=0.25,layers=8-4'
    """
    short = [key.rpartition(".")[2] for key in settings]
    keys = [
        last if short.count(last) == 1 else key for last, key in zip(short, settings, strict=True)
    ]
    return ",".join(
        f"{key}={_worded(value)}" for key, value in zip(keys, settings.values(), strict=True)
    )


def _worded(value: Any) -> str:
    """``value`` as a part of a file's name."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        short = f"{value:g}"
        return short if float(short) == value else str(value)
    text = value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^\w.+-]+", "-", text).strip("-") or "empty"
