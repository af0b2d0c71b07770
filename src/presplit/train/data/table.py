"""A user's own table in one ``.csv`` file.

It has a header, a column of labels, columns of numbers, perhaps a ``split``.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from presplit.core.errors import DataError, context
from presplit.core.progress import track
from presplit.train.data.samples import Dataset, Samples

LABEL, SPLIT = "label", "split"
"""The columns that are known by their names."""


def table(path: str | Path) -> Dataset:
    """Rows float32 ``(n, features)`` as they are written, in the order of the columns.

    The label is in the column ``label`` or, if there is none, in the last one: whole numbers or
    text, classes in their order. A column ``split`` says ``train`` or ``test``; without one, every
    fifth row from the first on is a test row. Raises `DataError` naming the file, the line and the
    column of a cell that is missing or not what is expected.
    """
    path = Path(path)
    with context(str(path)):
        rows = _rows(path)
        _, names = next(rows, (1, []))
        label = _label_column(names)
        features = [k for k, name in enumerate(names) if k != label and name != SPLIT]
        lines: list[int] = []
        x: list[npt.NDArray[np.float32]] = []
        labels: list[str] = []
        is_test: list[bool] = []
        for place, (line, cells) in enumerate(track(rows, "reading rows", "rows")):
            if len(cells) != len(names):
                raise DataError(
                    f"line {line}: expected {len(names)} cells as the header has, got {len(cells)}"
                )
            lines.append(line)
            x.append(_numbers(line, cells, names, features))
            labels.append(_filled(line, cells[label], names[label]))
            is_test.append(
                _is_test(line, cells[names.index(SPLIT)]) if SPLIT in names else place % 5 == 0
            )
        test = np.array(is_test, bool)
        if test.all() or not test.any():
            raise DataError(
                f"expected rows to train and to test with, got {(~test).sum()} and {test.sum()}"
            )
        classes, y = _classes(lines, labels, names[label])
        unseen = np.setdiff1d(y[test], y[~test])
        if unseen.size:
            raise DataError(
                f"column {names[label]!r}: {classes[unseen[0]]!r} is in test rows and in no "
                "training row"
            )
        if len(classes) < 2:
            raise DataError(
                f"column {names[label]!r}: expected at least two classes, got {len(classes)}"
            )
        values = np.stack(x)
    return Dataset(
        path.stem, Samples(values[~test], y[~test]), Samples(values[test], y[test]), classes
    )


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row without the blanks around them, and the line on which it ends."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for cells in reader:
                yield reader.line_num, [cell.strip() for cell in cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"not a readable .csv file ({error})") from error


def _label_column(names: Sequence[str]) -> int:
    """The number of the column of labels; raises `DataError` for a first line that is no header."""
    others = [k for k, name in enumerate(names) if name != SPLIT]
    if len(others) < 2:
        raise DataError(
            "line 1: expected a header with the names of at least one column of numbers and one of "
            "labels, separated "
            f"by commas, got {','.join(names)!r}"
        )
    for k, name in enumerate(names):
        if not name or math.isfinite(_number(name)) or name in names[:k]:
            raise DataError(
                f"line 1: expected a header with a different name for each column, got {name!r}"
            )
    return names.index(LABEL) if LABEL in names else others[-1]


def _numbers(
    line: int, cells: Sequence[str], names: Sequence[str], features: Sequence[int]
) -> npt.NDArray[np.float32]:
    """float32 ``(features,)``."""
    with np.errstate(
        over="ignore"
    ):  # a value too large for float32 becomes infinite, and is refused
        values = np.array([_number(cells[k]) for k in features]).astype(np.float32)
    if not np.isfinite(values).all():
        k = features[int(np.argmin(np.isfinite(values)))]
        raise DataError(
            f"line {line}, column {names[k]!r}: expected a finite number, got {cells[k]!r}"
        )
    return values


def _number(cell: str) -> float:
    """The number in ``cell``, or not-a-number if that is something else.

    >>> _number("1e3"), _number("1_000"), _number("")
    (1000.0, nan, nan)
    """
    try:
        return math.nan if "_" in cell else float(cell)
    except ValueError:
        return math.nan


def _filled(line: int, cell: str, name: str) -> str:
    if not cell:
        raise DataError(f"line {line}, column {name!r}: expected a label, got an empty cell")
    return cell


def _is_test(line: int, cell: str) -> bool:
    if cell not in ("train", "test"):
        raise DataError(f"line {line}, column {SPLIT!r}: expected train or test, got {cell!r}")
    return cell == "test"


def _classes(
    lines: Sequence[int], labels: Sequence[str], name: str
) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """The classes' names in order, by number if all are numbers, and the class of each label.

    >>> _classes([2, 3, 4], ["10", "9", "10"], "label")[0]
    ('9', '10')
    """
    numbers = [_number(label) for label in labels]
    is_text = any(math.isnan(number) for number in numbers)
    for line, label, number in zip(lines, labels, numbers, strict=True):
        if not is_text and not (number.is_integer() and abs(number) < 2**53):
            raise DataError(
                f"line {line}, column {name!r}: expected whole numbers or text as labels, got "
                f"{label!r}"
            )
    found, y = np.unique(
        np.array(labels if is_text else [int(number) for number in numbers]), return_inverse=True
    )
    return tuple(str(each) for each in found), y
