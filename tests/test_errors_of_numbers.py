"""The errors that load generators make with what they measured: ours does not, and whoever does is seen."""

from collections.abc import Sequence
from fractions import Fraction
from random import Random
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from scipy.stats import mannwhitneyu
from world import MS, S, World, summary, whole

from raybench.analysis import stats
from raybench.client.target import Timeouts
from raybench.load.arrivals import Closed, Constant
from raybench.rows import Outcome

QUICK = {"ttft_s": 0.01, "tokens": 1}

# 12 Warm-up, ramp and drain


def batch(requests: int, warmup_s: float) -> World:
    overrides = {"tokens": 20, "jitter": 0.05}
    return World(Closed(8), requests=requests, warmup_s=warmup_s, profile="llama2-70b-p4d-tgi", overrides=overrides)


def exponential(n: int, now_s: float) -> Sequence[tuple[float, bytes]]:
    return [(Random(n).expovariate(1.0), whole())]


def test_12_warm_up_and_drain_load_is_held_until_the_last_measured_request_has_ended() -> None:
    played = batch(64, 10.0).play()
    ended_ns = max(played.table.filter(pc.field("phase") == "measure")["end_ns"].to_pylist())
    sent_ns, end_ns = np.array(played.column("sent_ns")), np.array(played.column("end_ns"))
    for instant in range(10 * S, ended_ns, S // 10):
        assert ((sent_ns <= instant) & (end_ns >= instant)).sum() >= 8
    truth = batch(1000, 60.0).play().summary()["latency_mean"]
    assert played.summary()["latency_mean"] == pytest.approx(truth, rel=0.01)


@pytest.mark.parametrize("actors", [1, 4, 8])
@pytest.mark.parametrize("length", [{"requests": 160}, {"duration_s": 20.0}], ids=["counted", "timed"])
def test_12_warm_up_and_drain_every_actor_holds_its_load_until_the_last_one_has_measured(
    actors: int, length: dict[str, Any]
) -> None:
    played = World(Closed(8), route="invoke", script=exponential, actors=actors, **length).play()
    sent_ns, end_ns = np.array(played.column("sent_ns")), np.array(played.column("end_ns"))
    measured = np.array(played.column("phase")) == "measure"
    for instant in range(0, end_ns[measured].max(), S // 20):
        assert ((sent_ns <= instant) & (end_ns > instant)).sum() == 8
    assert played.summary()["little_ratio"] == pytest.approx(1.0)


def test_12_warm_up_and_drain_slots_left_empty_at_the_end_cost_throughput_and_are_seen() -> None:
    played = World(Closed(8), requests=64, route="invoke", script=exponential).play()
    held, drained = played.summary(), summary(played.world, played.table.filter(pc.field("phase") == "measure"))
    assert held["little_ratio"] == pytest.approx(1.0, abs=1e-12)
    assert held["reasons"] == []
    assert drained["requests_per_s"] < 0.95 * held["requests_per_s"]
    assert "slots_idle" in drained["reasons"]
    assert drained["valid"] == "INVALID"


def test_12_warm_up_and_drain_a_warm_up_inside_the_window_is_unstable() -> None:
    def warming(n: int, now_s: float) -> Sequence[tuple[float, bytes]]:
        return [(0.1 + max(0.0, 1.0 - 0.01 * n), whole())]

    told = World(Closed(1), requests=400, route="invoke", script=warming).play().summary()
    assert told["steady"] is False
    assert "unstable" in told["reasons"]
    assert told["valid"] == "INCONCLUSIVE"


# 13 Survivor bias


def patient(n: int, now_s: float) -> Sequence[tuple[float, bytes]]:
    return [(Random(n).expovariate(1 / 4), whole())]


SURVIVORS = World(
    Closed(50), requests=2000, route="invoke", script=patient, timeouts=Timeouts(invoke_s=10.0, idle_s=10.0)
)


def test_13_survivor_bias_a_request_that_timed_out_is_slower_than_all_that_did_not() -> None:
    told = SURVIVORS.play().summary()
    assert told["failed"] == pytest.approx(2000 * np.exp(-2.5), rel=0.15)
    assert told["latency_p90"] == pytest.approx(4 * np.log(10), rel=0.1)
    assert told["latency_p99"] is None
    assert "latency_p99" in told["beyond"]
    assert told["latency_p99_certified"] is None


def test_13_survivor_bias_without_the_dead_p99_is_below_the_timeout_and_half_the_truth() -> None:
    survivors = SURVIVORS.play()
    alive = survivors.table.filter(pc.field("outcome") == Outcome.OK)
    told = summary(SURVIVORS, alive, rows=len(survivors.table))
    assert 9.2 < told["latency_p99"] < 10
    assert told["latency_p99"] < 0.6 * 4 * np.log(100)
    assert "lost_rows" in told["reasons"]


# 14 Averaged percentiles


def lopsided(n: int, now_s: float) -> Sequence[tuple[float, bytes]]:
    return [(Random(n).expovariate(1 / (0.5 if n % 2 else 0.05)), whole())]


def test_14_averaged_percentiles_ours_are_those_of_the_pooled_rows_however_the_work_is_split() -> None:
    told = [
        World(Constant(20.0), requests=1000, route="invoke", script=lopsided, actors=actors).play()
        for actors in (1, 2)
    ]
    took = [row["end_ns"] - row["planned_ns"] for row in told[0].table.to_pylist() if row["phase"] == "measure"]
    for p, q in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)):
        one, two = (each.summary()[f"latency_{p}"] for each in told)
        assert one == two == pytest.approx(float(np.quantile(took, q)) / S, abs=1e-9)


def test_14_averaged_percentiles_of_two_workers_are_not_those_of_the_whole() -> None:
    played = World(Constant(20.0), requests=1000, route="invoke", script=lopsided, actors=2).play()
    each = [summary(played.world, played.table.filter(pc.field("actor") == f"e-{i}")) for i in (0, 1)]
    averaged = np.mean([told["latency_p99"] for told in each])
    assert abs(averaged / played.summary()["latency_p99"] - 1) > 0.2


# 15 Mean of ratios


def uneven(n: int, now_s: float) -> Sequence[tuple[float, bytes]]:
    return [(1.0, whole(10)) if n % 2 == 0 else (2.0, whole(100))]


def test_15_mean_of_ratios_throughput_is_tokens_in_the_window_over_the_window() -> None:
    told = World(Closed(1), requests=100, route="invoke", script=uneven).play().summary()
    assert told["window_s"] == 150
    assert told["completion_token_throughput"] == pytest.approx(float(Fraction(50 * 110, 150)), abs=1e-12)


def test_15_mean_of_ratios_says_otherwise() -> None:
    rows = World(Closed(1), requests=100, route="invoke", script=uneven).play().table.to_pylist()
    ratios = [row["completion_tokens"] / ((row["end_ns"] - row["sent_ns"]) / S) for row in rows[:100]]
    assert np.mean(ratios) == 30


# 16 Hysteresis between runs


def runs(rng: np.random.Generator) -> list[np.ndarray]:
    """Five repeats of one trial; each run is off by its own 5 %."""
    return [np.exp(rng.normal(0, 0.05)) * rng.gamma(25, 0.04, 500) for _ in range(5)]


def test_16_hysteresis_between_runs_five_repeats_that_are_alike_cry_wolf_rarely() -> None:
    rng = np.random.default_rng(16)
    cried = 0
    for _ in range(400):
        base, candidate = ([float(np.quantile(run, 0.5)) for run in runs(rng)] for _ in range(2))
        change = stats.change(base, candidate)
        assert change.low is not None
        assert change.high is not None
        cried += not change.low <= 1 <= change.high
    assert cried <= 0.08 * 400


def test_16_hysteresis_between_runs_pooled_requests_cry_wolf_at_every_other_pair() -> None:
    rng = np.random.default_rng(16)
    pairs = ((np.concatenate(runs(rng)), np.concatenate(runs(rng))) for _ in range(100))
    cried = sum(mannwhitneyu(base, candidate).pvalue < 0.05 for base, candidate in pairs)
    assert cried > 30


# 17 A p99 of too few


@pytest.mark.parametrize(("requests", "certified"), [(661, False), (662, True)])
def test_17_p99_from_too_few_is_certified_from_662_on_and_then_by_the_maximum(requests: int, certified: bool) -> None:
    def slowest_last(n: int, now_s: float) -> Sequence[tuple[float, bytes]]:
        return [(0.3 if n == 600 else 0.1, whole())]

    told = World(Closed(1), requests=requests, route="invoke", script=slowest_last).play().summary()
    assert told["n_eff"] == requests
    assert told["latency_p99_certified"] == (0.3 if certified else None)


def test_17_p99_from_too_few_is_not_told_at_all_and_a_criterion_on_it_is_inconclusive() -> None:
    world = World(Closed(1), requests=367, overrides=QUICK, criteria={"latency_p99": 1.0})
    told = world.play().summary()
    assert told["latency_p99"] is None
    assert told["reasons"] == ["too_few"]
    assert told["valid"] == "INCONCLUSIVE"
    assert told["criteria_met"] is None


# 21 The cost of the time of the test alone


def test_21_cost_of_a_transaction_carries_the_idle_time_of_the_instance() -> None:
    world = World(Constant(0.1), duration_s=1000, route="invoke", overrides={"ttft_s": 1.0, "tokens": 1})
    world.price_per_hour = 36.0
    told = world.play().summary()
    assert told["requests_per_s"] == 0.1
    assert told["price_per_txn"] == pytest.approx(0.10, abs=1e-12)


def test_21_cost_by_the_time_in_service_alone_would_be_a_tenth() -> None:
    world = World(Constant(0.1), duration_s=1000, route="invoke", overrides={"ttft_s": 1.0, "tokens": 1})
    rows = world.play().table.slice(0, 100).to_pylist()
    served_ns = sum(row["end_ns"] - row["sent_ns"] for row in rows)
    assert Fraction(36, 3600) * Fraction(served_ns, S) / len(rows) == Fraction(1, 100)


def test_21_cost_of_a_trial_in_rehearsal_counts_from_t0_to_the_last_reply() -> None:
    played = World(Closed(1), requests=10, warmup_s=1.0, overrides={"ttft_s": 0.5, "tokens": 1}).play()
    assert max(played.column("end_ns")) == 6000 * MS
