"""Names of a net's parts as short as they can be while they still tell the parts apart."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

ENDING = re.compile(r"_output_\d+$")
"""What torch's exporter adds to the name of whatever it computes."""
PIECE = re.compile(r"[^./]+")
FEW = 3
"""Of fewer names that are made of pieces, none is cut: what they share may say what they are."""


def short_names(names: Sequence[str]) -> list[str]:
    """``names`` without what all that are made of pieces begin and end with, in their order.

    Pieces stand between dots and slashes. A piece that the next one repeats goes too. Where two
    would be alike, all stay as they are.

    >>> short_names(["/stem/stem.2/Clip_output_0", "/s1/s1.0/Add_output_0", "/s2/Add_output_0"])
    ['stem.2/Clip', 's1.0/Add', 's2/Add']
    >>> short_names(["net.features.0.relu", "net.features.1.relu", "net.features.2.relu", "logits"])
    ['0', '1', '2', 'logits']
    >>> short_names(["a.relu", "b.relu", "logits"])
    ['a.relu', 'b.relu', 'logits']
    """
    found = [_without_repeats(ENDING.sub("", name).lstrip("/")) for name in names]
    long = [PIECE.findall(name) for name in found if len(PIECE.findall(name)) > 1]
    if len(long) >= FEW:
        before = len(os.path.commonprefix([pieces[:-1] for pieces in long]))
        behind = len(os.path.commonprefix([pieces[:before:-1] for pieces in long]))
        found = [_cut(name, before, behind) for name in found]
    alike = len(set(found)) < len(set(names)) or not all(found)
    return list(names) if alike else found


def _without_repeats(name: str) -> str:
    """The name without each piece, up to a slash, that the next one begins with, up to a dot."""
    pieces = name.split("/")
    follows = [*pieces[1:], ""]
    kept = [one for one, then in zip(pieces, follows, strict=True) if not _repeats(one, then)]
    return "/".join(kept)


def _repeats(piece: str, then: str) -> bool:
    return then == piece or then.startswith(f"{piece}.")


def _cut(name: str, before: int, behind: int) -> str:
    """The name without its first and last pieces, unless it is a single one."""
    found = list(PIECE.finditer(name))
    if len(found) < 2:
        return name
    return name[found[before].start() : found[len(found) - behind - 1].end()]
