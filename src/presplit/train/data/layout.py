"""How files by class lie in a folder or a zip, and what to say where they lie otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from presplit.core.errors import DataError
from presplit.core.files import IMAGES, SOUNDS, is_litter

PARTS = ("test", "train")
PARTLIKE = (*PARTS, "val", "valid", "validation", "eval")
"""Names of folders that are parts of a data set in many places, and no class."""
LAYOUT = (
    "expected CLASS/NAME, or train/CLASS/NAME and test/CLASS/NAME, the names ending in "
    f"{' '.join(IMAGES)} for images or {' '.join(SOUNDS)} for sounds"
)
STRAY = "expected a folder with the files of one class, got a file; move it into one, or away"
"""What is wrong with a file that lies beside folders of classes."""


class Tree(Protocol):
    """Files in folders, wherever they lie; ``steps`` lead from its root to one of them."""

    name: str
    """What the data set is called."""

    def spelled(self, *steps: str) -> str:
        """Where that is, for people."""
        ...

    def names(self, *steps: str) -> list[str]:
        """What is in a folder."""
        ...

    def is_folder(self, *steps: str) -> bool:
        """Whether that is a folder."""
        ...

    def read(self, *steps: str) -> bytes:
        """The contents of a file; raises `DataError` if it cannot be read."""
        ...


def parted(tree: Tree) -> tuple[bool, list[str]]:
    """Whether ``tree`` has a part to train with and one to test with, or else classes alone.

    The second are the files that lie beside the folders, which belong to no class. Raises
    `DataError` that names what is not as it should be.
    """
    found = own(tree.names())
    folders = [name for name in found if tree.is_folder(name)]
    strays = [name for name in found if name not in folders]
    if not folders:
        raise DataError(f"{tree.spelled()}: {_no_folder(tree, strays)}")
    parts = [name for name in folders if name in PARTLIKE]
    others = [name for name in folders if name not in PARTS]
    is_parted = set(PARTS) <= set(parts)
    if is_parted and others:
        raise DataError(
            f"{tree.spelled()}: expected train/ and test/ alone, got {listed(others)} beside them; "
            "move that away"
        )
    if parts and not is_parted:
        raise DataError(
            f"{tree.spelled()}: expected train/ and test/, or folders of classes alone, got "
            f"{listed(folders)}"
        )
    return is_parted, strays


def _no_folder(tree: Tree, files: Sequence[str]) -> str:
    """What to say of a place that has no folder of a class."""
    if not files:
        return f"it is empty; {LAYOUT}"
    known = [name for name in files if Path(name).suffix.lower() in (*IMAGES, *SOUNDS)]
    if not known:
        return f"{LAYOUT}; got {listed(files)}"
    where = tree.spelled("CLASS", known[0])
    return (
        f"{len(known):,} images or sounds, and no folder says of which class they are; make one "
        f"subfolder for each class and move its files there, as in {where}"
    )


def refuse_no_folder(path: Path) -> None:
    """Raise `DataError` unless ``path`` is a folder."""
    if path.is_dir():
        return
    if path.exists():
        raise DataError(
            f"{path}: one file is no data set; name a folder that has one subfolder for each "
            "class, a .zip of one, a .csv or a .npz"
        )
    raise DataError(f"{path}: no such file or folder")


def own(names: Sequence[str]) -> list[str]:
    """What the user put into a folder, sorted by name."""
    return sorted(name for name in names if not is_litter(name))


def listed(names: Sequence[str]) -> str:
    """The first ``names`` in words.

    >>> listed(["cat", "dog"]), listed([])
    ("'cat', 'dog'", 'nothing')
    """
    more = [f"and {len(names) - 5} more"] if len(names) > 5 else []
    return ", ".join([*map(repr, names[:5]), *more]) or "nothing"
