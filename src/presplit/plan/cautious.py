"""The fastest plan whose promise of accuracy holds with the confidence that was asked.

A search over many plans finds the luckiest one, so what it promises must not be judged by the
samples that it searched. A part of the held-out samples designs: it says which split, exits, codec
and forms are best, and which common thresholds to try. The others judge; there are just so many of
them that one loss less would be believed of fewer (with 2,000 samples and half a point, 1,829 may
lose 4 times, and so may 2,000), so that the samples that design cost little or nothing. From "no
exit answers" on, the thresholds of all exits in use are lowered together, step by step, until a
test no longer believes the promise. Tests in a fixed sequence that ends with the first failure need
no correction for their number (Learn then Test, arXiv 2110.01052; for early exits arXiv
2405.20915). Where the design loses something by its codec or form, a second sequence without such
losses is tried too, and each gets half of the risk. Plans that answer as the net's own classifier
does lose nothing, so they need no test.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from presplit.core.routing import route
from presplit.core.types import Floats
from presplit.plan.choose import Choice, Keep, Mask, everything, fastest
from presplit.plan.evaluate import Block, evaluate
from presplit.plan.limits import Limits
from presplit.plan.risk import drops_at_most, right_at_least
from presplit.plan.scenario import PLAIN, Cut, Scenario

DESIGN = 5
"""Every so many held-out samples, one designs where no number of those that judge is better."""
LEAST_DESIGN = 25
"""Every so many, one designs at least."""
STEPS = 100
"""Steps from "no exit answers" to "every sample leaves at the first exit"."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Kind:
    """What is designed and then judged: all of a plan but its thresholds."""

    lossy: Cut
    cuts: tuple[object, ...]
    exits: tuple[int, ...]

    @classmethod
    def of(cls, choice: Choice) -> Kind:
        """The kind of a plan."""
        block, weights = choice.block, choice.block.head.weights
        exits = weights.subsets[int(weights.used[choice.row])]
        return cls(block.lossy, block.cuts, exits)

    def plain(self, found: Scenario) -> bool:
        """Whether what leaves at no exit is answered as the net's own classifier answers it."""
        return plain(found, self.lossy)

    @property
    def form(self) -> str:
        """The form of the head."""
        return self.lossy[2]


def plain(found: Scenario, lossy: Cut) -> bool:
    """Whether a sample that leaves at no exit gets the answer of the net's own classifier.

    ``lossy`` is the cut that says what it gets.
    """
    _, _, form, server_form = lossy
    return form == server_form == PLAIN and lossy not in found.worth


def cautious(found: Scenario, limits: Limits, *, keep: Keep = everything) -> Choice | None:
    """The fastest plan that keeps to ``limits`` with their confidence; None if there is none.

    ``keep`` says which plans may be chosen at all.
    """
    assert limits.confidence is not None
    design, judge, half = _apart(found, limits)
    kinds: list[Kind] = []
    for also in (everything, _plain_alone):
        best = fastest(design, half, keep=both(keep, also))
        if best is not None and Kind.of(best) not in kinds:
            kinds.append(Kind.of(best))
    kinds = kinds[:1] if kinds and kinds[0].plain(found) else kinds
    alpha = (1 - limits.confidence) / max(1, len(kinds))
    # What is believed is chosen from by its time on all samples; their accuracy was judged.
    timing = limits.merged(max_drop=1.0, min_accuracy=None, confidence=None)
    tried: list[Choice | None] = []
    if believed_plain(judge, limits, alpha):
        tried.append(fastest(found, timing, keep=both(keep, _untouched)))
    for kind in kinds:
        thresholds = _believed(design, judge, kind, limits, alpha)
        # Who leaves earlier takes less of everything: the last one is the best with exits.
        ends = {*thresholds[:1], *thresholds[-1:]}
        tried += [_at(found, timing, kind, each, keep) for each in ends]
    choices = [choice for choice in tried if choice is not None]
    return min(choices, key=lambda choice: choice.rank, default=None)


def both(one: Keep, other: Keep) -> Keep:
    """Plans that both keep."""
    return lambda block: one(block) & other(block)


def believed_plain(judge: Scenario, limits: Limits, alpha: float) -> bool:
    """Whether the net's own classifier is as accurate as asked."""
    if limits.min_accuracy is None:
        return True
    right = int(judge.hits[PLAIN][-1].sum())
    floor = limits.min_accuracy
    return right_at_least(floor, samples=judge.samples, right=right, alpha=alpha)


def _plain_alone(block: Block) -> bool:
    return block.head.form == PLAIN and plain(block.found, block.lossy)


def _untouched(block: Block) -> Mask:
    """Plans that answer every sample as the net's own classifier does."""
    silent: Mask = np.all(np.isinf(block.head.weights.thresholds), axis=1)
    return silent & _plain_alone(block)


def _believed(
    design: Scenario, judge: Scenario, kind: Kind, limits: Limits, alpha: float
) -> list[float]:
    """The common thresholds of which the promise is believed, from the safest on."""
    scores = design.scores[kind.form][list(kind.exits)]
    steps = [np.inf]
    if kind.exits:
        ranks = np.linspace(1, 0, STEPS + 1)
        steps += np.quantile(scores.max(axis=0), ranks, method="higher").tolist()
    found: list[float] = []
    for threshold in dict.fromkeys(steps):
        if not _holds(judge, kind, threshold, limits, alpha):
            break
        found.append(threshold)
    return found


def _holds(judge: Scenario, kind: Kind, threshold: float, limits: Limits, alpha: float) -> bool:
    """Whether the samples that judge believe the promise at this threshold."""
    worth, places = answers(judge, kind, [threshold] * len(kind.exits))
    own = judge.hits[PLAIN][-1][places].astype(np.float64)
    samples, losses, gains = len(places), int((worth < own).sum()), int((worth > own).sum())
    if limits.min_accuracy is not None:
        right = samples - int((worth < 1).sum())
        if not right_at_least(limits.min_accuracy, samples=samples, right=right, alpha=alpha):
            return False
    if limits.drop is None:
        return True
    if kind.plain(judge) and threshold == np.inf:
        return True
    return drops_at_most(limits.drop, samples=samples, losses=losses, gains=gains, alpha=alpha)


def answers(
    found: Scenario, kind: Kind, thresholds: Sequence[float]
) -> tuple[npt.NDArray[np.float64], Rows]:
    """What the answers of a plan are worth, and to which samples it is known.

    A codec or form that loses something is known on the samples on which it was judged.
    """
    places = np.arange(found.samples)
    if found.judged is not None and not kind.plain(found):
        places = found.judged
    exits = list(kind.exits)
    leaves = route(found.scores[kind.form][exits][:, places], thresholds)
    own = found.values(*kind.lossy)
    rows = [*(found.hits[kind.form][e] for e in exits), own]
    values = np.stack(rows).astype(np.float64)[:, places]
    return values[leaves, np.arange(len(places))], places


def judged_blocks(
    found: Scenario, limits: Limits, kinds: Callable[[Scenario, Limits], Sequence[Choice]]
) -> list[tuple[Block, Mask]]:
    """All plans whose promise is believed, of the kinds that ``kinds`` designs, block by block.

    All sequences of tests share the risk.
    """
    assert limits.confidence is not None
    design, judge, half = _apart(found, limits)
    # Kinds that lose nothing besides their exits are judged by the exits alone.
    tested: dict[Kind, list[Kind]] = {}
    for kind in {Kind.of(each): None for each in kinds(design, half)}:
        whole = (found.net.last, PLAIN, PLAIN, PLAIN)
        alike = Kind(whole, (), kind.exits) if kind.plain(found) else kind
        tested.setdefault(alike, []).append(kind)
    alpha = (1 - limits.confidence) / max(1, len(tested))
    blocks: list[tuple[Block, Mask]] = []
    for alike in tested:
        thresholds = _believed(design, judge, alike, limits, alpha)
        for threshold in thresholds[-1:]:
            grids, keep = _only(found, alike, threshold)
            blocks += [(block, _mask(block, keep)) for block in evaluate(found, grids)]
    if believed_plain(judge, limits, alpha):
        none = [np.array([], np.float32)] * len(found.early)
        blocks += [(block, _mask(block, _untouched)) for block in evaluate(found, none)]
    return blocks


def _mask(block: Block, keep: Keep) -> Mask:
    return np.ones(len(block.head.mean_s), np.bool_) & keep(block)


def _apart(found: Scenario, limits: Limits) -> tuple[Scenario, Scenario, Limits]:
    """The samples that design, those that judge, and what is designed for: half of the loss."""
    designing = np.zeros(found.samples, np.bool_)
    count = found.samples - judging(found.samples, limits)
    designing[np.linspace(0, found.samples, count, endpoint=False).astype(np.int64)] = True
    design = found.part(np.flatnonzero(designing))
    judge = found.part(np.flatnonzero(~designing))
    half = None if limits.drop is None else limits.drop / 2
    return design, judge, limits.merged(max_drop=half, confidence=None)


def judging(samples: int, limits: Limits) -> int:
    """How many of the held-out samples judge; the others design.

    More losses are believed of more samples, one by one: what is between two such numbers would
    lose more often and could be believed no more.

    >>> judging(2000, Limits()), judging(100, Limits())
    (1829, 80)
    """
    drop, sure = limits.drop, limits.confidence
    usual = samples - len(range(0, samples, DESIGN))
    if drop is None or sure is None or not 0 < drop < 1:
        return usual

    def believed(count: int, losses: int) -> bool:
        right = count - losses
        return right >= 0 and right_at_least(1 - drop, samples=count, right=right, alpha=1 - sure)

    most = samples - len(range(0, samples, LEAST_DESIGN))
    losses = bisect.bisect_left(range(most), True, key=lambda lost: not believed(most, lost)) - 1
    if losses < 0:
        return usual
    return bisect.bisect_left(range(most), True, key=lambda count: believed(count, losses))


def _at(
    found: Scenario, limits: Limits, kind: Kind, threshold: float, allowed: Keep
) -> Choice | None:
    """The fastest plan with that threshold for the exits of ``kind``."""
    grids, keep = _only(found, kind, threshold)
    return fastest(found, limits, keep=both(allowed, keep), grids=grids)


def _only(found: Scenario, kind: Kind, threshold: float) -> tuple[list[Floats], Keep]:
    """The thresholds, and which plans, that are of ``kind`` with that threshold.

    Where nothing is lost besides what exits lose, any split behind them answers alike.
    """
    free, exits = kind.plain(found), kind.exits
    grids: list[Floats] = [np.array([threshold], np.float32)] * len(found.early)
    if threshold == np.inf:
        exits, grids = (), [np.array([], np.float32)] * len(found.early)

    def keep(block: Block) -> Mask | bool:
        weights = block.head.weights
        codes = [number for number, used in enumerate(weights.subsets) if used == exits]
        if block.head.form != kind.form or not codes:
            return False
        same = block.cuts == kind.cuts
        return (weights.used == codes[0]) & (_plain_alone(block) if free else same)

    return grids, keep
