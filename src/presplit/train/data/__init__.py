"""Data sets: read by name from the shelf, or from a user's own ``.npz`` file."""

from collections.abc import Callable
from pathlib import Path

from presplit.core.shelf import Shelf
from presplit.train.data.cifar10 import cifar10
from presplit.train.data.digits import digits
from presplit.train.data.mnist import mnist
from presplit.train.data.npz import npz
from presplit.train.data.samples import Dataset, Samples, hold_out

DATASETS: Shelf[Callable[[], Dataset]] = Shelf("data set", {"digits": digits, "mnist": mnist, "cifar10": cifar10})


def load(name: str) -> Dataset:
    """The data set called ``name``, or the one in the file ``name`` if that ends in ``.npz``."""
    return npz(Path(name)) if name.endswith(".npz") else DATASETS.find(name)()


__all__ = ["DATASETS", "Dataset", "Samples", "cifar10", "digits", "hold_out", "load", "mnist", "npz"]
