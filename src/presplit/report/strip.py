"""The net as a row of segments between boundaries: what each costs, what would travel, who answers.

One picture for a run, a bundle and the demo. It is a list, so that it reads aloud in order, and
stands upright on a phone (``.strip`` of ``pages/look.css``).
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping, Sequence

from presplit.core import units
from presplit.core.types import Net
from presplit.report.markup import Html, element, joined
from presplit.report.scales import share

MOST = 12
"""Segments that are all shown at once; of more, those between exits and cuts stand together."""
ENDS = re.compile(r"(?<=[_./])")
"""Where a name may be broken, and where what all names begin or end with may be cut off."""

Cost = tuple[int, int]
"""Multiply-accumulates of one sample, weights."""


def strip(
    net: Net,
    segments: Sequence[Cost],
    *,
    shares: Mapping[str, float] | None = None,
    split: int | None = None,
    payload: str = "",
) -> Html:
    """The row of ``net``, whose ``segments`` cost so much.

    ``shares``: the part of all answers that each exit gives. ``split``: the boundary at which the
    net is cut; what is before it is the edge's, what is after it the server's. ``payload`` says how
    the cut travels, and in how many bytes.
    """
    every = range(net.last + 1)
    shown = _row(net, segments, every, shares or {}, split, payload)
    if net.last > MOST:
        kept = sorted({0, net.last, *(exit_.after for exit_ in net.exits), split or 0})
        whole = element("summary", f"All {net.last} segments")
        short = _row(net, segments, kept, shares or {}, split, payload)
        shown = joined(short, element("details", whole, shown))
    return joined(shown, _key(split, net.last))


def shortened(names: Sequence[str]) -> list[str]:
    """The names without the parts that all begin with and all end with.

    >>> shortened(["backbone.block_1.relu", "backbone.block_2.relu"])
    ['block_1', 'block_2']
    >>> shortened(["conv1", "conv2"]), shortened(["alone.relu"])
    (['conv1', 'conv2'], ['alone.relu'])
    """
    if len(set(names)) < 2:
        return list(names)
    start = os.path.commonprefix(list(names))
    start = start[: max((start.rfind(each) for each in "./"), default=-1) + 1]
    rests = [name.removeprefix(start) for name in names]
    end = os.path.commonprefix([rest[::-1] for rest in rests])[::-1]
    ends = [place for place in (end.find(each) for each in "./") if place >= 0]
    end = end[min(ends) :] if ends else ""
    short = [rest.removesuffix(end) for rest in rests]
    return short if all(short) else list(names)


def _row(
    net: Net,
    segments: Sequence[Cost],
    kept: Sequence[int],
    shares: Mapping[str, float],
    split: int | None,
    payload: str,
) -> Html:
    """The boundaries ``kept``, and between two of them what lies there as one box."""
    names = shortened([boundary.name for boundary in net.boundaries[1:]])
    stretches = list(itertools.pairwise(kept))
    costs = [
        (sum(macs for macs, _ in segments[a:b]), sum(weights for _, weights in segments[a:b]))
        for a, b in stretches
    ]
    most = max((macs for macs, _ in costs), default=0) or 1
    items = [_boundary(net, kept[0], shares, split, payload)]
    for (start, stop), cost in zip(stretches, costs, strict=True):
        name = names[stop - 1]
        many = ""
        if stop - start > 1:
            name = f"{names[start]} to {name}"
            many = units.counted(stop - start, "segment")
        items.append(_segment(name, many, cost, most, _side(start, split)))
        items.append(_boundary(net, stop, shares, split, payload))
    return element("ol", *items, class_="strip")


def _boundary(
    net: Net, number: int, shares: Mapping[str, float], split: int | None, payload: str
) -> Html:
    boundary = net.boundaries[number]
    shape = "×".join(map(str, boundary.shape))
    words = [
        element("b", "input" if number == 0 else str(number)),
        element("small", shape),
        element("small", units.data(boundary.nbytes)),
    ]
    if number == split:
        words.append(element("span", payload or "cut here", class_="tag"))
    for exit_ in net.exits:
        if exit_.after == number:
            answers = f": {share(round(shares[exit_.name], 3))}" if exit_.name in shares else ""
            name = _breakable(exit_.name)
            words.append(element("span", "exit ", name, answers, class_="exit"))
    look = "boundary cut" if number == split else "boundary"
    return element("li", *words, class_=look)


def _segment(name: str, many: str, cost: Cost, most: int, side: str) -> Html:
    macs, weights = cost
    return element(
        "li",
        element("b", _breakable(name)),
        element("small", many) if many else Html(""),
        element("small", f"{units.count(macs)} MACs"),
        element("small", f"{units.count(weights)} weights"),
        class_=f"segment {side}".strip(),
        style=f"--load:{macs / most:.3f}",
    )


def _breakable(name: str) -> Html:
    """A name that may go on in the next line behind each of its dots and the like."""
    first, *rest = ENDS.split(name)
    return joined(first, *(joined(element("wbr"), part) for part in rest))


def _side(number: int, split: int | None) -> str:
    if split is None:
        return ""
    return "edge" if number < split else "server"


def _key(split: int | None, last: int) -> Html:
    if split is None:
        return Html("")
    sides = [("on the device", "var(--edge)")] if split > 0 else []
    sides += [("on the server", "var(--server)")] if split < last else []
    return element(
        "ul", *(element("li", words, style=f"--hue:{hue}") for words, hue in sides), class_="key"
    )
