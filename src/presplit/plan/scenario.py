"""Everything that a plan depends on, in one value.

It says what the net costs here and there, and how its exits did.

Costs are measured if they are given, otherwise counted from the multiply-accumulates in the bundle.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from presplit.bundle import Bundle, judged_places, read
from presplit.core import cost
from presplit.core.cost import Outcome
from presplit.core.costs import Costs, Device
from presplit.core.encoding import Cast, Compressed, Encoding
from presplit.core.errors import PlanError
from presplit.core.link import Link
from presplit.core.times import NOTHING, Times
from presplit.core.types import Exit, Floats, Net
from presplit.profiles import device_from, link_from

PLAIN = "float32"
"""The form and the codec that change nothing."""
BYTES_PER_WEIGHT: Mapping[str, int] = {PLAIN: 4, "int8": 1, "bfloat16": 2}
"""What a weight takes in memory in each form."""

EXACT = ("float32", "int8", "int16", "int32")
"""What values may be cast to unchanged: a cast to integers is offered for whole numbers alone."""

Bools = npt.NDArray[np.bool_]
Cut = tuple[int, str, str, str]
"""A boundary that travels, by which codec, and the forms of what is before it and after it."""


@dataclass(frozen=True, eq=False)
class Between:
    """A gateway between the edge and the server, and its own link to the server."""

    gateway: Costs
    uplink: Link


@dataclass(frozen=True, eq=False)
class Scenario:
    """A net with its costs on both sides of a link, and the held-out evidence of its exits.

    ``segment_macs`` and ``segment_weights`` have one entry for each segment, ``exit_macs`` and
    ``exit_weights`` one for each exit (0 for the last, whose layers are the last segment's);
    ``payload_bytes[k]`` maps the codecs by which boundary k may travel to the bytes of one encoded
    sample: those whose cost in accuracy was measured. ``scores[form]`` float32 and ``hits[form]``
    bool are ``(exits, samples)``, for each form in which the edge may compute.

    ``worth[k, codec, form, server_form]``, float64 ``(samples,)``, is what the net's own answers
    are worth when an edge that computes in ``form`` sends boundary k so, found on the samples
    ``judged`` (all, if None). Where it is not there, both forms are the same, and the codec is
    float32 or ``(k, codec)`` is in ``exact``, so that values come back as they were, they are the
    edge's own answers. ``queue`` is what a request waits for at the server.
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
    scores: Mapping[str, Floats]
    hits: Mapping[str, Bools]
    worth: Mapping[tuple[int, str, str, str], npt.NDArray[np.float64]]
    policy: str = "confidence"
    exact: frozenset[tuple[int, str]] = frozenset()
    judged: npt.NDArray[np.int64] | None = None
    queue: Times = NOTHING
    between: Between | None = None
    """With a gateway, ``link`` is the edge's to that."""
    memo: dict[tuple[object, ...], list[Outcome]] = dataclasses.field(
        default_factory=dict, init=False, repr=False
    )
    """Ways a sample can end that were asked for before: they do not depend on the samples."""

    @property
    def early(self) -> tuple[Exit, ...]:
        """All exits but the net's own classifier, in rising order.

        Exit number e is row e of the evidence.
        """
        return self.net.exits[:-1]

    @property
    def samples(self) -> int:
        """How many held-out samples there are."""
        return self.hits[PLAIN].shape[1]

    @property
    def accuracy(self) -> float:
        """That of the net's own classifier, nothing left out."""
        return float(self.hits[PLAIN][-1].mean())

    def whole_bytes(self, form: str) -> int:
        """Bytes of the weights of the whole net with all its exits, in ``form``."""
        weights = sum(self.segment_weights) + sum(self.exit_weights)
        return BYTES_PER_WEIGHT.get(form, 4) * weights

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms in which the edge may compute: both their times and their answers are known."""
        return tuple(form for form in self.scores if form in self.edge.forms)

    def ways(self, split: int, form: str, there: Costs | None = None) -> list[tuple[str, str]]:
        """The codecs and forms of the tail by which a head in ``form`` may go on from ``split``.

        ``there`` goes on if it is not the server. At the last boundary nothing travels: there is
        the plain codec alone.
        """
        if split == self.net.last:
            return [(PLAIN, form)]
        forms = (there or self.server).forms
        offered = [(codec, other) for codec in self.payload_bytes[split] for other in forms]
        return [
            (codec, server)
            for codec, server in offered
            if (split, codec, form, server) in self.worth
            or (form == server and self.unchanged(split, codec))
        ]

    def unchanged(self, split: int, codec: str) -> bool:
        """Whether the values at ``split`` come back by ``codec`` as they were."""
        return codec == PLAIN or (split, codec) in self.exact

    def values(
        self, split: int, codec: str, form: str = PLAIN, server_form: str = PLAIN
    ) -> npt.NDArray[np.float64]:
        """What the net's own answers are worth if ``split`` travels so, float64 ``(samples,)``."""
        found = self.worth.get((split, codec, form, server_form))
        return self.hits[form][-1].astype(np.float64) if found is None else found

    def part(self, places: npt.NDArray[np.int64]) -> Scenario:
        """The same with the evidence of these samples alone."""
        judged = self.judged
        if judged is not None:
            judged = np.flatnonzero(np.isin(places, judged))
        found = dataclasses.replace(
            self,
            scores={form: each[:, places] for form, each in self.scores.items()},
            hits={form: each[:, places] for form, each in self.hits.items()},
            worth={key: each[places] for key, each in self.worth.items()},
            judged=judged,
        )
        object.__setattr__(found, "memo", self.memo)
        return found

    def ends(self, split: int, used: tuple[str, ...], form: str) -> list[Outcome]:
        """What the edge does for each way to end, as `presplit.core.cost.on_edge` says it."""
        key = (split, used, form)
        if key not in self.memo:
            self.memo[key] = cost.on_edge(
                self.net, split=split, used=used, edge=self.edge, form=form
            )
        return self.memo[key]

    def sent(self, split: int, codec: str, server_form: str) -> Outcome:
        """What it takes to ask the server, as `presplit.core.cost.asked` says it."""
        key = ("sent", split, codec, server_form)
        if key not in self.memo:
            way = cost.asked(
                split,
                edge=self.edge,
                server=self.server,
                link=self.link,
                codec=codec,
                payload_bytes=self.payload_bytes[split][codec],
                server_form=server_form,
                queue=self.queue,
            )
            self.memo[key] = [way]
        return self.memo[key][0]

    @property
    def how(self) -> str:
        """Whether the costs were counted or measured."""
        there = {"edge": self.edge, "server": self.server}
        if self.between is not None:
            there["gateway"] = self.between.gateway
        if len({costs.how for costs in there.values()}) == 1:
            return self.edge.how
        return ", ".join(f"{name} {costs.how}" for name, costs in there.items())


def scenario(
    bundle: Bundle | str | Path,
    *,
    device: str | Device,
    link: str | Link,
    server: str | Device,
    edge_costs: Costs | None = None,
    server_costs: Costs | None = None,
    queue: Times = NOTHING,
    gateway: str | Device | None = None,
    uplink: str | Link | None = None,
    gateway_costs: Costs | None = None,
) -> Scenario:
    """The scenario of ``bundle`` on ``device``, with ``server`` behind ``link``.

    With a ``gateway`` that is behind ``link``, and the server behind its ``uplink``. ``bundle`` may
    be a path; the others are names on the shelves, or objects.

    Raises `SpecError` for an unknown name, `BundleError` if the bundle holds no held-out scores,
    `PlanError` if measured costs belong to another net.
    """
    bundle = bundle if isinstance(bundle, Bundle) else read(bundle)
    net, manifest = bundle.net, bundle.manifest
    edge_device = device_from(device) if isinstance(device, str) else device
    server_device = device_from(server) if isinstance(server, str) else server
    exits = [manifest.exits.get(exit_.name) for exit_ in net.exits]
    segment_macs = tuple(part.macs for part in manifest.segments)
    exit_macs = tuple(part.macs if part else 0 for part in exits)

    def costs(measured: Costs | None, where: Device, name: str) -> Costs:
        if measured is None and not any(segment_macs):
            raise PlanError(
                f"{bundle.path}: nothing that its operators do counts as a multiplication, so a "
                "counted time would be 0 s; give costs that presplit measure found (--edge-costs, "
                "--server-costs, --gateway-costs)"
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

    evidence, held = {PLAIN: bundle.evidence()}, manifest.validation
    assert held is not None, "there is evidence"
    evidence |= {form: bundle.evidence(form) for form in held.forms}
    if held.samples == 0:
        raise PlanError(
            f"{bundle.path}: holds 0 held-out samples, so no accuracy can be planned; export it "
            "again"
        )
    between = None
    if gateway is not None and uplink is not None:
        where = device_from(gateway) if isinstance(gateway, str) else gateway
        between = Between(
            costs(gateway_costs, where, "gateway_costs"),
            link_from(uplink) if isinstance(uplink, str) else uplink,
        )
    elif (gateway, uplink, gateway_costs) != (None, None, None):
        raise PlanError(
            "a gateway stands between two links: give both the gateway and the uplink from it to "
            "the server"
        )
    exact = _exact(bundle)
    known = exact | {(way.boundary, way.codec) for way in held.ways}
    return Scenario(
        net=net,
        edge=costs(edge_costs, edge_device, "edge_costs"),
        server=costs(server_costs, server_device, "server_costs"),
        link=link_from(link) if isinstance(link, str) else link,
        memory_bytes=edge_device.memory_bytes,
        segment_macs=segment_macs,
        segment_weights=tuple(part.weights for part in manifest.segments),
        exit_macs=exit_macs,
        exit_weights=tuple(part.weights if part else 0 for part in exits),
        payload_bytes=tuple(
            {
                codec: bundle.payload_bytes(k, codec)
                for codec in port.encodings
                if codec == PLAIN or (k, codec) in known
            }
            for k, port in enumerate(manifest.ports[: net.last])
        ),
        scores={form: each for form, (each, _) in evidence.items()},
        hits={form: each for form, (_, each) in evidence.items()},
        worth={
            (way.boundary, way.codec, way.form, way.server_form): bundle.worth(
                way.boundary, way.codec, way.form, way.server_form
            )
            for way in held.ways
            if way.form != way.server_form or (way.boundary, way.codec) not in exact
        },
        exact=exact,
        policy=held.policy,
        judged=_judged(bundle, held.samples),
        queue=queue,
        between=between,
    )


def _exact(bundle: Bundle) -> frozenset[tuple[int, str]]:
    """The boundaries and codecs by which values come back as they were."""
    return frozenset(
        (k, codec)
        for k, port in enumerate(bundle.manifest.ports[: bundle.net.last])
        for codec in port.encodings
        if not _loses(bundle.encoding(k, codec))
    )


def _loses(encoding: Encoding) -> bool:
    """Whether values may come back changed."""
    if isinstance(encoding, Compressed):
        return _loses(encoding.codes)
    return not (isinstance(encoding, Cast) and encoding.dtype in EXACT)


def _judged(bundle: Bundle, samples: int) -> npt.NDArray[np.int64] | None:
    """The samples on which codecs were judged; None if on all."""
    held = bundle.manifest.validation
    if held is None or not 0 < held.judged < samples:
        return None
    return judged_places(samples, held.judged)
