"""Early exits: classifiers that hang on the outputs of named submodules; the model itself stays as it is.

Source: BranchyNet (arXiv 1709.01686) and the survey arXiv 2103.04505. No control flow is built in: every exit always
computes, so that one graph can be exported and cut; whether an exit answers is decided by who runs it.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from presplit.core.errors import GraphError


class ExitHead(nn.Module):
    """Pool to at most ``pool`` x ``pool``, flatten, classify. Sizes are taken from the first input it sees.

    Until then its weights are lazy parameters: `MultiExit.materialise` runs one example through.
    """

    def __init__(self, classes: int, *, pool: int = 3) -> None:
        super().__init__()
        self.pool = pool
        self.linear = nn.LazyLinear(classes)

    def forward(self, tap: Tensor) -> Tensor:
        """``tap``: float ``(batch, features)`` or ``(batch, channels, height, width)``; gives ``(batch, classes)``."""
        if tap.ndim == 4:
            height, width = (_window(size, self.pool) for size in tap.shape[2:])
            if (height, width) != (1, 1):
                tap = nn.functional.avg_pool2d(tap, (height, width))
        elif tap.ndim == 3:
            tap = tap.mean(1)
        return self.linear(tap.flatten(1))


def _window(size: int, most: int) -> int:
    """The pooling window that leaves at most ``most`` windows on ``size`` places and cuts the least off the end."""
    fewest = next(window for window in range(1, size + 1) if size // window <= most)
    return size // (size // fewest)


class MultiExit(nn.Module):
    """``model`` with an exit after each submodule named in ``after``; calling it gives the logits of all exits.

    The result is a tuple of float ``(batch, classes)``: the early exits in the given order, then the model's own.
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
        with _taps(self.model, self.after) as seen:
            final = self.model(x)
        for name in self.after:
            if name not in seen:
                raise GraphError(f"exit after {name!r}: this submodule was not called")
            if not isinstance(seen[name], Tensor):
                kind = type(seen[name]).__name__
                raise GraphError(f"exit after {name!r}: its output is a {kind}, an exit needs one tensor")
        return (*(head(seen[name]) for name, head in zip(self.after, self.heads, strict=True)), final)

    def materialise(self, example: Tensor) -> None:
        """Run ``example`` (batch of at least 1) once, so that every head has its size."""
        training = self.training
        self.eval()
        with torch.no_grad():
            self(example)
        self.train(training)


@contextlib.contextmanager
def _taps(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of the named submodules while ``model`` runs."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> object:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            seen[name] = output

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]  # type: ignore[arg-type]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def add_exits(
    model: nn.Module,
    after: str | Sequence[str],
    *,
    classes: int | None = None,
    example: Tensor | None = None,
    pool: int = 3,
) -> MultiExit:
    """``model`` (a copy) with an early exit after each named submodule, in the order they run.

    ``classes`` is taken from the last linear layer if not given. With an ``example`` input the heads get their sizes
    at once; otherwise at the first call, which `fit` makes before it builds an optimiser.
    Raises `GraphError` for a name that the model does not have.

    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> [tuple(logits.shape) for logits in add_exits(net, after=["1"])(torch.ones(5, 8))]
    [(5, 3), (5, 3)]
    """
    after = [after] if isinstance(after, str) else after
    model = copy.deepcopy(model)
    names = dict(model.named_modules())
    for name in after:
        if not name or name not in names:
            raise GraphError(f"no submodule is called {name!r}; there are: {', '.join(n for n in names if n)}")
    if len(set(after)) != len(after):
        raise GraphError(f"each exit needs its own submodule, got {list(after)}")
    if classes is None:
        sizes = [getattr(m, "out_features", None) or getattr(m, "n_out", None) for m in names.values()]
        classes = next((size for size in reversed(sizes) if size), None)
    if classes is None:
        raise GraphError(f"{type(model).__name__} has no linear layer to tell the number of classes: give classes=")
    net = MultiExit(model, {name: ExitHead(classes, pool=pool) for name in after})
    if example is not None:
        net.materialise(example)
    return net
