"""What thresholds are planned from: how every exit did on held-out samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from presplit.core.protocols import ExitPolicy
from presplit.core.types import Floats

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Evidence:
    """How every exit did: float32 ``scores`` and bool ``hits``, both ``(exits, samples)``."""

    policy: str
    scores: Floats
    hits: Bools


def judge(
    policy: str, score: ExitPolicy, logits: Sequence[Floats], labels: npt.NDArray[np.int64]
) -> Evidence:
    """The evidence in ``logits``, float32 ``(samples, classes)`` for each exit as they run.

    ``score`` is the rule that ``policy`` names.

    >>> logits = [np.array([[3, 1]], np.float32)]
    >>> judge("first", lambda logits: logits[:, 0], logits, np.array([0])).hits.tolist()
    [[True]]
    """
    scores = np.stack([score(of_exit) for of_exit in logits])
    return Evidence(policy, scores, np.stack([each.argmax(-1) == labels for each in logits]))
