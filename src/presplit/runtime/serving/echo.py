"""A model that computes nothing, beside those of a bundle: links are measured by it.

``presplit-echo.to-N`` takes any number of blocks of `BLOCK` bytes, up to `MOST_BYTES`, and replies
with N zeros of float32. It is answered at once, so a round trip is the way alone.
"""

from __future__ import annotations

import functools
import re
from concurrent.futures import Future
from typing import TypeVar

import numpy as np

from presplit.runtime.hosted import (
    Array,
    Contract,
    Form,
    Hosted,
    Layer,
    Reply,
    UnknownModel,
)

T = TypeVar("T")

PREFIX = "presplit-echo"
"""What the name of every echo begins with."""
BLOCK = 64
"""Bytes by which a request grows."""
MOST_BYTES = 2**20
"""The largest request that is echoed."""
MOST_REPLY_BYTES = 2**18
"""The largest reply: a small request must not make a server send without bounds."""


def echo_name(values: int) -> str:
    """The model that replies with so many values.

    >>> echo_name(10)
    'presplit-echo.to-10'
    """
    return f"presplit-echo.to-{values}"


@functools.lru_cache(64)
def echo_contract(name: str) -> Contract | None:
    """What the echo called ``name`` takes and gives; None if it is none, or replies too much.

    >>> echo_contract("presplit-echo.to-10").output.shape, echo_contract("presplit-echo.to-0")
    ((10,), None)
    """
    found = re.fullmatch(r"presplit-echo\.to-([1-9][0-9]{0,5})", name, re.ASCII)
    if found is None or 4 * int(found[1]) > MOST_REPLY_BYTES:
        return None
    taken = Form("boundary", "int8", (BLOCK,), MOST_BYTES // BLOCK)
    return Contract(name, taken, Form("logits", "float32", (int(found[1]),)))


class Echoing(Layer):
    """What is hosted, and every echo beside it."""

    @property
    def most_bytes(self) -> int:
        """The largest request, an echo's at least."""
        return max(MOST_BYTES, super().most_bytes)

    def contract(self, name: str) -> Contract:
        """The echo's, or as inside."""
        return echo_contract(name) or super().contract(name)

    def warm(self, name: str) -> Future[None]:
        """An echo is always ready."""
        if echo_contract(name) is None:
            return super().warm(name)
        return _done(None)

    def run(
        self, name: str, array: Array, *, until: float | None, client: str = ""
    ) -> Future[Reply]:
        """Zeros at once for an echo, or as inside."""
        contract = echo_contract(name)
        if contract is None:
            return super().run(name, array, until=until, client=client)
        contract.input.check(array)
        return _zeros(contract.output.shape)


class Nothing:
    """Hosts no model: what stands behind an echo that is alone."""

    most_bytes = 0

    def contract(self, name: str) -> Contract:
        """There is none."""
        raise UnknownModel(f"no model {name[:128]!r} here: this server only echoes")

    def warm(self, name: str) -> Future[None]:
        """There is nothing to warm."""
        raise UnknownModel(self.contract(name).name)

    def run(
        self, name: str, array: Array, *, until: float | None, client: str = ""
    ) -> Future[Reply]:
        """There is nothing to run."""
        raise UnknownModel(self.contract(name).name)

    def close(self) -> None:
        """Nothing is held."""


def echoing(inner: Hosted) -> Hosted:
    """``inner`` with every echo beside its models."""
    return Echoing(inner)


@functools.lru_cache(64)
def _zeros(shape: tuple[int, ...]) -> Future[Reply]:
    """The reply of every echo of this ``shape``."""
    zeros = np.zeros((1, *shape), np.float32)
    zeros.flags.writeable = False
    return _done(zeros)


def _done(value: T) -> Future[T]:
    """A future that is over."""
    future: Future[T] = Future()
    future.set_result(value)
    return future
