"""What plans are made from: how every exit did on held-out samples, and what each codec costs.

What a codec costs in accuracy is measured: the tail runs again from the decoded boundary. A codec
that changes too many answers is not offered at that boundary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from presplit.bundle import judged_places
from presplit.codecs import CODECS
from presplit.core.encoding import Encoding, Seen
from presplit.core.errors import GraphError
from presplit.core.memory import give_back
from presplit.core.protocols import ExitPolicy
from presplit.core.tensors import INPUT, boundary_name
from presplit.core.types import Floats
from presplit.packing.session import Session
from presplit.packing.whole import Pieces, batches, boundary_values

MOST_CHANGED = 0.05
"""A codec that changes more than this share of the answers is not offered."""
JUDGED_ON = 1000
"""Held-out samples, spread evenly, on which codecs are judged where labels are known."""
LOOKED_AT = 32
"""The same where no labels are known: enough to see that a codec destroys the values."""
MOST_MACS = 10**12
"""Multiply-accumulates that judging may cost in all, about a minute."""
FEWEST = 16
"""Samples that even the largest net is judged on."""

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Evidence:
    """How every exit did: float32 ``scores`` and bool ``hits``, both ``(exits, samples)``."""

    policy: str
    scores: Floats
    hits: Bools


def judge(
    policy: str, score: ExitPolicy, logits: Sequence[Floats], labels: npt.NDArray[np.int64]
) -> Evidence:
    """The evidence in ``logits``, float32 ``(samples, classes)`` for each exit as they run.

    ``score`` is the rule that ``policy`` names.

    >>> logits = [np.array([[3, 1]], np.float32)]
    >>> judge("first", lambda logits: logits[:, 0], logits, np.array([0])).hits.tolist()
    [[True]]
    """
    scores = np.stack([score(of_exit) for of_exit in logits])
    return Evidence(policy, scores, np.stack([each.argmax(-1) == labels for each in logits]))


@dataclass(frozen=True, eq=False)
class Carried:
    """What the codecs of every boundary do to the answers of the net's own classifier.

    ``encodings[k]``: the codecs that boundary k offers; ``refused[k]``: those that it does not,
    with the reason; ``answers[k, codec]``: int64 ``(m,)``, the labels given to the samples
    ``places``.
    """

    encodings: tuple[dict[str, Encoding], ...]
    refused: tuple[dict[str, str], ...]
    answers: Mapping[tuple[int, str], npt.NDArray[np.int64]]
    places: npt.NDArray[np.int64]


def unmeasured(last: int) -> Carried:
    """The codecs that need no samples, at every boundary: what they cost is not known."""
    found = {name: codec.calibrate(None) for name, codec in CODECS.items()}
    known = {name: encoding for name, encoding in found.items() if encoding is not None}
    refused = tuple(dict[str, str]() for _ in range(last + 1))
    return Carried((known,) * (last + 1), refused, {}, np.empty(0, np.int64))


def carry(
    pieces: Pieces, seen: Sequence[Seen], x: Floats, answers: npt.NDArray[np.int64], *, judged: bool
) -> Carried:
    """The answers that come out when each boundary travels by each codec.

    ``x``: the samples; ``answers``: the labels that the whole net gives them; ``judged``: labels
    are known, so that plans will be made from this. Costs a run of head and tail for each boundary.
    """
    count = min(len(x), JUDGED_ON if judged else LOOKED_AT, _affordable(pieces))
    places = judged_places(len(x), count)
    encodings: list[dict[str, Encoding]] = []
    refused: list[dict[str, str]] = []
    found: dict[tuple[int, str], npt.NDArray[np.int64]] = {}
    for number, at in enumerate(seen):
        ways = {name: codec.calibrate(at) for name, codec in CODECS.items()}
        offered = {name: encoding for name, encoding in ways.items() if encoding is not None}
        bad: dict[str, str] = {}
        if number < pieces.last:
            given = _answers(pieces, number, x[places], offered)
            for name, labels in given.items():
                if isinstance(labels, str):
                    bad[name] = labels
                    continue
                changed = int((labels != answers[places]).sum())
                if changed <= max(1, MOST_CHANGED * count):
                    found[number, name] = labels
                    continue
                bad[name] = f"it changes the answers to {changed} of {count} held-out samples"
            if "float32" in bad:
                raise GraphError(
                    f"the segments from boundary {number} on do not compute what the whole net "
                    f"does: {bad['float32']}"
                )
        encodings.append({name: each for name, each in offered.items() if name not in bad})
        refused.append(bad)
    return Carried(tuple(encodings), tuple(refused), found, places)


def _affordable(pieces: Pieces) -> int:
    """How many samples can be judged at every boundary for `MOST_MACS`, `FEWEST` at least."""
    whole = sum(segment.macs for segment in pieces.fragments.segments)
    # At each boundary the head runs once, and the tail once for each of a few codecs.
    each = 1.5 * max(1, whole * pieces.last)
    return max(FEWEST, int(MOST_MACS / each))


def _answers(
    pieces: Pieces, number: int, x: Floats, ways: Mapping[str, Encoding]
) -> dict[str, npt.NDArray[np.int64] | str]:
    """The labels that ``x`` gets when boundary ``number`` travels in each of these ways.

    Where the tail does not take what a codec decodes to, the reason in place of labels.
    """
    give_back()  # what the sessions of the boundary before held
    head = boundary_values(pieces, number) if number else None
    tail, logits = Session(pieces.tail(number)), boundary_name(pieces.last, pieces.last)
    found: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in ways}
    broken: dict[str, str] = {}
    for batch in batches(x, pieces.at_once):
        values = batch if head is None else next(iter(head.run({INPUT: batch}).values()))
        for name, encoding in ways.items():
            codes = CODECS[name].encode(values, encoding)
            decoded = values if codes is None else CODECS[name].decode(codes, encoding)
            try:
                found[name].append(tail.run({INPUT: decoded})[logits].argmax(-1))
            except GraphError as error:
                if name == "float32":
                    raise
                broken[name] = f"the net does not take what it decodes to ({error})"
    labels = {name: np.concatenate(rows) for name, rows in found.items() if name not in broken}
    return {**labels, **broken}
