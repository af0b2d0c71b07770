"""What the tensors of a bundle's models are called; all others learn it from `Runnable`."""

from __future__ import annotations

INPUT = "boundary"
"""The one input of every model: the boundary at which it starts."""


def boundary_name(number: int, last: int) -> str:
    """The tensor that holds boundary ``number`` of a net whose logits are boundary ``last``.

    >>> boundary_name(3, 9), boundary_name(9, 9)
    ('boundary_03', 'logits')
    """
    return "logits" if number == last else f"boundary_{number:02d}"


def logits_name(exit_name: str) -> str:
    """The tensor that holds the logits of an early exit.

    >>> logits_name("block1")
    'logits.block1'
    """
    return f"logits.{exit_name}"
