"""Comparisons that a reader may rely on: intervals over seeds, and paired tests of two methods on the same scenes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from hildaft.eval.statistics import Interval
from hildaft.types import HilDaftError

RESAMPLES = 2_000


@dataclass(frozen=True, kw_only=True, slots=True)
class RunTest:
    """A mean difference with each pair of runs as one observation: of the methods, not of their trained policies."""

    difference: Interval
    """95 % t interval."""
    p: float
    """Paired t-test."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Paired:
    """How method `a` differs from `b` on the same evaluation episodes of the same run seeds."""

    pairs: int
    seeds: int
    only_a: int
    """Episodes that `a` alone solved."""
    only_b: int
    success: Interval
    """Difference of the success rates, a - b, in [-1, 1]."""
    success_runs: RunTest | None
    """The same over runs; None where there is a single one."""
    p_success: float
    """McNemar's exact test: that `a` and `b` are as likely to solve what only one of them solved."""
    length: Interval
    """Difference of the mean lengths (steps, failures at the limit), a - b."""
    length_runs: RunTest | None
    p_length: float
    """Wilcoxon's signed-rank test on the lengths; 1 where all are equal."""


def over_runs(means: Sequence[float]) -> RunTest | None:
    """Paired t-test of differences, one per pair of runs; None for fewer than two, or where all are the same."""
    if len(means) < 2 or len(set(means)) == 1:
        return None
    # SciPy's types do not name the result's fields.
    result: Any = stats.ttest_1samp(means, 0.0)
    ends = result.confidence_interval(0.95)
    return RunTest(
        difference=Interval(
            estimate=float(np.mean(means)), low=float(ends.low), high=float(ends.high)
        ),
        p=float(result.pvalue),
    )


def over_seeds(values: Sequence[Sequence[float]], seed: int = 0) -> Interval:
    """95 % bootstrap of a mean over runs, then over each run's episodes; rows are runs.

    Both are drawn anew: what differs from run to run counts, not only from episode to episode. A single run leaves
    the episodes alone; of few runs the interval is too narrow, which is why `over_runs` stands beside it.

    Raises:
        HilDaftError: no runs, or a run without values.
    """
    if not values or any(not len(row) for row in values):
        msg = "values: at least one run with at least one value is needed"
        raise HilDaftError(msg)
    rows = [np.asarray(row, dtype=np.float64) for row in values]
    rng = np.random.default_rng(seed)
    means = np.stack(
        [row[rng.integers(0, len(row), (RESAMPLES, len(row)))].mean(1) for row in rows]
    )
    chosen = rng.integers(0, len(rows), (RESAMPLES, len(rows)))
    draws = means[chosen, np.arange(RESAMPLES)[:, None]].mean(axis=1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return Interval(
        estimate=float(np.mean([row.mean() for row in rows])), low=float(low), high=float(high)
    )


def compare_paired(
    success_a: Sequence[Sequence[bool]],
    success_b: Sequence[Sequence[bool]],
    length_a: Sequence[Sequence[int]],
    length_b: Sequence[Sequence[int]],
) -> Paired:
    """Compares two methods; rows are runs of the same seeds, columns the same evaluation episodes.

    Raises:
        HilDaftError: the rows do not pair up.
    """
    rows = [success_a, success_b, length_a, length_b]
    sizes = {tuple(len(row) for row in each) for each in rows}
    if len(sizes) != 1 or not success_a:
        msg = "paired comparison: the same seeds and the same episodes of both methods are needed"
        raise HilDaftError(msg)
    solved_a, solved_b = (np.concatenate([np.asarray(r) for r in each]) for each in rows[:2])
    only_a = int(np.sum(solved_a & ~solved_b))
    only_b = int(np.sum(~solved_a & solved_b))
    differing = only_a + only_b
    steps = [
        np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
        for a, b in zip(length_a, length_b, strict=True)
    ]
    gains = [
        np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
        for a, b in zip(success_a, success_b, strict=True)
    ]
    every_step = np.concatenate(steps)
    return Paired(
        pairs=len(solved_a),
        seeds=len(success_a),
        only_a=only_a,
        only_b=only_b,
        success=over_seeds([row.tolist() for row in gains]),
        success_runs=over_runs([float(row.mean()) for row in gains]),
        p_success=float(stats.binomtest(only_a, differing).pvalue) if differing else 1.0,
        length=over_seeds([row.tolist() for row in steps]),
        length_runs=over_runs([float(row.mean()) for row in steps]),
        p_length=_signed_rank(every_step) if every_step.any() else 1.0,
    )


def _signed_rank(differences: Float[np.ndarray, " n"]) -> float:
    # SciPy's types do not name the result's fields.
    result: Any = stats.wilcoxon(differences)
    return float(result.pvalue)
