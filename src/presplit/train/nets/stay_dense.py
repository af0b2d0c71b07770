"""Layers that never become sparse, and why."""

from __future__ import annotations

from torch import nn

SPARSE_KINDS = "Linear, Conv1d and Conv2d"
"""What can become sparse, in words."""
_ONLY = f"stay dense: only {SPARSE_KINDS} become sparse"
_KINDS: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.RNNBase, "recurrent layers stay dense: one operator runs all steps, with whole weights"),
    (nn.RNNCellBase, "recurrent layers stay dense: one operator runs a step, with whole weights"),
    (nn.MultiheadAttention, "its packed projections stay dense: they are read as one whole weight"),
    (nn.Bilinear, f"products of two inputs {_ONLY}"),
    (nn.Conv3d, f"3-D convolutions {_ONLY}"),
    (nn.ConvTranspose1d, f"transposed convolutions {_ONLY}"),
    (nn.ConvTranspose2d, f"transposed convolutions {_ONLY}"),
    (nn.ConvTranspose3d, f"transposed convolutions {_ONLY}"),
)


def stays_dense(layer: nn.Module) -> str:
    """Why a layer that multiplies by weights can never be sparse; nothing for all others.

    >>> stays_dense(nn.GRU(4, 4))
    'GRU: recurrent layers stay dense: one operator runs all steps, with whole weights'
    """
    why = next((why for kind, why in _KINDS if isinstance(layer, kind)), "")
    return f"{type(layer).__name__}: {why}" if why else ""
