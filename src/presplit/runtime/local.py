"""The whole net on this machine, many samples at once.

After each exit only samples without an answer go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from presplit.bundle import Bundle, read
from presplit.core.errors import InputError
from presplit.core.plans import Plan
from presplit.core.routing import sure
from presplit.core.types import Floats
from presplit.policies import EXITS
from presplit.runtime.engines import DEFAULT, ENGINES, Load
from presplit.runtime.head import Head, Held, check_plan, own_plan


@dataclass(frozen=True)
class Answers:
    """The answers for ``n`` samples.

    ``labels``: int64 ``(n,)``. ``scores``: float32 ``(n, classes)``, the logits of the exit that
    answered. ``exit_numbers``: for each sample, which of the net's exits that was, from 0.
    """

    labels: npt.NDArray[np.int64]
    scores: Floats
    exit_numbers: npt.NDArray[np.int64]


class Local:
    """A bundle's whole net, run here without a link or a deadline.

    It is made by `Local.open` and is safe for several threads. ``plan`` gives thresholds, policy
    and form; ``load`` makes the engines. Raises `PlanError` if the plan does not fit the bundle.
    """

    def __init__(
        self, bundle: Bundle, plan: Plan, *, threads: int = 1, load: Load = ENGINES[DEFAULT]
    ) -> None:
        check_plan(plan)
        whole = Plan(bundle.net.last, plan.thresholds, policy=plan.policy, form=plan.form)
        head = Head(bundle, [whole], threads=threads, load=load)
        self._net, self._thresholds = bundle.net, whole.thresholds
        self._score = EXITS.find(whole.policy)
        self._places = {exit_.name: place for place, exit_ in enumerate(bundle.net.exits)}
        self._way = head.way(whole)

    @classmethod
    def open(
        cls, bundle: Bundle | str | Path, *, plan: Plan | None = None, threads: int = 1
    ) -> Self:
        """The net of ``bundle`` (or its path), with thresholds and policy of ``plan``.

        If ``plan`` is None, they are those of the bundle's own plan; without one no exit answers
        early. Raises `BundleError` for a damaged bundle, `PlanError` if the plan does not fit it.
        """
        bundle = bundle if isinstance(bundle, Bundle) else read(bundle)
        return cls(bundle, own_plan(bundle) if plan is None else plan, threads=threads)

    def answer(self, images: Floats, *, batch: int = 64) -> Answers:
        """The answers for ``images``, float32 ``(n, *input)``, finite, so many at a time.

        Raises `InputError` for another array or a batch below 1, `EngineError` if logits that are
        to answer are not finite.
        """
        self._check(images)
        if not isinstance(batch, int) or batch < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"a batch is a whole number from 1 on, got {batch!r}")
        scores = np.empty((len(images), self._net.exits[-1].classes), np.float32)
        exits = np.empty(len(images), np.int64)
        for start in range(0, len(images), batch):
            part = slice(start, start + batch)
            self._route(images[part], scores[part], exits[part])
        return Answers(scores.argmax(1), scores, exits)

    def _check(self, images: Floats) -> None:
        """Raise `InputError` unless ``images`` are samples for the net."""
        shape = self._net.boundaries[0].shape
        expected = f"(n, {', '.join(map(str, shape))})"
        wanted = f"the input must be float32 samples of shape {expected}"
        # Callers without types may pass anything.
        if not isinstance(images, np.ndarray):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"{wanted}, got {type(images).__name__}")
        if images.dtype != np.float32 or images.ndim < 1 or images.shape[1:] != shape:
            raise InputError(f"{wanted}, got {images.dtype} of shape {images.shape}")
        if not np.isfinite(images).all():
            raise InputError("the input must have finite values, got NaN or infinity")

    def _route(self, values: Floats, scores: Floats, exits: npt.NDArray[np.int64]) -> None:
        """Fill ``scores`` and ``exits`` of one batch.

        After each exit only those without an answer are left.
        """
        waiting = np.arange(len(values))
        for stretch in self._way:
            values, held = stretch.run(values)
            assert held is not None, "every stretch of a whole net ends at an exit"
            leaves = self._leaves(held)
            count = np.count_nonzero(leaves)
            if not count:
                continue  # copying a boundary for nobody would cost as much as a small layer
            if count == len(leaves):
                self._note(held, waiting, scores, exits)
                return
            left = Held(held.exit, held.logits[leaves])
            self._note(left, waiting[leaves], scores, exits)
            waiting, values = waiting[~leaves], values[~leaves]

    def _note(
        self, held: Held, rows: npt.NDArray[np.int64], scores: Floats, exits: npt.NDArray[np.int64]
    ) -> None:
        """Write the answers of ``held`` into these ``rows`` of ``scores`` and ``exits``."""
        held.check()
        scores[rows] = held.logits
        exits[rows] = self._places[held.exit]

    def _leaves(self, held: Held) -> npt.NDArray[np.bool_]:
        """Which of the samples at an exit are answered by it; at the net's own, all."""
        if held.exit == self._net.exits[-1].name:
            return np.ones(len(held.logits), bool)
        return sure(self._score(held.logits), self._thresholds[held.exit])
