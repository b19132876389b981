"""Intervals for small samples. NumPy only."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from hildaft.types import HilDaftError

STEP_LIMIT = 50
"""Steps of an episode's limit, which a failure counts as (Table I counts them so)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """An estimate and the ends of its confidence interval."""

    estimate: float
    low: float
    high: float


def wilson_interval(successes: int, episodes: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a success rate, in [0, 1]; the estimate is the plain rate.

    Raises:
        HilDaftError: unless 0 <= successes <= episodes and episodes >= 1.
    """
    if not (episodes >= 1 and 0 <= successes <= episodes):
        msg = f"successes={successes} of episodes={episodes}: 0 <= successes <= episodes >= 1"
        raise HilDaftError(msg)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / episodes
    centre = (rate + z * z / (2 * episodes)) / (1 + z * z / episodes)
    half = z * math.sqrt(rate * (1 - rate) / episodes + z * z / (4 * episodes**2))
    half /= 1 + z * z / episodes
    # At 0 and at all successes the bound is exactly the rate; rounding must not step over it.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == episodes else centre + half
    return Interval(estimate=rate, low=low, high=high)


def bootstrap_mean_interval(
    values: Sequence[float] | Sequence[int],
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of the mean; one value gives an interval of no width.

    Raises:
        HilDaftError: if there are no values.
    """
    if not values:
        msg = "values=[]: at least one value is needed for a mean; run at least one episode"
        raise HilDaftError(msg)
    sample = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(0, len(sample), size=(resamples, len(sample)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(sample[draws].mean(axis=1), (tail, 1 - tail))
    return Interval(estimate=float(sample.mean()), low=float(low), high=float(high))


def counted_lengths(
    successes: Sequence[bool], lengths: Sequence[int], step_limit: int = STEP_LIMIT
) -> list[int]:
    """Episode lengths in steps with every failure counted as the limit."""
    return [
        length if success else step_limit
        for success, length in zip(successes, lengths, strict=True)
    ]
