import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hildaft.eval.comparison import compare_paired, over_runs, over_seeds
from hildaft.types import HilDaftError


def test_mcnemar_by_hand() -> None:
    # 6 solved by a alone, 1 by b alone: two-sided exact p = 2 * (C(7,0) + C(7,1)) / 2^7.
    a = [[True] * 6 + [False] + [True] * 3]
    b = [[False] * 6 + [True] + [True] * 3]
    lengths = [[20] * 10]
    paired = compare_paired(a, b, lengths, lengths)
    assert (paired.only_a, paired.only_b, paired.pairs) == (6, 1, 10)
    assert paired.p_success == pytest.approx(2 * 8 / 128)
    assert paired.success.estimate == pytest.approx(0.5)
    assert paired.p_length == 1.0


def test_lengths_that_differ_throughout_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    solved = [[True] * 40] * 3
    long = rng.integers(30, 50, (3, 40))
    short = long - rng.integers(3, 9, (3, 40))
    paired = compare_paired(solved, solved, short.tolist(), long.tolist())
    assert paired.p_length < 1e-6
    assert paired.length.high < 0
    assert paired.p_success == 1.0


def test_runs_that_differ_widen_the_interval() -> None:
    same = [[0.0, 1.0] * 50] * 3
    apart = [[0.0] * 100, [0.0, 1.0] * 50, [1.0] * 100]
    narrow, wide = over_seeds(same), over_seeds(apart)
    assert narrow.estimate == wide.estimate == pytest.approx(0.5)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.floats(0, 50), min_size=1, max_size=8), min_size=1, max_size=4))
def test_an_interval_holds_its_estimate_and_stays_among_the_values(rows: list[list[float]]) -> None:
    interval = over_seeds(rows)
    every = [value for row in rows for value in row]
    assert min(every) - 1e-9 <= interval.low <= interval.high <= max(every) + 1e-9
    assert min(every) - 1e-9 <= interval.estimate <= max(every) + 1e-9


def test_few_runs_say_less_of_methods_than_many_episodes() -> None:
    # Differences of 2, 10 and 9 points: t = 7 / (4.36 / sqrt 3) on two degrees of freedom.
    test = over_runs([0.02, 0.10, 0.09])
    assert test is not None
    assert test.difference.estimate == pytest.approx(0.07)
    half = 4.302653 * np.std([0.02, 0.10, 0.09], ddof=1) / 3**0.5
    assert test.difference.high == pytest.approx(0.07 + half, rel=1e-5)
    assert 0.10 < test.p < 0.12
    assert over_runs([0.02]) is None
    assert over_runs([0.1, 0.1]) is None


def test_what_does_not_pair_up_is_refused() -> None:
    with pytest.raises(HilDaftError, match="same seeds"):
        compare_paired([[True]], [[True, False]], [[1]], [[1, 2]])
    with pytest.raises(HilDaftError, match="at least one run"):
        over_seeds([])
