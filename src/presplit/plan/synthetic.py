"""A scenario of any size, made up: to see how the search grows, without a net."""

from __future__ import annotations

import numpy as np

from presplit.core.costs import Costs, Parts
from presplit.core.link import Link
from presplit.core.times import Times
from presplit.core.types import Boundary, Exit, Net
from presplit.plan.scenario import PLAIN, Scenario


def synthetic(
    *,
    boundaries: int = 60,
    exits: int = 5,
    codecs: int = 10,
    forms: tuple[str, ...] = (PLAIN, "int8"),
    samples: int = 2000,
    draws: int = 64,
    seed: int = 0,
) -> Scenario:
    """A net of so many boundaries besides the input, evenly spaced early exits, varying times.

    Codecs halve what is sent in turn and lose some answers; int8 is twice as fast and loses some
    too.

    >>> found = synthetic(boundaries=6, exits=2, codecs=3, samples=50)
    >>> found.net.last, len(found.early), len(found.payload_bytes[0]), found.forms
    (6, 2, 3, ('float32', 'int8'))
    """
    random = np.random.default_rng(seed)
    after = [round((e + 1) * boundaries / (exits + 1)) for e in range(exits)]
    net = Net(
        tuple(Boundary(f"b{k}", (max(16, 4096 // (1 + k // 4)),)) for k in range(boundaries + 1)),
        (*(Exit(f"e{k}", k, 10) for k in after), Exit("final", boundaries, 10)),
    )

    def costs(name: str, each_s: float) -> Costs:
        def times(mean_s: float) -> Times:
            return Times.of(np.sort(mean_s * random.gamma(50, 1 / 50, draws)).tolist())

        parts = {
            form: Parts.added(
                [times(each_s / (1 + number))] * boundaries,
                [*(times(each_s / 10) for _ in range(exits)), Times.of(0.0)],
            )
            for number, form in enumerate(forms)
        }
        return Costs(name, parts, "counted", "", power_w=3.0)

    ease = random.normal(size=samples)
    depth = np.linspace(1.0, 3.0, exits + 1)[:, None]
    scores = 1 / (1 + np.exp(-(depth + 2 * ease + 0.5 * random.normal(size=(exits + 1, samples)))))
    hits = random.random(samples) < scores**0.5
    names = [PLAIN, *(f"codec{number}" for number in range(1, codecs))]
    sizes = [
        {name: b.size * 4 * 0.7**number for number, name in enumerate(names)}
        for b in net.boundaries
    ]
    lost = random.random(samples)
    worth = {
        (k, name, form, server): hits[-1] & (lost > 0.001 * (number + (form, server).count("int8")))
        for k in range(boundaries)
        for number, name in enumerate(names)
        for form in forms
        for server in forms
        if (name, form, server) != (PLAIN, PLAIN, PLAIN)
    }
    return Scenario(
        net=net,
        edge=costs("edge", 1e-3),
        server=costs("server", 5e-5),
        link=Link("link", up_bps=2e6, down_bps=1e7, rtt_s=0.02),
        memory_bytes=1e9,
        segment_macs=(1_000_000,) * boundaries,
        segment_weights=(10_000,) * boundaries,
        exit_macs=(1_000,) * exits + (0,),
        exit_weights=(1_000,) * exits + (0,),
        payload_bytes=tuple(sizes),
        scores=dict.fromkeys(forms, scores.astype(np.float32)),
        hits=dict.fromkeys(forms, hits),
        worth={key: each.astype(np.float64) for key, each in worth.items()},
    )
