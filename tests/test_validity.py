"""Every alarm is tripped by a trial that deserves it, and by none that does not."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from made import OPEN, failed, loop, numbers, reduced, requests, row, unsent

from raybench.analysis.columns import Valid
from raybench.analysis.facts import facts
from raybench.analysis.validity import CHECKS, verdict
from raybench.rows import Row

Trips = tuple[str, str, Callable[[], dict[str, Any]]]


def actors(**said: str) -> list[dict[str, str]]:
    return [{"actor": "a-0", "cpu_s": "1.0", "lag_p99_ms": "0.4", "lag_max_ms": "3.0"} | said]


def each(change: Callable[[int], dict[str, Any]], number: int = 100) -> list[Row]:
    """A hundred requests, one after another, each changed as `change` says."""
    return [row(i, i, **change(i)) for i in range(number)]


def long(rows: Sequence[Row], criteria: dict[str, float] | None = None, /, **other: Any) -> dict[str, Any]:
    return numbers(rows, criteria, **({"duration_s": 100.0, "actors": actors()} | other))


def slow_queue(number: int, seed: int = 1) -> list[Row]:
    """One server at 95 % for a thousand requests, arriving by themselves."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / 0.95, number))
    free, rows = 0.0, []
    for i, at in enumerate(arrivals.tolist()):
        free = max(free, at) + float(rng.exponential())
        rows.append(row(i, at, at, free))
    return rows


def in_step() -> list[Row]:
    """One slot that changes its pace every ten requests only."""
    rows, at, pace = [], 0.0, np.random.default_rng(1).uniform(0.9, 1.1, 10)
    for i in range(100):
        lasts = float(pace[i // 10])
        rows.append(row(i, at, at, at + lasts))
        at += lasts
    return rows


def slower_and_slower() -> list[Row]:
    rows, at = [], 0.0
    for i in range(100):
        rows.append(row(i, at, at, at + 1 + i / 100))
        at += 1 + i / 100
    return rows


def sooner_again(ratio: float) -> list[Row]:
    """Fifty prompts, each sent twice, the second time answered so much sooner."""
    rows, at = [], 0.0
    for i in range(100):
        lasts = ratio if i >= 50 else 1.0
        rows.append(row(i, at, at, at + lasts, prompt_id=f"p{i % 50}"))
        at += lasts
    return rows


P95 = {"latency_p95": 5.0}

TRIPS: list[Trips] = [
    ("client_lag", "INVALID", lambda: long(loop(100), actors=actors(lag_p99_ms="60"))),
    ("client_lag", "INVALID", lambda: long(loop(100), actors=actors(lag_max_ms="200"))),
    ("client_lag", "INVALID", lambda: long(loop(100), actors=actors(cpu_s="95"))),
    ("late_starts", "INVALID", lambda: long([row(i, i, i + 0.05, i + 1) for i in range(100)], **OPEN)),
    ("late_starts", "VALID", lambda: long([row(i, i, i + 0.08 * (i % 30 == 9), i + 1) for i in range(100)])),
    ("not_sent", "INVALID", lambda: long([*loop(98), unsent(98, 98.0), unsent(99, 99.0)], **OPEN)),
    ("not_sent", "VALID", lambda: long([*loop(199, 0.5), unsent(199, 99.5)], **OPEN)),
    ("slots_idle", "INVALID", lambda: long([row(i, i, i, i + 0.97) for i in range(100)])),
    ("new_connections", "INCONCLUSIVE", lambda: long(each(lambda i: {"connection_reused": i % 10 > 0}))),
    ("new_connections", "VALID", lambda: long(each(lambda i: {"connection_reused": i > 0}))),
    (
        "token_mismatch",
        "INVALID",
        lambda: long(each(lambda i: {"chunks": [i + 0.1, i + 0.2], "completion_tokens": 3})),
    ),
    (
        "token_mismatch",
        "VALID",
        lambda: long(each(lambda i: {"chunks": [i + 0.1], "completion_tokens": 1 + (i == 0)})),
    ),
    ("token_mismatch", "INVALID", lambda: long(each(lambda i: {"max_tokens": 9}))),
    ("echoed_prompt", "INVALID", lambda: long(each(lambda i: {"echoed_prompt": i < 2}))),
    ("repeated_prompts", "VALID", lambda: long(each(lambda i: {"prompt_id": f"p{i % 50}"}))),
    ("repeated_prompts", "INVALID", lambda: long(each(lambda i: {"prompt_id": "p", "cached_tokens": 90}))),
    ("repeated_prompts", "VALID", lambda: long(each(lambda i: {"prompt_id": f"p{i % 50}", "cached_tokens": 0}))),
    ("repeated_prompts", "INVALID", lambda: long(each(lambda i: {"cached_tokens": 98}))),
    ("repeated_prompts", "INVALID", lambda: long(each(lambda i: {"cached_tokens": 90 * (i < 2)}))),
    ("repeated_prompts", "INVALID", lambda: long(sooner_again(0.85), duration_s=92.5)),
    ("repeated_prompts", "VALID", lambda: long(sooner_again(0.95), duration_s=97.5)),
    ("truncated", "INVALID", lambda: long([*loop(98), failed(98, 98.0, "truncated"), failed(99, 98.5, "truncated")])),
    ("throttled", "INVALID", lambda: long([*loop(98), failed(98, 98.0, "throttled"), failed(99, 98.5, "throttled")])),
    ("unstable", "INCONCLUSIVE", lambda: long(slower_and_slower(), duration_s=149.5)),
    ("near_saturation", "INCONCLUSIVE", lambda: long(slow_queue(1000), P95, duration_s=1200.0, **OPEN)),
    (
        "near_saturation",
        "INCONCLUSIVE",
        lambda: long(slow_queue(1000), {"latency_mean": 99}, duration_s=1200.0, **OPEN),
    ),
    ("near_saturation", "VALID", lambda: long(slow_queue(1000), duration_s=1200.0, **OPEN)),
    ("near_saturation", "INCONCLUSIVE", lambda: long(in_step(), P95)),
    ("too_few", "INCONCLUSIVE", lambda: long(loop(71), P95, duration_s=71.0)),
    ("too_few", "INCONCLUSIVE", lambda: long(loop(367, 0.2), {"latency_mean": 5.0}, **OPEN)),
    ("too_few", "INCONCLUSIVE", lambda: long(loop(367, 0.2), P95, **OPEN)),
    ("too_few", "INCONCLUSIVE", lambda: long(loop(367, 0.2), {"itl_p95": 5.0}, **OPEN)),
    ("too_few", "INCONCLUSIVE", lambda: long([])),
    ("stamp_disorder", "INVALID", lambda: long([*loop(99), row(99, 99.0, 98.9, 100.0)])),
    ("stamp_disorder", "INVALID", lambda: long([*loop(99), row(99, 99.0, chunks=[99.5, 99.3, 99.6])])),
    ("stamp_disorder", "INVALID", lambda: long([*loop(99), row(99, 99.0, chunks=[99.5, 100.5])])),
    ("stamp_disorder", "INVALID", lambda: long([*loop(99), row(99, 99.0, end_ns=None)])),
    ("lost_rows", "INVALID", lambda: long([*loop(99), row(100, 99.0)])),
    ("lost_rows", "INVALID", lambda: long(loop(100), rows=101)),
    ("lost_rows", "INVALID", lambda: long(loop(100), duration_s=None, requests=120)),
    ("lost_rows", "INVALID", lambda: long(loop(100), lost=["a-1"])),
    ("lost_rows", "INVALID", lambda: long([*loop(99), row(99, 99.0, outcome="lost", end_ns=None)])),
]

CODES = [
    *("client_lag", "late_starts", "not_sent", "slots_idle", "new_connections", "token_mismatch", "echoed_prompt"),
    *("repeated_prompts", "truncated", "throttled", "unstable", "near_saturation", "too_few", "stamp_disorder"),
    "lost_rows",
]


@pytest.mark.parametrize(("code", "valid", "make"), TRIPS, ids=[f"{code}-{valid}" for code, valid, _ in TRIPS])
def test_an_alarm_goes_off_and_makes_of_the_trial_what_it_should(
    code: str, valid: str, make: Callable[[], dict[str, Any]]
) -> None:
    found = make()
    assert code in found["reasons"]
    verdicts = {"VALID": 0, "INCONCLUSIVE": 1, "INVALID": 2}
    assert verdicts[found["valid"]] >= verdicts[valid]
    if found["reasons"] == [code]:
        assert found["valid"] == valid


def test_every_alarm_has_a_trial_that_trips_it() -> None:
    assert {code for code, _, _ in TRIPS} == set(CODES)
    assert len(CHECKS) == len(CODES)


def test_a_number_has_an_interval_where_requests_queue_only_if_they_are_worth_enough() -> None:
    for made, known in ((loop(368, 0.2), True), (loop(367, 0.2), False), (slow_queue(1000), False)):
        found = long(made, {"latency_mean": 99.0, "ttft_mean": 99.0}, duration_s=1200.0, **OPEN)
        for name in ("latency_mean", "latency_p50", "latency_p95"):
            assert found[name] is not None
            assert [found[f"{name}_low"] is not None, found[f"{name}_high"] is not None] == [known, known]
        assert (found["latency_p50_certified"] is not None) is known
    found = long(loop(100))
    assert found["latency_p95_low"] is not None, "a closed load's slots do not queue"
    found = long(loop(2), {"latency_mean": 5.0}, duration_s=2.0)
    assert (found["latency_mean_low"], found["valid"]) == (1.0, "VALID"), "a closed load's slots do not queue"


@pytest.mark.parametrize(("number", "known"), [(368, True), (367, False)])
def test_gaps_and_curves_of_an_open_load_have_intervals_from_as_many_requests_on(number: int, known: bool) -> None:
    rng = np.random.default_rng(9)
    lasts_s = rng.uniform(0.1, 0.3, number).tolist()
    streamed = [row(i, i, i, i + s, chunks=[i + s / 4, i + s / 2, i + s]) for i, s in enumerate(lasts_s)]
    open_, closed = (reduced(streamed, duration_s=400.0, actors=actors(), **how) for how in (OPEN, {}))
    assert (open_.trials["itl_p50_low"][0].as_py() is not None) is known
    assert closed.trials["itl_p50_low"][0].as_py() is not None
    middle = [line for line in open_.curves.to_pylist() if line["quantile"] == 0.5]
    assert [(line["latency_s"] is not None, line["low_s"] is not None) for line in middle] == [(True, known)]
    assert closed.curves["low_s"].null_count < len(closed.curves)


def test_a_code_is_said_once_and_each_of_its_sentences_stays() -> None:
    found = long(loop(367, 0.2), {"latency_p95": 5.0, "ttft_p50": 5.0, "latency_mean": 5.0}, **OPEN)
    assert found["reasons"].count("too_few") == 1
    assert sum("too few for" in text for text in found["reason_texts"]) >= 2


def test_a_criterion_on_a_mean_that_was_refused_its_interval_cannot_be_decided_by() -> None:
    summary = {"kind": "poisson", "requests": 1000, "ok": 1000, "n_eff": 40.0, "latency_mean": 2.0}
    valid, (reason,) = verdict(summary, {"latency_mean": 5.0})
    assert (valid, reason.code) == (Valid.INCONCLUSIVE, "near_saturation")
    assert reason.text == "1,000 requests are worth 40 independent ones: latency_mean is not certified"
    closed = {**summary, "kind": "closed", "concurrency": 8, "latency_mean_low": 1.9}
    assert verdict(closed, {"latency_mean": 5.0}) == (Valid.VALID, ())
    one_round = {**closed, "requests": 15, "ok": 15, "latency_mean_low": None}
    valid, (reason,) = verdict(one_round, {"latency_mean": 5.0})
    assert (valid, reason.code) == (Valid.INCONCLUSIVE, "too_few")
    assert reason.text == "15 requests are too few for latency_mean, which needs two for each of 8 slots"


def ordinary() -> list[Row]:
    """A stream that nobody could object to: some spread, fresh prompts, server's counts, kept connections."""
    rng, rows, at = np.random.default_rng(3), [], 0.0
    for i in range(400):
        lasts = float(rng.uniform(0.8, 1.2))
        chunks = (at + lasts * np.linspace(0.2, 1.0, 10)).tolist()
        rows.append(row(i, at, at + 1e-4, at + lasts + 1e-3, chunks=chunks, max_tokens=10, echoed_prompt=False))
        at += lasts + 1e-3
    return rows


@pytest.mark.parametrize("how", [{}, OPEN], ids=["closed", "open"])
def test_an_ordinary_trial_is_valid_without_a_remark(how: dict[str, Any]) -> None:
    rows = ordinary()
    criteria = {"latency_mean": 5.0, "latency_p95": 5.0, "cost_per_10k": 500.0, "error_rate": 0.0}
    found = long(rows, criteria, duration_s=(rows[-1].planned_ns + 1) / 1e9, rows=400, **how)
    assert (found["valid"], found["reasons"]) == ("VALID", [])
    assert found["steady"] is True
    assert found["criteria_met"] is True


@pytest.mark.parametrize("number", [8, 12])
def test_a_short_trial_is_valid_for_what_it_shows(number: int) -> None:
    rows = ordinary()[:number]
    last = rows[-1].end_ns or 0
    found = long(rows, {"latency_mean": 5.0, "error_rate": 0.0}, duration_s=None, requests=number)
    assert (found["valid"], found["reasons"]) == ("VALID", [])
    assert found["latency_mean"] is not None
    assert found["latency_p50"] is not None
    assert found["latency_p95"] is None
    assert found["window_s"] == last / 1e9


def test_a_trial_in_which_everything_failed_is_a_finding_and_not_a_fault_of_the_measurement() -> None:
    rows = [failed(i, i * 0.5) for i in range(100)]
    found = long(rows, {"latency_mean": 5.0, "error_rate": 0.01}, duration_s=50.0)
    assert (found["valid"], found["reasons"]) == ("VALID", [])
    assert (found["criteria_met"], found["missed"]) == (False, ["error_rate"])


@pytest.mark.parametrize("limit", [1.2, 1.0], ids=["within", "beyond"])
def test_a_percentile_of_slots_that_fall_into_step_neither_passes_nor_fails(limit: float) -> None:
    found = long(in_step(), {"latency_p95": limit, "latency_mean": 2.0})
    assert (found["latency_p95_low"], found["latency_p95_high"]) == (None, None)
    assert (found["valid"], found["reasons"]) == ("INCONCLUSIVE", ["near_saturation"])
    assert (found["criteria_met"], found["missed"], found["unsure"]) == (None, [], ["latency_p95"])
    (text,) = found["reason_texts"]
    assert text == "100 requests are worth 12 independent ones: latency_p95 is not certified; measure longer"


@pytest.mark.parametrize(("limit", "met"), [(1.3, True), (1.0, False)], ids=["within", "beyond"])
def test_a_percentile_of_slots_that_do_not_passes_or_fails(limit: float, met: bool) -> None:
    rows = ordinary()
    found = long(rows, {"latency_p95": limit}, duration_s=(rows[-1].planned_ns + 1) / 1e9)
    assert (found["valid"], found["reasons"]) == ("VALID", [])
    assert (found["criteria_met"], found["missed"], found["unsure"]) == (met, [] if met else ["latency_p95"], [])


def test_slots_that_fall_into_step_are_no_reason_where_no_criterion_asks_for_a_percentile() -> None:
    found = long(in_step(), {"latency_mean": 2.0})
    assert (found["valid"], found["reasons"]) == ("VALID", [])
    assert found["latency_p95"] == pytest.approx(1.09, abs=0.01)
    assert found["latency_p95_low"] is None


@pytest.mark.parametrize(
    ("said", "seconds", "valid"),
    [
        ({"lag_p90_ms": "9", "lag_p99_ms": "149", "lag_max_ms": "149.9"}, 4.9, "VALID"),
        ({"lag_p90_ms": "11", "lag_p99_ms": "149", "lag_max_ms": "149.9"}, 4.9, "INVALID"),
        ({"lag_p90_ms": "9", "lag_p99_ms": "149", "lag_max_ms": "151"}, 4.9, "INVALID"),
        ({"lag_p90_ms": "9", "lag_p99_ms": "149", "lag_max_ms": "149.9", "cpu_s": "4.8"}, 4.9, "INVALID"),
        ({"lag_p90_ms": "0.4", "lag_p95_ms": "11", "lag_p99_ms": "20", "lag_max_ms": "20"}, 4.9, "VALID"),
        ({"lag_p90_ms": "0.4", "lag_p95_ms": "11", "lag_p99_ms": "20", "lag_max_ms": "20"}, 5.0, "INVALID"),
        ({"lag_p90_ms": "0.4", "lag_p95_ms": "0.4", "lag_p99_ms": "11", "lag_max_ms": "20"}, 14.9, "VALID"),
        ({"lag_p90_ms": "0.4", "lag_p95_ms": "0.4", "lag_p99_ms": "11", "lag_max_ms": "20"}, 15.0, "INVALID"),
    ],
    ids=[
        *("a few delays", "one in ten", "one far too late", "a busy client", "too short for its p95"),
        *("long enough for its p95", "too short for its p99", "long enough for its p99"),
    ],
)
def test_in_a_short_window_a_few_late_delays_are_a_remark_and_one_in_ten_is_not(
    said: dict[str, str], seconds: float, valid: str
) -> None:
    found = long(loop(round(seconds / 0.05), 0.05), duration_s=seconds, actors=actors(**said))
    assert (found["valid"], found["reasons"]) == (valid, ["client_lag"])


@pytest.mark.parametrize(
    ("window_s", "stalls", "valid"),
    [
        *((5.0, 1, "VALID"), (5.0, 2, "INVALID")),
        *((14.9, 5, "VALID"), (14.9, 6, "INVALID")),
        *((15.0, 1, "VALID"), (15.0, 2, "INVALID")),
    ],
)
def test_stalls_as_long_as_is_allowed_decide_nothing_alone_and_something_together(
    window_s: float, stalls: int, valid: str
) -> None:
    lags = [150.0 - 20 * k for k in range(8)] * stalls
    lags = [0.0] * (round(window_s / 0.02) - len(lags)) + sorted(lags)
    said = {f"lag_p{p}_ms": str(lags[p * (len(lags) - 1) // 100]) for p in (90, 95, 99)}
    rows = loop(round(window_s / 0.05), 0.05)
    assert long(rows, duration_s=window_s, actors=actors(lag_max_ms="150", **said))["valid"] == valid


def slow(first_s: float | None, late_s: float = 0.0) -> list[Row]:
    """Twenty replies of 30 s, one after another; each streams from `first_s` on, or comes in one piece."""
    chunks = () if first_s is None else (first_s, 15.0, 30.0)
    begins = [30.0 * i for i in range(20)]
    return [row(i, at, at + late_s, at + 30, chunks=[at + chunk for chunk in chunks]) for i, at in enumerate(begins)]


@pytest.mark.parametrize(
    ("first_s", "said", "valid"),
    [
        (None, {"lag_p99_ms": "550", "lag_max_ms": "2900"}, "VALID"),
        (None, {"lag_p99_ms": "601", "lag_max_ms": "2900"}, "INVALID"),
        (None, {"lag_p99_ms": "550", "lag_max_ms": "3001"}, "INVALID"),
        (10.0, {"lag_p99_ms": "550", "lag_max_ms": "2900"}, "VALID"),
        (0.3, {"lag_p99_ms": "550", "lag_max_ms": "2900"}, "INVALID"),
        (0.3, {"lag_p99_ms": "31", "lag_max_ms": "100"}, "INVALID"),
        (0.3, {"lag_p99_ms": "29", "lag_max_ms": "149"}, "VALID"),
        (0.3, {"lag_p99_ms": "29", "lag_max_ms": "151"}, "INVALID"),
        (1.0, {"lag_p99_ms": "99", "lag_max_ms": "499"}, "VALID"),
        (0.03, {"lag_p99_ms": "9.9", "lag_max_ms": "20"}, "VALID"),
    ],
)
def test_a_lag_is_judged_by_what_a_reply_takes_and_if_it_streams_by_its_first_token(
    first_s: float | None, said: dict[str, str], valid: str
) -> None:
    found = long(slow(first_s), duration_s=600.0, actors=actors(**said))
    assert (found["valid"], found["reasons"]) == (valid, [] if valid == "VALID" else ["client_lag"])


@pytest.mark.parametrize(
    ("first_s", "late_s", "valid"),
    [(None, 0.5, "VALID"), (None, 0.61, "INVALID"), (0.3, 0.05, "INVALID"), (0.3, 0.029, "VALID")],
)
def test_lateness_is_judged_by_what_a_reply_takes_and_if_it_streams_by_its_first_token(
    first_s: float | None, late_s: float, valid: str
) -> None:
    found = long(slow(first_s, late_s), duration_s=600.0, **OPEN)
    assert (found["valid"], found["reasons"]) == (valid, [] if valid == "VALID" else ["late_starts"])


@pytest.mark.parametrize(("first_s", "valid"), [(1.0, "VALID"), (0.3, "INVALID")])
def test_what_selftest_saw_above_its_ceiling_is_judged_by_the_first_token_too(first_s: float, valid: str) -> None:
    ceiling = {"streams": 0.5, "chunks_per_s": 0.01, "limit": "client", "error_ms": 40.0}
    found = long(slow(first_s), duration_s=600.0, crew={"actors": 1, "ceiling": ceiling})
    assert (found["valid"], found["reasons"]) == (valid, ["client_lag"])


def test_replies_that_stream_are_judged_no_more_loosely_than_those_in_one_piece() -> None:
    """A first token after 0.9 s of 1 s: a tenth of that would be four and a half times what a reply allows."""
    rows = [row(i, i, i, i + 1, chunks=[i + 0.9, i + 1]) for i in range(100)]
    for lag, valid in (("19", "VALID"), ("21", "INVALID")):
        assert long(rows, actors=actors(lag_p99_ms=lag, lag_max_ms="100"))["valid"] == valid


def test_rows_of_several_actors_are_complete_when_each_has_counted_without_a_gap() -> None:
    about: dict[str, Any] = {"actors": [{}, {}, {}]}
    whole = [row(i, i, actor=f"a-{i % 3}") for i in range(10)]
    assert facts(requests(whole), {}, {}, about)["missing_rows"] == 0
    assert facts(requests(whole[:4] + whole[5:]), {}, {}, about)["missing_rows"] == 1
    uneven = [row(3 * i, i, actor="a-0") for i in range(5)] + [row(1, 0, actor="a-1")]
    assert facts(requests(uneven), {}, {}, about)["missing_rows"] == 0


def test_a_trial_is_judged_by_the_actors_that_played_it_and_not_by_those_of_a_later_sitting() -> None:
    def about(actors: int, streams: int) -> dict[str, Any]:
        ceiling = {"streams": streams, "chunks_per_s": 50.0 * streams, "limit": "client", "error_ms": 9.0}
        return {"actors": [{}] * actors, "ceiling": ceiling}

    rows, window = requests([row(i, i, actor="a-0") for i in range(10)]), {"window_start_s": 0.0, "window_s": 10.0}
    first, later = about(1, 4), about(2, 400)
    crew = first | {"actors": 1}
    assert facts(rows, window, {"crew": crew}, later) == facts(rows, window, {}, first)
    assert facts(rows, window, {}, first) != facts(rows, window, {}, later)
    unmeasured = facts(rows, window, {"crew": crew | {"ceiling": None}}, later)
    assert "ceiling_streams" not in unmeasured


def test_a_warm_up_prompt_that_comes_again_is_a_repeat() -> None:
    rows = [row(0, 0, phase="warmup", prompt_id="a"), row(1, 1, prompt_id="a"), row(2, 2, prompt_id="b")]
    found = facts(requests(rows), {}, {}, {})
    assert (found["prompts_repeated"], found["prompt_repeats_max"]) == (0.5, 2)


def test_fresh_prompts_from_the_cache_of_an_earlier_trial_are_told_in_words() -> None:
    found = long(each(lambda i: {"cached_tokens": 98}))
    assert (found["prompts_repeated"], found["cached_repeats"], found["cached_prompts"]) == (0.0, 0, 100)
    assert found["reason_texts"] == [
        "100 of 100 requests had 90 % or more of their prompt from the endpoint's cache, as it says itself: "
        "read before, in this trial or an earlier one, or begun as others are; "
        "use a larger data set or another seed, or turn the endpoint's prefix cache off"
    ]


@pytest.mark.parametrize(
    ("cached", "number"),
    [(lambda i: 89, 100), (lambda i: 100 * (i == 0), 20), (lambda i: 100 * (i < 2), 200), (lambda i: None, 100)],
    ids=["a shared beginning", "what the check of the endpoint sent", "one in a hundred", "not told"],
)
def test_cached_tokens_are_not_objected_to(cached: Callable[[int], int | None], number: int) -> None:
    found = long(each(lambda i: {"cached_tokens": cached(i)}, number), duration_s=float(number))
    assert (found["valid"], found["reasons"]) == ("VALID", [])


def test_reasons_say_how_many_and_what_to_do() -> None:
    summary = {"requests": 100, "not_sent": 7}
    valid, reasons = verdict(summary, {})
    assert valid is Valid.INVALID
    assert [reason.text for reason in reasons] == ["7 of 100 requests were planned but never sent"]
    assert all(reason.remedy for reason in reasons)


@pytest.mark.parametrize(
    ("fell", "valid"), [(False, Valid.INVALID), (None, Valid.INVALID), (True, Valid.INCONCLUSIVE)]
)
def test_a_faster_second_time_is_a_cache_unless_first_times_got_faster_by_themselves(
    fell: bool | None, valid: Valid
) -> None:
    summary = {"requests": 100, "prompts_repeated": 0.5, "prompt_repeats_max": 2, "first_times_fell": fell}
    found, (reason,) = verdict(summary | {"repeat_ratio": 0.5, "repeat_ratio_high": 0.6}, {})
    assert found is valid
    assert reason.text.endswith(
        "a second time took 50% of the time of a first: a cache" + ", or a slow start" * bool(fell)
    )
    assert verdict(summary | {"repeat_ratio": 0.5, "repeat_ratio_high": 0.91}, {})[0] is Valid.VALID


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ({"missing_rows": 0, "lost_actors": 1}, "1 load actor died"),
        ({"missing_rows": 1, "lost_actors": 0}, "1 planned request left no result"),
        ({"missing_rows": 3, "lost": 2, "lost_actors": 2}, "5 planned requests left no result, 2 load actors died"),
    ],
)
def test_what_was_lost_is_counted_in_words_and_what_was_not_is_left_out(lost: dict[str, int], said: str) -> None:
    _, reasons = verdict({"requests": 100, **lost}, {})
    assert [reason.text for reason in reasons] == [said]


def test_one_request_is_too_few() -> None:
    _, reasons = verdict({"kind": "closed", "requests": 1}, {"latency_p95": 1.0})
    assert reasons[0].text == "1 request is too few for latency_p95, which needs 72"
    _, reasons = verdict({"kind": "poisson", "requests": 1}, {"latency_p95": 1.0})
    assert reasons[0].text == "1 request is too few for latency_p95, which needs 368 where requests may queue"
