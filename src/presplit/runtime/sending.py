"""How the values at a split go upstream: by the codec of the plan, to the tail that decodes it."""

from __future__ import annotations

import time

import numpy as np

from presplit.bundle import Bundle
from presplit.codecs import CODECS
from presplit.core.plans import Plan
from presplit.core.types import Floats
from presplit.runtime.upstream import Failure, Pending, Request, Upstream

PLAIN = "float32"
"""The codec that carries whatever another one cannot."""


class Sending:
    """Sends the boundary at the split of ``plan``, of ``shape``, if there is an ``upstream``.

    Raises `SpecError` for a codec that does not exist, or not at this boundary.
    """

    def __init__(self, bundle: Bundle, plan: Plan, upstream: Upstream | None) -> None:
        self._upstream = upstream
        self._codec = CODECS.find(plan.codec)
        self._encoding = bundle.encoding(plan.split, plan.codec)
        self._name = bundle.manifest.model_name(plan.split, plan.codec, plan.server_form)
        self._plain_name = bundle.manifest.model_name(plan.split, PLAIN, plan.server_form)
        self._classes = bundle.net.exits[-1].classes
        early = bundle.net.exits[:-1]
        self._exits = tuple(exit_.name for exit_ in early if exit_.after > plan.split)
        self.shape = bundle.net.boundaries[plan.split].shape
        if upstream is not None:
            # The first time costs most; then begin to connect, and have the tail made ready.
            zeros = np.zeros((1, *self.shape), np.float32)
            self._codec.encode(zeros, self._encoding)
            upstream.greet(self._name)

    @property
    def asks(self) -> bool:
        """False if there is nobody to ask."""
        return self._upstream is not None

    def ask(self, values: Floats, until: float) -> tuple[Pending | Failure, int]:
        """The request on its way, or why there is none, and the bytes handed to the link.

        ``values`` ``(1, *boundary)``. After ``until`` (`time.monotonic`) a reply helps nobody, and
        nothing is sent for one.
        """
        if self._upstream is None:
            return Failure("link_down", "nobody was given to ask"), 0
        if until <= time.monotonic():
            return Failure("no_time", "the deadline is too near to ask"), 0
        if not np.isfinite(values).all():
            return Failure("failed", "the net gives values that are not finite"), 0
        name, codes = self._name, self._codec.encode(values, self._encoding)
        if codes is None:
            name, codes = self._plain_name, values
        if until <= time.monotonic():
            return Failure("no_time", "encoding took the time that was left"), 0
        asked = self._upstream.ask(Request(name, codes, self._classes, self._exits), until)
        return asked, 0 if isinstance(asked, Failure) else codes.nbytes
