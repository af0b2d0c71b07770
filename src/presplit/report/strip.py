"""The net as a row of segments between boundaries: what each costs, what would travel, who answers.

One picture for a run, a bundle and the demo. It is a list, so that it reads aloud in order, and
stands upright on a phone (``.strip`` of ``pages/look.css``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from presplit.core import units
from presplit.core.types import Net
from presplit.report.markup import Html, element, joined
from presplit.report.scales import share

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
    most = max((macs for macs, _ in segments), default=0) or 1
    items: list[Html] = []
    for number in range(net.last + 1):
        items.append(_boundary(net, number, shares or {}, split, payload))
        if number < net.last:
            name = net.boundaries[number + 1].name
            items.append(_segment(name, segments[number], most, _side(number, split)))
    return joined(element("ol", *items, class_="strip"), _key(split, net.last))


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
            words.append(element("span", f"exit {exit_.name}{answers}", class_="exit"))
    look = "boundary cut" if number == split else "boundary"
    return element("li", *words, class_=look)


def _segment(name: str, cost: Cost, most: int, side: str) -> Html:
    macs, weights = cost
    return element(
        "li",
        element("b", _breakable(name)),
        element("small", f"{units.count(macs)} MACs"),
        element("small", f"{units.count(weights)} weights"),
        class_=f"segment {side}".strip(),
        style=f"--load:{macs / most:.3f}",
    )


def _breakable(name: str) -> Html:
    """A name that may go on in the next line behind each of its dots."""
    first, *rest = name.split(".")
    return joined(first, *(joined(".", element("wbr"), part) for part in rest))


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
