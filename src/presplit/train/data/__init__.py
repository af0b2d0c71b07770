"""Data sets: read by name from the shelf, or a user's own.

A user's own is an ``.npz`` file, a ``.csv`` file, or images or sounds in a folder or a zip.
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from presplit.core.errors import SpecError
from presplit.core.shelf import Shelf
from presplit.train.data.archives import ARCHIVES, archive
from presplit.train.data.cifar10 import cifar10
from presplit.train.data.digits import digits
from presplit.train.data.images import images
from presplit.train.data.mnist import mnist
from presplit.train.data.npz import npz
from presplit.train.data.samples import Dataset, Samples, hold_out
from presplit.train.data.sounds import sounds
from presplit.train.data.table import table
from presplit.train.data.tree import Folder, Labelled, Tree, Zip, labelled

KEYS = {
    "images": ("size", "grey", "skip_bad"),
    "sounds": ("rate", "length_s", "skip_bad"),
}
"""The keys of ``[data]`` that only files of a kind have."""


def load(
    name: str,
    *,
    size: int | None = None,
    grey: bool = False,
    rate: int | None = None,
    length_s: float | None = None,
    skip_bad: bool = False,
) -> Dataset:
    """The data set called ``name``, or the one at the path ``name``.

    At the path is an .npz file, a .csv file, or a folder or a .zip file of images or of sounds.

    A name on the shelf is never taken for a folder; ``./digits`` is one. ``size`` and ``grey`` are
    for `images`, ``rate`` and ``length_s`` for `sounds`, ``skip_bad`` for both; raises `SpecError`
    if they are given for anything else, or if ``name`` is nothing that there is.
    """
    all_keys = {
        "size": size,
        "grey": grey or None,
        "rate": rate,
        "length_s": length_s,
        "skip_bad": skip_bad or None,
    }
    given = {key: value for key, value in all_keys.items() if value is not None}
    ending = Path(name).suffix.lower()
    is_file = ending in (".npz", ".csv", ".zip")
    if ending == ".zip":
        return by_class(Zip(name), **given)
    if not is_file and name not in DATASETS and (os.sep in name or os.path.exists(name)):
        return by_class(Folder(name), **given)
    if name in ARCHIVES:
        return DATASETS[name](**given)
    for key in given:
        kinds = [kind for kind, keys in KEYS.items() if key in keys]
        kind = " or ".join(kinds)
        raise SpecError(
            f"data.{key}: only a folder or a zip of {kind} has it, and data.name is {name!r}"
        )
    if is_file:
        return npz(name) if ending == ".npz" else table(name)
    try:
        return DATASETS.find(name)()
    except SpecError as error:
        raise SpecError(
            f"{error}, or the path of an .npz file, a .csv file, or a folder or .zip file of "
            "images or sounds"
        ) from error


def by_class(files: Tree | Labelled, **given: Any) -> Dataset:
    """The images or sounds in ``files``, read as ``given`` says.

    Raises `SpecError` for a key that the kind of files does not have, and what `images` and
    `sounds` raise.
    """
    found = files if isinstance(files, Labelled) else labelled(files)
    for key in given:
        if key not in KEYS[found.kind]:
            other = "images" if key in KEYS["images"] else "sounds"
            raise SpecError(
                f"data.{key}: only {other} have it, and {found.where} holds {found.kind}"
            )
    return images(found, **given) if found.kind == "images" else sounds(found, **given)


def _archived(name: str, **given: Any) -> Dataset:
    """A data set of `ARCHIVES`."""
    return by_class(archive(name), **given)


DATASETS: Shelf[Callable[..., Dataset]] = Shelf(
    "data set",
    {
        "digits": digits,
        "mnist": mnist,
        "cifar10": cifar10,
        **{name: functools.partial(_archived, name) for name in ARCHIVES},
    },
)
"""Those of `ARCHIVES` take what `load` takes; the others take nothing."""

__all__ = [
    "DATASETS",
    "Dataset",
    "Folder",
    "Samples",
    "Zip",
    "by_class",
    "cifar10",
    "digits",
    "hold_out",
    "load",
    "mnist",
    "npz",
    "table",
]
