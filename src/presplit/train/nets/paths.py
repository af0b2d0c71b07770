"""Ways around an exit: what of a net's input reaches its logits without passing a submodule.

One run of the net in PyTorch tells, without an export: each operator's outputs depend on what its
inputs depend on, and behind a submodule the dependence on the input is forgotten. Memory is
followed, not tensors, since operators may change their inputs in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from presplit.train.nets.calling import device_of, evaluating, exit_logits
from presplit.train.nets.exits import MultiExit, tapped

SAMPLES = 3
"""How many samples run: few axes but the batch are so long."""


class _Ways(TorchDispatchMode):
    """For each piece of memory, the exits around which it still depends on the input, as bits."""

    def __init__(self) -> None:
        super().__init__()
        self.ways: dict[int, int] = {}
        self.held: list[Tensor] = []  # memory that is let go would be given out a second time
        self.places: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> Any:
        """Run ``func`` and let its outputs depend on what its inputs do."""
        found = func(*args, **(kwargs or {}))
        ways = 0
        for given in _tensors((args, kwargs)):
            ways |= self.of(given)
        written = [
            given
            for given, about in zip(args, func._schema.arguments, strict=False)
            if about.alias_info is not None and about.alias_info.is_write
        ]
        for made in _tensors((found, written)):
            self.note(made, self.of(made) | ways)
        return found

    def of(self, tensor: Tensor) -> int:
        """The ways that lead to ``tensor``."""
        return self.ways.get(memory_of(tensor), 0)

    def note(self, tensor: Tensor, ways: int) -> None:
        """Remember the ``ways`` that lead to ``tensor``."""
        self.held.append(tensor)
        self.ways[memory_of(tensor)] = ways


def uncertain_exits(net: MultiExit, example: Tensor) -> list[str]:
    """The exits of which it is not certain that the net can be cut where they hang.

    Certain is an exit after a submodule that runs once and whose output, float32 with the batch in
    front, is a place of its own through which all passes. ``example``: ``(batch, ...)``, at least
    one sample. Raises `GraphError` if the net does not run it.

    >>> row = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> uncertain_exits(MultiExit(row, {"1": nn.Linear(4, 2)}), torch.zeros(1, 4))
    []
    """
    repeats = -(-SAMPLES // len(example))
    x = torch.cat([example] * repeats)[:SAMPLES].to(device_of(net)).clone()
    mode = _Ways()
    places = [_Place(mode, name, number, x) for number, name in enumerate(net.after)]
    handles = [
        net.model.get_submodule(place.name).register_forward_hook(place.forget) for place in places
    ]
    try:
        with evaluating(net.model), mode:
            mode.note(x, (1 << len(places)) - 1)
            mode.places.add(memory_of(x))
            (logits,) = exit_logits(net.model, x)
    finally:
        for handle in handles:
            handle.remove()
    uncertain: list[str] = []
    for place in places:
        is_passed_by = mode.of(logits) >> place.number & 1
        if is_passed_by or not place.is_sure or place.fresh == memory_of(logits):
            uncertain.append(place.name)
    return uncertain


class _Place:
    """What is seen of the output after which an exit hangs."""

    def __init__(self, mode: _Ways, name: str, number: int, x: Tensor) -> None:
        self.mode, self.name, self.number, self.x = mode, name, number, x
        self.calls, self.is_sure = 0, False
        self.fresh = 0
        """The memory in which the output goes on."""

    def forget(self, _module: nn.Module, _given: object, output: object) -> object:
        """Give the output on, its dependence on the input forgotten."""
        self.calls += 1
        tap = tapped(self.name, output)
        fresh = tap.clone()
        self.fresh = memory_of(fresh)
        self.mode.note(fresh, self.mode.of(tap) & ~(1 << self.number))
        is_known = memory_of(tap) in self.mode.places  # the input, or where another exit hangs
        self.mode.places.add(self.fresh)
        is_batch_first = tap.ndim >= 2 and tap.shape[0] == len(self.x)
        self.is_sure = (
            self.calls == 1 and not is_known and is_batch_first and tap.dtype == torch.float32
        )
        if output is tap:
            return fresh
        if type(output) is tuple:
            return (fresh, *output[1:])
        self.is_sure = False  # an output of the user's own type, which is not made anew
        return output


def memory_of(tensor: Tensor) -> int:
    """Names the memory of ``tensor``, which its views share."""
    return tensor.untyped_storage()._cdata


def _tensors(values: object) -> list[Tensor]:
    """All tensors in ``values``."""
    return [each for each in tree_leaves(values) if isinstance(each, Tensor)]
