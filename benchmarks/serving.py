"""How fast edge and server are beside bare gRPC and beside other servers doing the same.

Every part is a function of a file of its own, and ``--parts`` picks some. All compare with peers in
the same run, in turns, and first check that all give the same bytes.
"""

from __future__ import annotations

from typing import Any

from benchmarks import _serving_edge, _serving_load, _serving_wire
from benchmarks._serving import Asked, Part
from presplit.core.errors import SpecError

PARTS: dict[str, Part] = {
    **_serving_wire.PARTS,
    **_serving_edge.PARTS,
    **_serving_load.PARTS,
}
"""The parts by name, in the order in which they run."""


def run(quick: bool, *, parts: tuple[str, ...] = (), peers_python: str = "") -> dict[str, Any]:
    """The rows and checks of the ``parts``, all if empty.

    ``peers_python`` is an interpreter that has Ray Serve, FastAPI, LitServe and BentoML; a peer
    that is missing there is a row that says so and, unless this is ``quick``, a check that fails.
    Raises `SpecError` for a part that does not exist.
    """
    for name in parts:
        if name not in PARTS:
            raise SpecError(f"parts: there is no part {name!r}; there are: {', '.join(PARTS)}")
    rows: list[dict[str, Any]] = []
    checks: list[dict[str, Any]] = []
    for name, part in PARTS.items():
        if parts and name not in parts:
            continue
        found = part(Asked(quick, peers_python))
        rows += found.rows
        checks += found.checks
    return {"rows": rows, "checks": checks}
