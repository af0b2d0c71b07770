"""Copies of nets that users bring: as they are, to be changed, to be exported.

What cannot be copied or exported is refused here, in one sentence with the cause kept.
"""

from __future__ import annotations

import copy
import keyword

import torch
from torch import Tensor, nn
from torch.nn.utils import remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from presplit.core.errors import GraphError
from presplit.train.nets.calling import check_logits, kind_of, other_dtypes, said_by, unwrapped

QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")
"""Where torch keeps the modules that it has quantised."""


def twin(model: nn.Module, *, sharing: bool = False) -> nn.Module:
    """A copy of ``model`` as it is; raises `GraphError` if something in it cannot be copied.

    With ``sharing`` the copy holds the same float32 values on the CPU, so that they are in memory
    once: for what is neither trained nor moved.
    """
    memo: dict[int, object] = {}
    if sharing:
        memo = {id(each): each for each in model.parameters() if _can_be_shared(each)}
    for part in model.modules():
        for value in vars(part).values():
            # the old weight_norm keeps the weight that it computed, which torch does not copy
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:  # a user's module may hold anything
        raise GraphError(
            f"{kind_of(model)} cannot be copied, and Presplit works on a copy: {said_by(error)}; "
            "keep out of the module what copy.deepcopy refuses"
        ) from error


def _can_be_shared(value: Tensor) -> bool:
    """True for a value that moving a net to the CPU and to float32 leaves alone."""
    plain = value.dtype == torch.float32 and value.device.type == "cpu"
    return plain and not nn.parameter.is_lazy(value)


def bare_copy(model: object, *, sharing: bool = False) -> nn.Module:
    """A copy of the net without wrappers, around it or inside, to be changed or exported.

    ``sharing`` is as for `twin`. Raises `GraphError` if ``model`` is no module that can be changed,
    or cannot be copied.
    """
    copied = twin(changeable(model), sharing=sharing)
    for part in list(copied.modules()):
        for name, child in part._modules.items():
            if child is not None:
                part._modules[name] = unwrapped(child)
    return copied


def changeable(model: object) -> nn.Module:
    """The net that the user wrote, without what only wraps it.

    Raises `GraphError` if it can be neither changed nor trained nor exported: it is no module, or
    one of TorchScript, or quantised, or without values.
    """
    net = unwrapped(model)
    for name, part in net.named_modules():
        where = f"{kind_of(net)}: {name}" if name else kind_of(net)
        _refuse_name(where, name.rpartition(".")[2])
        if isinstance(part, torch.jit.ScriptModule):
            raise GraphError(
                f"{where} is a TorchScript module, which cannot be changed or exported: give the "
                "torch.nn.Module that it was made from"
            )
        if type(part).__module__.startswith(QUANTISED):
            raise GraphError(
                f"{where} is a quantised {type(part).__name__}, which cannot be trained or "
                "exported: give the float net that it was made from"
            )
        if any(value.is_meta for value in part.parameters(recurse=False)):
            raise GraphError(f"{where} has no values yet (device meta): load them first")
    return net


def _refuse_name(where: str, name: str) -> None:
    """Raise `GraphError` for a name that torch's exporter cannot write as code."""
    if keyword.iskeyword(name) or '"' in name or not f"{name}.".isprintable():
        raise GraphError(
            f"{where!r}: torch cannot export a submodule that is called {name!r}: name it otherwise"
        )


def exportable(model: object, example: Tensor) -> nn.Module:
    """A `bare_copy` on the CPU, in float32 and evaluation mode, every size known.

    ``example``: ``(batch, ...)``, at least one sample. Raises `GraphError` if the copy does not run
    it, or does not give logits.
    """
    if not len(example):
        raise GraphError("an export needs at least one sample to run through the net, got none")
    copied = bare_copy(model, sharing=True)
    others = other_dtypes(copied)
    copied = copied.cpu().float().eval()
    _bake_norms(copied)
    try:
        check_logits(copied, example.cpu().float())
    except GraphError as error:
        if not others or error.__cause__ is None:
            raise
        raise GraphError(
            f"{kind_of(copied)} computes in {' and '.join(others)} inside, and what is exported is "
            f"in float32: take the casts out of its forward ({said_by(error.__cause__)})"
        ) from error.__cause__
    return copied


def is_lazy(module: nn.Module) -> bool:
    """True if a value of ``module`` itself has no size yet."""
    own = (*module._parameters.values(), *module._buffers.values())
    return any(nn.parameter.is_lazy(value) for value in own)


def _bake_norms(model: nn.Module) -> None:
    """Put the weight in place of the old `weight_norm` or `spectral_norm` that computes it."""
    for part in model.modules():
        for hook in list(part._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(part, hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(part, hook.name)
