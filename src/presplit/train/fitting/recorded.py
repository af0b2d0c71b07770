"""Gradients of batches of one shape, recorded once as a CUDA graph and replayed.

A GPU computes a small net faster than Python can say what to compute. Recorded, a step is one
launch. The first batches are computed as usual, so that all that is made on first use exists.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor

from presplit.train.fitting import distributed

SWITCH = "PRESPLIT_RECORD"
FIRST = 3
"""Batches that are computed as usual before one is recorded."""

Gradients = Callable[..., Tensor]
"""Adds a batch's gradients to the net's, and gives its loss."""


class Recorded:
    """``gradients`` of batches on a GPU, replayed for those that look like the first one.

    Others, such as a smaller last batch or that of one process among several, and nets that cannot
    be recorded (their code waits for the GPU) are computed as usual. Gradients of ``values`` are
    zeroed here, before each batch. What a net's own code decides in Python at each step is decided
    once where it is recorded: ``PRESPLIT_RECORD=0`` in the environment computes all as usual.
    """

    def __init__(self, gradients: Gradients, values: list[torch.nn.Parameter]) -> None:
        self._gradients, self._values = gradients, values
        self._wanted = distributed.count() == 1 and os.environ.get(SWITCH, "1") != "0"
        self._seen = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._held: list[Tensor] = []
        self._form: list[tuple[torch.Size, torch.dtype]] = []
        self._loss = torch.zeros(())

    def __call__(self, *batch: Tensor, weight: float) -> Tensor:
        """The loss of ``batch``, whose gradients are the net's then."""
        form = [(each.shape, each.dtype) for each in batch]
        self._form = self._form or form
        if not self._wanted or not batch[0].is_cuda or form != self._form:
            return self._plainly(*batch, weight=weight)
        if self._seen < FIRST:
            self._seen += 1
            return self._plainly(*batch, weight=weight)
        if self._graph is None:
            self._record(batch)
        if self._graph is None:
            return self._plainly(*batch, weight=weight)
        for held, part in zip(self._held, batch, strict=True):
            held.copy_(part)
        self._graph.replay()
        return self._loss

    def _plainly(self, *batch: Tensor, weight: float) -> Tensor:
        for value in self._values:
            if value.grad is None:
                continue
            if self._graph is None:
                value.grad = None
            else:  # what was recorded writes into just this memory
                value.grad.zero_()
        return self._gradients(*batch, weight=weight)

    def _record(self, batch: tuple[Tensor, ...]) -> None:
        """Record, which computes nothing; where that fails, never try again."""
        self._held = [part.clone() for part in batch]
        graph = torch.cuda.CUDAGraph()
        for value in self._values:
            value.grad = None
        torch.cuda.synchronize()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._loss = self._gradients(*self._held, weight=1.0).detach()
        except Exception:  # a module's own code may do anything; as usual it has worked
            self._wanted = False
            torch.cuda.synchronize()
            for value in self._values:
                value.grad = None
            return
        self._graph = graph
