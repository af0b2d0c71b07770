"""A user's own model, named ``module:factory``, and its survey.

This is the one place that imports code on the user's word.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from presplit.cli.beside import beside, is_there, package_of
from presplit.cli.named import digest, remember, remembered
from presplit.core.errors import GraphError, SpecError

if TYPE_CHECKING:
    from presplit.train.nets.inspect import Survey
    from presplit.train.runs import Run

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

    A module in the folder is the one that is run, whatever else has its name. Raises `SpecError` if
    there is no such module or attribute, `GraphError` if the user's own code fails.
    """
    folder, name, attribute = _parts(word)
    importlib.invalidate_caches()
    with aside(), beside(folder) as private:
        is_own = is_there(folder, name.partition(".")[0])
        if "/" in word and not is_own:
            raise SpecError(f"no module {name!r} in {folder}")
        return _made(f"{private}.{name}" if is_own else name, name, folder, attribute)


def _parts(word: str) -> tuple[Path, str, str]:
    """The folder, the module and the attribute that ``word`` names."""
    found = WORD.fullmatch(word)
    if found is None:
        raise SpecError(
            f"expected module:factory, as cats:make or models/cats.py:make, got {word!r}"
        )
    folder = Path(found["folder"] or ".").resolve()
    return folder, found["module"].removesuffix(".py"), found["attribute"]


def _code(word: str) -> tuple[str, Path | None, str]:
    """The one name of the code that ``word`` means, whatever folder it is said in.

    With it come its folder, None for what is installed, and its module.
    """
    folder, name, attribute = _parts(word)
    if is_there(folder, name.partition(".")[0]):
        return f"{folder}/{name}:{attribute}", folder, name
    return f"{name}:{attribute}", None, name


def _named(word: str) -> None:
    """Remember that the user has named ``word``, which is loaded."""
    code, folder, name = _code(word)
    parts = name.split(".")
    modules = {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
    if folder is not None:
        start = f"{package_of(folder)}."
        modules |= {each.removeprefix(start) for each in sys.modules if each.startswith(start)}
    remember(code, {module: digest(folder, module) for module in sorted(modules)})


def _refuse_unnamed(word: str) -> None:
    """Raise `SpecError` unless the user has named the code that ``word`` means, as it is now."""
    code, folder, _ = _code(word)
    kept = remembered(code)
    changed = [module for module, was in kept.items() if digest(folder, module) != was]
    if not kept:
        raise SpecError(
            f"its net is made by code, {word}, and no code runs because a file names it: if you "
            f"trust it, say so with --model {word}"
        )
    if changed:
        raise SpecError(
            f"its net is made by code, {word}, which has changed since you named it (module "
            f"{', '.join(changed)}): if you trust it as it is now, say so with --model {word}"
        )


def trusted(model: str | None, teacher: str | None = None) -> Callable[[str], object]:
    """What gives the nets that a run names: the code of ``model``, the user's own word.

    A run's word alone runs nothing, unless it means code that the user has named before and
    that has not changed since.
    ``teacher`` stands for any other word, which the run has from which a net learns. Raises
    `SpecError` naming the option that is missing.
    """

    def own(word: str) -> object:
        said = model if teacher is None or word == model else teacher
        if said is not None:
            made = load(said)
            _named(said)
            return made
        _refuse_unnamed(word)
        return load(word)

    return own


def run_of(directory: Path, model: str | None) -> Run:
    """The finished run in ``directory``; ``model`` is the user's word for the code of its net.

    Raises `SpecError` if it needs code and no word is given, or the other way round.
    """
    from presplit.core.spec import OwnModel
    from presplit.train import runs

    with aside():
        found = runs.read_run(directory, trusted(model))
    if model is not None and not isinstance(found.spec.model, OwnModel):
        raise SpecError(f"--model {model}: the net of {directory} is not made by code of your own")
    return found


def aside() -> contextlib.AbstractContextManager[object]:
    """While a user's code runs, send what it prints to standard error.

    It is no result of the command.
    """
    return contextlib.redirect_stdout(sys.stderr)


def _made(module: str, name: str, folder: Path, path: str) -> object:
    """What is at ``path`` in the module, called if it is a factory."""
    try:
        value: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module}.".startswith(f"{missing}."):
            own = missing.removeprefix(module.removesuffix(name))
            raise SpecError(f"no module {own!r} in {folder} or among what is installed") from error
        raise GraphError(f"importing it raised {_said(error)}") from error
    for attribute in path.split("."):
        if not hasattr(value, attribute):
            own = [n for n, each in vars(value).items() if callable(each) and not n.startswith("_")]
            raise SpecError(
                f"{name} has no {attribute!r}; what it has that can be called: {', '.join(own)}"
            )
        value = getattr(value, attribute)
    if not isinstance(value, type) and hasattr(value, "state_dict"):
        return value
    if not callable(value):
        raise SpecError(f"a factory or a torch.nn.Module is expected, got {type(value).__name__}")
    try:
        return value()
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise GraphError(
            f"calling it without arguments raised {_said(error)}; name a factory that needs none"
        ) from error


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
