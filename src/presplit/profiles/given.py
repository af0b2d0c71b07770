"""Devices and links as words of a command line: a name, a file, numbers, or a name with changes.

``wifi``, ``link.json``, ``up=3M,rtt=40ms,jitter=5ms`` and ``wifi,up=3M`` are all links. Rates are
in bits per second, times in seconds and memory in bytes unless a unit says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from presplit.core.costs import Costs, Device
from presplit.core.errors import SpecError
from presplit.core.link import Link
from presplit.core.shelf import Shelf
from presplit.profiles.devices import DEVICES
from presplit.profiles.links import LINKS

SIZES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
TIMES = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
RATES = {
    f"{size}{unit}": factor
    for size, factor in SIZES.items()
    for unit in ("", "bps", "bit", "bit/s")
}
AMOUNTS = {f"{size}{unit}": factor for size, factor in SIZES.items() for unit in ("", "B")}
WATTS = {"": 1.0, "W": 1.0, "mW": 1e-3}
SHARES = {"": 1.0, "%": 0.01}

Kind = tuple[str, Mapping[str, float], str]
"""The field that a key stands for, the units of its number, and what to write."""

LINK_KEYS: dict[str, Kind] = {
    "up": ("up_bps", RATES, "bits per second, as in 3M"),
    "down": ("down_bps", RATES, "bits per second, as in 10M"),
    "rtt": ("rtt_s", TIMES, "a time, as in 40ms"),
    "jitter": ("jitter_s", TIMES, "a time, as in 5ms"),
    "loss": ("loss", SHARES, "a share, as in 0.01 or 1%"),
    "power": ("power_w", WATTS, "watts, as in 2.5"),
    "window": ("window_bytes", AMOUNTS, "bytes, as in 14kB"),
}
DEVICE_KEYS: dict[str, Kind] = {
    "macs": ("macs_per_s", SIZES, "multiply-accumulates per second, as in 2G"),
    "memory": ("memory_bytes", AMOUNTS, "bytes, as in 512MB"),
    "power": ("power_w", WATTS, "watts, as in 3"),
    "overhead": ("overhead_s", TIMES, "a time, as in 100us"),
}

Named = TypeVar("Named", Link, Device)


def link_from(text: str) -> Link:
    """The link that ``text`` names, describes or has in a file.

    Numbers alone need ``up`` and ``rtt``; ``down`` is as fast as ``up`` unless it is given. Raises
    `SpecError` naming the key or the file.

    >>> link = link_from("up=3M,rtt=40ms")
    >>> link.up_bps, link.down_bps, link.rtt_s, link_from("wifi,up=3M").down_bps
    (3000000.0, 3000000.0, 0.04, 40000000.0)
    >>> link_from("up=3M,rtt=40miles")
    Traceback (most recent call last):
        ...
    presplit.core.errors.SpecError: link 'up=3M,rtt=40miles': rtt: expected a time, as in 40ms, \
got '40miles'
    """
    return _from(text, LINKS, LINK_KEYS, Link, _link_of)


def device_from(text: str) -> Device:
    """The device that ``text`` names, describes or has in a file.

    Numbers alone need ``macs`` and ``memory``. Raises `SpecError` naming the key or the file.

    >>> device = device_from("macs=2G,memory=512MB,power=3,overhead=100us")
    >>> device.macs_per_s, device.memory_bytes, device.power_w, device.overhead_s
    (2000000000.0, 512000000.0, 3.0, 0.0001)
    """
    return _from(text, DEVICES, DEVICE_KEYS, Device, _device_of)


def costs_from(path: str | Path) -> Costs:
    """Measured costs from a file of ``presplit measure``; raises `SpecError` if it is none."""
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=Costs)
    except (OSError, msgspec.MsgspecError, SpecError) as error:
        raise SpecError(
            f"{path}: not a file of measured costs ({error}); presplit measure writes one"
        ) from error


def _link_of(name: str, given: Mapping[str, float]) -> Link:
    return Link(name, **{"down_bps": given["up_bps"], **given})  # type: ignore[arg-type]


def _device_of(name: str, given: Mapping[str, float]) -> Device:
    return Device(name, **{"power_w": 0.0, **given})  # type: ignore[arg-type]


NEEDED = {"link": ("up", "rtt"), "device": ("macs", "memory")}
"""Without these, numbers alone say too little."""


def _from(
    text: str,
    shelf: Shelf[Named],
    keys: Mapping[str, Kind],
    kind: type[Named],
    make: Callable[[str, Mapping[str, float]], Named],
) -> Named:
    """What ``text`` stands for: a name or a file, and changes, or numbers alone."""
    first, *others = text.split(",")
    changes = others if "=" not in first else [first, *others]
    found = None if "=" in first else _found(first, shelf, kind)
    try:
        given = dict(_change(change, keys) for change in changes)
        if found is None:
            missing = [key for key in NEEDED[shelf.kind] if keys[key][0] not in given]
            if missing:
                needed = " and ".join(NEEDED[shelf.kind])
                raise SpecError(f"expected at least {needed}, {missing[0]} is missing")
            return make(text, given)
        if not given:
            return found
        source = f"{found.name} with {', '.join(changes)}; {found.source}"
        new: Mapping[str, Any] = {**given, "name": text, "source": source}
        if isinstance(found, Link) and {"rtt_s", "jitter_s"} & set(given):
            new = {**new, "rtt_draws": None}  # round trips that were seen are of another link now
        return msgspec.structs.replace(found, **new)
    except SpecError as error:
        raise SpecError(f"{shelf.kind} {text!r}: {error}") from error


def _found(name: str, shelf: Shelf[Named], kind: type[Named]) -> Named:
    """The entry of the shelf called ``name``, or what is in the file of that name."""
    if name in shelf or not name.endswith(".json"):
        return shelf.find(name)
    cure = f"presplit measure --{shelf.kind} writes one" if kind is Link else "give numbers"
    try:
        raw = Path(name).read_bytes()
    except OSError as error:
        raise SpecError(f"{name}: cannot be read ({error.strerror})") from error
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, SpecError, UnicodeDecodeError) as error:
        if kind is Device and _is_costs(raw):
            cure = "these are measured costs: pass them as --edge-costs or --server-costs"
        raise SpecError(f"{name}: expected a {shelf.kind} ({error}); {cure}") from error


def _is_costs(raw: bytes) -> bool:
    """True for a file of costs, which is easily taken for one of a device."""
    try:
        msgspec.json.decode(raw, type=Costs)
    except (msgspec.MsgspecError, SpecError, UnicodeDecodeError):
        return False
    return True


def _change(text: str, keys: Mapping[str, Kind]) -> tuple[str, float]:
    """The field and the value of ``KEY=NUMBER``."""
    key, sign, value = text.strip().partition("=")
    if not sign:
        raise SpecError(f"expected KEY=NUMBER with one of {', '.join(keys)}, got {text!r}")
    if key not in keys:
        raise SpecError(f"no key {key!r}; there are: {', '.join(keys)}")
    field, units, what = keys[key]
    found = re.fullmatch(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([^0-9.\s]*)", value)
    try:
        # Twelve digits, so that 100 times 1e-6 is what people read: 0.0001.
        number = float(f"{float(found[1]) * units[found[2]]:.12g}") if found else None
    except (ValueError, KeyError):
        number = None
    if number is None:
        raise SpecError(f"{key}: expected {what}, got {value!r}")
    return field, number
