"""One sample through a regular sparse layer in one compiled call, where the optional extension was built.

A single sample reads each weight once, and the torch calls around the product, whose own code is cold too, cost more
than the product. ``_row.c`` has the product. It is for the plain case: float32 on the CPU, no gradient to come, and
nothing that looks on or takes torch's place. All else is torch's, and so is this where the extension was not built or
torch is too old to have the table by which other libraries may make and read its tensors.
"""

from __future__ import annotations

from torch import Tensor, get_num_threads, is_grad_enabled, nn
from torch.autograd import forward_ad
from torch.compiler import is_dynamo_compiling
from torch.nn import Parameter

try:  # names that torch keeps to itself may go: then there is no kernel
    from torch._C import (
        _get_tracing_state,
        _is_any_autocast_enabled,
        _is_torch_function_mode_enabled,
        _len_torch_dispatch_stack,
    )

    from presplit.train import _row

    _EXCHANGE = Tensor.__dlpack_c_exchange_api__
    if not hasattr(forward_ad, "_current_level"):
        _row = None
except (ImportError, AttributeError):
    _row = _EXCHANGE = None

SHARED = 2**20
"""Of more values than this, torch's threads, where there are several, read together faster than one alone."""


def row_product(x: Tensor, layer: nn.Module, n_in: int) -> Tensor | None:
    """What ``layer`` makes of one float32 sample ``(..., n_in)``: ``(..., n_out)``; None if that is left to torch.

    The result's storage cannot grow: `Tensor.resize_` to more values raises. Raises `IndexError` if the layer's index
    leads out of the sample.
    """
    if _row is None or is_dynamo_compiling() or type(x) is not Tensor or x.numel() != n_in:
        return None
    parameters, buffers = layer._parameters, layer._buffers  # a module's attributes, without the search for them
    try:
        values, bias, index, order = parameters["values"], parameters["bias"], buffers["index"], buffers["out_order"]
    except KeyError:  # pruned, say: computed anew where it is asked for
        return None
    if type(values) is not Parameter or type(index) is not Tensor or (bias is not None and type(bias) is not Parameter):
        return None
    if (
        (is_grad_enabled() and (x.requires_grad or values.requires_grad or (bias is not None and bias.requires_grad)))
        or _is_any_autocast_enabled()
        or _is_torch_function_mode_enabled()
        or _len_torch_dispatch_stack()
        or _get_tracing_state() is not None
        or forward_ad._current_level >= 0
    ):
        return None
    if values.numel() > SHARED and layer.form == "batched" and get_num_threads() > 1:
        return None
    return _row.product(_EXCHANGE, x, n_in, values, index, bias, order)
