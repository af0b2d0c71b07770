"""What a family can draw.

Sizes are checked, a density is taken for a legal one, a refusal names the nearest ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from presplit.core.errors import PatternError

SIX_DIGITS = 1e-5
"""A density written with six digits, as refusals name it, is taken for the legal one."""


def check_sizes(n_in: int, n_out: int) -> None:
    """Raise `PatternError` unless there is something to connect."""
    if n_in < 1 or n_out < 1:
        raise PatternError(
            f"a layer needs at least one input and one output, got {n_in} -> {n_out}"
        )


def legal_density(
    n_in: int, n_out: int, density: float, legal: Sequence[float], *, family: str, rule: str
) -> float:
    """The member of ``legal`` (rising) that ``density`` means.

    Raises `PatternError` naming the nearest ones if none.

    ``rule`` says in words which densities are legal.

    >>> legal_density(9, 3, 0.333333, [1 / 3, 1.0], family="grouped", rule="1 / groups")
    0.3333333333333333
    >>> legal_density(9, 3, 0.5, [1 / 3, 1.0], family="grouped", rule="1 / groups")
    Traceback (most recent call last):
        ...
    presplit.core.errors.PatternError: 9 -> 3 has no grouped pattern of density 0.5: \
legal are 1 / groups; nearest: 0.333333, 1
    """
    meant = [d for d in legal if abs(density - d) <= SIX_DIGITS * d]
    if meant:
        return min(meant, key=lambda d: abs(density - d))
    near = {
        max((d for d in legal if d <= density), default=legal[0]),
        min((d for d in legal if d >= density), default=legal[-1]),
    }
    raise PatternError(
        f"{n_in} -> {n_out} has no {family} pattern of density {density:.6g}: legal are {rule}; "
        f"nearest: {', '.join(f'{d:.6g}' for d in sorted(near))}"
    )


def divisors(n: int) -> list[int]:
    """The whole numbers that divide ``n``, rising.

    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    small = [d for d in range(1, int(n**0.5) + 1) if n % d == 0]
    return small + [n // d for d in reversed(small) if d * d != n]


def check_divides(value: int, whole: int, *, what: str) -> None:
    """Raise `PatternError`, naming the nearest divisors, unless ``value`` divides ``whole``.

    ``what`` names both.

    >>> check_divides(7, 800, what="z must divide n_in")
    Traceback (most recent call last):
        ...
    presplit.core.errors.PatternError: z must divide n_in = 800, got 7; nearest: 5, 8
    """
    if value >= 1 and whole % value == 0:
        return
    legal = divisors(whole)
    near = {
        max((d for d in legal if d <= value), default=1),
        min((d for d in legal if d >= value), default=whole),
    }
    raise PatternError(
        f"{what} = {whole}, got {value}; nearest: {', '.join(str(d) for d in sorted(near))}"
    )
