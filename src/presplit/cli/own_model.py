"""A user's own model, named ``module:factory``, and its survey.

This is the one place that imports code on the user's word.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from presplit.core.errors import GraphError, SpecError

if TYPE_CHECKING:
    from presplit.train.nets.inspect import Survey

WORD = re.compile(r"(?P<folder>.*/)?(?P<module>[A-Za-z_][\w.]*):(?P<attribute>[A-Za-z_][\w.]*)")
"""``package.module:attribute``, optionally in another folder than the working one.

``models/cats.py:make``.
"""


def is_word(model: str) -> bool:
    """True if ``model`` names code, ``module:factory``, and no file.

    >>> words = ("cats:make", "models/cats.py:Cats", "net.onnx", "runs/cats.bundle")
    >>> [is_word(model) for model in words]
    [True, True, False, False]
    """
    return WORD.fullmatch(model) is not None and not Path(model).exists()


def load(word: str) -> object:
    """What ``word`` names: a module instance as it is, or what the factory gives.

    Raises `SpecError` if there is no such module or attribute, `GraphError` if the user's own code
    fails.
    """
    found = WORD.fullmatch(word)
    if found is None:
        raise SpecError(
            f"expected module:factory, as cats:make or models/cats.py:make, got {word!r}"
        )
    folder, name = str(Path(found["folder"] or ".").resolve()), found["module"].removesuffix(".py")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    with aside():
        return _made(name, folder, found["attribute"])


def aside() -> contextlib.AbstractContextManager[object]:
    """While a user's code runs, send what it prints to standard error.

    It is no result of the command.
    """
    return contextlib.redirect_stdout(sys.stderr)


def _made(name: str, folder: str, path: str) -> object:
    """What is at ``path`` in the module, called if it is a factory."""
    try:
        value: Any = importlib.import_module(name)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        if (
            isinstance(error, ModuleNotFoundError)
            and error.name
            and f"{name}.".startswith(f"{error.name}.")
        ):
            raise SpecError(
                f"no module {error.name!r} in {folder} or among what is installed"
            ) from error
        raise GraphError(f"importing it raised {_said(error)}") from error
    for attribute in path.split("."):
        if not hasattr(value, attribute):
            own = [n for n, each in vars(value).items() if callable(each) and not n.startswith("_")]
            raise SpecError(
                f"{name} has no {attribute!r}; what it has that can be called: {', '.join(own)}"
            )
        value = getattr(value, attribute)
    if isinstance(value, type) or not hasattr(value, "state_dict"):
        if not callable(value):
            raise SpecError(
                f"a factory or a torch.nn.Module is expected, got {type(value).__name__}"
            )
        try:
            value = value()
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            raise GraphError(
                f"calling it without arguments raised {_said(error)}; name a factory that needs "
                "none"
            ) from error
    return value


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def shape_of(text: str | None) -> tuple[int, ...]:
    """The shape of one sample in ``--input``.

    Raises `SpecError` unless it is whole numbers from 1 on.

    >>> shape_of("3,32,32")
    (3, 32, 32)
    """
    if text is None:
        raise SpecError(
            "a model is looked at with one sample: give its shape without the batch, as --input "
            "3,32,32"
        )
    sizes = text.replace("x", ",").split(",")
    if not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        raise SpecError(
            f"--input {text!r}: expected the shape of one sample without the batch, as 3,32,32"
        )
    return tuple(map(int, sizes))


def sizes_of(found: Survey) -> list[dict[str, int]]:
    """Bytes of one sample at each boundary, by codec."""
    width = {"float32": 4, "int8": 1}
    return [
        {codec: nbytes * boundary.size for codec, nbytes in width.items()}
        for boundary in found.net.boundaries
    ]


def survey_facts(
    found: Survey, facts: dict[str, Any], shape: tuple[int, ...], density: float
) -> dict[str, Any]:
    """All that a survey says, ready for JSON.

    ``facts``: the boundaries, as ``inspect`` says them of any net; their ``macs`` are those of the
    graph, products without weights such as attention's included, while those of layers are their
    weights' alone.
    """
    done, boundaries = 0, list[dict[str, Any]]()
    for row in facts["boundaries"]:
        boundaries.append({**row, "macs_before": done, "can_exit": row["name"] in found.taps})
        done += row["next_macs"] or 0
    layers = [
        {**asdict(row), "shape": list(found.shapes.get(row.name, ()))} for row in found.layers
    ]
    sparse: dict[str, Any] = {"density": density, "refused": found.refused, "layers": []}
    if found.sparse is not None:
        before = {row.name: row for row in found.layers}
        sparse["layers"] = [
            {
                **asdict(row),
                "weights_before": before[row.name].weights,
                "macs_before": before[row.name].macs,
            }
            for row in found.sparse
        ]
        for key in ("weights", "macs"):
            for name in (f"{key}_before", key):
                sparse[name] = sum(row[name] for row in sparse["layers"])
    return {
        "name": found.name,
        "input": list(shape),
        "layers": layers,
        **facts,
        "boundaries": boundaries,
        "can_exit_after": list(found.taps),
        "recommended_exits": list(found.recommended),
        "sparse": sparse,
    }


def survey_text(facts: dict[str, Any]) -> str:
    """The facts as tables for people."""
    from presplit.core import units
    from presplit.core.tables import Column, table

    def by(shape: list[int]) -> str:
        return " x ".join(map(str, shape))

    layers = (
        Column("name", "layer", str, text=True),
        Column("size", "size", str, text=True),
        Column("shape", "gives", by, text=True),
        Column("weights", "weights"),
        Column("macs", "MACs"),
    )
    boundaries = (
        Column("boundary", "boundary"),
        Column("name", "name", str, text=True),
        Column("shape", "shape", by, text=True),
        Column("bytes", "float32", units.data),
        Column("int8", "int8", units.data),
        Column("macs_before", "MACs before"),
        Column("note", "", str, text=True),
    )
    saving = (
        Column("name", "layer", str, text=True),
        Column("pattern", "pattern", str, text=True),
        Column("weights_before", "weights"),
        Column("weights", "then"),
        Column("macs_before", "MACs"),
        Column("macs", "then"),
        Column("faster_in", "faster in", ", ".join, text=True),
        Column("note", "", str, text=True),
    )
    rows = [
        {
            **row,
            "int8": row["codec_bytes"]["int8"],
            "note": ", ".join(_notes(row, facts["recommended_exits"])),
        }
        for row in facts["boundaries"]
    ]
    sparse = facts["sparse"]
    exits = ", ".join(facts["can_exit_after"]) or "no submodule through which all of the net passes"
    lines = [
        f"{facts['name']}: {units.count(facts['macs'])} MACs, {units.count(facts['weights'])} "
        "weights, "
        f"one sample {by(facts['input'])}",
        "",
        table(
            [{**row, "size": f"{row['n_in']} -> {row['n_out']}"} for row in facts["layers"]], layers
        ),
        "",
        "Where it can be cut:",
        table(rows, boundaries),
        "",
        f"Exits can hang after: {exits}",
        *(
            [f"Recommended: {', '.join(facts['recommended_exits'])}"]
            if facts["recommended_exits"]
            else []
        ),
        "",
    ]
    if sparse["refused"]:
        return "\n".join(
            [*lines, f"Density {sparse['density']:g} saves nothing: {sparse['refused']}"]
        )
    total = {
        "name": "all",
        **{k: v for k, v in sparse.items() if k.startswith(("weights", "macs"))},
    }
    return "\n".join(
        [*lines, f"With density {sparse['density']:g}:", table([*sparse["layers"], total], saving)]
    )


def _notes(row: dict[str, Any], recommended: list[str]) -> list[str]:
    """What is to say of a boundary."""
    notes = [f"exit {name}" for name in row["exits"]]
    notes += ["bottleneck"] if row["bottleneck"] else []
    if row["can_exit"]:
        notes.append("exit recommended" if row["name"] in recommended else "exit possible")
    return notes
