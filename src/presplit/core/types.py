"""The few values that every room speaks of: frozen, checked once when made, units in the names.

What is written to a file or told to another process is a msgspec Struct; `Pattern` and `Answer`
hold arrays and are frozen dataclasses. Numbers of boundaries run from 0, the input, to
``len(net.boundaries) - 1``, the logits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Literal, get_args

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from presplit.core.errors import PatternError, SpecError
from presplit.core.value import Value

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

Where = Literal["edge", "server"]
Why = Literal[
    "confident",
    "planned",
    "server",
    "late",
    "no_time",
    "link_down",
    "overloaded",
    "refused",
    "bad_reply",
    "failed",
]
WHYS: tuple[Why, ...] = get_args(Why)
"""Why an answer is what it is.

``confident`` an early exit was sure; ``planned`` the plan answers everything on the edge, or the
edge had an answer that its table calls as good before the reply was there; ``server`` the tail
answered in time. All others mean that the edge, or a gateway before the server, answered although
more was planned: ``late`` no reply by the deadline, ``no_time`` too little time was left to go on
or to ask, ``link_down`` no connection or it broke, ``overloaded`` the server shed the request,
``refused`` the server would not take it (another bundle, another contract), ``bad_reply`` the reply
was not what a tail of this bundle sends, ``failed`` an engine failed by its own fault, the server's
or this one.
"""


@dataclass(frozen=True, eq=False)
class Pattern:
    """Which connections a layer has: tiles of outputs that share a fan-in set.

    ``index``: int32 ``(n_out / tile, fan_in)``. Outputs ``t * tile .. (t + 1) * tile - 1`` (after
    ``out_order``, if given) read the inputs ``index[t]``. A row with fewer inputs than others ends
    in -1. Raises `PatternError` if an input is out of range or read twice by one output.

    >>> pattern = Pattern(n_in=4, tile=1, index=np.array([[0, 1], [2, 3], [0, 3]]))
    >>> pattern.n_out, pattern.connections, pattern.density
    (3, 6, 0.5)
    >>> pattern.fan_out.tolist()
    [2, 1, 1, 2]
    >>> pattern.mask().astype(int).tolist()
    [[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 1]]
    """

    n_in: int
    tile: int
    index: Ints
    out_order: Ints | None = None

    def __post_init__(self) -> None:
        index = np.ascontiguousarray(self.index, dtype=np.int32)
        if index.ndim != 2 or index.shape[0] < 1 or index.shape[1] < 1 or self.tile < 1:
            raise PatternError(
                f"index must be (tiles >= 1, fan_in >= 1) and tile >= 1, got {index.shape}, "
                f"{self.tile}"
            )
        if index.min() < -1 or index.max() >= self.n_in:
            raise PatternError(
                f"inputs must be in 0..{self.n_in - 1}, got {index.min()}..{index.max()}"
            )
        ordered = np.sort(index, axis=1)
        if bool(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any()):
            raise PatternError("an output reads one input twice")
        if bool(((index[:, :-1] < 0) & (index[:, 1:] >= 0)).any()):
            raise PatternError("-1 may only end a row")
        index.flags.writeable = False
        object.__setattr__(self, "index", index)
        if self.out_order is not None:
            order = np.ascontiguousarray(self.out_order, dtype=np.int32)
            if not np.array_equal(np.sort(order), np.arange(self.n_out)):
                raise PatternError(f"out_order must be a permutation of 0..{self.n_out - 1}")
            order.flags.writeable = False
            object.__setattr__(self, "out_order", order)

    @property
    def n_out(self) -> int:
        """Number of outputs."""
        return self.index.shape[0] * self.tile

    @property
    def fan_in(self) -> int:
        """Inputs read by each output; the most, if they differ."""
        return self.index.shape[1]

    @property
    def connections(self) -> int:
        """How many connections exist."""
        return int((self.index >= 0).sum()) * self.tile

    @property
    def density(self) -> float:
        """Connections that exist, as a share of all ``n_in * n_out``."""
        return self.connections / (self.n_in * self.n_out)

    @property
    def is_regular(self) -> bool:
        """True if every output reads equally many inputs."""
        return bool((self.index >= 0).all())

    @property
    def is_partition(self) -> bool:
        """True if every input belongs to exactly one tile: a permuted block-diagonal layer."""
        return self.index.size == self.n_in and np.array_equal(
            np.sort(self.index, axis=None), np.arange(self.n_in)
        )

    @property
    def fan_out(self) -> Ints:
        """int32 ``(n_in,)``: outputs that read each input."""
        used = self.index[self.index >= 0]
        return (np.bincount(used, minlength=self.n_in) * self.tile).astype(np.int32)

    def mask(self) -> npt.NDArray[np.bool_]:
        """bool ``(n_out, n_in)``: True where a connection exists.

        It is for looking and testing; no layer uses it.
        """
        tiles = np.zeros((self.index.shape[0], self.n_in), dtype=bool)
        rows, columns = np.nonzero(self.index >= 0)
        tiles[rows, self.index[rows, columns]] = True
        mask = np.repeat(tiles, self.tile, axis=0)
        if self.out_order is None:
            return mask
        placed = np.empty_like(mask)
        placed[self.out_order] = mask
        return placed


class Boundary(Value, frozen=True):
    """A place between two segments, one tensor through which all must pass.

    ``shape`` is that of the tensor, without the batch.

    >>> Boundary("pool1", (16, 14, 14)).nbytes
    12544
    """

    name: str
    shape: tuple[Annotated[int, Meta(ge=1)], ...]
    dtype: Literal["float32"] = "float32"

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of one sample as it stands, without a codec."""
        return self.size * np.dtype(self.dtype).itemsize


class Exit(Value, frozen=True):
    """A classifier that hangs on boundary number ``after``.

    The net's own classifier is the last exit.
    """

    name: str
    after: Annotated[int, Meta(ge=0)]
    classes: Annotated[int, Meta(ge=2)]


class Net(Value, frozen=True):
    """The net as spoken of, without weights.

    It is a row of boundaries, with exits hanging on it in rising order.

    >>> net = Net((Boundary("image", (4,)), Boundary("hidden", (3,)), Boundary("logits", (2,))),
    ...           (Exit("early", 1, 2), Exit("final", 2, 2)))
    >>> net.last, [e.name for e in net.exits_up_to(1)]
    (2, ['early'])
    """

    boundaries: tuple[Boundary, ...]
    exits: tuple[Exit, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        after = [e.after for e in self.exits]
        names = [e.name for e in self.exits]
        if len(self.boundaries) < 2 or not after or after[-1] != self.last:
            raise SpecError("a net needs an input, logits, and its own classifier as the last exit")
        if after != sorted(set(after)) or len(set(names)) != len(names):
            raise SpecError(
                f"exits must have rising, different boundaries and different names, got {after}, "
                f"{names}"
            )

    @property
    def last(self) -> int:
        """Number of the last boundary, the logits; also the split that means 'all on the edge'."""
        return len(self.boundaries) - 1

    def exits_up_to(self, boundary: int) -> tuple[Exit, ...]:
        """The exits that hang on boundaries 0..``boundary``."""
        return tuple(e for e in self.exits if e.after <= boundary)


@dataclass(frozen=True)
class Runnable:
    """A complete ONNX model of a run of segments, with the names of its tensors.

    ``input`` takes the boundary at which it starts, ``boundary`` gives the one at which it stops
    (None if it holds exits alone), ``logits`` maps each exit in it to the tensor with its logits,
    the net's own classifier too where the run ends with it.
    """

    onnx: bytes
    input: str
    boundary: str | None
    logits: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """One answer of the edge.

    ``scores``: float32 ``(classes,)`` logits; ``exit`` the exit that gave them; ``where`` they were
    computed; ``why`` from the closed list `WHYS`; ``up_bytes`` payload sent for it; ``degraded``
    True if a better answer was planned and did not come. ``split`` is that of the plan by which it
    was found, ``row`` the plan's number in the table that the edge chose it from, if it has one.
    ``where`` is "server" too if a gateway answers: its exits lie behind the split.
    """

    label: int
    scores: Floats
    exit: str
    where: Where
    why: Why
    elapsed_s: float
    up_bytes: int
    degraded: bool
    split: int
    row: int | None = None

    def to_builtins(self) -> dict[str, object]:
        """A dict ready for JSON, without the scores."""
        names = [field.name for field in fields(self) if field.name != "scores"]
        return {name: getattr(self, name) for name in names}


def canonical_json(value: object) -> bytes:
    """JSON of a Struct or builtins with sorted keys: equal values give equal bytes.

    >>> canonical_json({"b": 1, "a": 0.5})
    b'{"a":0.5,"b":1}'
    """
    return msgspec.json.encode(value, order="deterministic")
