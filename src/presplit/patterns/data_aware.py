"""Data-aware patterns: connections where the training inputs show them to be worth having.

The inputs show it before training: dead ones get no connection, informative ones more (that
placement must follow the task is the finding of arXiv 2604.10560). Fan-in is equal, so storage and
execution do not change. Only training inputs may be shown.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from presplit.core.errors import PatternError
from presplit.core.protocols import Family
from presplit.core.types import Pattern
from presplit.patterns.degrees import Reals, rows_of_degrees, whole_shares
from presplit.patterns.densities import check_divides, check_sizes, legal_density

LIVE_SHARE = 0.02
"""An input that is not 0 in at most this share of the samples is dead."""


def importance(inputs: npt.ArrayLike, *, live_share: float = LIVE_SHARE) -> Reals:
    """The variance of each input over samples ``(samples, ...)``, 0 where the input is dead.

    The result is float64 ``(n_in,)``.

    ``live_share`` 0..0.1 is sensible. Serves `local.over` as its ``weights`` too. Raises
    `PatternError` if none lives.

    >>> importance([[0.0, 1.0, 5.0], [0.0, 3.0, 5.0]]).tolist()
    [0.0, 1.0, 0.0]
    """
    samples = np.asarray(inputs, dtype=np.float64)
    if samples.ndim < 2 or len(samples) < 2 or not np.isfinite(samples).all():
        raise PatternError(f"inputs must be finite (samples >= 2, n_in), got {samples.shape}")
    samples = samples.reshape(len(samples), -1)
    alive = (samples != 0).mean(axis=0) > live_share
    variance = np.where(alive, samples.var(axis=0), 0.0)
    if not variance.any():
        raise PatternError(
            f"no input varies and is not 0 in more than {live_share:.0%} of {len(samples)} samples"
        )
    return variance


def by_importance(
    importance: npt.ArrayLike,
    n_out: int,
    *,
    fan_in: int,
    power: float = 0.5,
    tile: int = 1,
    seed: int = 0,
) -> Pattern:
    """Out-degrees proportional to ``importance ** power``, in-degrees all ``fan_in``.

    An input of importance 0 has out-degree 0.

    ``power`` 0 spreads evenly over live inputs, 0.5 follows the standard deviation, 1 the variance.
    Outputs of one ``tile`` share their inputs. Raises `PatternError` if fewer than ``fan_in``
    inputs are alive.

    >>> pattern = by_importance([0.0, 1.0, 1.0, 4.0], 8, fan_in=2)
    >>> pattern.fan_out.tolist(), pattern.fan_in
    ([0, 4, 4, 8], 2)
    """
    value = np.asarray(importance, dtype=np.float64).reshape(-1)
    if not np.isfinite(value).all() or (value < 0).any() or not 0 <= power < np.inf:
        raise PatternError(
            f"importance must be finite and at least 0, power too, got {value} and {power}"
        )
    check_sizes(value.size, n_out)
    check_divides(tile, n_out, what="tile must divide n_out")
    alive = np.count_nonzero(value)
    if not 1 <= fan_in <= alive:
        raise PatternError(f"fan_in must be in 1..{alive}, the inputs that are alive, got {fan_in}")
    weights = np.where(value > 0, np.power(value / value.max(), power), 0.0)
    rows = n_out // tile
    degrees = whole_shares(rows * fan_in, weights, limit=rows)
    index = rows_of_degrees(degrees, rows, np.random.default_rng(seed))
    return Pattern(n_in=value.size, tile=tile, index=index)


def over(
    inputs: npt.ArrayLike, *, power: float = 0.5, tile: int = 1, live_share: float = LIVE_SHARE
) -> Family:
    """The family of `by_importance` for these training inputs, for the first layer of a net.

    The inputs are ``(samples, ...)``.

    Inputs past those of the samples are padding: ``n_in`` may be larger, and they are not read.

    >>> inputs = np.random.default_rng(0).normal(size=(50, 6)) * [0, 1, 1, 1, 1, 4]
    >>> over(inputs)(8, 12, density=0.25).fan_out.tolist()
    [0, 3, 3, 4, 3, 11, 0, 0]
    """
    known = importance(inputs, live_share=live_share)

    def family(n_in: int, n_out: int, *, density: float, seed: int = 0) -> Pattern:
        check_sizes(n_in, n_out)
        if n_in < known.size:
            raise PatternError(f"the samples have {known.size} inputs, the layer only {n_in}")
        alive = np.count_nonzero(known)
        legal, rule = (
            [k / n_in for k in range(1, alive + 1)],
            f"fan_in / {n_in} with fan_in in 1..{alive}",
        )
        fan_in = round(
            n_in * legal_density(n_in, n_out, density, legal, family="data-aware", rule=rule)
        )
        padded = np.pad(known, (0, n_in - known.size))
        return by_importance(padded, n_out, fan_in=fan_in, power=power, tile=tile, seed=seed)

    family.__name__ = "data_aware"
    return family
