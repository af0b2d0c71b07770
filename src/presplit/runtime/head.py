"""The part of a net that runs here, for several plans at once.

There is one engine for each stretch that ends at an exit which may answer. Plans share stretches,
so that going from one plan to another loads nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from presplit.bundle import Bundle
from presplit.codecs import CODECS
from presplit.core.cost import holding_exit
from presplit.core.errors import EngineError, PlanError, SpecError
from presplit.core.plans import Plan
from presplit.core.types import Exit, Floats, Net
from presplit.policies import EXITS
from presplit.runtime.doors import check_threads
from presplit.runtime.engines import DEFAULT, ENGINES, Load, Stop

WARM_UP_RUNS = 5
"""Times that each stretch is run at opening, to know what it takes."""

Cut = tuple[int, int, Exit | None]
"""Where a stretch starts and stops, and the exit that it carries."""


@dataclass(frozen=True)
class Held:
    """An answer at hand: float32 ``(batch, classes)`` logits of ``exit``."""

    exit: str
    logits: Floats

    def check(self) -> None:
        """Raise `EngineError` unless the logits are finite: others say nothing of a sample."""
        if np.count_nonzero(np.isfinite(self.logits)) < self.logits.size:
            raise EngineError(f"the net gives values that are not finite at exit {self.exit!r}")


class Stretch:
    """The segments from boundary ``start`` to ``stop`` in one engine, with at most one exit.

    ``shape`` is that of the boundary at the start, ``seconds`` what a run took at opening,
    ``nbytes`` the size of its model.
    """

    def __init__(self, bundle: Bundle, cut: Cut, *, form: str, threads: int, load: Load) -> None:
        start, stop, self.exit = cut
        early = [] if self.exit is None or self.exit.after == bundle.net.last else [self.exit.name]
        model = bundle.runnable(start, stop, exits=early, form=form)
        self._input, self._boundary, self._names = model.input, model.boundary, model.logits
        self.shape = bundle.net.boundaries[start].shape
        self.nbytes = len(model.onnx)
        self._engine = load(model, threads)
        self.seconds = self._time()

    def run(self, values: Floats, *, stop: Stop | None = None) -> tuple[Floats, Held | None]:
        """The values at the end and what the exit says.

        ``values`` ``(batch, *boundary)`` are those at the start. Raises
        `presplit.runtime.engines.Stopped` if ``stop`` ended it.
        """
        found = self._engine.run({self._input: values}, stop=stop)
        held = None
        if self.exit is not None:
            held = Held(self.exit.name, found[self._names[self.exit.name]])
        return values if self._boundary is None else found[self._boundary], held

    def ends_at(self, name: str) -> bool:
        """Whether it ends at the exit of that name."""
        return self.exit is not None and self.exit.name == name

    def _time(self) -> float:
        """What a run of one sample is expected to take: the median of some with zeros."""
        zeros, took = np.zeros((1, *self.shape), np.float32), list[float]()
        self.run(zeros)
        for _ in range(WARM_UP_RUNS):
            began = time.monotonic()
            self.run(zeros)
            took.append(time.monotonic() - began)
        return statistics.median(took)


class Head:
    """What runs here of ``bundle`` under any of ``plans``, every stretch loaded and run once.

    It begins at the input, or at the boundary ``start`` where an edge runs what is before it.
    Raises `PlanError` if a plan does not fit the bundle.
    """

    def __init__(
        self,
        bundle: Bundle,
        plans: Sequence[Plan],
        *,
        threads: int = 1,
        load: Load = ENGINES[DEFAULT],
        start: int = 0,
    ) -> None:
        check_threads(threads)
        self._net, self._start = bundle.net, start
        self._stretches: dict[tuple[Cut, str], Stretch] = {}
        for plan in plans:
            fits(plan, bundle, start)
            for cut in [*cuts(self._net, plan, start), *_after(self._net, plan, start)]:
                key = (cut, plan.form)
                if key not in self._stretches:
                    self._stretches[key] = Stretch(
                        bundle, cut, form=plan.form, threads=threads, load=load
                    )

    def __len__(self) -> int:
        """How many engines there are."""
        return len(self._stretches)

    def way(self, plan: Plan) -> tuple[Stretch, ...]:
        """The stretches up to the split of one of the plans, in order."""
        return tuple(self._stretches[cut, plan.form] for cut in cuts(self._net, plan, self._start))

    def fallback(self, plan: Plan) -> tuple[Stretch, ...]:
        """What may run behind the split where no server answers, from exit to exit."""
        after = _after(self._net, plan, self._start)
        return tuple(self._stretches[cut, plan.form] for cut in after)

    @property
    def nbytes(self) -> int:
        """Bytes of the models that are loaded; an engine takes a few times as much."""
        return sum(stretch.nbytes for stretch in self._stretches.values())


def fits(plan: Plan, bundle: Bundle, start: int = 0) -> None:
    """Raise `PlanError` unless ``plan`` can run on ``bundle``, from boundary ``start`` on.

    Its split, codec, policy, forms and exits must be there, and the exits that run here must tell
    the same classes apart as the net itself, or an answer's label would mean now this and now that.
    """
    check_plan(plan)
    net = bundle.net
    try:
        plan.fits(net)
        EXITS.find(plan.policy)
        for form in (plan.form, plan.server_form):
            if form not in bundle.forms:
                there = ", ".join(bundle.forms)
                raise SpecError(f"the net has no form {form!r}; there are: {there}")
        if plan.split < net.last:
            CODECS.find(plan.codec)
            bundle.encoding(plan.split, plan.codec)
    except SpecError as error:
        raise PlanError(f"the plan does not fit {bundle.path}: {error}") from error
    here = [*cuts(net, plan, start), *_after(net, plan, start)]
    if all(exit_ is None for _, _, exit_ in here):
        raise PlanError(
            f"{bundle.path}: no exit runs up to split {plan.split}, and fallback='none' keeps the "
            "rest off this device: without the server there would be no answer; take another "
            "split, or fallback='exit'"
        )
    for _, _, exit_ in here:
        if exit_ is not None and exit_.classes != net.exits[-1].classes:
            raise PlanError(
                f"{bundle.path}: exit {exit_.name!r} tells {exit_.classes} classes apart and the "
                f"net {net.exits[-1].classes}: they cannot answer for each other; leave the exit "
                "out of the plan, or export the net without it"
            )


def check_plan(plan: object) -> None:
    """Raise `PlanError` unless ``plan`` is a `Plan`: callers without types may pass anything."""
    if not isinstance(plan, Plan):
        raise PlanError(f"plan must be a presplit.Plan or None, got {type(plan).__name__}")


def own_plan(bundle: Bundle) -> Plan:
    """The plan that ``bundle`` carries, or one that keeps all on the edge and uses no exit.

    Its policy is the one that the bundle was exported with, so that thresholds are meant by it.
    """
    if bundle.plan is not None:
        return bundle.plan
    held = bundle.manifest.validation
    plan = Plan(bundle.net.last)
    return plan if held is None else Plan(bundle.net.last, policy=held.policy)


def cuts(net: Net, plan: Plan, start: int = 0) -> list[Cut]:
    """Where each stretch from ``start`` to the split starts and stops, and its exit.

    One ends at each exit that may answer, at the one that only holds an answer, and at the split.

    >>> from presplit.core.types import Boundary
    >>> row = tuple(Boundary(name, (2,)) for name in "abcd")
    >>> net = Net(row, (Exit("early", 1, 2), Exit("late", 2, 2), Exit("final", 3, 2)))
    >>> plan = Plan(3, {"early": 0.9})
    >>> [(start, stop, found and found.name) for start, stop, found in cuts(net, plan)]
    [(0, 1, 'early'), (1, 3, 'final')]
    >>> [(start, stop, found and found.name) for start, stop, found in cuts(net, Plan(2))]
    [(0, 2, 'late')]
    >>> [(start, stop, found and found.name) for start, stop, found in cuts(net, Plan(1))]
    [(0, 1, 'early')]
    """
    found: list[Cut] = []
    held = _holding(net, plan, start)
    for exit_ in net.exits_up_to(plan.split):
        if exit_.name in plan.thresholds and exit_.after < net.last:
            found.append((start, exit_.after, exit_))
            start = exit_.after
    if held is not None and held.after <= plan.split:
        found.append((start, held.after, held))
        start = held.after
    if start < plan.split:
        found.append((start, plan.split, net.exits[-1] if plan.split == net.last else None))
    return found


def _after(net: Net, plan: Plan, start: int) -> list[Cut]:
    """The stretches behind the split that run where no server answers, by the plan's fallback."""
    if plan.split == net.last or plan.fallback == "none":
        return []
    exits = [exit_ for exit_ in net.exits if exit_.after > plan.split]
    if plan.fallback == "exit":
        held = _holding(net, plan, start)
        exits = exits[:1] if held is not None and held.after > plan.split else []
    begins = [plan.split, *(exit_.after for exit_ in exits)]
    return [(begin, exit_.after, exit_) for begin, exit_ in zip(begins, exits, strict=False)]


def _holding(net: Net, plan: Plan, start: int) -> Exit | None:
    """The exit that runs only to hold an answer, by the rule that plans are costed with."""
    number = holding_exit(net, plan.split, plan.thresholds, start=start)
    return None if number is None else net.exits[number]
