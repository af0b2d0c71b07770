"""The whole net on this machine, many samples at once.

A sample that has an answer leaves, only the others go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from presplit.bundle import Bundle, read
from presplit.core.errors import InputError, PlanError, SpecError
from presplit.core.types import Floats, Plan
from presplit.policies import EXITS
from presplit.runtime.head import Stretch, cuts


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

    It is made by `Local.open` and is safe for several threads.
    """

    def __init__(
        self, bundle: Bundle, thresholds: Mapping[str, float], *, policy: str, threads: int
    ) -> None:
        plan = Plan(bundle.net.last, dict(thresholds), policy=policy)
        try:
            plan.fits(bundle.net)
        except SpecError as error:
            raise PlanError(f"the plan does not fit {bundle.path}: {error}") from error
        self._net, self._thresholds, self._score = bundle.net, plan.thresholds, EXITS.find(policy)
        self._places = {exit_.name: place for place, exit_ in enumerate(bundle.net.exits)}
        self._stretches = [Stretch(bundle, *cut, threads=threads) for cut in cuts(bundle.net, plan)]

    @classmethod
    def open(
        cls, bundle: Bundle | str | Path, *, plan: Plan | None = None, threads: int = 1
    ) -> Local:
        """The net of ``bundle`` (or its path), with thresholds and policy of ``plan``.

        If ``plan`` is None, they are those of the bundle's own plan.

        Without a plan no exit answers early. Raises `BundleError` for a damaged bundle, `PlanError`
        if the plan does not fit it.
        """
        bundle = bundle if isinstance(bundle, Bundle) else read(bundle)
        plan = plan or bundle.plan or Plan(bundle.net.last)
        return cls(bundle, plan.thresholds, policy=plan.policy, threads=threads)

    def answer(self, images: Floats, *, batch: int = 64) -> Answers:
        """The answers for ``images``, float32 ``(n, *input)``, finite, so many at a time.

        Raises `InputError` for another array or a batch below 1.
        """
        shape = self._net.boundaries[0].shape
        dtype = getattr(images, "dtype", type(images).__name__)
        given = f"{dtype} of shape {getattr(images, 'shape', '?')}"
        if (
            getattr(images, "dtype", None) != np.float32
            or images.ndim < 1
            or images.shape[1:] != shape
        ):
            expected = f"(n, {', '.join(map(str, shape))})"
            raise InputError(f"the input must be float32 samples of shape {expected}, got {given}")
        if not np.isfinite(images).all():
            raise InputError("the input must have finite values, got NaN or infinity")
        if not isinstance(batch, int) or batch < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"a batch is a whole number from 1 on, got {batch!r}")
        scores = np.empty((len(images), self._net.exits[-1].classes), np.float32)
        exits = np.empty(len(images), np.int64)
        for start in range(0, len(images), batch):
            part = slice(start, start + batch)
            self._route(images[part], scores[part], exits[part])
        return Answers(scores.argmax(1), scores, exits)

    def _route(self, values: Floats, scores: Floats, exits: npt.NDArray[np.int64]) -> None:
        """Fill ``scores`` and ``exits`` of one batch.

        After each exit only those without an answer are left.
        """
        waiting = np.arange(len(values))
        for stretch in self._stretches:
            values, held = stretch.run(values)
            assert held is not None, "every stretch of a whole net ends at an exit"
            if stretch is self._stretches[-1]:
                leaves = np.ones(len(waiting), bool)
            else:
                leaves = self._score(held.logits) >= self._thresholds[held.exit]
            scores[waiting[leaves]], exits[waiting[leaves]] = (
                held.logits[leaves],
                self._places[held.exit],
            )
            waiting, values = waiting[~leaves], values[~leaves]
            if not len(waiting):
                return
