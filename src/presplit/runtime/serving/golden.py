"""The proof that a bundle computes here what it computed where it was exported.

A bundle carries what its net says of one input that everybody can make again
(`presplit.bundle.golden`). A server is ready once it has said the same. Of a bundle that carries
none it is only known that it gives finite numbers, twice the same.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from presplit.bundle import Bundle
from presplit.bundle.golden import GOLDEN, golden_input
from presplit.core.errors import EngineError
from presplit.core.types import Floats
from presplit.runtime.engines import Load
from presplit.runtime.hosted import Early, Reply

TOLERANCE = 1e-3
"""What processors differ in, as a share of the largest logit: order of sums, fused products."""
COARSE = 0.1
"""The same where a net computes in whole numbers: one step of a code is much."""


Run = Callable[[str, Floats], Reply]
"""What a model, by its name, gives for values in float32."""


def prove(run: Run, bundle: Bundle, load: Load, *, split: int, form: str) -> None:
    """See that the tail from ``split`` in ``form``, by ``run``, says what it should.

    Raises `EngineError` if it does not, and whatever running it raises.
    """
    values = golden_input(bundle.net.boundaries[0].shape, whole=bundle.manifest.whole_input)[None]
    if split > 0:
        head = bundle.runnable(0, split, form=form)
        assert head.boundary is not None, "it ends at a boundary"
        values = load(head, 1).run({head.input: values})[head.boundary]
    name = bundle.manifest.model_name(split, "float32", form)
    said = _logits(run(name, values))
    known = golden_logits(bundle).get(form)
    wanted = _logits(run(name, values)) if known is None else known
    if not _close(said, wanted, TOLERANCE if form == "float32" else COARSE):
        raise EngineError(
            f"{bundle.path}: the tail from {split} in {form} says {_row(said)} of the golden "
            f"input, and {_row(wanted)} is expected: the engine of this machine does not compute "
            "that net; update onnxruntime, or export the bundle again"
        )


def golden_logits(bundle: Bundle) -> dict[str, Floats]:
    """What the net of ``bundle`` says of it by form, ``(1, classes)``; empty if that is not known.

    Raises `BundleError` if the file of them holds something else.
    """
    if GOLDEN not in bundle.manifest.files:
        return {}
    rows = bundle.array(GOLDEN, "float32", (len(bundle.forms), bundle.net.exits[-1].classes))
    return {form: row[None] for form, row in zip(bundle.forms, rows, strict=True)}


def _logits(reply: Reply) -> Floats:
    """The logits of ``reply``."""
    return reply.logits if isinstance(reply, Early) else reply


def _close(said: Floats, wanted: Floats, tolerance: float) -> bool:
    """Whether logits are finite and the same but for what processors differ in."""
    if said.shape != wanted.shape or not np.isfinite(said).all():
        return False
    largest = max(1.0, float(np.abs(wanted).max()))
    return float(np.abs(said - wanted).max()) <= tolerance * largest


def _row(logits: Floats) -> str:
    """The first logits, for a message."""
    return ", ".join(f"{value:.4g}" for value in logits[0, :4])
