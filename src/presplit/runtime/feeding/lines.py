"""Each sample becomes one line: its answer, or what is wrong with it.

A sample that cannot be made or answered is one line with its error, and the others go on. With a
ledger, an answer is on the disk before its line is handed on, and what it has answered already is
not asked again.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from presplit.core.errors import MissingLibrary, PresplitError
from presplit.core.types import Answer, Floats
from presplit.runtime.feeding.sample import Sample

if TYPE_CHECKING:
    from presplit.runtime.feeding.ledger import Ledger  # SQLite is loaded where it is needed

Ask = Callable[[Floats], Answer]
Line = dict[str, object]
TOGETHER = 256
"""Lines that wait for the disk, at most."""


@dataclass(frozen=True)
class Made:
    """The line of a sample, and by what the ledger knows it; an error ``is_answer`` False."""

    line: Line
    id: str
    mark: str
    is_answer: bool


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
    another one do not count. ``see`` is shown every sample that was made, ``note`` every
    answer with its line.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        labels: tuple[str, ...] = (),
        ledger: Ledger | None = None,
        model: str = "",
        see: Callable[[Floats], None] | None = None,
        note: Callable[[Answer, Made], None] | None = None,
    ) -> None:
        self.tally = Tally()
        self._ask, self._labels = ask, labels
        self.ledger, self._model = ledger, model
        self._see, self._note = see, note
        self._began = time.monotonic()

    def is_done(self, sample: Sample) -> bool:
        """Whether the ledger has its answer; then it is counted as skipped."""
        done = self.ledger is not None and self.ledger.answered(sample.id, self._mark(sample))
        self.tally.skipped += done
        return done

    def of(self, number: int, sample: Sample) -> Made:
        """The line of the sample with this number, which no ledger has yet: see `kept`.

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
            return Made(line, sample.id, self._mark(sample), is_answer=False)
        self.tally.answer(answer)
        if answer.label < len(self._labels):
            line["class"] = self._labels[answer.label]
        line |= {**answer.to_builtins(), "prepare_s": prepare_s, "t_s": asked_s}
        made = Made(line, sample.id, self._mark(sample), is_answer=True)
        if self._note is not None:
            self._note(answer, made)
        return made

    def kept(self, some: Sequence[Made]) -> list[Line]:
        """The lines of ``some``, once the ledger has them; one that it could not take says so."""
        if self.ledger is None:
            return [made.line for made in some]
        rows = [(one.id, one.line, one.mark, one.is_answer) for one in some]
        if self.ledger.put_all(rows):
            return [made.line for made in some]
        # Some of them may still have room.
        is_kept = [self.ledger.put(*row) for row in rows]
        return [
            made.line if kept else {**made.line, "kept": False}
            for made, kept in zip(some, is_kept, strict=True)
        ]

    def _mark(self, sample: Sample) -> str:
        return f"{self._model}:{sample.mark}"


def answer_all(
    samples: Iterable[Sample], lines: Lines, emit: Callable[[Line], None], *, streams: int = 1
) -> None:
    """Call ``emit`` with the line of each sample, in their order, each as soon as it may be.

    ``streams`` of them are answered at once. What ``emit`` raises ends it.
    """
    out = _Direct(emit) if lines.ledger is None else _Written(lines, emit)
    try:
        if streams == 1:
            for number, sample in _open(samples, lines, out):
                out.put(lines.of(number, sample))
        else:
            _at_once(samples, lines, out, streams)
    finally:
        out.close()
    if out.error is not None:
        raise out.error


def _open(samples: Iterable[Sample], lines: Lines, out: _Out) -> Iterator[tuple[int, Sample]]:
    """The samples that have no answer yet, with their numbers, as long as lines are taken."""
    for number, sample in enumerate(samples):
        if not lines.is_done(sample):
            yield number, sample
        if out.error is not None:
            return


def _at_once(samples: Iterable[Sample], lines: Lines, out: _Out, streams: int) -> None:
    """Answer ``streams`` samples at once, and put their lines out in their order."""
    order = _InOrder(out)
    room = threading.Semaphore(2 * streams)

    def one(place: int, number: int, sample: Sample) -> None:
        try:
            order.done(place, lines.of(number, sample))
        except BaseException as error:  # it ends the reading, which is on another thread
            out.error = out.error or error
        finally:
            room.release()

    with ThreadPoolExecutor(streams) as pool:
        for place, (number, sample) in enumerate(_open(samples, lines, out)):
            room.acquire()
            pool.submit(one, place, number, sample)


class _Out(Protocol):
    """Where lines go; after an ``error`` none is taken."""

    error: BaseException | None

    def put(self, made: Made) -> None: ...

    def close(self) -> None: ...


class _Direct:
    """Hands a line on at once."""

    def __init__(self, emit: Callable[[Line], None]) -> None:
        self.error: BaseException | None = None
        self._emit = emit

    def put(self, made: Made) -> None:
        if self.error is None:
            try:
                self._emit(made.line)
            except Exception as error:  # whatever it is, it ends the reading
                self.error = error

    def close(self) -> None:
        """Nothing waits here."""


class _Written:
    """Hands lines on once the ledger has them, on a thread of its own.

    What comes while a disk is being written to is written at one stroke after it: a disk takes some
    milliseconds for each, whatever there is to write.
    """

    def __init__(self, lines: Lines, emit: Callable[[Line], None]) -> None:
        self.error: BaseException | None = None
        self._lines, self._emit = lines, emit
        self._waiting = queue.Queue[Made | None](TOGETHER)
        self._thread = threading.Thread(target=self._write, name="ledger", daemon=True)
        self._thread.start()

    def put(self, made: Made) -> None:
        if self.error is None:
            self._waiting.put(made)

    def close(self) -> None:
        """Returns when all that was put is written and handed on."""
        self._waiting.put(None)
        self._thread.join()

    def _write(self) -> None:
        is_over = False
        while not is_over:
            some = [self._waiting.get()]
            while not self._waiting.empty():
                some.append(self._waiting.get())
            is_over = None in some
            self._hand_on([made for made in some if made is not None])

    def _hand_on(self, some: Sequence[Made]) -> None:
        if self.error is not None or not some:
            return  # the queue is emptied all the same, for whoever waits to put something in
        try:
            for line in self._lines.kept(some):
                self._emit(line)
        except Exception as error:  # whatever it is, it ends the reading
            self.error = error


class _InOrder:
    """Puts lines out in the order of their places, whoever brings them."""

    def __init__(self, out: _Out) -> None:
        self._out = out
        self._waiting = dict[int, Made]()
        self._next = 0
        self._lock = threading.Lock()

    def done(self, place: int, made: Made) -> None:
        with self._lock:
            self._waiting[place] = made
            while self._next in self._waiting:
                self._out.put(self._waiting.pop(self._next))
                self._next += 1
