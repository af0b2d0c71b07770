"""Batches: `Samples` shuffled by a seed, or what a `DataLoader` gives, checked and in one form.

A single sample that is left over joins the batch before it, because one sample alone has no
variance for a batch normalisation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Any, Protocol

import torch
from torch import Tensor

from presplit.core.errors import DataError
from presplit.core.types import Floats
from presplit.train.data.samples import Samples
from presplit.train.fitting.balance import balanced_order


class Batches(Protocol):
    """Batches of inputs and labels, anew whenever it is looped over.

    Its length is their number.
    """

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...
    def __len__(self) -> int: ...


class Shuffled:
    """`Samples` on a device in batches, in another order each time.

    ``sampling``: "shuffled", or "balanced" for all classes equally often; ``taught``: a teacher's
    logits ``(n, classes)``, which come along.
    """

    def __init__(
        self,
        samples: Samples,
        batch: int,
        order: torch.Generator,
        device: torch.device,
        *,
        sampling: str = "shuffled",
        taught: Floats | None = None,
    ) -> None:
        arrays = (samples.x, samples.y) if taught is None else (samples.x, samples.y, taught)
        self.x, self.y, *self.taught = (torch.from_numpy(part.copy()).to(device) for part in arrays)
        self.batch, self.order = batch, order
        labels = torch.from_numpy(samples.y.copy())
        self._members: list[Tensor] = []
        if sampling == "balanced":
            self._members = [(labels == each).nonzero().flatten() for each in labels.unique()]

    @property
    def first(self) -> tuple[Tensor, Tensor]:
        """All samples and labels: by them the net is checked before training."""
        return self.x, self.y

    def __len__(self) -> int:
        full, rest = divmod(len(self.y), self.batch)
        joins = rest == 0 or (rest == 1 < self.batch and full > 0)
        return full + (not joins)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        places = self._places().to(self.y.device)
        starts = [k * self.batch for k in range(len(self))]
        for start, end in zip(starts, [*starts[1:], len(places)], strict=True):
            yield tuple(each[places[start:end]] for each in (self.x, self.y, *self.taught))

    def _places(self) -> Tensor:
        """Which samples an epoch has, in its order."""
        if self._members:
            return balanced_order(self._members, self.order)
        return torch.randperm(len(self.y), generator=self.order)


class Loaded:
    """What a loader gives: float inputs in the net's ``dtype``, int64 labels, on a device.

    uint8 images are scaled to 0..1, as in `Samples`. Raises `DataError` for a loader without a
    length or batches, and for batches that are not ``(x, y)`` with one class for each sample.
    """

    def __init__(self, batches: object, device: torch.device, dtype: torch.dtype) -> None:
        sized = isinstance(batches, Iterable) and isinstance(batches, Sized)
        if isinstance(batches, list | tuple | dict) or not sized:
            raise DataError(
                "fit trains on Samples(x, y), or on batches (x, y) with a length as a DataLoader "
                f"has, got {type(batches).__name__}"
            )
        if not len(batches):  # type: ignore[arg-type]
            raise DataError("fit trains on one batch at least, got a loader of none")
        self.batches: Any = batches
        self.device, self.dtype = device, dtype
        self.classes: int | None = None
        """How many the net tells apart, once that is known."""
        self.first = self._in_form(next(iter(self.batches)))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        usual = len(self.first[1])
        held: tuple[Tensor, Tensor] | None = None
        for number, raw in enumerate(self.batches, start=1):
            if number > len(self):
                raise DataError(f"the loader says it has {len(self)} batches, and gives more")
            batch = self._in_form(raw)
            if held is not None and len(batch[1]) == 1 < usual:
                held = (torch.cat([held[0], batch[0]]), torch.cat([held[1], batch[1]]))
                continue
            if held is not None:
                yield held
            held = batch
        if held is not None:
            yield held

    def _in_form(self, raw: object) -> tuple[Tensor, Tensor]:
        """One batch as training takes it."""
        pair = list(raw) if isinstance(raw, list | tuple) else []
        if len(pair) != 2 or not all(isinstance(each, Tensor) for each in pair):
            said = [type(each).__name__ for each in pair] if pair else type(raw).__name__
            raise DataError(f"a batch is two tensors (x, y), got {said}")
        x, y = pair
        y = _classes(y, len(x))
        if self.classes is not None and int(y.max()) >= self.classes:
            raise DataError(f"labels must be in 0..{self.classes - 1}, got {int(y.max())}")
        if x.dtype == torch.uint8:
            x = x / 255
        if x.is_floating_point():
            x = x.to(self.dtype)
        return x.to(self.device), y.to(self.device)


def _classes(y: Tensor, samples: int) -> Tensor:
    """int64 ``(batch,)``; raises `DataError` for what is not one class for each sample.

    >>> _classes(torch.tensor([[0.0], [2.0]]), 2)
    tensor([0, 2])
    """
    flat = y.flatten() if y.ndim == 2 and y.shape[1] == 1 else y
    if flat.shape != (samples,):
        rows = "; of one-hot rows take y.argmax(1)" if y.ndim == 2 else ""
        raise DataError(
            f"labels are one class for each of {samples} samples, ({samples},), got shape "
            f"{tuple(y.shape)}{rows}"
        )
    whole = flat.to(torch.int64) if not flat.is_complex() else flat.real.to(torch.int64)
    if flat.is_complex() or bool((whole != flat).any()) or bool((whole < 0).any()):
        raise DataError(
            f"labels are whole numbers from 0 on, got {flat.dtype} such as {flat[:3].tolist()}"
        )
    return whole
