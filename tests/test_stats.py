"""Statistics against known answers, NumPy and SciPy."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, quantile_test

from raybench.analysis import stats
from raybench.analysis.stats import Estimate

finite = st.floats(-1e9, 1e9, allow_nan=False)
INF = math.inf


def parts(found: Estimate) -> list[Any]:
    return [found.value, found.low, found.high]


def ordered(seed: int, n: int) -> stats.Values:
    return np.sort(np.random.default_rng(seed).exponential(size=n))


@given(st.lists(finite, min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_numpys(values: list[float], q: float) -> None:
    found = stats.quantile(np.sort(values), q)
    assert found == pytest.approx(float(np.quantile(values, q)), rel=1e-9, abs=1e-6)


def test_the_floors_are_those_of_the_order_statistics_and_of_loadgen() -> None:
    quantiles = (0.5, 0.9, 0.95, 0.99, 0.999)
    assert [stats.interval_floor(q) for q in quantiles] == [6, 36, 72, 368, 3688]
    assert [stats.certified_floor(q) for q in quantiles] == [11, 64, 130, 662, 6636]
    assert stats.interval_floor(0.05) == stats.interval_floor(0.95)


@pytest.mark.parametrize(("q", "n"), [(0.5, 6), (0.9, 36), (0.95, 72), (0.99, 368), (0.5, 1001), (0.99, 4000)])
def test_a_percentile_and_its_interval_exist_from_the_floor_on_and_are_scipys(q: float, n: int) -> None:
    values = ordered(1, n)
    found = stats.percentile(values, q, n)
    theirs: Any = quantile_test(values, p=q).confidence_interval(0.95)
    assert (found.low, found.high) == (theirs.low, theirs.high)
    assert found.value == pytest.approx(float(np.quantile(values, q)))
    if n == stats.interval_floor(q):
        assert stats.percentile(values[1:], q, n - 1) == stats.Quantile()


def test_p99_is_certified_by_the_maximum_of_662_and_not_by_661() -> None:
    values = ordered(2, 662)
    assert stats.percentile(values, 0.99, 662).certified == values[-1]
    assert stats.percentile(values[:661], 0.99, 661).certified is None


def test_dependent_values_are_refused_an_interval_but_keep_their_percentile() -> None:
    values = ordered(3, 1000)
    found = stats.percentile(values, 0.99, 300.0)
    assert found.value is not None
    assert (found.low, found.high, found.certified) == (None, None, None)
    assert stats.percentile(values, 0.5, 29.0).low is None
    assert stats.percentile(values, 0.5, 30.0).low is not None


def test_fewer_independent_values_widen_an_interval() -> None:
    values = ordered(4, 1000)
    alone, together = stats.percentile(values, 0.9, 1000), stats.percentile(values, 0.9, 100)
    assert alone.low is not None
    assert alone.high is not None
    assert together.low is not None
    assert together.high is not None
    assert together.low < alone.low < alone.high < together.high


def test_a_percentile_among_requests_that_never_finished_is_beyond_and_no_number() -> None:
    values = np.array([1.0] * 90 + [INF] * 10)
    found = stats.percentile(values, 0.95, 100)
    assert (found.value, found.beyond) == (None, True)
    found = stats.percentile(values, 0.5, 100)
    assert (found.value, found.beyond) == (1.0, False)
    assert stats.percentile(values, 0.9, 100).beyond


def test_an_upper_end_among_requests_that_never_finished_is_open() -> None:
    found = stats.percentile(np.array([1.0] * 95 + [INF] * 5), 0.9, 100)
    assert (found.value, found.low, found.high) == (1.0, 1.0, None)


def test_independent_values_are_worth_themselves_and_repeated_ones_a_tenth() -> None:
    noise = np.random.default_rng(5).exponential(size=2000)
    assert stats.effective_size(noise) == 2000
    assert stats.effective_size(np.repeat(noise[:200], 10)) == pytest.approx(200, rel=0.35)
    assert stats.effective_size(np.ones(50)) == 50
    assert stats.effective_size(np.empty(0)) == 0


def test_values_in_clusters_that_agree_are_worth_one_each() -> None:
    sizes = np.full(100, 20.0)
    alike = np.where(np.arange(100) < 50, 20.0, 0.0)
    assert stats.clustered_size(alike, sizes) == pytest.approx(100)
    assert stats.clustered_size(np.full(100, 10.0), sizes) == 2000
    assert stats.clustered_size(np.empty(0), np.empty(0)) == 0


def test_a_mean_has_the_students_interval_of_ten_batch_means_that_are_alike() -> None:
    found = stats.mean(np.repeat(np.arange(10.0), 3))
    reach = 2.2621571627 * np.arange(10.0).std(ddof=1) * math.sqrt(2 / 10)
    assert parts(found) == pytest.approx([4.5, 4.5 - reach, 4.5 + reach])


def test_a_mean_of_few_takes_each_value_for_a_batch_and_is_never_below_zero() -> None:
    reach = 12.7062047 * math.sqrt(2)
    assert parts(stats.mean(np.array([19.0, 21.0]))) == pytest.approx([20, 20 - reach, 20 + reach])
    assert parts(stats.mean(np.array([1.0, 3.0]))) == pytest.approx([2, 0, 2 + reach])
    assert stats.mean(np.array([7.0])) == Estimate(7.0)
    assert stats.mean(np.empty(0)) == Estimate()


def test_the_mean_of_what_is_answered_in_rounds_has_no_more_batches_than_rounds() -> None:
    series = np.repeat([10.0, 11.0, 12.0], 8)
    reach = 4.3026527 * math.sqrt(2 / 3)
    assert parts(stats.mean(series, rounds=3)) == pytest.approx([11, 11 - reach, 11 + reach])
    assert stats.mean(series, rounds=1) == Estimate(11.0)
    assert stats.mean(series, rounds=0) == Estimate(11.0)


def test_the_mean_of_what_may_have_queued_has_no_interval_below_the_floor() -> None:
    series = np.repeat(np.arange(10.0), 50)
    assert stats.mean(series, 368.0) == stats.mean(series)
    assert stats.mean(series, 367.9) == Estimate(4.5)


def test_repeats_one_of_which_may_be_zero_may_be_zero_together() -> None:
    found = stats.combined_within([Estimate(2.0, 0.0, 5.0), Estimate(2.0, 1.0, 4.0)])
    assert found.low == 0.0
    assert found.high == pytest.approx(2 * math.exp(math.hypot(math.log(2.5), math.log(2)) / 2))


def test_a_ratio_is_of_sums_and_not_a_mean_of_ratios() -> None:
    assert stats.ratio(np.array([1.0, 30.0]), np.array([1.0, 10.0])).value == pytest.approx(31 / 11)


def test_wilsons_interval_of_none_in_353_leaves_room_for_one_per_cent() -> None:
    assert stats.wilson(0, 353).high == pytest.approx(0.01077, abs=1e-5)
    for hits, n in ((0, 353), (5, 50), (1, 2574), (49, 50)):
        theirs = binomtest(hits, n).proportion_ci(method="wilson")
        assert parts(stats.wilson(hits, n)) == pytest.approx([hits / n, theirs.low, theirs.high], abs=1e-12)
    assert stats.wilson(3, 3).high == 1.0
    assert stats.wilson(0, 0) == Estimate()


def test_mser_cuts_a_warm_up_and_nothing_of_a_steady_series() -> None:
    rng = np.random.default_rng(6)
    steady = rng.normal(10, 1, 500)
    slow = np.concatenate([rng.normal(30, 1, 100), rng.normal(10, 1, 400)])
    assert stats.warmup_cut(slow) == pytest.approx(0.2, abs=0.05)
    cut = stats.warmup_cut(steady)
    assert cut is not None
    assert cut < 0.5
    assert stats.warmup_cut(np.ones(49)) is None


def test_mser_says_of_a_series_that_never_settles_that_more_than_half_must_go() -> None:
    cut = stats.warmup_cut(np.exp(-np.arange(200.0) / 60))
    assert cut is not None
    assert cut > 0.5


def test_a_straight_rise_is_a_drift_of_exactly_its_size() -> None:
    times = np.arange(100.0)
    found = stats.drift(times, 10 + times / 99)
    assert found.value == pytest.approx(1 / 10.5)
    assert found.low == pytest.approx(1 / 10.5)


def test_noise_is_no_drift_and_too_few_cannot_tell() -> None:
    series = np.random.default_rng(7).normal(10, 1, 400)
    found = stats.drift(np.arange(400.0), series, 0.99)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0 < found.high
    assert stats.drift(np.arange(19.0), series[:19]) == Estimate()
    assert stats.drift(np.zeros(40), series[:40]) == Estimate()


def test_repeats_that_agree_by_chance_are_as_unsure_as_their_own_intervals() -> None:
    found = stats.combined_within([Estimate(1.0, 0.5, 4.0)] * 4)
    assert parts(found) == pytest.approx([1.0, 0.5**0.5, 2.0])
    apart = [Estimate(1.0, 0.99, 1.01), Estimate(4.0, -1.0, 4.01)]
    assert parts(stats.combined_within(apart)) == pytest.approx([2.0, 0.0, stats.combined([1.0, 4.0]).high])
    assert stats.combined_within([Estimate(), Estimate(1.0, 0.9, 1.1)]) == Estimate()


def test_repeats_are_combined_on_the_log_scale() -> None:
    found = stats.combined([1.0, 4.0])
    reach = math.exp(12.7062047 * math.log(2))
    assert parts(found) == pytest.approx([2.0, 2 / reach, 2 * reach], rel=1e-5)
    assert parts(stats.combined([3.0])) == [pytest.approx(3.0), None, None]
    assert stats.combined([]) == stats.combined([0.0, 1.0]) == Estimate()


def test_a_change_is_a_ratio_and_two_equal_sides_have_changed_by_none() -> None:
    assert parts(stats.change([2.0, 2.0], [3.0, 3.0])) == pytest.approx([1.5, 1.5, 1.5])
    found = stats.change([1.0, 1.1, 0.9], [1.0, 1.1, 0.9])
    assert found.value == pytest.approx(1.0)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 1 < found.high
    assert parts(stats.change([1.0], [2.0])) == [pytest.approx(2.0), None, None]
    assert stats.change([], [2.0]) == Estimate()


@settings(max_examples=50)
@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_an_interval_holds_its_percentile(values: list[float], q: float) -> None:
    series = np.array(values)
    found = stats.percentile(np.sort(series), q, stats.effective_size(series))
    if found.low is not None and found.high is not None:
        assert found.value is not None
        assert found.low <= found.value <= found.high
