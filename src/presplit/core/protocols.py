"""The seams: what a pattern family, a codec and the policies must look like.

What looks like this can stand on the shelf of its kind.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from presplit.core.encoding import Encoding, Seen, Step
from presplit.core.plans import Conditions, PlanTable
from presplit.core.types import Answer, Floats, Pattern


class Family(Protocol):
    """A pattern family: draws the connections of one layer before training."""

    def __call__(self, n_in: int, n_out: int, *, density: float, seed: int = 0) -> Pattern:
        """A pattern of exactly this density, the same for the same seed.

        Raises `PatternError` if there is none.
        """
        ...


class Codec(Protocol):
    """How the values at a boundary travel: a kind of encoding, with its decoder as data too.

    ``shape`` is everywhere that of the boundary, without the batch.
    """

    @property
    def name(self) -> str:
        """The codec's name on the shelf."""
        ...

    def calibrate(self, seen: Seen | None, shape: tuple[int, ...]) -> Encoding | None:
        """The encoding for values such as were ``seen`` on held-out samples (None: nothing was).

        None if the codec cannot carry such values, or cannot tell. Raises `MissingLibrary`.
        """
        ...

    def encode(self, values: Floats, encoding: Encoding) -> npt.NDArray[Any] | None:
        """Values ``(batch, *shape)`` to codes of ``encoding.dtype``, the batch first.

        A native codec takes one sample and gives one row of bytes, ``(1, n)``. None if just these
        values cannot be carried: they are sent as float32 instead.
        """
        ...

    def decode(self, codes: npt.NDArray[Any], encoding: Encoding, shape: tuple[int, ...]) -> Floats:
        """Codes back to float32 ``(batch, *shape)``.

        What a native codec is given comes from a stranger: it raises `InputError` for what is not
        the payload of such a boundary, before it takes more memory than that.
        """
        ...

    def decoder(self, encoding: Encoding, shape: tuple[int, ...]) -> tuple[Step, ...] | None:
        """What `decode` does, as standard ONNX operators one after another.

        None if the codec is native: no row of operators does it.
        """
        ...

    def error(self, values: Floats, encoding: Encoding) -> Floats:
        """The largest error of a round trip, at each of ``values`` ``(batch, *shape)``."""
        ...


class ExitPolicy(Protocol):
    """A rule that scores logits; an exit answers when the score reaches its threshold."""

    def __call__(self, logits: Floats) -> npt.NDArray[np.float32]:
        """float32 ``(batch,)`` scores of ``logits`` ``(batch, classes)``; higher is surer."""
        ...


class SplitPolicy(Protocol):
    """Chooses, before each answer, by which row of a table of plans it is to be found.

    It is called by one thread at a time.
    """

    def choose(self, now: Conditions, *, within_s: float) -> int:
        """The number of the row for an answer under the conditions ``now``.

        ``within_s`` is what is left until its deadline, in seconds.
        """
        ...

    def learn(self, row: int, answer: Answer) -> None:
        """Take notice of what came of an answer for which ``row`` was chosen."""
        ...


class SplitPolicyOf(Protocol):
    """Makes the split policy for a table: what stands on the shelf."""

    def __call__(self, table: PlanTable) -> SplitPolicy:
        """A policy that chooses among the rows of ``table``."""
        ...
