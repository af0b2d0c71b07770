"""What a net is made of, as values for JSON: segments, their operators, boundaries, exits."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from presplit.bundle import Bundle
from presplit.core.errors import BundleError
from presplit.core.routing import grid
from presplit.core.short_names import short_names
from presplit.lab.view.here import THIS
from presplit.lab.view.kernels import Piece, Shown
from presplit.lab.view.opened import AGREEMENT, KNOWN, UNKNOWN
from presplit.lab.view.place import Places
from presplit.profiles.devices import DEVICES
from presplit.profiles.links import LINKS

THRESHOLDS = 21
"""Steps of an exit's threshold, as many as the planner tries."""
ACCURACIES = {
    KNOWN: "the share of the bundle's held-out samples that is answered rightly",
    AGREEMENT: "how often the answer is the net's own on your samples: nobody said what is right",
    UNKNOWN: "not known: give --samples and --labels; shares of exits are those of made-up samples",
}


def describe(places: Places) -> dict[str, Any]:
    """All that the page shows before anything is chosen."""
    bundle, here = places.net.bundle, places.here
    manifest, net = bundle.manifest, bundle.net
    shown = here.placed.operators
    short = ["input", *short_names([boundary.name for boundary in net.boundaries[1:]])]
    segment_s = [float(row.mean()) for row in here.placed.segment_s]
    exit_s = [float(row.mean()) for row in here.placed.exit_s]
    return {
        "name": manifest.name,
        "source": places.net.source,
        "macs": sum(part.macs for part in (*manifest.segments, *manifest.exits.values())),
        "weights": sum(part.weights for part in (*manifest.segments, *manifest.exits.values())),
        "here": {
            "s": here.warm_s,
            "segments_s": sum(segment_s),
            "wake_s": here.costs.forms["float32"].wake_s,
            "pause_s": here.costs.pause_s,
            "processor": here.costs.processor,
            "engine": here.costs.engine,
            "threads": here.costs.threads,
        },
        "accuracy": {"kind": places.net.accuracy, "what": ACCURACIES[places.net.accuracy]},
        "boundaries": [
            {"short": name, **_boundary(bundle, number)} for number, name in enumerate(short)
        ],
        "segments": [
            {
                "name": net.boundaries[number + 1].name,
                "short": short[number + 1],
                "macs": part.macs,
                "weights": part.weights,
                "s": segment_s[number],
                "operators": _operators(shown, ("segment", number)),
            }
            for number, part in enumerate(manifest.segments)
        ],
        "exits": [
            {
                "name": exit_.name,
                "after": exit_.after,
                "macs": manifest.exits[exit_.name].macs,
                "weights": manifest.exits[exit_.name].weights,
                "s": exit_s[number],
                "operators": _operators(shown, ("exit", number)),
                **_levels(bundle, number),
            }
            for number, exit_ in enumerate(net.exits[:-1])
        ],
        "final": net.exits[-1].name,
        "forms": list(bundle.forms),
        "devices": _names([THIS, *places.measured], list(DEVICES)),
        "links": list(LINKS),
    }


def _boundary(bundle: Bundle, number: int) -> dict[str, Any]:
    boundary, port = bundle.net.boundaries[number], bundle.manifest.ports[number]
    sizes: dict[str, float] = {}
    for codec in port.encodings:
        with contextlib.suppress(BundleError):
            sizes[codec] = bundle.payload_bytes(number, codec)
    return {
        "name": boundary.name,
        "shape": list(boundary.shape),
        "bytes": boundary.nbytes,
        "codecs": sizes,
    }


def _operators(shown: Sequence[Shown], piece: Piece) -> list[dict[str, Any]]:
    """The operators of one piece; ``within`` is the place here of the one that has its time.

    An operator without a name is what the engine made: a change of layout, or several in one.
    """
    numbers = [number for number, one in enumerate(shown) if one.piece == piece]
    place = {number: at for at, number in enumerate(numbers)}
    return [_operator(shown[number], place) for number in numbers]


def _operator(one: Shown, place: dict[int, int]) -> dict[str, Any]:
    operator = one.operator
    name = operator.outputs[0] if operator.outputs else ""
    return {
        "name": name.rpartition("/")[2],
        "kind": operator.kind,
        "shape": list(operator.shape),
        "macs": operator.macs,
        "weights": operator.weights,
        "bytes": operator.weight_bytes,
        "s": one.seconds,
        "within": None if one.within is None else place.get(one.within),
    }


def _levels(bundle: Bundle, number: int) -> dict[str, Any]:
    """The thresholds to choose from, rising, and the share of samples that is so sure of it."""
    scores = bundle.evidence()[0][number]
    levels = grid(scores, THRESHOLDS)
    return {
        "levels": [float(level) for level in levels],
        "sure": [float((scores >= level).mean()) for level in levels],
    }


def _names(*lists: list[str]) -> list[str]:
    """All names once, in their order."""
    return list(dict.fromkeys(name for each in lists for name in each))
