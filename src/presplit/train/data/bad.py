"""Files of a data set that are not what is expected: all of them are told at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from presplit.core.errors import DataError


class Bad:
    """Files that are left out if ``skip`` says so, and otherwise end the reading, together."""

    def __init__(self, found: Sequence[tuple[object, str]] = (), *, skip: bool) -> None:
        self.skip = skip
        self.found = [*found]

    @property
    def sentences(self) -> tuple[str, ...]:
        """One for each file, with what is wrong with it."""
        return tuple(f"{file}: {problem}" for file, problem in self.found)

    def note(self, file: object, problem: str) -> None:
        """Note a file and what is wrong with it."""
        self.found.append((file, problem))

    def settle(self, where: str, *, of: int) -> None:
        """Raise `DataError` that names all files, unless they are to be left out.

        ``of`` is how many files there are that might have been good.
        """
        if self.skip or not self.found:
            return
        if len(self.found) == 1:
            raise DataError(f"{self.sentences[0]}; --skip-bad (data.skip_bad) leaves it out")
        told = "".join(f"\n  {sentence}" for sentence in self.sentences)
        raise DataError(
            f"{where}: {len(self.found):,} of its {of:,} files are not what is expected; "
            f"--skip-bad (data.skip_bad) leaves them out:{told}"
        )

    def refuse_empty(
        self, classes: Mapping[str, Sequence[object]], y: npt.NDArray[np.int64]
    ) -> None:
        """Raise `DataError` if a class has none of its files left; ``y`` are the labels read."""
        for label, (name, files) in enumerate(classes.items()):
            if not (y == label).any():
                raise DataError(
                    f"{files[0]}: expected a sample of class {name}, none of its {len(files)} "
                    "files is left"
                )
