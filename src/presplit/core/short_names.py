"""Names of a net's parts as short as they can be while they still tell the parts apart."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence

ENDING = re.compile(r"_output_\d+$")
"""What torch's exporter adds to the name of whatever it computes."""
PIECE = re.compile(r"[^._/]+")
FEW = 3
"""Of fewer alike names none is cut: what they share may say what they are."""
LONG = 32
"""A name that is longer loses its middle."""


def short_names(names: Sequence[str]) -> list[str]:
    """``names`` without what most begin and end with, in their order.

    They are made of pieces between dots, slashes and underscores. A piece that the next one repeats
    goes too. Where two would be alike, all stay as they are.

    >>> short_names(["/stem/stem.2/Clip_output_0", "/s1/s1.0/Add_output_0", "/s2/Add_output_0"])
    ['stem.2/Clip', 's1.0/Add', 's2/Add']
    >>> short_names(["net.features.0.relu", "net.features.1.relu", "net.features.2.relu", "logits"])
    ['features.0', 'features.1', 'features.2', 'logits']
    >>> short_names(["a.relu", "b.relu", "logits"])
    ['a.relu', 'b.relu', 'logits']
    """
    plain = [_without_repeats(ENDING.sub("", name).lstrip("/")) for name in names]
    first = Counter(_pieces(name)[0] for name in plain if len(_pieces(name)) > 1)
    found = plain
    for word, often in first.items():
        if often >= max(FEW, len(names) / 2):
            found = _without_shared(plain, word)
    found = [_without_middle(name) for name in found]
    alike = len(set(found)) < len(set(names)) or not all(found)
    return list(names) if alike else found


def _pieces(name: str) -> list[str]:
    return PIECE.findall(name) or [""]


def _without_shared(names: list[str], word: str) -> list[str]:
    """The names; those of several pieces that begin with ``word`` lose what they share."""
    alike = [_pieces(name) for name in names if _pieces(name)[0] == word and name != word]
    before = len(os.path.commonprefix([pieces[:-1] for pieces in alike]))
    behind = len(os.path.commonprefix([pieces[:before:-1] for pieces in alike]))
    if before and any(pieces[before].isdigit() for pieces in alike):
        before -= 1  # a number alone says little
    return [_cut(name, before, behind) if _pieces(name) in alike else name for name in names]


def _without_middle(name: str) -> str:
    return name if len(name) <= LONG else f"{name[: LONG // 2 - 1]}…{name[-LONG // 2 :]}"


def _without_repeats(name: str) -> str:
    """The name without each piece, up to a slash, that the next one begins with, up to a dot."""
    pieces = name.split("/")
    follows = [*pieces[1:], ""]
    kept = [one for one, then in zip(pieces, follows, strict=True) if not _repeats(one, then)]
    return "/".join(kept)


def _repeats(piece: str, then: str) -> bool:
    return then == piece or then.startswith(f"{piece}.")


def _cut(name: str, before: int, behind: int) -> str:
    """The name without its first and last pieces."""
    found = list(PIECE.finditer(name))
    return name[found[before].start() : found[len(found) - behind - 1].end()]
