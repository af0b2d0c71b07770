"""Early exits: classifiers that hang on the outputs of named submodules.

The model itself stays as it is.

Source: BranchyNet (arXiv 1709.01686) and the survey arXiv 2103.04505. No control flow is built in:
every exit always computes, so that one graph can be exported and cut; whether an exit answers is
decided by who runs it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor, nn

from presplit.core.errors import GraphError
from presplit.train.nets.calling import (
    AnswersAtExits,
    device_of,
    evaluating,
    exit_logits,
    own_logits,
)

OWN = "final"
"""What the net's own classifier is called among the exits."""


class ExitClassifier(nn.Module):
    """Pool to at most ``pool`` x ``pool``, flatten, classify.

    Sizes are taken from the first input it sees.

    ``over_time``: a tap of three axes is ``(batch, channels, time)``, not ``(batch, tokens,
    features)``. Until it has seen an input its weights are lazy parameters: `MultiExit.materialise`
    runs one example through.
    """

    def __init__(self, classes: int, *, pool: int = 3, over_time: bool = False) -> None:
        super().__init__()
        self.pool, self.over_time = Pool(pool), over_time
        self.linear = nn.LazyLinear(classes)

    def forward(self, tap: Tensor) -> Tensor:
        """``tap``: float ``(batch, features)``, three axes or ``(batch, channels, height, width)``.

        Gives float ``(batch, classes)``.
        """
        if tap.ndim == 4:
            tap = self.pool(tap)
        elif tap.ndim == 3:
            tap = tap.mean(2 if self.over_time else 1)
        return self.linear(tap.flatten(1))


class Pool(nn.Module):
    """Means over windows, so that at most ``most`` places are left in height, width or time.

    >>> import torch
    >>> Pool(8)(torch.zeros(1, 4, 32, 20)).shape, Pool(8)(torch.zeros(1, 4, 100)).shape
    (torch.Size([1, 4, 8, 6]), torch.Size([1, 4, 8]))
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, tap: Tensor) -> Tensor:
        """``tap``: float ``(batch, channels, height, width)`` or ``(batch, channels, time)``."""
        windows = tuple(_window(size, self.most) for size in tap.shape[2:])
        if max(windows) == 1:
            return tap
        if len(windows) == 1:
            return nn.functional.avg_pool1d(tap, windows)
        return nn.functional.avg_pool2d(tap, windows)


def _window(size: int, most: int) -> int:
    """The pooling window that makes ``size`` places at most ``most``.

    Of those that do, it cuts the least off the end.
    """
    fewest = next(window for window in range(1, size + 1) if size // window <= most)
    return size // (size // fewest)


class MultiExit(AnswersAtExits):
    """``model`` with an exit after each submodule named in ``after``.

    Calling it gives the logits of all exits.

    The result is a tuple of float ``(batch, classes)``: the early exits in the given order, then
    the model's own. Auxiliary logits that the model gives while it is trained are left out.
    """

    def __init__(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.model = model
        self.after = tuple(heads)
        self.heads = nn.ModuleList(heads.values())

    @property
    def exit_names(self) -> tuple[str, ...]:
        """Names of the exits: the submodules they hang on, then ``final``.

        The model's own exit gets underscores at its end where a submodule has its name.
        """
        own = OWN
        while own in self.after:
            own += "_"
        return (*self.after, own)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """``x``: what the model takes."""
        with taps(self.model, self.after) as seen:
            final = own_logits(self.model, self.model(x))
        for name in self.after:
            if name not in seen:
                raise GraphError(f"exit after {name!r}: this submodule was not called")
        return (
            *(head(seen[name]) for name, head in zip(self.after, self.heads, strict=True)),
            final,
        )

    def materialise(self, example: Tensor) -> None:
        """Run ``example`` (batch of at least 1) once, so that every head has its size."""
        with evaluating(self):
            exit_logits(self, example.to(device_of(self.model)))


@contextlib.contextmanager
def taps(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of the named submodules while ``model`` runs.

    What is kept is a copy: the next layer may change the output in place.
    """
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            seen[name] = tapped(name, output).clone()

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def tapped(name: str, output: object) -> Tensor:
    """The tensor that an exit after submodule ``name`` sees of its ``output``.

    Of a tuple, as blocks of transformers give it, that is the first.
    """
    first: object = output
    if isinstance(output, tuple) and output:
        first = output[0]
    if not isinstance(first, Tensor):
        kind = type(output).__name__
        raise GraphError(f"exit after {name!r}: its output is a {kind}, an exit needs one tensor")
    if not first.is_floating_point():
        dtype = str(first.dtype).removeprefix("torch.")
        raise GraphError(f"exit after {name!r}: its output is {dtype}, an exit needs floats")
    return first
