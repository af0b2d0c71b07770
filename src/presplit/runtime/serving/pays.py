"""Whether computing several samples at once pays, learned from what runs take.

On a processor a wide matrix product gains much by it (its weights are read once for all samples), a
convolution of a few channels gains nothing. Sizes are doubled as long as that makes a sample
cheaper; what was found is tried again from time to time, because the machine changes.
"""

from __future__ import annotations

from dataclasses import dataclass

GAIN = 0.95
"""A size pays if a sample takes at most this share of what it takes at half the size."""
LASTS = 256
"""After so many runs what a size takes must be seen again."""
WEIGHT = 0.2
"""How much the last run counts against those before it."""
MOST = 2.0
"""A run counts at most as so many times what was usual: a machine may stand still for a moment."""


@dataclass
class _Seen:
    """What a sample takes at one size: work of the processor, and time on the clock."""

    work_s: float
    clock_s: float
    run: int
    times: int = 1


class Pays:
    """How many samples of one step to compute at once, up to ``most``.

    >>> pays = Pays(8)
    >>> for size, took_s in [(1, 9.0), (1, 1.0), (2, 9.0), (2, 1.2), (4, 9.0), (4, 2.4)]:
    ...     pays.took(size, work_s=took_s, clock_s=took_s)  # the first of each is not counted
    >>> pays.size(), pays.seconds(2)
    (2, 1.2)
    """

    def __init__(self, most: int) -> None:
        self._most, self._runs = most, 0
        self._seen: dict[int, _Seen] = {}
        self.checked = False
        """Whether several together gave what each gives alone."""
        self.never = False
        """True if they did not, or could not be computed together."""

    def size(self) -> int:
        """How many samples to take together, if so many wait."""
        if self.never or self._most == 1 or self._unknown(1):
            return 1
        size = 1
        while 2 * size <= self._most:
            if self._unknown(2 * size):
                return 2 * size
            if self._seen[2 * size].work_s > GAIN * self._seen[size].work_s:
                break
            size *= 2
        return size

    def took(self, samples: int, *, work_s: float, clock_s: float) -> None:
        """A run of so many samples took so long."""
        self._runs += 1
        size = 1 << (samples.bit_length() - 1)
        work_s, clock_s = work_s / samples, clock_s / samples
        seen = self._seen.get(size)
        if seen is None or self._unknown(size):
            # The first run of an engine at a size is slow: it is known by the second.
            times = 1 if seen is None else 2
            self._seen[size] = _Seen(work_s, clock_s, self._runs, times)
            return
        seen.work_s += WEIGHT * (min(work_s, MOST * seen.work_s) - seen.work_s)
        seen.clock_s += WEIGHT * (min(clock_s, MOST * seen.clock_s) - seen.clock_s)
        seen.run = self._runs

    def seconds(self, samples: int) -> float:
        """What a run of so many samples is expected to take; 0 if that is not known.

        A size that is not known does not count: else one slow run of it would be the last.
        """
        known = [size for size in self._seen if size <= samples and not self._unknown(size)]
        return samples * self._seen[max(known)].clock_s if known else 0.0

    def _unknown(self, size: int) -> bool:
        """Whether this size was not seen, or too long ago."""
        seen = self._seen.get(size)
        return seen is None or seen.times < 2 or self._runs - seen.run > LASTS
