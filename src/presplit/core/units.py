"""Numbers as people read and write them: three significant digits and the unit that fits.

Plans and reports both print numbers this way, and the command takes them this way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from presplit.core.errors import SpecError

SECONDS: Mapping[str, float] = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "min": 60.0}
BYTES: Mapping[str, float] = {
    "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30
}  # fmt: skip
JOULES: Mapping[str, float] = {"J": 1.0, "mJ": 1e-3, "uJ": 1e-6, "µJ": 1e-6}
SHARES: Mapping[str, float] = {"%": 0.01}


def number(text: str, units: Mapping[str, float], what: str) -> float:
    """The number in ``text``, with or without one of ``units``, in the unit that counts as 1.

    Raises `SpecError` that begins with ``what`` for anything else, and for what is negative.

    >>> number("50ms", SECONDS, "--deadline"), number("0.5", SECONDS, "--deadline")
    (0.05, 0.5)
    >>> number("2 MB", BYTES, "--max-bytes"), number("0.5%", SHARES, "--max-drop")
    (2000000.0, 0.005)
    """
    bare = text.strip()
    unit = next((u for u in sorted(units, key=len, reverse=True) if bare.endswith(u)), "")
    digits = bare.removesuffix(unit).strip()
    try:
        value = float(digits) * units.get(unit, 1.0)
    except ValueError:
        value = math.nan
    plain = digits.replace(".", "", 1).replace("e-", "", 1).replace("e", "", 1).isdigit()
    if not plain or not math.isfinite(value):
        raise SpecError(
            f"{what}: expected a number, plain or in one of {', '.join(units)}, got {text!r}"
        )
    # The nearest number to what was written: 50 * 0.001 is not quite 0.05.
    return float(f"{value:.15g}")


def seconds(value: float) -> str:
    """A time.

    >>> seconds(0.0000042), seconds(0.01234), seconds(0.9996), seconds(75)
    ('4.2 µs', '12.3 ms', '1 s', '75 s')
    """
    return _scaled(value, (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)))


def data(value: float) -> str:
    """An amount of data, in decimal multiples of a byte.

    >>> data(0), data(784), data(12544), data(2.5e9)
    ('0 B', '784 B', '12.5 kB', '2.5 GB')
    """
    return _scaled(value, (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0)))


def rate(value: float) -> str:
    """Bits a second.

    >>> rate(3.1e6), rate(250)
    ('3.1 Mbit/s', '250 bit/s')
    """
    return _scaled(value, (("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3), ("bit/s", 1.0)))


def joules(value: float) -> str:
    """An energy.

    >>> joules(0.0021), joules(0)
    ('2.1 mJ', '0 J')
    """
    return _scaled(value, (("J", 1.0), ("mJ", 1e-3), ("µJ", 1e-6), ("nJ", 1e-9)))


def percent(value: float) -> str:
    """A share in 0..1.

    >>> percent(0.98765), percent(1.0)
    ('98.77 %', '100.00 %')
    """
    return f"{100 * value:.2f} %"


def count(value: float) -> str:
    """How many: whole and grouped below a million, in multiples above.

    >>> count(2360), count(4_300_000), count(1.25e9)
    ('2,360', '4.3 M', '1.25 G')
    """
    if value < 999_999.5:
        return f"{value:,.0f}"
    return _scaled(value, (("G", 1e9), ("M", 1e6)))


def counted(value: int, what: str) -> str:
    """So many of ``what``, whose plural ends in s.

    >>> counted(1, "bundle"), counted(1200, "answer")
    ('1 bundle', '1,200 answers')
    """
    return f"{value:,} {what}" if value == 1 else f"{value:,} {what}s"


def _scaled(value: float, units: tuple[tuple[str, float], ...]) -> str:
    """``value`` in the largest unit in which it is at least 1 after rounding.

    If there is none, it is in the smallest unit.
    """
    if value == 0:
        return f"0 {next(name for name, size in units if size == 1.0)}"
    for name, size in units:
        if abs(value) / size >= 0.9995:
            return f"{_three_digits(value / size)} {name}"
    name, size = units[-1]
    return f"{_three_digits(value / size)} {name}"


def _three_digits(value: float) -> str:
    """Three significant digits, never an exponent: 0.5, 12.3, 1234."""
    return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:.3g}"
