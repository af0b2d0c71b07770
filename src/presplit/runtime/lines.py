"""Each sample becomes one line: its answer, or what is wrong with it.

A sample that cannot be made or answered is one line with its error, and the others go on. With a
ledger, an answer is on the disk before its line is handed on, and what it has answered already is
not asked again.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from presplit.core.errors import MissingLibrary, PresplitError
from presplit.core.types import Answer, Floats
from presplit.runtime.ledger import Ledger
from presplit.runtime.sample import Sample

Ask = Callable[[Floats], Answer]
Line = dict[str, object]


class Tally:
    """What became of all samples, counted."""

    def __init__(self) -> None:
        self.answers = self.degraded = self.bad = self.skipped = 0
        self.whys = Counter[str]()
        self.rows = Counter[int]()
        self._lock = threading.Lock()

    @property
    def seen(self) -> int:
        """Samples of any kind."""
        return self.answers + self.bad + self.skipped

    def answer(self, answer: Answer) -> None:
        """Count an answer."""
        with self._lock:
            self.answers += 1
            self.degraded += answer.degraded
            self.whys[answer.why] += 1
            if answer.row is not None:
                self.rows[answer.row] += 1

    def error(self) -> None:
        """Count a sample that has none."""
        with self._lock:
            self.bad += 1


class Lines:
    """Makes the line of a sample, by ``ask``; safe for several threads at once.

    ``labels`` are the classes' names; ``model`` says which net answers: a ledger's answers of
    another one do not count. ``see`` is shown every sample that was made.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        labels: tuple[str, ...] = (),
        ledger: Ledger | None = None,
        model: str = "",
        see: Callable[[Floats], None] | None = None,
    ) -> None:
        self.tally = Tally()
        self._ask, self._labels = ask, labels
        self._ledger, self._model = ledger, model
        self._see = see
        self._began = time.monotonic()

    def is_done(self, sample: Sample) -> bool:
        """Whether the ledger has its answer; then it is counted as skipped."""
        done = self._ledger is not None and self._ledger.answered(sample.id, self._mark(sample))
        self.tally.skipped += done
        return done

    def of(self, number: int, sample: Sample) -> Line:
        """The line of the sample with this number.

        Raises `MissingLibrary` if nothing of its kind can be read here.
        """
        asked_s = time.monotonic() - self._began
        line: Line = {"sample": number, **sample.named}
        try:
            x = sample.load()
            prepare_s = time.monotonic() - self._began - asked_s
            if self._see is not None:
                self._see(x)
            answer = self._ask(x)
        except MissingLibrary:
            raise
        except PresplitError as error:
            self.tally.error()
            line |= {"error": str(error), "t_s": asked_s}
            return self._kept(sample, line, is_answer=False)
        self.tally.answer(answer)
        if answer.label < len(self._labels):
            line["class"] = self._labels[answer.label]
        line |= {**answer.to_builtins(), "prepare_s": prepare_s, "t_s": asked_s}
        return self._kept(sample, line, is_answer=True)

    def _kept(self, sample: Sample, line: Line, *, is_answer: bool) -> Line:
        """The line, which the ledger has if there is one; else it says that it has not."""
        if self._ledger is None:
            return line
        is_kept = self._ledger.put(sample.id, line, mark=self._mark(sample), is_answer=is_answer)
        return line if is_kept else {**line, "kept": False}

    def _mark(self, sample: Sample) -> str:
        return f"{self._model}:{sample.mark}"


def answer_all(
    samples: Iterable[Sample], lines: Lines, emit: Callable[[Line], None], *, streams: int = 1
) -> None:
    """Call ``emit`` with the line of each sample, in their order, each as soon as it may be.

    ``streams`` of them are answered at once. What ``emit`` raises ends it.
    """
    if streams == 1:
        for number, sample in _open(samples, lines):
            emit(lines.of(number, sample))
        return
    order = _InOrder(emit)
    room = threading.Semaphore(2 * streams)

    def one(place: int, number: int, sample: Sample) -> None:
        try:
            order.done(place, lines.of(number, sample))
        except BaseException as error:  # it ends the reading, which is on another thread
            order.fail(error)
        finally:
            room.release()

    with ThreadPoolExecutor(streams) as pool:
        for place, (number, sample) in enumerate(_open(samples, lines)):
            room.acquire()
            if order.error is not None:
                break
            pool.submit(one, place, number, sample)
    if order.error is not None:
        raise order.error


def _open(samples: Iterable[Sample], lines: Lines) -> Iterator[tuple[int, Sample]]:
    """The samples that have no answer yet, with their numbers."""
    for number, sample in enumerate(samples):
        if not lines.is_done(sample):
            yield number, sample


class _InOrder:
    """Hands lines on in the order of their places, whoever brings them."""

    def __init__(self, emit: Callable[[Line], None]) -> None:
        self.error: BaseException | None = None
        self._emit = emit
        self._waiting = dict[int, Line]()
        self._next = 0
        self._lock = threading.Lock()

    def done(self, place: int, line: Line) -> None:
        with self._lock:
            self._waiting[place] = line
            while self.error is None and self._next in self._waiting:
                self._emit(self._waiting.pop(self._next))
                self._next += 1

    def fail(self, error: BaseException) -> None:
        with self._lock:
            self.error = self.error or error
