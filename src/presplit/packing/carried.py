"""What each codec costs at each boundary: measured, by running the tail from what it decodes to.

A codec that changes too many answers is not offered at that boundary. Judging ends as soon as it
has; what loses more than such a codec is not judged at all, and what loses nothing is not run
again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.bundle import judged_places
from presplit.codecs import CODECS, FINER
from presplit.core.encoding import Encoding, Native, Seen
from presplit.core.errors import GraphError, MissingLibrary
from presplit.core.memory import give_back
from presplit.core.progress import track
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
SIZED_ON = 250
"""Of these, so many are also encoded one by one, to see how long their payloads are."""
PLAIN = "float32"
"""The codec that loses nothing, always offered."""

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Carried:
    """What the codecs of every boundary do to the answers of the net's own classifier.

    ``encodings[k]``: the codecs that boundary k offers; ``refused[k]``: those that it does not,
    with the reason; ``answers[k, codec]``: int64 ``(m,)``, the labels given to the samples
    ``places``; ``sizes[k, codec]``: the bytes of some of them, one by one, where they vary.
    """

    encodings: tuple[dict[str, Encoding], ...]
    refused: tuple[dict[str, str], ...]
    answers: Mapping[tuple[int, str], Labels]
    sizes: Mapping[tuple[int, str], npt.NDArray[np.int64]]
    places: npt.NDArray[np.int64]


def chosen(codecs: Sequence[str]) -> list[str]:
    """``codecs`` in the shelf's order, float32 always among them.

    Raises `SpecError` for one that does not exist.

    >>> chosen(["int8", "float16"])
    ['float32', 'float16', 'int8']
    """
    wanted = {PLAIN, *(CODECS.find(name).name for name in codecs)}
    return [name for name in CODECS if name in wanted]


def unmeasured(pieces: Pieces, codecs: Sequence[str]) -> Carried:
    """Those of ``codecs`` that need no samples, at every boundary: what they cost is not known."""
    found = [_calibrated(pieces, number, None, codecs) for number in range(pieces.last + 1)]
    encodings, refused = zip(*found, strict=True)
    return Carried(encodings, refused, {}, {}, np.empty(0, np.int64))


def carry(
    pieces: Pieces,
    seen: Sequence[Seen],
    x: Floats,
    answers: Labels,
    codecs: Sequence[str],
    *,
    judged: bool,
) -> Carried:
    """The answers that come out when each boundary travels by each of ``codecs``.

    ``x``: the samples; ``answers``: the labels that the whole net gives them; ``judged``: labels
    are known, so that plans will be made from this. Costs a run of head and tail for each boundary.
    """
    count = min(len(x), JUDGED_ON if judged else LOOKED_AT, _affordable(pieces))
    places = judged_places(len(x), count)
    encodings: list[dict[str, Encoding]] = []
    refused: list[dict[str, str]] = []
    labels: dict[tuple[int, str], Labels] = {}
    sizes: dict[tuple[int, str], npt.NDArray[np.int64]] = {}
    for number, at in enumerate(track(seen, "trying codecs")):
        offered, bad = _calibrated(pieces, number, at, codecs)
        if number < pieces.last:
            judge = Judge((pieces, pieces), number, offered, answers[places])
            judge.hear(x[places])
            bad |= judge.refused
            for name in judge.heard:
                labels[number, name] = np.concatenate(judge.labels[name])
                if name in judge.sizes:
                    sizes[number, name] = np.array(judge.sizes[name])
        encodings.append({name: each for name, each in offered.items() if name not in bad})
        refused.append(bad)
    return Carried(tuple(encodings), tuple(refused), labels, sizes, places)


def _calibrated(
    pieces: Pieces, number: int, seen: Seen | None, codecs: Sequence[str]
) -> tuple[dict[str, Encoding], dict[str, str]]:
    """The encodings of ``codecs`` at boundary ``number``, and why some that fit are not there."""
    found: dict[str, Encoding] = {}
    missing: dict[str, str] = {}
    for name in codecs:
        try:
            encoding = CODECS[name].calibrate(seen, pieces.net.boundaries[number].shape)
        except MissingLibrary as error:
            missing[name] = str(error)
            continue
        if encoding is not None:
            found[name] = encoding
    return found, missing


def _affordable(pieces: Pieces) -> int:
    """How many samples can be judged at every boundary for `MOST_MACS`, `FEWEST` at least."""
    whole = sum(segment.macs for segment in pieces.fragments.segments)
    # At each boundary the head runs once, and the tail once for each of a few codecs.
    each = 1.5 * max(1, whole * pieces.last)
    return max(FEWEST, int(MOST_MACS / each))


class Judge:
    """Hears what the tail from one boundary answers behind each of its codecs.

    ``forms``: the pieces before the boundary and those after it, which may be in another form;
    ``answers``: the labels that the whole net gives the samples.
    """

    def __init__(
        self,
        forms: tuple[Pieces, Pieces],
        number: int,
        ways: Mapping[str, Encoding],
        answers: Labels,
    ) -> None:
        self._forms, self._number, self._answers = forms, number, answers
        pieces = forms[0]
        self._ways = dict(ways)
        self._shape = pieces.net.boundaries[number].shape
        self._each = max(1, len(answers) // SIZED_ON)
        self._changed = dict.fromkeys(ways, 0)
        self.refused: dict[str, str] = {}
        self.labels: dict[str, list[Labels]] = {name: [] for name in ways}
        boundary = pieces.net.boundaries[number]
        varying = [name for name, way in ways.items() if way.nbytes(boundary) is None]
        self.sizes: dict[str, list[int]] = {name: [] for name in varying}

    @property
    def heard(self) -> list[str]:
        """The codecs that are not refused, in order."""
        return [name for name in self._ways if name not in self.refused]

    def hear(self, x: Floats) -> None:
        """All of the samples ``x``, batch by batch."""
        give_back()  # what the sessions of the boundary before held
        before, after = self._forms
        head = boundary_values(before, self._number) if self._number else None
        tail, logits = Session(after.tail(self._number)), boundary_name(after.last, after.last)
        for batch in batches(x, before.at_once):
            values = batch if head is None else next(iter(head.run({INPUT: batch}).values()))
            plain = tail.run({INPUT: values})[logits].argmax(-1)
            for name in self.heard:
                self._hear(name, values, plain, tail, logits)

    def _hear(self, name: str, values: Floats, plain: Labels, tail: Session, logits: str) -> None:
        """One batch by one codec; ``plain`` are the labels that its values get as they are."""
        finer = FINER.get(name)
        inner = name.partition("+")[0]
        if finer in self.refused:
            self.refused[name] = f"so does {finer}, which loses less: {self.refused[finer]}"
        elif inner != name and inner in self.refused:
            self.refused[name] = self.refused[inner]
        elif inner != name and inner in self._ways:  # what it decodes to is the same
            for number in range(0, len(values), self._each):
                self._encoded(name, values[number : number + 1])
            self._take(name, self.labels[inner][-1])
        else:
            decoded = self._decoded(name, values)
            if np.array_equal(decoded, values):
                self._take(name, plain)
                return
            try:
                self._take(name, tail.run({INPUT: decoded})[logits].argmax(-1))
            except GraphError as error:
                self.refused[name] = f"the net does not take what it decodes to ({error})"

    def _take(self, name: str, labels: Labels) -> None:
        """Note what one batch got; refuse the codec as soon as it has changed too much."""
        done = sum(map(len, self.labels[name]))
        self.labels[name].append(labels)
        self._changed[name] += int((labels != self._answers[done : done + len(labels)]).sum())
        count, changed = len(self._answers), self._changed[name]
        if changed <= max(1, MOST_CHANGED * count):
            return
        heard = done + len(labels)
        of = f"{count}" if heard == count else f"the first {heard} of {count}"
        reason = f"it changes the answers to {changed} of {of} held-out samples"
        if name == PLAIN and self._forms[0] is self._forms[1]:
            raise GraphError(
                f"the segments from boundary {self._number} on do not compute what the whole net "
                f"does: {reason}"
            )
        self.refused[name] = reason

    def _decoded(self, name: str, values: Floats) -> Floats:
        """What the tail gets of ``values`` by this codec."""
        codec, encoding = CODECS[name], self._ways[name]
        if isinstance(encoding, Native):
            return self._through(name, values)
        codes = codec.encode(values, encoding)
        return values if codes is None else codec.decode(codes, encoding, self._shape)

    def _through(self, name: str, values: Floats) -> Floats:
        """The same for a native codec, one sample at a time."""
        codec, encoding = CODECS[name], self._ways[name]
        found: list[Floats] = []
        for number in range(len(values)):
            one = values[number : number + 1]
            codes = self._encoded(name, one)
            found.append(one if codes is None else codec.decode(codes, encoding, self._shape))
        return np.concatenate(found)

    def _encoded(self, name: str, one: Floats) -> npt.NDArray[Any] | None:
        """The payload of one sample; notes how long it is, if that varies."""
        codes = CODECS[name].encode(one, self._ways[name])
        if name in self.sizes:
            self.sizes[name].append(one.nbytes if codes is None else codes.nbytes)
        return codes
