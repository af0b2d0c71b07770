"""Where samples come from: files, folders, arrays, videos, cameras and standard input.

A sample is made when it is asked for, so that a bad one is one error and not the end of the others,
and so that no more of them are in memory than are being answered.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from presplit.core.errors import InputError, context
from presplit.core.files import IMAGES, SOUNDS, VIDEOS, is_litter
from presplit.runtime.feeding.camera import CAMERA, open_frames
from presplit.runtime.feeding.sample import Sample, broken, mark_of
from presplit.runtime.feeding.taking import Taking, read_rows

STANDARD_INPUT = "-"
NOT_READ = (".heic", ".heif", ".avif", ".gif", ".tif", ".tiff", ".svg", ".raw", ".dng", ".jxl")
"""Images of kinds that are not read: in a folder they are told as bad, not passed over."""


@dataclass
class Found:
    """What the words of a user name, each of them looked at before the first answer.

    ``endless``: it has no end of its own; ``passed_over``: files of folders that are no samples by
    their names, counted by their endings.
    """

    samples: Iterable[Sample]
    endless: bool = False
    live: bool = False
    passed_over: Counter[str] = field(default_factory=Counter[str])


def find(words: Sequence[str], taking: Taking, lines: Callable[[], Iterator[Sample]]) -> Found:
    """The samples that ``words`` name, in their order; ``lines`` are those of standard input.

    Raises `InputError` for a word that names nothing, or a file or folder without samples.
    """
    parts, found = list[Iterable[Sample]](), Found(())
    for word in words:
        path = Path(word)
        if word == STANDARD_INPUT:
            parts.append(lines())
        elif word.startswith(CAMERA) or path.suffix.lower() in VIDEOS:
            parts.append(open_frames(word, taking))
            found.live = found.live or word.startswith(CAMERA)
        elif path.is_dir():
            parts.append(_folder(path, taking, found.passed_over))
        else:
            parts.append(_file(path, taking))
    found.endless = found.live
    found.samples = (sample for part in parts for sample in part)
    return found


def _file(path: Path, taking: Taking) -> Iterable[Sample]:
    """The samples of a file that the user has named."""
    ending = path.suffix.lower()
    if not os.path.lexists(path):
        raise InputError(f"{path}: no such file or folder")
    if ending in (*IMAGES, *SOUNDS):
        with context(str(path)):
            taking.check(ending)
        return [_single(path, taking)]
    if ending in (".npy", ".npz"):
        return _rows(path, read_rows(path, taking), taking)
    raise InputError(
        f"{path}: expected an image ({' '.join(IMAGES)}), a sound (.wav), a video, a .npy file or "
        "a folder of them by its name"
    )


def _folder(folder: Path, taking: Taking, passed_over: Counter[str]) -> Iterable[Sample]:
    """The samples of a folder and of those in it, in the order of their names."""
    known, kept = (*IMAGES, *SOUNDS, ".npy", *NOT_READ), list[Path | Sample]()

    def unreadable(error: OSError) -> None:
        name = str(error.filename)
        kept.append(broken(name, {"file": name}, f"cannot be read ({error.strerror})"))

    been = {_identity(folder)}
    for place, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        folders[:] = [name for name in _inside(folders) if _is_new(Path(place, name), been)]
        for name in _inside(names):
            ending = Path(name).suffix.lower()
            if name.startswith("."):
                passed_over["hidden"] += 1
            elif ending in known:
                kept.append(Path(place, name))
            else:
                passed_over[ending or "no ending"] += 1
    for ending in {one.suffix.lower() for one in kept if isinstance(one, Path)} - {*NOT_READ}:
        with context(str(folder)):
            taking.check(ending)
    if not kept:
        others = f"; {passed_over.total()} other files are in it" if passed_over else ""
        raise InputError(
            f"{folder}: holds no image ({' '.join(IMAGES)}), no sound (.wav) and no .npy "
            f"file{others}"
        )
    return (
        sample
        for one in kept
        for sample in ([one] if isinstance(one, Sample) else _in_folder(one, taking))
    )


def _inside(names: Sequence[str]) -> list[str]:
    """Those that a user has put there, in order."""
    return sorted(name for name in names if not is_litter(name))


def _identity(folder: Path) -> tuple[int, int]:
    """The same for each name of one folder."""
    found = folder.stat()
    return found.st_dev, found.st_ino


def _is_new(folder: Path, been: set[tuple[int, int]]) -> bool:
    """Whether to go into ``folder``: not if it is hidden, nor twice where links lead round."""
    if folder.name.startswith("."):
        return False
    try:
        identity = _identity(folder)
    except OSError:
        return True  # it is told when it is walked
    is_new = identity not in been
    been.add(identity)
    return is_new


def _in_folder(path: Path, taking: Taking) -> Iterable[Sample]:
    """The samples of a file in a folder; a bad one is a broken sample."""
    ending, named = path.suffix.lower(), {"file": str(path)}
    if ending in NOT_READ:
        problem = f"of images only {' '.join(IMAGES)} are read; convert it"
        return [broken(str(path), named, problem)]
    if ending != ".npy":
        return [_single(path, taking)]
    try:
        return _rows(path, read_rows(path, taking), taking)
    except InputError as error:
        return [broken(str(path), named, str(error).removeprefix(f"{path}: "))]


def _single(path: Path, taking: Taking) -> Sample:
    return Sample(str(path), {"file": str(path)}, lambda: taking.file(path), mark_of(path))


def _rows(path: Path, rows: npt.NDArray[Any], taking: Taking) -> Iterator[Sample]:
    """The samples of an array."""
    mark = mark_of(path)
    for number, row in enumerate(rows):
        named = {"file": str(path)}
        yield Sample(f"{path}#{number}", named, lambda row=row: taking.row(row), mark)
