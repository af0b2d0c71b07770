"""Everything that a plan depends on, in one value.

It says what the net costs here and there, and how its exits did.

Costs are measured if they are given, otherwise counted from the multiply-accumulates in the bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from presplit.bundle import Bundle, read
from presplit.core import cost
from presplit.core.costs import Costs, Device
from presplit.core.errors import PlanError
from presplit.core.link import Link
from presplit.core.types import Exit, Floats, Net
from presplit.profiles import DEVICES, LINKS

BYTES_PER_WEIGHT = 4
"""Weights are float32 in memory."""


@dataclass(frozen=True, eq=False)
class Scenario:
    """A net with its costs on both sides of a link, and the held-out evidence of its exits.

    ``segment_macs`` and ``segment_weights`` have one entry for each segment, ``exit_macs`` and
    ``exit_weights`` one for each exit (0 for the last, whose layers are the last segment's);
    ``payload_bytes[k]`` maps the codecs by which boundary k may travel to the bytes of one encoded
    sample: those whose cost in accuracy was measured. ``scores`` float32 and ``hits`` bool are
    ``(exits, samples)``; ``worth[k, codec]``, float64 ``(samples,)``, is what the net's own answers
    are worth when boundary k travels so, the hits themselves where it is not there.
    """

    net: Net
    edge: Costs
    server: Costs
    link: Link
    memory_bytes: float
    segment_macs: tuple[int, ...]
    segment_weights: tuple[int, ...]
    exit_macs: tuple[int, ...]
    exit_weights: tuple[int, ...]
    payload_bytes: tuple[Mapping[str, float], ...]
    scores: Floats
    hits: npt.NDArray[np.bool_]
    worth: Mapping[tuple[int, str], npt.NDArray[np.float64]]
    policy: str = "confidence"

    @property
    def early(self) -> tuple[Exit, ...]:
        """All exits but the net's own classifier, in rising order.

        Exit number e is row e of the evidence.
        """
        return self.net.exits[:-1]

    def values(self, split: int, codec: str) -> npt.NDArray[np.float64]:
        """What every exit's answers are worth if ``split`` travels by ``codec``.

        float64 ``(exits, samples)``: the early exits answer before anything travels.
        """
        values = self.hits.astype(np.float64)
        if (split, codec) in self.worth:
            values[-1] = self.worth[split, codec]
        return values

    @property
    def how(self) -> str:
        """Whether the costs were counted or measured."""
        same = self.edge.how == self.server.how
        return self.edge.how if same else f"edge {self.edge.how}, server {self.server.how}"


def scenario(
    bundle: Bundle | str | Path,
    *,
    device: str | Device,
    link: str | Link,
    server: str | Device,
    edge_costs: Costs | None = None,
    server_costs: Costs | None = None,
) -> Scenario:
    """The scenario of ``bundle`` on ``device``, with ``server`` behind ``link``.

    ``bundle`` may be a path; the other three are names on the shelves, or objects.

    Raises `SpecError` for an unknown name, `BundleError` if the bundle holds no held-out scores,
    `PlanError` if measured costs belong to another net.
    """
    bundle = bundle if isinstance(bundle, Bundle) else read(bundle)
    net, manifest = bundle.net, bundle.manifest
    edge_device = DEVICES.find(device) if isinstance(device, str) else device
    server_device = DEVICES.find(server) if isinstance(server, str) else server
    exits = [manifest.exits.get(exit_.name) for exit_ in net.exits]
    segment_macs = tuple(part.macs for part in manifest.segments)
    exit_macs = tuple(part.macs if part else 0 for part in exits)

    def costs(measured: Costs | None, where: Device, name: str) -> Costs:
        if measured is None and not any(segment_macs):
            raise PlanError(
                f"{bundle.path}: nothing that its operators do counts as a multiplication, so a "
                "counted time would be 0 s; give costs that presplit measure found (--edge-costs, "
                "--server-costs)"
            )
        if measured is None:
            return cost.counted(
                where, segment_macs=segment_macs, exit_macs=exit_macs, when=where.date
            )
        for form, parts in measured.forms.items():
            got = (len(parts.head_s) - 1, len(parts.tail_s) - 1, len(parts.exit_s))
            if got != (net.last, net.last, len(net.exits)):
                raise PlanError(
                    f"{name}: this net has {net.last} segments and {len(net.exits)} exits, the "
                    f"costs in {form} are of heads of {got[0]}, tails of {got[1]} and {got[2]}; "
                    "measure this bundle again"
                )
        return measured

    scores, hits = bundle.evidence()
    if scores.shape[1] == 0:
        raise PlanError(
            f"{bundle.path}: holds 0 held-out samples, so no accuracy can be planned; export it "
            "again"
        )
    measured = _measured(bundle)
    return Scenario(
        net=net,
        edge=costs(edge_costs, edge_device, "edge_costs"),
        server=costs(server_costs, server_device, "server_costs"),
        link=LINKS.find(link) if isinstance(link, str) else link,
        memory_bytes=edge_device.memory_bytes,
        segment_macs=segment_macs,
        segment_weights=tuple(part.weights for part in manifest.segments),
        exit_macs=exit_macs,
        exit_weights=tuple(part.weights if part else 0 for part in exits),
        payload_bytes=tuple(
            {codec: bundle.payload_bytes(k, codec) for codec in found}
            for k, found in enumerate(measured)
        ),
        scores=scores,
        hits=hits,
        worth={
            (k, codec): bundle.worth(k, codec)
            for k in range(net.last)
            for codec in measured[k]
            if codec != "float32"
        },
        policy=manifest.validation.policy if manifest.validation else "confidence",
    )


def _measured(bundle: Bundle) -> list[list[str]]:
    """For each boundary, the codecs whose cost in accuracy is known; float32 costs none."""
    held = bundle.manifest.validation
    ways = {
        (way.boundary, way.codec)
        for way in (held.ways if held else ())
        if way.form == way.server_form == "float32"
    }
    return [
        [codec for codec in port.encodings if codec == "float32" or (k, codec) in ways]
        for k, port in enumerate(bundle.manifest.ports)
    ]
