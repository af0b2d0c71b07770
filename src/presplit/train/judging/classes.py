"""What a net is worth for each class, and which classes it takes for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.core.shares import interval
from presplit.core.types import Floats

Labels = npt.NDArray[np.int64]


def confusion(answers: Labels, labels: Labels, *, classes: int, outputs: int) -> list[list[int]]:
    """Rows of counts: how many samples of each class got each answer.

    ``answers`` and ``labels``: ``(n,)``. One row for each of ``classes``, one column for each of
    the net's ``outputs``, which may be more.

    >>> confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), classes=2, outputs=2)
    [[1, 1], [0, 1]]
    """
    places = labels * outputs + answers
    return np.bincount(places, minlength=classes * outputs).reshape(classes, outputs).tolist()


def per_class(
    logits: Floats, labels: Labels, *, names: Sequence[str], exit_names: Sequence[str]
) -> list[dict[str, Any]]:
    """A row for each class, in the order of ``names``.

    ``logits``: ``(exits, n, outputs)`` of the samples whose classes are ``labels``. ``test``: how
    many of the samples are of the class. Of each exit ``accuracy``: the share of these that are
    answered right, ``interval``: where that is with 95 % (Wilson), and ``precision``: the share of
    the answers that name the class and are right. A share of nothing is None.

    >>> logits = np.array([[[1, 0], [0, 1], [0, 1]]], np.float32)
    >>> rows = per_class(logits, np.array([0, 0, 1]), names=["cat", "dog"], exit_names=["final"])
    >>> rows[1]["name"], rows[1]["test"], rows[1]["accuracy"], rows[1]["precision"]
    ('dog', 1, {'final': 1.0}, {'final': 0.5})
    """
    counts = np.bincount(labels, minlength=len(names)).tolist()
    rows: list[dict[str, Any]] = [
        {"name": name, "test": count, "accuracy": {}, "interval": {}, "precision": {}}
        for name, count in zip(names, counts, strict=True)
    ]
    for exit_name, own in zip(exit_names, logits, strict=True):
        answers = own.argmax(-1)
        named = np.bincount(answers, minlength=len(names)).tolist()
        right = np.bincount(labels[answers == labels], minlength=len(names)).tolist()
        for place, row in enumerate(rows):
            share = _share(right[place], counts[place])
            row["accuracy"][exit_name] = share
            row["interval"][exit_name] = list(interval(share or 0.0, counts[place]))
            row["precision"][exit_name] = _share(right[place], named[place])
    return rows


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
