"""What is to be placed and where: devices, servers, the links between them, and models.

A site is read from a ``.toml`` or ``.json`` file, strictly: an unknown key, a wrong type and a name
that nothing bears are errors that say where. Files that it names lie beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from presplit.core.errors import SpecError, context
from presplit.core.spec import read_tables
from presplit.core.value import Deadline, NonNegative, Positive, Share, Value
from presplit.plan.limits import CONFIDENCE, RELIABILITY, Limits, Odds

MAX_LOAD = 0.7
"""How busy a machine may be on average: beyond, waiting grows fast."""

Named = Annotated[str, Meta(min_length=1)]
Load = Annotated[float, Meta(gt=0, lt=1)]


class Machine(Value, frozen=True):
    """A device on which models are asked for.

    ``profile`` is a name, a file or numbers, as ``presplit plan --device`` takes them; ``max_load``
    is the share of the time that it may compute on average.
    """

    name: Named
    profile: Named
    max_load: Load = MAX_LOAD


class Host(Value, frozen=True):
    """A server of so many ``workers``, each serving one request at a time."""

    name: Named
    profile: Named
    max_load: Load = MAX_LOAD
    workers: Annotated[int, Meta(ge=1)] = 1


class Connection(Value, frozen=True):
    """By what ``link`` a device reaches a server; without one it cannot ask that server."""

    device: Named
    server: Named
    link: Named


class Model(Value, frozen=True):
    """A bundle that each of ``devices`` asks ``rate_per_s`` times a second, and its limits.

    The limits are those of `presplit.plan.Limits`. ``edge_costs`` and ``server_costs`` map the name
    of a machine to the file of what `presplit measure` found there.
    """

    bundle: Named
    devices: Annotated[tuple[Named, ...], Meta(min_length=1)]
    rate_per_s: Positive
    name: str = ""
    deadline_s: Deadline | None = None
    reliability: Annotated[float, Meta(gt=0, le=1)] = RELIABILITY
    min_accuracy: Share | None = None
    max_drop: Share | None = None
    confidence: Odds | Literal["none"] = CONFIDENCE
    max_energy_j: NonNegative | None = None
    max_memory_bytes: NonNegative | None = None
    max_up_bytes: NonNegative | None = None
    edge_costs: dict[str, str] = {}
    server_costs: dict[str, str] = {}

    @property
    def called(self) -> str:
        """Its name, or that of its bundle.

        >>> Model("nets/digits.bundle", ("cam",), 5.0).called
        'digits'
        """
        return self.name or Path(self.bundle).name.removesuffix(".bundle")

    @property
    def limits(self) -> Limits:
        """What each of its plans must keep to."""
        sure = None if self.confidence == "none" else self.confidence
        return Limits(
            deadline_s=self.deadline_s,
            reliability=self.reliability,
            min_accuracy=self.min_accuracy,
            max_drop=self.max_drop,
            confidence=sure,
            max_energy_j=self.max_energy_j,
            max_memory_bytes=self.max_memory_bytes,
            max_up_bytes=self.max_up_bytes,
        ).checked()


class Site(Value, frozen=True):
    """Everything that is placed together, and what is to be as little as it can be.

    ``objective``: "time" is the mean time of a request, "energy" the devices' mean energy for one.
    """

    devices: Annotated[tuple[Machine, ...], Meta(min_length=1)]
    models: Annotated[tuple[Model, ...], Meta(min_length=1)]
    servers: tuple[Host, ...] = ()
    links: tuple[Connection, ...] = ()
    objective: Literal["time", "energy"] = "time"

    def __post_init__(self) -> None:
        super().__post_init__()
        machines = [each.name for each in (*self.devices, *self.servers)]
        _refuse_twice("machines", machines)
        _refuse_twice("links", [f"{each.device} to {each.server}" for each in self.links])
        _refuse_twice("models", [f"{m.called} on {d}" for m in self.models for d in m.devices])
        devices, servers = [d.name for d in self.devices], [s.name for s in self.servers]
        for number, link in enumerate(self.links):
            _refuse_unknown(f"links[{number}].device", link.device, devices)
            _refuse_unknown(f"links[{number}].server", link.server, servers)
        for number, model in enumerate(self.models):
            for device in model.devices:
                _refuse_unknown(f"models[{number}].devices", device, devices)
            for key, known in (("edge_costs", devices), ("server_costs", servers)):
                for name in getattr(model, key):
                    _refuse_unknown(f"models[{number}].{key}", name, known)


def read_site(path: str | Path) -> Site:
    """The site in a ``.toml`` or ``.json`` file; raises `SpecError` that begins with its name."""
    raw = read_tables(path)
    with context(str(path)):
        return _beside(site_from(raw), Path(path).parent)


def site_from(raw: Mapping[str, object]) -> Site:
    """The site that nested dicts describe; raises `SpecError` naming the key.

    >>> cam = {"name": "cam", "profile": "raspberry-pi-4"}
    >>> model = {"bundle": "a.bundle", "devices": ["cam"], "rate_per_s": -1}
    >>> site_from({"devices": [cam], "models": [model]})
    Traceback (most recent call last):
        ...
    presplit.core.errors.SpecError: models[0].rate_per_s: expected `float` > 0.0
    """
    try:
        return msgspec.convert(raw, Site)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$")
        where = place.rstrip("`").removeprefix(".") or "the file"
        problem = problem.replace("Object ", "").replace("`object`", "`table`")
        raise SpecError(f"{where}: {problem[:1].lower()}{problem[1:]}") from error


def _beside(site: Site, folder: Path) -> Site:
    """The same with the files that it names found from ``folder``."""

    def found(profile: str) -> str:
        first = profile.partition(",")[0]
        return str(folder / profile) if first.endswith(".json") else profile

    def costs(named: Mapping[str, str]) -> dict[str, str]:
        return {machine: str(folder / file) for machine, file in named.items()}

    replace = msgspec.structs.replace
    return replace(
        site,
        devices=tuple(replace(each, profile=found(each.profile)) for each in site.devices),
        servers=tuple(replace(each, profile=found(each.profile)) for each in site.servers),
        links=tuple(replace(each, link=found(each.link)) for each in site.links),
        models=tuple(
            replace(
                each,
                bundle=str(folder / each.bundle),
                edge_costs=costs(each.edge_costs),
                server_costs=costs(each.server_costs),
            )
            for each in site.models
        ),
    )


def _refuse_twice(what: str, names: list[str]) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise SpecError(f"{what}: expected different ones, got {twice[0]!r} twice")


def _refuse_unknown(key: str, name: str, known: list[str]) -> None:
    if name not in known:
        there = ", ".join(known) or "none"
        raise SpecError(f"{key}: nothing is called {name!r}; there are: {there}")
