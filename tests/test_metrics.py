"""Metrics of tiny trials whose answers are known by hand."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import OPEN, S, failed, loop, numbers, requests, row, table, trial, unsent

from raybench.analysis import metrics
from raybench.analysis.columns import RATES, SPREADS, TRIALS

SPREAD = ("mean", "p50", "p90", "p95", "p99")


def test_latency_counts_from_the_plan_and_service_latency_from_sending() -> None:
    found = numbers([row(0, 1.0, 1.5, 4.0)])
    assert found["latency_mean"] == 3.0
    assert found["service_latency_mean"] == 2.5
    assert found["lateness_p50"] == found["lateness_p99"] == found["lateness_max"] == 0.5


def test_a_stall_shows_in_latency_from_the_plan_only() -> None:
    """50 requests a second, 10 ms each, one stall of 2 s: those behind it wait, though each is quick once sent."""
    rows, free = [], 0.0
    for i in range(500):
        begin = max(i * 0.02, free, 6.0 if i * 0.02 >= 4 else 0.0)
        free = begin + 0.01
        rows.append(row(i, i * 0.02, begin, free))
    found = numbers(rows, **OPEN)
    assert found["latency_p99"] == pytest.approx(1.97, abs=0.05)
    assert found["service_latency_p99"] == pytest.approx(0.01)


def test_ttft_counts_from_the_plan_to_the_first_token_and_not_to_the_first_byte() -> None:
    found = numbers([row(0, 0.0, 0.0, 1.0, chunks=[0.5, 0.9], first_byte_ns=S // 10)])
    assert found["ttft_mean"] == 0.5


@pytest.mark.parametrize("pieces", [1, 6, 12])
def test_tpot_divides_by_tokens_and_gaps_are_between_chunks(pieces: int) -> None:
    """24 tokens over 2.3 s, however they are cut into chunks; one chunk says nothing about the time of a token."""
    chunks = [1.0] if pieces == 1 else np.linspace(1.0, 3.3, pieces).tolist()
    found = numbers([row(0, 0.0, 0.0, 4.0, chunks=chunks, completion_tokens=24)])
    if pieces == 1:
        assert found["tpot_mean"] is found["itl_mean"] is found["output_tokens_per_s_per_user_mean"] is None
    else:
        assert found["tpot_mean"] == pytest.approx(2.3 / 23)
        assert found["itl_mean"] == pytest.approx(2.3 / (pieces - 1))
        assert found["output_tokens_per_s_per_user_mean"] == pytest.approx(10.0)


def test_chunks_of_one_instant_are_one_and_leave_no_gap_of_zero() -> None:
    found = numbers([row(i, i, i, i + 1, chunks=[i + 0.1, i + 0.1, i + 0.4, i + 0.4]) for i in range(10)])
    assert found["itl_mean"] == found["itl_p50"] == pytest.approx(0.3)


def test_a_gap_is_never_taken_between_two_requests() -> None:
    rows = [row(i, i, i, i + 1, chunks=[i + 0.1, i + 0.2]) for i in range(5)]
    assert numbers(rows)["itl_mean"] == pytest.approx(0.1)
    assert len(metrics.Gaps.between_chunks(requests(rows)).seconds) == 5


def test_gaps_are_pooled_and_one_stalled_stream_shows_in_the_worst_gap() -> None:
    """100 streams of 51 chunks, 10 ms apart; a 2 s stall in two of them."""
    rows = []
    for i in range(100):
        chunks = (
            i + np.arange(51) * 0.01 + np.where(np.arange(51) > 25, 1.99 if i in (3, 60) else 0.0, 0.0)
        ).tolist()
        rows.append(row(i, i, i, i + 3, chunks=chunks))
    found = numbers(rows, duration_s=200.0, **OPEN)
    assert found["itl_p99"] == pytest.approx(0.01)
    assert found["itl_mean"] == pytest.approx((4998 * 0.01 + 2 * 2.0) / 5000)
    assert found["worst_gap_p95"] == pytest.approx(0.01)
    assert found["worst_gap_mean"] == pytest.approx((98 * 0.01 + 2 * 2.0) / 100)


def test_throughput_counts_what_was_served_in_the_window_whatever_its_phase() -> None:
    rows = [
        row(0, 0.5, 0.5, 2.5, phase="warmup"),
        row(1, 2.5, 2.5, 4.0),
        row(2, 4.0, 4.0, 6.0),
        row(3, 6.0, 6.0, 12.5),
        row(4, 12.5, 12.5, 13.0, phase="drain"),
    ]
    found = numbers(rows, warmup_s=2.0, duration_s=10.0)
    assert (found["window_start_s"], found["window_s"]) == (2.0, 10.0)
    assert found["requests"] == 3
    assert found["requests_per_s"] == pytest.approx((0.5 / 2.0 + 1 + 1 + 6.0 / 6.5) / 10)
    assert found["transactions_per_minute"] == pytest.approx(6 * (0.5 / 2.0 + 1 + 1 + 6.0 / 6.5))
    assert found["latency_mean"] == pytest.approx((1.5 + 2.0 + 6.5) / 3)


def test_throughput_is_no_mean_of_ratios() -> None:
    rows = [row(0, 0, 0, 1, completion_tokens=50), row(1, 1, 1, 10, completion_tokens=90)]
    assert numbers(rows)["completion_token_throughput"] == pytest.approx(14.0)


def test_a_counted_trial_is_measured_until_the_last_actor_had_its_last_request_back() -> None:
    rows = [row(2 * i, i, i, i + 1, actor="a-0") for i in range(5)]
    rows += [row(2 * i + 1, 2 * i, 2 * i, 2 * i + 2, actor="a-1") for i in range(5)]
    emptied = numbers(rows, duration_s=None, requests=10, concurrency=2)
    assert emptied["window_s"] == 10.0
    assert emptied["little_ratio"] == pytest.approx(0.75)
    rows += [row(2 * i, i, i, i + 1, actor="a-0", phase="drain") for i in range(5, 10)]
    held = numbers(rows, duration_s=None, requests=10, concurrency=2)
    assert held["requests_per_s"] == pytest.approx(1.5)
    assert held["little_ratio"] == pytest.approx(1.0)


def test_a_trial_that_was_stopped_is_measured_until_it_stopped() -> None:
    found = numbers(loop(4), duration_s=10.0, state="partial")
    assert found["window_s"] == 4.0
    assert found["requests_per_s"] == 1.0


def test_a_request_cut_by_the_edge_of_the_window_counts_by_its_share() -> None:
    """One slot, 1 s a request: the window cuts the first in half; 6.5 requests in 6.5 s are 1 a second."""
    rows = [row(0, 0, phase="warmup"), *(row(i, i) for i in range(1, 7))]
    found = numbers(rows, warmup_s=0.5, duration_s=None, requests=6)
    assert found["requests_per_s"] == pytest.approx(1.0)
    assert found["requests_per_s_low"] == pytest.approx(1.0)
    assert found["requests_per_s_high"] == pytest.approx(1.0)
    assert found["little_ratio"] == pytest.approx(1.0)


def test_littles_ratio_is_one_for_a_loop_that_refills_at_once() -> None:
    assert numbers(loop(20, 0.7))["little_ratio"] == pytest.approx(1.0)


def test_littles_ratio_shows_slots_that_wait_for_each_other() -> None:
    """Waves of two, one reply after 1 s and one after 3 s: 2 of 3 slot seconds are used."""
    rows = [row(2 * i + j, 3 * i, 3 * i, 3 * i + (1, 3)[j]) for i in range(4) for j in range(2)]
    found = numbers(rows, concurrency=2, duration_s=12.0)
    assert found["little_ratio"] == pytest.approx(2 / 3)
    assert found["reasons"] == ["slots_idle"]


def test_a_closed_load_that_was_stopped_is_measured_until_a_slot_stayed_empty() -> None:
    """Stopped at 3 s: slot 0 ends its last request at 3.5 s, slot 1 at 8 s. The drain is no idling."""
    rows = [row(0, 0, 0, 2), row(1, 0, 0, 2.5), row(2, 2, 2, 3.5), row(3, 2.5, 2.5, 8)]
    found = numbers(rows, concurrency=2, duration_s=60.0, state="partial")
    assert (found["window_s"], found["little_ratio"]) == (3.5, pytest.approx(1.0))
    assert "slots_idle" not in found["reasons"]
    waves = [row(2 * i + j, 4 * i, 4 * i, 4 * i + (1, 3)[j]) for i in range(4) for j in range(2)]
    assert "slots_idle" in numbers(waves, concurrency=2, duration_s=60.0, state="partial")["reasons"]


def test_thinking_is_not_idling_and_open_loads_have_no_slots() -> None:
    rows = [row(i, 2 * i + 1, 2 * i + 1, 2 * i + 2) for i in range(5)]
    assert numbers(rows, think_time_s=1.0)["little_ratio"] == pytest.approx(1.0)
    assert numbers(rows)["little_ratio"] == pytest.approx(0.5)
    assert numbers(rows, **OPEN)["little_ratio"] is None


def test_failures_stay_in_every_denominator_and_are_slower_than_all_that_finished() -> None:
    rows = loop(90) + [failed(90 + i, 90 + i) for i in range(10)]
    found = numbers(rows, duration_s=100.0)
    assert (found["requests"], found["ok"], found["failed"]) == (100, 90, 10)
    assert found["error_rate"] == pytest.approx(0.1)
    assert (found["error_rate_low"], found["error_rate_high"]) == (
        pytest.approx(0.0552, abs=1e-4),
        pytest.approx(0.1744, abs=1e-4),
    )
    assert found["latency_mean"] == 1.0
    assert found["latency_p50"] == 1.0
    assert found["latency_p95"] is None
    assert found["beyond"] == ["latency_p90", "latency_p95", "service_latency_p90", "service_latency_p95"]
    assert found["requests_per_s"] == pytest.approx(0.9)


def test_a_timeout_is_never_left_out_of_a_percentile() -> None:
    """A tenth timed out: what survived has a p95 of 1 s, but nobody waited less than the timeout there."""
    rows = [row(i, i, i, i + 1) for i in range(180)] + [failed(180 + i, 180 + i, "client_timeout") for i in range(20)]
    assert numbers(rows, duration_s=200.0)["latency_p95"] is None


def test_a_planned_request_that_was_never_sent_is_a_failure_with_a_name() -> None:
    found = numbers([*loop(8), unsent(8, 8.0), unsent(9, 9.0)], **OPEN)
    assert (found["requests"], found["failed"], found["not_sent"], found["lost"]) == (10, 2, 2, 0)


def test_percentiles_are_null_below_the_floor_of_samples() -> None:
    floors = {"p50": 6, "p90": 36, "p95": 72, "p99": 368}
    for p, floor in floors.items():
        for number in (floor - 1, floor):
            found = numbers(loop(number), duration_s=float(number))
            assert (found[f"latency_{p}"] is not None) == (number == floor)
            assert (found[f"latency_{p}_high"] is not None) == (number == floor)


def test_a_rates_interval_comes_from_ten_slices_that_are_alike_and_never_falls_below_zero() -> None:
    """Ten slices of a second: seven with one reply each, three with none."""
    found = numbers(loop(7), duration_s=10.0)
    reach = 2.2621571627 * np.array([1.0] * 7 + [0.0] * 3).std(ddof=1) * math.sqrt(2 / 10)
    assert found["requests_per_s"] == pytest.approx(0.7)
    assert found["requests_per_s_low"] == pytest.approx(0.7 - reach)
    assert found["requests_per_s_high"] == pytest.approx(0.7 + reach)
    assert numbers(loop(2), duration_s=10.0)["requests_per_s_low"] == 0.0


def test_prices_follow_from_the_unrounded_rate() -> None:
    found = numbers(loop(7, 10 / 7, completion_tokens=20))
    assert found["transactions_per_minute"] == pytest.approx(42)
    assert found["price_per_txn"] == pytest.approx(36 / (60 * 42))
    assert found["price_per_10k_txn"] == pytest.approx(36 / (60 * 42) * 10_000)
    assert found["price_per_1m_output_tokens"] == pytest.approx(36 / (3600 * 14) * 1_000_000)
    assert found["price_per_10k_txn_low"] <= found["price_per_10k_txn"] <= found["price_per_10k_txn_high"]


def test_a_faster_rate_is_a_lower_price_so_the_ends_of_the_intervals_change_places() -> None:
    rows = [row(i, *(start := sum(1 + k % 2 for k in range(i)),) * 2, start + 1 + i % 2) for i in range(40)]
    found = numbers(rows, duration_s=60.0)
    assert found["requests_per_s_low"] <= found["requests_per_s"] <= found["requests_per_s_high"]
    assert found["price_per_txn_high"] == pytest.approx(36 / 3600 / found["requests_per_s_low"])
    assert found["price_per_txn_low"] == pytest.approx(36 / 3600 / found["requests_per_s_high"])


def test_goodput_counts_requests_that_meet_each_criterion_on_their_time() -> None:
    rows = [row(i, i, i, i + 1, completion_tokens=10) for i in range(6)]
    rows += [row(6, 6, 6, 8, completion_tokens=100), row(7, 8, 8, 10, completion_tokens=100)]
    found = numbers(rows, {"latency_mean": 1.5, "error_rate": 0.0})
    assert found["requests_per_s"] == pytest.approx(0.8)
    assert found["goodput_per_s"] == pytest.approx(0.6)
    assert found["price_per_1m_good_tokens"] == pytest.approx(36 / (3600 * 6) * 1_000_000)
    assert numbers(rows)["goodput_per_s"] == pytest.approx(0.8)


def test_token_means_are_of_ok_requests_and_name_their_least_exact_source() -> None:
    rows = [row(0, 0, prompt_tokens=100), row(1, 1, prompt_tokens=300, prompt_tokens_source="server"), failed(2, 2)]
    found = numbers(rows)
    assert found["prompt_token_count_mean"] == 200
    assert (found["prompt_tokens_source"], found["completion_tokens_source"]) == ("estimate", "server")


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [failed(i, float(i)) for i in range(10)],
        [unsent(0)],
        [row(0)],
        [row(0, phase="warmup")],
        [row(0, 0, 0, 0)],
    ],
    ids=["empty", "all failed", "none sent", "one", "no measured one", "no time at all"],
)
@pytest.mark.parametrize("how", [{}, OPEN, {"duration_s": None, "requests": 10}, {"state": "partial"}])
def test_trials_without_numbers_give_a_row_of_nulls(rows: list[Any], how: dict[str, Any]) -> None:
    found = numbers(rows, {"latency_p95": 1.0, "ttft_p99": 1.0, "cost_per_10k": 1.0, "error_rate": 0.0}, **how)
    assert list(found) == TRIALS.names
    assert found["latency_p95"] is found["ttft_mean"] is found["itl_p50"] is None
    assert not any(isinstance(value, float) and not math.isfinite(value) for value in found.values())


def test_every_number_names_its_unit() -> None:
    for name in [f"{m}_{s}" for m in SPREADS for s in SPREAD] + list(RATES):
        for end in ("", "_low", "_high"):
            assert b"unit" in TRIALS.field(name + end).metadata


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 5 * S), min_size=6, max_size=400))
def test_percentiles_of_latency_are_numpys_of_the_pooled_rows(latencies_ns: list[int]) -> None:
    rows = [row(i, i, i, end_ns=i * S + lasts) for i, lasts in enumerate(latencies_ns)]
    found = numbers(rows, duration_s=500.0, **OPEN)
    for q, floor in ((50, 6), (90, 36), (95, 72), (99, 368)):
        if len(rows) >= floor:
            expected = float(np.percentile(np.array(latencies_ns) / S, q))
            assert found[f"latency_p{q}"] == pytest.approx(expected, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_numbers_do_not_depend_on_who_sent_what_nor_on_the_order_of_rows(seed: int, actors: int) -> None:
    rng = np.random.default_rng(seed)
    rows, at = [], 0.0
    for i in range(80):
        lasts = float(rng.exponential())
        kind = {"outcome": "model_error"} if rng.random() < 0.05 else {"prompt_id": f"p{rng.integers(60)}"}
        chunks = np.sort(at + rng.random(5) * lasts).tolist()
        rows.append(row(i, at, at, at + lasts, chunks=chunks, **kind))
        at += lasts
    alone = numbers(rows, duration_s=at)
    split = [row(r.seq, actor=f"a-{r.seq % actors}", **_instants(r)) for r in rows]
    mixed = [split[i] for i in rng.permutation(len(split))]
    assert numbers(mixed, duration_s=at) == alone


def _instants(one: Any) -> dict[str, Any]:
    return {name: value for name, value in one._asdict().items() if name not in ("seq", "actor")}


def test_rows_in_many_arrow_chunks_are_the_same_rows() -> None:
    rows = [row(i, i, i, i + 1, chunks=[i + 0.2, i + 0.7]) for i in range(10)]
    whole = table(rows)
    parts = pa.concat_tables([whole.slice(0, 3), whole.slice(3, 0), whole.slice(3)])
    latencies = [metrics.Requests(each).durations()["latency"].tolist() for each in (whole, parts)]
    assert latencies[0] == latencies[1] == [1.0] * 10
    gaps = [metrics.Gaps.between_chunks(metrics.Requests(each)) for each in (whole, parts)]
    assert gaps[0].seconds.tolist() == gaps[1].seconds.tolist()
    assert gaps[0].request.tolist() == gaps[1].request.tolist() == list(range(10))


def test_without_requests_there_is_no_window() -> None:
    assert metrics.window(requests([]), trial()) is None
