"""Early exits: classifiers that hang on the outputs of named submodules.

The model itself stays as it is.

Source: BranchyNet (arXiv 1709.01686) and the survey arXiv 2103.04505. No control flow is built in:
every exit always computes, so that one graph can be exported and cut; whether an exit answers is
decided by who runs it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from presplit.core.errors import GraphError


def logits_of(output: object) -> Tensor:
    """The logits in what a classifier returns.

    It returns a tensor, or an object that has them as ``logits`` (transformers).
    """
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        raise GraphError(
            "a classifier returns logits, or an object that has them as .logits, got "
            f"{type(output).__name__}"
        )
    return logits


class Logits(nn.Module):
    """``model``, giving its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """``x``: what the model takes."""
        return logits_of(self.model(x))


class ExitClassifier(nn.Module):
    """Pool to at most ``pool`` x ``pool``, flatten, classify.

    Sizes are taken from the first input it sees.

    ``over_time``: a tap of three axes is ``(batch, channels, time)``, not ``(batch, tokens,
    features)``. Until it has seen an input its weights are lazy parameters: `MultiExit.materialise`
    runs one example through.
    """

    def __init__(self, classes: int, *, pool: int = 3, over_time: bool = False) -> None:
        super().__init__()
        self.pool, self.over_time = pool, over_time
        self.linear = nn.LazyLinear(classes)

    def forward(self, tap: Tensor) -> Tensor:
        """``tap``: float ``(batch, features)``, three axes or ``(batch, channels, height, width)``.

        Gives float ``(batch, classes)``.
        """
        if tap.ndim == 4:
            height, width = (_window(size, self.pool) for size in tap.shape[2:])
            if (height, width) != (1, 1):
                tap = nn.functional.avg_pool2d(tap, (height, width))
        elif tap.ndim == 3:
            tap = tap.mean(2 if self.over_time else 1)
        return self.linear(tap.flatten(1))


def _window(size: int, most: int) -> int:
    """The pooling window that makes ``size`` places at most ``most``.

    Of those that do, it cuts the least off the end.
    """
    fewest = next(window for window in range(1, size + 1) if size // window <= most)
    return size // (size // fewest)


class MultiExit(nn.Module):
    """``model`` with an exit after each submodule named in ``after``.

    Calling it gives the logits of all exits.

    The result is a tuple of float ``(batch, classes)``: the early exits in the given order, then
    the model's own.
    """

    def __init__(self, model: nn.Module, heads: dict[str, nn.Module]) -> None:
        super().__init__()
        self.model = model
        self.after = tuple(heads)
        self.heads = nn.ModuleList(heads.values())

    @property
    def exit_names(self) -> tuple[str, ...]:
        """Names of the exits: the submodules they hang on, then ``final``."""
        return (*self.after, "final")

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """``x``: what the model takes."""
        with taps(self.model, self.after) as seen:
            final = logits_of(self.model(x))
        for name in self.after:
            if name not in seen:
                raise GraphError(f"exit after {name!r}: this submodule was not called")
        return (
            *(head(seen[name]) for name, head in zip(self.after, self.heads, strict=True)),
            final,
        )

    def materialise(self, example: Tensor) -> None:
        """Run ``example`` (batch of at least 1) once, so that every head has its size."""
        training = self.training
        self.eval()
        with torch.no_grad():
            self(example)
        self.train(training)


@contextlib.contextmanager
def taps(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of the named submodules while ``model`` runs."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> object:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            first: object = (
                output[0] if isinstance(output, tuple) and output else output
            )  # blocks of transformers
            if not isinstance(first, Tensor):
                kind = type(output).__name__
                raise GraphError(
                    f"exit after {name!r}: its output is a {kind}, an exit needs one tensor"
                )
            seen[name] = first

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]  # type: ignore[arg-type]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
