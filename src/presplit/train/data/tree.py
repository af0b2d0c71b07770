"""A user's files by class, in a folder or a zip.

They are ``train/CLASS/NAME`` and ``test/CLASS/NAME``, or ``CLASS/NAME`` alone: then every fifth
file of a class, the first one among them, is to test with.

Nothing of the user's is skipped unasked: a file of another kind is told with all that cannot be
read, a class without files and a class that only one part has are errors. What file managers leave
behind is passed over. A zip is read where it lies: nothing of it is written to disk, and no more of
it unpacked than one file.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from presplit.core.errors import DataError
from presplit.core.files import IMAGES, SOUNDS
from presplit.train.data.layout import PARTS, STRAY, Tree, listed, own, parted, refuse_no_folder

KINDS = {"images": IMAGES, "sounds": SOUNDS}
EACH = 5
"""Where nothing says which files are to test with, the first of so many is."""
MOST_FILE_BYTES = 2**28
"""No image or sound is a larger file; a zip that says so of one is refused before unpacking."""
_PACKED_SOUNDS = (".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".aiff", ".aif", ".wma")
_DAMAGED = (zipfile.BadZipFile, OSError, EOFError, zlib.error, RuntimeError, ValueError)
"""What the standard library raises for a damaged or encrypted zip, or another compression.

`NotImplementedError` is a `RuntimeError`.
"""


class Folder:
    """A folder on disk."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = self.path.resolve().name
        refuse_no_folder(self.path)

    def spelled(self, *steps: str) -> str:
        """The path."""
        return str(self.path.joinpath(*steps))

    def names(self, *steps: str) -> list[str]:
        """What is in a folder."""
        try:
            return os.listdir(self.path.joinpath(*steps))
        except OSError as error:
            raise DataError(f"{self.spelled(*steps)}: cannot be read ({error.strerror})") from error

    def is_folder(self, *steps: str) -> bool:
        """Whether that is a folder."""
        return self.path.joinpath(*steps).is_dir()

    def read(self, *steps: str) -> bytes:
        """The contents of a file."""
        path = self.path.joinpath(*steps)
        try:
            if not path.is_file():  # reading a pipe would wait for ever
                raise DataError(f"{path}: expected a file; move it away")
            if path.stat().st_size > MOST_FILE_BYTES:
                raise DataError(_too_large(str(path), path.stat().st_size))
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error


class Zip:
    """A zip file; one folder that all of it lies in, as archivers make it, is its root."""

    def __init__(self, source: str | Path | bytes, *, where: str | None = None) -> None:
        self.where = where or str(source)
        self.name = Path(self.where).stem
        self.root: tuple[str, ...] = ()
        self.members: dict[tuple[str, ...], zipfile.ZipInfo] = {}
        self.folders: dict[tuple[str, ...], set[str]] = {(): set()}
        try:
            self.archive = zipfile.ZipFile(
                io.BytesIO(source) if isinstance(source, bytes) else source
            )
        except _DAMAGED as error:
            raise DataError(f"{self.where}: not a readable zip file ({error})") from error
        for member in self.archive.infolist():
            self._enter(member)
        for steps in self.members.keys() & self.folders.keys():
            raise DataError(f"{self.where}: {'/'.join(steps)} is both a file and a folder")
        top = own(self.names())
        if len(top) == 1 and top[0] not in PARTS and self.is_folder(top[0]):
            self.root = (top[0],)

    def spelled(self, *steps: str) -> str:
        """The zip file and the name in it."""
        inner = "/".join((*self.root, *steps))
        return f"{self.where}: {inner}" if inner else self.where

    def names(self, *steps: str) -> list[str]:
        """What is in a folder."""
        return list(self.folders[(*self.root, *steps)])

    def is_folder(self, *steps: str) -> bool:
        """Whether that is a folder."""
        return (*self.root, *steps) in self.folders

    def read(self, *steps: str) -> bytes:
        """The contents of a file, which is at most as large as the zip says; its sum is checked."""
        where, member = self.spelled(*steps), self.members[(*self.root, *steps)]
        if member.file_size > MOST_FILE_BYTES:
            raise DataError(_too_large(where, member.file_size))
        try:
            return self.archive.read(member)
        except _DAMAGED as error:
            raise DataError(f"{where}: damaged in the zip file, or encrypted ({error})") from error

    def _enter(self, member: zipfile.ZipInfo) -> None:
        """Give a member its place; raises `DataError` for a name that leads out of the zip."""
        where = f"{self.where}: {member.filename}"
        steps = tuple(member.filename.rstrip("/").split("/"))
        if any(step in ("", ".", "..") or "\\" in step for step in steps):
            raise DataError(f"{where}: expected a name below the zip's own folder")
        if not member.is_dir() and steps in self.members:
            raise DataError(f"{where}: expected one file of that name, got several")
        folder = steps if member.is_dir() else steps[:-1]
        for depth, step in enumerate(folder):
            self.folders[folder[:depth]].add(step)
            self.folders.setdefault(folder[: depth + 1], set())
        if not member.is_dir():
            self.folders[folder].add(steps[-1])
            self.members[steps] = member


@dataclass(frozen=True)
class File:
    """One file of a class."""

    tree: Tree
    steps: tuple[str, ...]

    def __str__(self) -> str:
        return self.tree.spelled(*self.steps)

    def read(self) -> bytes:
        """Its contents; raises `DataError` if they cannot be read."""
        return self.tree.read(*self.steps)


Classes = Mapping[str, Sequence[File]]
"""The files of each class, both in the order of their names."""


@dataclass(frozen=True)
class Labelled:
    """The files of both parts by class; the classes are the same in both.

    ``kind``: a key of `KINDS`, what all the files are; ``bad``: files of none, or of another, each
    with what is wrong with it, which are in neither part. ``is_parted``: its owner says
    what is to test with.
    """

    tree: Tree
    kind: str
    train: Classes
    test: Classes
    bad: Sequence[tuple[File, str]] = ()
    is_parted: bool = True

    @property
    def where(self) -> str:
        """Where it lies, for people."""
        return self.tree.spelled()

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes' names."""
        return tuple(self.train)

    @property
    def count(self) -> int:
        """The number of all files."""
        return sum(len(files) for part in (self.train, self.test) for files in part.values())


def labelled(tree: Tree) -> Labelled:
    """The files in ``tree`` by part and class.

    Raises `DataError` naming what is not as it should be.
    """
    is_parted, strays = parted(tree)
    bad = [(File(tree, (name,)), STRAY) for name in strays]
    if is_parted:
        train, test = (_classes(tree, (part,), bad) for part in ("train", "test"))
    else:
        train, test = _in_two(_classes(tree, (), bad))
    _refuse_other_classes(tree, train, test)
    first = next(iter(train.values()))[0]
    train, test = (_of_kind(first, part, bad) for part in (train, test))
    for part in (train, test):
        for name, files in part.items():
            if not files:
                raise DataError(
                    f"{tree.spelled()}: expected {_kind(first)} of class {name} as {first} is one, "
                    "got none; a data set is of one kind"
                )
    return Labelled(tree, _kind(first), train, test, bad, is_parted)


def _refuse_other_classes(
    tree: Tree, train: Mapping[str, list[File]], test: Mapping[str, list[File]]
) -> None:
    """Raise `DataError` for fewer than two classes, and for one that only one part has."""
    for name in sorted(train.keys() ^ test.keys()):
        has, lacks = PARTS if name in test else reversed(PARTS)
        raise DataError(
            f"{tree.spelled(has, name)}: the same classes are expected in both parts, {lacks}/ has "
            f"no {name}/"
        )
    if len(train) < 2:
        raise DataError(
            f"{tree.spelled()}: folders of at least two classes are expected, got "
            f"{listed(list(train))} alone; a net learns to tell one class from another"
        )


def _in_two(
    classes: Mapping[str, list[File]],
) -> tuple[dict[str, list[File]], dict[str, list[File]]]:
    """The files of each class to train with, and those to test with."""
    for name, files in classes.items():
        if len(files) < 2:
            raise DataError(
                f"{files[0]}: class {name} has no other file; at least two are expected, one to "
                "train and one to test with"
            )
    test = {name: files[::EACH] for name, files in classes.items()}
    train = {
        name: [file for place, file in enumerate(files) if place % EACH]
        for name, files in classes.items()
    }
    return train, test


def _of_kind(
    first: File, part: Mapping[str, list[File]], bad: list[tuple[File, str]]
) -> dict[str, list[File]]:
    """The files of a part that are of the kind of the ``first``; the others join the ``bad``."""
    kind = _kind(first)
    for file in (file for files in part.values() for file in files if _kind(file) != kind):
        bad.append((file, f"expected {kind} only, as {first} is one; a data set is of one kind"))
    return {name: [one for one in files if _kind(one) == kind] for name, files in part.items()}


def _classes(
    tree: Tree, part: tuple[str, ...], bad: list[tuple[File, str]]
) -> dict[str, list[File]]:
    """The files of each class in the folder to which the steps of a ``part`` lead."""
    found = own(tree.names(*part))
    folders = [name for name in found if tree.is_folder(*part, name)]
    if part:
        bad.extend((File(tree, (*part, name)), STRAY) for name in found if name not in folders)
    return {name: _files(tree, (*part, name), bad) for name in folders}


def _files(tree: Tree, steps: tuple[str, ...], bad: list[tuple[File, str]]) -> list[File]:
    """The files of the class in a folder; what is none of a known kind joins the ``bad``."""
    where, name = tree.spelled(*steps), steps[-1]
    try:
        name.encode()
    except UnicodeError as error:
        folder = tree.spelled(*steps[:-1])
        raise DataError(
            f"{folder}: the name of a class is not UTF-8, {os.fsencode(name)!r}; rename its folders"
        ) from error
    files = [File(tree, (*steps, each)) for each in own(tree.names(*steps))]
    strange = [file for file in files if tree.is_folder(*file.steps) or not _kind(file)]
    bad.extend((file, _unexpected(file)) for file in strange)
    known = [file for file in files if file not in strange]
    if not known:
        told = f"; got {listed([file.steps[-1] for file in strange])}" if strange else ", got none"
        raise DataError(f"{where}: expected at least one file of this class{told}")
    return known


def _kind(file: File) -> str:
    """What ``file`` is by its ending; empty for what is neither."""
    ending = Path(file.steps[-1]).suffix.lower()
    return next((kind for kind, endings in KINDS.items() if ending in endings), "")


def _unexpected(file: File) -> str:
    """What to say of a file that is no image and no sound that is read here."""
    if Path(file.steps[-1]).suffix.lower() in _PACKED_SOUNDS:
        return "of sounds only .wav is read; ffmpeg -i IN -c:a pcm_s16le OUT.wav makes one"
    return (
        "expected an image or a sound, its name ending in "
        f"{' '.join((*IMAGES, *SOUNDS))}; move it away"
    )


def _too_large(where: str, found: int) -> str:
    return (
        f"{where}: expected at most {MOST_FILE_BYTES:,} bytes, got {found:,}; make it smaller or "
        "shorter"
    )
