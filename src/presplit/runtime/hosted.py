"""What a server hosts: models by name, each with a contract; arrays in, arrays out.

Whatever is `Hosted` can stand behind gRPC, in the same process (`presplit.runtime.upstream`), or
behind another server. What is wrapped around it (admission, batches, threads) is `Hosted` again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from presplit.core.errors import InputError
from presplit.core.types import Floats, Why

Array = npt.NDArray[Any]


class UnknownModel(Exception):
    """No such model is hosted here."""


class Overloaded(Exception):
    """No place for one more request; there may be one ``again_s`` seconds later."""

    def __init__(self, text: str = "", *, again_s: float = 0.0) -> None:
        super().__init__(text)
        self.again_s = again_s


class TooLate(Exception):
    """The deadline passed before the request was run."""


class Stopping(Exception):
    """The server is ending and takes no more requests; another one may."""


@dataclass(frozen=True)
class Early:
    """Logits of an exit before the net's own classifier, and why that exit answers.

    Whoever passes requests on replies so (`presplit.runtime.serving.gateway`).
    """

    logits: Floats
    exit: str
    why: Why


Reply = Floats | Early
"""The logits of the net's own classifier, or of the exit that answers in its place."""


@dataclass(frozen=True)
class Form:
    """What an array must be: ``shape`` without the batch, which may be 1..``max_batch``.

    ``name`` is what the protocol calls it. If it ``varies``, it is one row of 1 to ``shape[0]``.

    >>> Form("boundary", "int8", (3, 2)).nbytes
    6
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    max_batch: int = 1
    varies: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of one sample, the longest if it varies."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def check(self, array: Array) -> None:
        """Raise `InputError` unless ``array`` is of this form and finite."""
        # A dtype's name takes longer than the rest of the checks, so it is made for an error alone.
        if array.dtype == self.dtype:
            self.check_shape(self.dtype, array.shape)
        else:
            self.check_shape(str(array.dtype), array.shape)
        if array.dtype.kind == "f" and np.count_nonzero(np.isfinite(array)) < array.size:
            raise InputError(f"{self.name!r} must be finite, got NaN or infinity")

    def check_shape(self, dtype: str, shape: Sequence[int]) -> None:
        """Raise `InputError` unless this is the dtype and the shape, batch included, of an array.

        >>> Form("boundary", "float32", (2,), max_batch=8).check_shape("float32", (9, 2))
        Traceback (most recent call last):
            ...
        presplit.core.errors.InputError: 'boundary' must have shape (1..8, 2), got (9, 2)
        """
        if dtype != self.dtype:
            raise InputError(f"{self.name!r} must be {self.dtype}, got {dtype[:16]}")
        if not self._fits(tuple(shape)):
            batch = "1" if self.max_batch == 1 else f"1..{self.max_batch}"
            sizes = [f"1..{self.shape[0]}"] if self.varies else map(str, self.shape)
            expected = ", ".join([batch, *sizes])
            raise InputError(f"{self.name!r} must have shape ({expected}), got {_short(shape)}")

    def _fits(self, shape: tuple[int, ...]) -> bool:
        """Whether this may be the shape of a batch."""
        if not shape or not 1 <= shape[0] <= self.max_batch:
            return False
        if self.varies:
            return len(shape) == 2 and 1 <= shape[1] <= self.shape[0]
        return shape[1:] == self.shape


@dataclass(frozen=True)
class Contract:
    """What the model ``name`` takes and gives."""

    name: str
    input: Form
    output: Form


class Hosted(Protocol):
    """Models by name. No call waits: what takes time is a future.

    A future that is cancelled before its turn is never run.
    """

    @property
    def most_bytes(self) -> int:
        """The largest request that any model takes, in bytes of its array."""
        ...

    def contract(self, name: str) -> Contract:
        """The contract of the model ``name``; raises `UnknownModel`."""
        ...

    def warm(self, name: str) -> Future[None]:
        """Done when the model ``name`` is ready to run; raises `UnknownModel`, `Overloaded`."""
        ...

    def run(
        self, name: str, array: Array, *, until: float | None, client: str = ""
    ) -> Future[Reply]:
        """What the model ``name`` gives for ``array``, which must be of its contract's form.

        After ``until`` (`time.monotonic`) the result is worthless, and nothing is begun for it.
        ``client`` is who asks, "" if nobody knows: the name that it proved, else its address.
        Raises, at once or by the future: `UnknownModel`, `InputError`, `Overloaded`, `TooLate`,
        and `EngineError` or `BundleError` for what is the server's own fault.
        """
        ...

    def close(self) -> None:
        """Finish what is running and let go of everything."""
        ...


class Layer:
    """What is wrapped around a `Hosted`: it passes everything on until a subclass does more."""

    def __init__(self, inner: Hosted) -> None:
        self._inner = inner

    @property
    def most_bytes(self) -> int:
        """As inside."""
        return self._inner.most_bytes

    def contract(self, name: str) -> Contract:
        """As inside."""
        return self._inner.contract(name)

    def warm(self, name: str) -> Future[None]:
        """As inside."""
        return self._inner.warm(name)

    def run(
        self, name: str, array: Array, *, until: float | None, client: str = ""
    ) -> Future[Reply]:
        """As inside."""
        return self._inner.run(name, array, until=until, client=client)

    def close(self) -> None:
        """As inside."""
        self._inner.close()


def why_of(error: BaseException) -> Why:
    """What a failure of a `Hosted` means for the answer of the edge that asked.

    >>> why_of(Overloaded()), why_of(InputError()), why_of(MemoryError())
    ('overloaded', 'refused', 'failed')
    """
    for kind, why in _WHYS.items():
        if isinstance(error, kind):
            return why
    return "failed"


_WHYS: dict[type[BaseException], Why] = {
    UnknownModel: "refused",
    InputError: "refused",
    Overloaded: "overloaded",
    TooLate: "late",
    Stopping: "link_down",
    CancelledError: "link_down",
}
"""What is not listed is the server's own fault."""


def _short(shape: Sequence[int]) -> str:
    """``shape`` for a message, cut where a hostile one would go on."""
    shown = ", ".join(map(str, shape[:8]))
    return f"({shown}, and {len(shape) - 8} more)" if len(shape) > 8 else f"({shown})"
