"""Data sets: read by name from the shelf, or a user's own.

A user's own is an ``.npz`` file, a ``.csv`` file or a folder of images.
"""

import os
from collections.abc import Callable
from pathlib import Path

from presplit.core.errors import SpecError
from presplit.core.shelf import Shelf
from presplit.train.data.cifar10 import cifar10
from presplit.train.data.digits import digits
from presplit.train.data.images import images
from presplit.train.data.mnist import mnist
from presplit.train.data.npz import npz
from presplit.train.data.samples import Dataset, Samples, hold_out
from presplit.train.data.table import table

DATASETS: Shelf[Callable[[], Dataset]] = Shelf(
    "data set", {"digits": digits, "mnist": mnist, "cifar10": cifar10}
)


def load(name: str, *, size: int | None = None, grey: bool = False) -> Dataset:
    """The data set called ``name``, or the one at the path ``name``.

    At the path is an .npz file, a .csv file or a folder of images.

    A name on the shelf is never taken for a folder; ``./digits`` is one. ``size`` and ``grey`` are
    for `images`; raises `SpecError` if they are given for anything else, or if ``name`` is nothing
    that there is.
    """
    ending = Path(name).suffix.lower()
    is_file = ending in (".npz", ".csv")
    if not is_file and name not in DATASETS and (os.sep in name or os.path.isdir(name)):
        return images(name, size=size, grey=grey)
    for key, is_given in (("size", size is not None), ("grey", grey)):
        if is_given:
            raise SpecError(
                f"data.{key}: only a folder of images has it, and data.name is {name!r}"
            )
    if is_file:
        return npz(name) if ending == ".npz" else table(name)
    try:
        return DATASETS.find(name)()
    except SpecError as error:
        raise SpecError(
            f"{error}, or the path of an .npz file, a .csv file or a folder of images"
        ) from error


__all__ = [
    "DATASETS",
    "Dataset",
    "Samples",
    "cifar10",
    "digits",
    "hold_out",
    "images",
    "load",
    "mnist",
    "npz",
    "table",
]
