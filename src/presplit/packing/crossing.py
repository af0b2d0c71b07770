"""What it costs to compute in another form before a boundary, after it, or both, for each codec.

A way is a boundary, a codec, the form before it and the form after it. Each is judged as the codecs
of float32 are, on the same samples, and one that changes too many answers is not offered.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from presplit.core.progress import track
from presplit.core.types import Floats
from presplit.packing.carried import PLAIN, Carried, Judge, Labels
from presplit.packing.whole import Pieces

Crossing = tuple[int, str, str, str]
"""A boundary, a codec, the form before it and the form after it."""


def cross(
    forms: Mapping[str, Pieces], carried: Carried, x: Floats, answers: Labels
) -> dict[Crossing, Labels]:
    """The labels that the samples ``x[carried.places]`` get by every way but those of float32.

    ``forms``: the net in each form, float32 too; ``carried``: the codecs that boundaries offer;
    ``answers``: the labels that the float32 net gives all of ``x``. Costs, for each boundary and
    each pair of forms, a run of head and tail as `presplit.packing.carried.carry` does.
    """
    found: dict[Crossing, Labels] = {}
    given, expected = x[carried.places], answers[carried.places]
    for number in track(range(forms[PLAIN].last), "trying forms"):
        for before, after in _pairs(forms, number):
            pieces = (forms[before], forms[after])
            judge = Judge(pieces, number, carried.encodings[number], expected)
            judge.hear(given)
            for codec in judge.heard:
                found[number, codec, before, after] = np.concatenate(judge.labels[codec])
    return found


def _pairs(forms: Mapping[str, Pieces], number: int) -> list[tuple[str, str]]:
    """The forms before and after a boundary; before the input nothing computes."""
    heads = forms if number else [PLAIN]
    pairs = [(before, after) for before in heads for after in forms]
    return [pair for pair in pairs if pair != (PLAIN, PLAIN)]
