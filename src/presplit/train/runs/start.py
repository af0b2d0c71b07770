"""What a run begins with, if it does not begin from nothing: a trained dense net.

It is another run, or a file of weights. A run also says what the new one leaves open: its data, its
net and how it was trained.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from presplit.core.errors import DataError, context
from presplit.core.spec import NAME_PATTERN, Spec, Start, read_spec, read_tables
from presplit.train.runs import directory as place
from presplit.train.runs.weights import Weights, read_weights

OWN = ("name", "start", "sparsity")
"""What a run says only of itself."""
LONGEST = 56
"""Characters of its name that a run hands on: a name has 63 at most."""


def weights_of(start: Start) -> Weights:
    """The weights of the dense net that ``start`` names.

    Raises `DataError` if there are none, or it is a run that is unfinished or sparse.
    """
    path = Path(start.net)
    with context("start.net"):
        if not path.is_dir():
            return read_weights(path)
        place.refuse_unfinished(path)
        if read_spec(place.at(path, place.SPEC)).sparsity is not None:
            parent = path / place.TEACHER
            cure = f"; its parent is {parent}" if place.is_finished(parent) else ""
            raise DataError(f"{path}: its net is sparse already, a dense one is expected{cure}")
        return read_weights(place.at(path, place.MODEL))


def laid_on_start(raw: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """The tables ``raw`` of a spec, and below them those of the run that it starts from.

    ``said`` is what will be laid over them; it may name the run too. Sections that ``raw`` has are
    its own whole; of the run's, its name, its sparsity and what it started and learned from are
    left out. Raises `DataError` if the directory that is named holds no finished run.
    """
    start = {**_table(raw, "start"), **_table(said, "start")}
    net, open_sections = start.get("net"), set(Spec.__struct_fields__) - {*OWN[1:], *raw}
    is_named = isinstance(net, str) and net != ""
    if not is_named or not Path(net).is_dir() or not open_sections:
        return dict(raw)
    with context("start.net"):
        place.refuse_unfinished(Path(net))
        below = read_tables(place.at(Path(net), place.SPEC))
    is_sparse = bool(_table(raw, "sparsity") or _table(said, "sparsity"))
    name = f"{_name(Path(net), below)[:LONGEST]}-{'sparse' if is_sparse else 'tuned'}"
    training = {k: value for k, value in _table(below, "training").items() if k != "teacher"}
    below = {key: value for key, value in below.items() if key not in OWN}
    if _table(said, "model").get("kind") not in (None, _table(below, "model").get("kind")):
        below.pop("model", None)
    return {**below, "name": name, "training": training, **raw}


def notes(spec: Spec) -> Iterator[str]:
    """What the user should know of the start of a run, for people."""
    start = spec.start
    if start is None:
        return
    how = f"; connections {start.connections}, values {start.values}" if spec.sparsity else ""
    yield f"training begins with the net of {start.net}{how}"
    if spec.training.distil and spec.training.teacher is None:
        yield f"the net of {start.net} is the teacher too"
    if not place.is_finished(Path(start.net)):
        return
    parent = read_spec(place.at(Path(start.net), place.SPEC))
    if parent.exits is not None:
        yield f"the early exits of {start.net} are left out: those of this net are drawn anew"
    parted = (parent.data.validation, parent.seed) != (spec.data.validation, spec.seed)
    if parted and parent.data.name == spec.data.name:
        yield (
            f"{start.net} held out other samples (seed or data.validation differ), so it has "
            "trained on some that are held out here: accuracy on these looks better than it is"
        )


def _name(run: Path, spec: Mapping[str, Any]) -> str:
    """What a run is called: as its directory, unless that is no name."""
    own = run.resolve().name
    return own if re.match(NAME_PATTERN, own) else str(spec.get("name"))


def _table(tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The section ``name``; an empty one if there is none."""
    found = tables.get(name)
    return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}
