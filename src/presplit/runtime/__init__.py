"""Running a bundle: the edge, the tail server behind it, and measuring. Nothing needs torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from presplit.runtime.local import Answers, Local
from presplit.runtime.measuring.measure import measure, seconds_of

if TYPE_CHECKING:
    from presplit.runtime.edge import Edge
    from presplit.runtime.serving.server import serve

__all__ = ["Answers", "Edge", "Local", "measure", "seconds_of", "serve"]


def __getattr__(name: str) -> Any:
    """`Edge` and `serve` bring grpc and are imported when they are asked for."""
    if name == "Edge":
        from presplit.runtime.edge import Edge

        return Edge
    if name == "serve":
        from presplit.runtime.serving.server import serve

        return serve
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
