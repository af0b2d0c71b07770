"""From a module to one ONNX graph with all its exits; the one door of torch's exporter."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from onnxscript.optimizer import optimize as optimise
from torch import Tensor, nn

from presplit.core.errors import GraphError
from presplit.core.types import Floats
from presplit.graph.height import as_images
from presplit.packing.agree import TOLERANCE, relative_difference
from presplit.packing.session import Session
from presplit.train.nets.calling import (
    AnswersAtExits,
    Logits,
    evaluating,
    exit_logits,
    in_mode,
    kind_of,
    said_by,
    unwrapped,
)

FOLDED = 64
"""Constants of up to so many values are computed on export, such as shapes.

A layer's index stays as small as it is.
"""


def to_onnx(model: nn.Module, example: Floats | Tensor, *, open_axes: Sequence[int] = ()) -> Any:
    """``model`` as an `onnx.ModelProto` with a dynamic batch, one output per exit.

    Its input is called ``input``.

    ``open_axes`` are axes of the input that stay dynamic as well, such as ``(2, 3)`` for images of
    any size; the graph is then compared with torch at another size too. `export` fixes them,
    because plans count what each boundary holds. Raises `GraphError` if torch cannot export the
    net, or the net or its graph takes only one size of these axes.
    """
    if not len(example):
        raise GraphError("an export needs at least one sample to run through the net, got none")
    one = example[:1] if isinstance(example, Tensor) else torch.from_numpy(example[:1].copy())
    _refuse_axes(open_axes, one.ndim)
    model = unwrapped(model)
    with in_mode(model, training=False):  # with gradients: without, attention takes another way
        count = len(exit_logits(model, one))
        asked = model if isinstance(model, AnswersAtExits) else Logits(model).eval()
        try:
            program = _exported(asked, one, open_axes, count)
        except Exception as error:  # the exporter runs the user's code, which may raise anything
            raise GraphError(f"torch cannot export {kind_of(model)}: {_reason(error)}") from error
    exported = as_images(program.model_proto)
    if open_axes:
        _check_another_size(model, exported, one, open_axes)
    return exported


def _exported(
    model: nn.Module, one: Tensor, open_axes: Sequence[int], count: int
) -> torch.onnx.ONNXProgram:
    """``model`` as torch exports it, with ``count`` outputs; small constants are computed."""
    axes = {0: torch.export.Dim("batch")}
    axes |= {axis: torch.export.Dim.DYNAMIC for axis in open_axes}
    with _quiet():
        program = torch.onnx.export(
            model,
            (torch.cat([one, one]),),
            dynamo=True,
            dynamic_shapes=(axes,),
            input_names=["input"],
            output_names=[f"logits_{number}" for number in range(count)],
            verbose=False,
            optimize=False,
        )
        assert program is not None
        optimise(program.model, input_size_limit=FOLDED, output_size_limit=FOLDED)
    return program


def _refuse_axes(axes: Sequence[int], ndim: int) -> None:
    """Raise `GraphError` unless ``axes`` are different axes of a sample; the batch is axis 0."""
    legal = range(1, ndim)
    if (
        not isinstance(axes, Sequence)
        or len(set(axes)) < len(axes)
        or not all(axis in legal for axis in axes)
    ):
        raise GraphError(
            f"open_axes: expected different numbers of 1..{ndim - 1}, the batch being axis 0, got "
            f"{axes!r}"
        )


def _reason(error: BaseException) -> str:
    """What went wrong at the root, in at most 300 characters without colours."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    said = re.sub(r"\x1b\[\d*m", "", said_by(error))
    if "data-dependent" in said:
        how = "an if or a loop over a tensor, .item(), a mask of so many as it happens"
        return (
            f"its forward needs values while the graph is made ({how}); "
            f"torch.where often replaces it ({said})"
        )
    return said


def _check_another_size(model: nn.Module, exported: Any, one: Tensor, axes: Sequence[int]) -> None:
    """Raise `GraphError` if torch or the graph fails, or they differ, on a longer sample.

    It is longer by half along ``axes``.
    """
    sizes = [size + size // 2 + 1 if axis in axes else size for axis, size in enumerate(one.shape)]
    x = torch.rand(sizes, generator=torch.Generator().manual_seed(0))
    kind, said = kind_of(model), f"{tuple(one.shape[1:])} and not at {tuple(sizes[1:])}"
    try:
        with evaluating(model):
            own = exit_logits(model, x)
    except GraphError as error:
        raise GraphError(
            f"{kind} works at {said}: leave axes {tuple(axes)} closed ({_reason(error)})"
        ) from error
    found: list[Floats] = []
    with contextlib.suppress(GraphError):  # it does not take the other size
        session = Session(exported.SerializeToString(), optimised=False)
        found = list(session.run({"input": x.numpy()}).values())
    pairs = [(theirs, ours.numpy()) for theirs, ours in zip(found, own, strict=False)]
    if not pairs or not all(relative_difference(*pair) <= TOLERANCE for pair in pairs):
        raise GraphError(
            f"the graph of {kind} is right at {said}: it holds a size that the export fixed; leave "
            "axes "
            f"{tuple(axes)} closed"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what the exporter prints and warns of.

    These are libraries that are not installed, and graphs it gave up.
    """
    logs = [logging.getLogger(name) for name in ("torch", "torch.onnx", "onnxscript")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
