import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hildaft.eval.statistics import bootstrap_mean_interval, counted_lengths, wilson_interval
from hildaft.types import HilDaftError


def test_wilson_by_hand():
    # 8 of 10: centre (0.8 + z^2/20) / (1 + z^2/10), half width as Wilson (1927) gives it.
    z2 = 1.959963984540054**2
    centre = (0.8 + z2 / 20) / (1 + z2 / 10)
    half = math.sqrt(z2) * math.sqrt(0.8 * 0.2 / 10 + z2 / 400) / (1 + z2 / 10)
    interval = wilson_interval(8, 10)
    assert interval.estimate == 0.8
    assert interval.low == pytest.approx(centre - half)
    assert interval.high == pytest.approx(centre + half)
    assert (round(interval.low, 3), round(interval.high, 3)) == (0.490, 0.943)


@given(episodes=st.integers(1, 300), data=st.data())
def test_wilson_holds_the_rate_and_is_symmetric(episodes, data):
    successes = data.draw(st.integers(0, episodes))
    interval = wilson_interval(successes, episodes)
    mirrored = wilson_interval(episodes - successes, episodes)
    assert 0 <= interval.low <= interval.estimate <= interval.high <= 1
    assert interval.low < interval.high
    assert interval.low == pytest.approx(1 - mirrored.high, abs=1e-12)


def test_wilson_covers_the_truth_about_as_often_as_it_says():
    draws = np.random.default_rng(0).binomial(50, 0.9, 2000)
    intervals = [wilson_interval(int(k), 50) for k in draws]
    covered = np.mean([i.low <= 0.9 <= i.high for i in intervals])
    assert 0.92 < covered < 0.99


@pytest.mark.parametrize(("successes", "episodes"), [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(successes, episodes):
    with pytest.raises(HilDaftError, match="successes="):
        wilson_interval(successes, episodes)


def test_the_bootstrap_agrees_with_the_normal_interval_on_many_values():
    values = np.random.default_rng(1).normal(30, 6, 400).tolist()
    interval = bootstrap_mean_interval(values)
    error = 1.96 * np.std(values) / 20
    assert interval.estimate == pytest.approx(np.mean(values))
    assert interval.low == pytest.approx(interval.estimate - error, abs=0.1)
    assert interval.high == pytest.approx(interval.estimate + error, abs=0.1)
    assert interval == bootstrap_mean_interval(values)


def test_one_value_has_no_width_and_none_is_refused():
    interval = bootstrap_mean_interval([7.0])
    assert (interval.low, interval.estimate, interval.high) == (7.0, 7.0, 7.0)
    with pytest.raises(HilDaftError, match="at least one value"):
        bootstrap_mean_interval([])


def test_failures_count_as_the_limit():
    assert counted_lengths([True, False, True], [20, 31, 50]) == [20, 50, 50]
