"""Which outputs of a file are probabilities: seen by running it.

Exits are scored by a softmax of their logits. Of probabilities that would be a second one, by which
no answer is sure; of their logarithms it gives them back. A Softmax at the end is left out as the
file is read; scikit-learn's files end in trees, a division, or a sigmoid beside its complement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from presplit import graph
from presplit.core.errors import GraphError
from presplit.packing.session import Session

SUMS = frozenset({"Gemm", "MatMul", "Add", "Conv", "Einsum", "BatchNormalization", "QGemm"})
"""What most nets end in; it gives no probabilities, and need not be run."""
TRIED = 8
"""Samples that are run."""
NEAR = 1e-3
"""How near to 1 the sum of each row must be."""


def probabilities(source: Any, outputs: Sequence[str] = ()) -> tuple[str, ...]:
    """The outputs that are probabilities: no number below 0, and rows that sum to 1.

    ``source`` and ``outputs`` are those of `presplit.packing.pack`. Raises `GraphError` if there is
    no model.
    """
    model = graph.load(source, outputs=outputs)
    made = {name: node.op_type for node in model.graph.node for name in node.output}
    names = [value.name for value in model.graph.output]
    suspects = [name for name in names if made.get(name, "Gemm") not in SUMS]
    x = _noise(model) if suspects else None
    if x is None:
        return ()
    try:
        found = Session(model.SerializeToString(), optimised=False).run({_input(model).name: x})
    except GraphError:
        return ()  # what it lacks is said when its pieces are compared with it
    return tuple(name for name in suspects if _are_shares(found[name]))


def _input(model: Any) -> Any:
    constants = {tensor.name for tensor in model.graph.initializer}
    return next(value for value in model.graph.input if value.name not in constants)


def _noise(model: Any) -> Any:
    """Samples of the input's shape, evenly spread over 0..1; None where it is not told."""
    sizes = [axis.dim_value for axis in _input(model).type.tensor_type.shape.dim]
    if len(sizes) < 2 or not all(sizes[1:]):
        return None
    shape = (sizes[0] or TRIED, *sizes[1:])
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def _are_shares(rows: Any) -> bool:
    if rows.ndim != 2 or rows.dtype.kind != "f" or rows.shape[1] < 2:
        return False
    return bool((rows >= 0).all() and (np.abs(rows.sum(1) - 1) < NEAR).all())
