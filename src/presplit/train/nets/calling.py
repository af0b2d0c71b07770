"""The one door by which a net that a user brings is called.

Its code may raise anything; here that becomes one `GraphError` with the cause kept. What only wraps
a net (`torch.compile`, `DataParallel`, `DistributedDataParallel`, `AveragedModel`) is taken off.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from presplit.core.errors import GraphError, PresplitError

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
"""Modules that hold a net as ``module`` and compute nothing of their own."""
LONGEST = 300
"""Characters that are told of what a net's code says."""


class AnswersAtExits(nn.Module):
    """A net that gives a tuple of logits, one for each exit, its own last.

    `presplit.train.MultiExit` is the one there is.
    """

    model: nn.Module

    @property
    def exit_names(self) -> tuple[str, ...]:
        """Names of the exits in the order of their logits, the net's own last."""
        raise NotImplementedError


class Logits(nn.Module):
    """``model``, giving its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """``x``: what the model takes."""
        return own_logits(self.model, self.model(x))


def answer(model: nn.Module, x: Tensor, *, data: str = "") -> object:
    """What ``model`` returns for ``x``.

    ``x``: ``(batch, ...)``, on the net's device. ``data``: what the samples are called in an error.
    Raises `GraphError` if the net's code raises, whatever that is.
    """
    try:
        return model(x)
    except PresplitError:
        raise
    except Exception as error:  # the user's code may raise anything
        dtype, shape = str(x.dtype).removeprefix("torch."), tuple(x.shape[1:])
        sample = f"{dtype} sample of shape {shape}"
        if data:
            sample = f"sample of {data}, {dtype} {shape}"
        raise GraphError(
            f"{kind_of(model)} does not take a {sample}: {said_by(error)}{_cure(model, x)}"
        ) from error


def exit_logits(model: nn.Module, x: Tensor, *, data: str = "") -> tuple[Tensor, ...]:
    """The logits of every exit, float ``(batch, classes)`` each; a plain classifier has one.

    Of a net that gives auxiliary logits while it is trained (GoogLeNet, arXiv 1409.4842) these are
    its own: ``.logits``, the key ``"logits"``, or the first of a tuple. Raises `GraphError` as
    `answer`, and if what the net returns is not logits.
    """
    output = answer(model, x, data=data)
    if isinstance(unwrapped(model), AnswersAtExits) and isinstance(output, tuple):
        return output
    return (own_logits(model, output),)


def own_logits(model: nn.Module, output: object) -> Tensor:
    """The net's own logits in the ``output`` of ``model``.

    A tuple without names holds them first, and only while the net is trained: in evaluation it
    would be refused, since what its parts mean is not known.
    """
    if not isinstance(output, tuple | list) or hasattr(output, "logits") or not output:
        return logits_of(output)
    parts: Sequence[object] = output
    if not unwrapped(model).training:
        raise GraphError(
            f"a classifier returns logits, {kind_of(model)} returns {len(parts)} things"
        )
    return logits_of(parts[0])


def logits_of(output: object) -> Tensor:
    """The logits in what a classifier returns.

    It returns a tensor, an object that has them as ``logits`` (transformers), or a mapping with the
    key ``"logits"``.
    """
    logits = output
    if isinstance(output, Mapping):
        logits = output.get("logits")
    elif not isinstance(output, Tensor):
        logits = getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        raise GraphError(
            "a classifier returns logits, or an object that has them as .logits, got "
            f"{type(output).__name__}"
        )
    if not logits.is_floating_point():
        dtype = str(logits.dtype).removeprefix("torch.")
        raise GraphError(
            f"a classifier returns logits of floats, got {dtype}: return what argmax or abs is "
            "taken of"
        )
    return logits


def check_logits(model: nn.Module, x: Tensor, *, data: str = "") -> tuple[Tensor, ...]:
    """`exit_logits` in evaluation mode, without gradients.

    Raises `GraphError` unless each is ``(batch, classes)``, of one number of classes, 2 at least.
    """
    with evaluating(model):
        found = exit_logits(model, x, data=data)
    kind, shape = kind_of(model), tuple(found[-1].shape)
    if len(shape) == 1 or shape[1:] == (1,):
        raise GraphError(
            f"{kind} gives one number for each sample; a classifier gives one for each class: end "
            "it with two logits (nn.Linear(.., 2)) in place of one, without a sigmoid"
        )
    if len(shape) != 2 or shape[0] != len(x):
        raise GraphError(
            f"a classifier gives logits of shape (batch, classes), {kind} gives {shape} for "
            f"{len(x)} samples"
        )
    for each in found[:-1]:
        if each.shape != found[-1].shape:
            raise GraphError(
                f"an exit of {kind} gives logits of shape {tuple(each.shape)}, its own are {shape}"
            )
    return found


def device_of(model: nn.Module) -> torch.device:
    """Where the net's values are."""
    return next((value.device for value in model.parameters()), torch.device("cpu"))


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """``model`` in evaluation mode without gradients.

    Afterwards every part is in the mode that it was in.
    """
    with in_mode(model, training=False), torch.no_grad():
        yield


@contextlib.contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """``model`` in one mode, and every part in its own again afterwards."""
    modes = [(part, part.training) for part in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for part, before in modes:
            part.training = before


def unwrapped(model: object) -> nn.Module:
    """The net that the user wrote, without what only wraps it.

    Raises `GraphError` if ``model`` is no module.

    >>> net = nn.Linear(2, 2)
    >>> unwrapped(nn.DataParallel(net)) is net
    True
    """
    while True:
        if not isinstance(model, nn.Module):
            raise GraphError(f"a torch.nn.Module is expected, got {type(model).__name__}")
        if isinstance(model, WRAPPERS):
            model = model.module
        elif "_orig_mod" in model._modules:  # torch.compile
            model = model._modules["_orig_mod"]
        else:
            return model


def kind_of(model: nn.Module) -> str:
    """What the user called the net's class."""
    model = unwrapped(model)
    if isinstance(model, AnswersAtExits | Logits) and isinstance(model.model, nn.Module):
        return kind_of(model.model)
    return str(getattr(model, "original_name", type(model).__name__))


def said_by(error: BaseException) -> str:
    """What ``error`` says, in one line of at most `LONGEST` characters."""
    text = " ".join(str(error).split())[:LONGEST]
    kind = type(error).__name__
    if not text:
        return kind
    if isinstance(error, LookupError):  # its text is the key alone
        return f"{kind}: {text}"
    return text


def other_dtypes(model: nn.Module) -> list[str]:
    """Names of the float types, other than float32, of the net's values."""
    found = {value.dtype for value in model.parameters() if value.is_floating_point()}
    return sorted(str(each).removeprefix("torch.") for each in found - {torch.float32})


def _cure(model: nn.Module, x: Tensor) -> str:
    """What to do about a net whose values are of another type than the samples."""
    others = other_dtypes(model)
    if x.dtype != torch.float32 or not others:
        return ""
    return (
        f"; it has values of {' and '.join(others)}, and samples are float32: call .float() first"
    )
