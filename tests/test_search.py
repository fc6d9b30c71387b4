"""The search's decisions against known answers; no clock and no endpoint is needed."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raybench.analysis import probe as probes
from raybench.analysis import stats
from raybench.load.arrivals import MIN_RATE
from raybench.load.probe import ALLOWED, BLOCKS, FEWEST, Evidence, Probe, Step, bound, doubts, least_bound, llr
from raybench.load.search import LOWER, RATIO, Alone, Hunt, Offered, Search, SearchVerdict
from raybench.rows import Outcome, Row, requests_table

SEARCH = Search("latency_p99", 1.0)
SHORT = Probe(1, Step.BRACKET, 4.0, 150.0)
CERTIFY = Probe(9, Step.CERTIFY, 4.0, 600.0, 30.0)

Truth = Callable[[float], float]
"""The share of requests over the limit at a rate."""


def seen(probe: Probe, share: float, paid_s: float | None = None) -> Evidence:
    """What a probe shows where exactly this share of its requests is late, evenly; short ones stop when settled."""
    planned = probe.requests or round(probe.rate * probe.seconds)
    late = 0
    if probe.step is not Step.CERTIFY:
        for requests in range(1, planned + 1):
            late = math.floor(requests * share + 1e-9)
            if probe.settled(Evidence(requests, late, 0.0)) is not None:
                planned = requests
                break
    else:
        late = round(planned * share)
    blocks = tuple((planned // BLOCKS, late // BLOCKS + (i < late % BLOCKS)) for i in range(BLOCKS))
    return Evidence(planned, late, planned / (probe.rate or 1.0) if paid_s is None else paid_s, blocks=blocks)


def hunt(truth: Truth, search: Search = SEARCH, usd_per_hour: float | None = None) -> tuple[SearchVerdict, Hunt]:
    """A whole search against a truth without noise."""
    hunted = Hunt(search, usd_per_hour)
    while not isinstance(probe := hunted.next(), SearchVerdict):
        hunted.tell(seen(probe, truth(probe.rate)))
    return probe, hunted


def step_at(capacity: float) -> Truth:
    return lambda rate: 0.0 if rate <= capacity else 0.2


def test_a_load_with_no_late_request_passes_after_182() -> None:
    assert SHORT.settled(Evidence(181, 0, 0.0)) is None
    assert SHORT.settled(Evidence(182, 0, 0.0)) is True


def test_a_load_with_every_fifth_request_late_fails_after_10() -> None:
    first = next(n for n in range(1, 100) if SHORT.settled(Evidence(n, n // 5, 0.0)) is not None)
    assert first == 10
    assert SHORT.settled(Evidence(first, first // 5, 0.0)) is False


def test_requests_that_say_the_same_thing_count_once() -> None:
    assert llr(400, 4, dependence=4.0) == llr(400, 4) / 4
    assert SHORT.settled(Evidence(182, 0, 0.0, dependence=2.0)) is None
    assert llr(10, 2, dependence=0.5) == llr(10, 2), "nothing counts more than once"


@pytest.mark.parametrize(("share", "passes"), [(0.004, 0.95), (0.02, 0.05)])
def test_the_sequential_test_is_wrong_one_time_in_twenty(share: float, passes: float) -> None:
    rng, passed = np.random.default_rng(7), 0
    for _ in range(400):
        late = np.cumsum(rng.random(20_000) < share)
        scores = np.array([late * math.log(5) + (np.arange(1, 20_001) - late) * math.log(0.98 / 0.996)])[0]
        end = int(np.argmax(np.abs(scores) >= math.log(19)))
        passed += SHORT.settled(Evidence(end + 1, int(late[end]), 0.0)) is True
    assert abs(passed / 400 - passes) <= 0.04


def test_an_undecided_probe_goes_by_what_is_likelier() -> None:
    assert SHORT.settled(Evidence(100, 0, 0.0)) is None
    assert SHORT.passes(Evidence(100, 0, 0.0))
    assert not SHORT.passes(Evidence(100, 2, 0.0))
    assert not SHORT.passes(Evidence(0, 0, 0.0)), "nothing seen is nothing passed"


def test_a_certifying_trial_passes_only_with_its_bound_within_one_percent() -> None:
    even = [(240, 1)] * 9 + [(240, 2)]
    assert doubts(Evidence(2400, 11, 630.0, blocks=even)) == []
    burst = [(240, 0)] * 9 + [(240, 11)]
    assert (
        "0.46% of the requests are over the limit, at most 1.30%"
        in doubts(Evidence(2400, 11, 630.0, blocks=burst))[0]
    )
    assert bound([0.01, 0.0] * 5) == pytest.approx(0.005 + 1.8331 * 0.005 / 3)


def test_a_certifying_trial_is_refused_for_drift_for_dependence_and_for_stopping_early() -> None:
    good = Evidence(2400, 0, 630.0, blocks=[(240, 0)] * 10)
    assert CERTIFY.passes(good)
    assert doubts(replace(good, rising=True)) == ["it grew slower as it went on"]
    assert doubts(replace(good, dependence=4.0)) == ["its requests are worth 600 independent ones; 662 are needed"]
    assert not CERTIFY.passes(replace(good, blocks=[(240, 0)] * 9 + [(0, 0)]))
    assert not CERTIFY.passes(replace(good, blocks=[(240, 0)] * 9))


def test_a_certifying_trial_is_given_up_above_three_percent() -> None:
    assert CERTIFY.settled(Evidence(299, 30, 0.0)) is None
    assert CERTIFY.settled(Evidence(400, 12, 0.0)) is None
    assert CERTIFY.settled(Evidence(400, 13, 0.0)) is False


@given(st.lists(st.floats(0, 0.05), min_size=10, max_size=10), st.integers(0, 10))
def test_what_is_given_up_could_not_have_been_certified(shares: list[float], over: int) -> None:
    assert least_bound(shares[:over]) <= bound(shares) * 1.002 + 1e-12


def test_the_floor_and_the_quantile_of_student_are_those_of_the_statistics() -> None:
    from scipy import special

    assert stats.certified_floor(1 - ALLOWED) == FEWEST
    assert special.stdtrit(9, 0.95) == pytest.approx(1.8331, abs=1e-4)


def test_the_bracket_doubles_then_narrows_then_certifies_then_looks_back() -> None:
    verdict, hunted = hunt(step_at(5.7))
    steps = [(probe.step, probe.rate) for probe, _ in hunted.played]
    assert steps == [
        (Step.SANITY, 0.0),
        (Step.BRACKET, 1.0),
        (Step.BRACKET, 2.0),
        (Step.BRACKET, 4.0),
        (Step.BRACKET, 8.0),
        (Step.NARROW, 5.657),
        (Step.NARROW, 6.727),
        (Step.NARROW, 6.169),
        (Step.CERTIFY, 5.143),
        (Step.RECHECK, 4.0),
    ]
    assert (verdict.state, verdict.rate, verdict.passed, verdict.failing) == ("certified", 5.143, 5.657, 6.169)
    assert verdict.monotone is True
    assert verdict.reason is None


def test_a_start_that_is_too_high_is_halved() -> None:
    verdict, hunted = hunt(step_at(3.0), Search("ttft_p99", 1.0, start=50.0))
    assert [probe.rate for probe, _ in hunted.played[1:6]] == [50.0, 25.0, 12.5, 6.25, 3.125]
    assert verdict.rate is not None
    assert 3.0 / RATIO**2 <= verdict.rate <= 3.0


def test_a_rate_that_fails_its_certifying_trial_is_lowered_by_five_percent() -> None:
    hunted = Hunt(SEARCH)
    while not isinstance(probe := hunted.next(), SearchVerdict):
        known = seen(probe, 0.0 if probe.rate < 4.0 else 0.2)
        burst = [(240, 0)] * 9 + [(240, 22)]
        certain = probe.step is not Step.CERTIFY or probe.rate < 3.0
        hunted.tell(known if certain else replace(known, late=22, blocks=burst))
    rates = [each.rate for each, _ in hunted.played if each.step is Step.CERTIFY]
    assert len(rates) > 2
    assert all(later == pytest.approx(rate * LOWER, rel=1e-3) for rate, later in pairwise(rates))
    assert probe.rate == rates[-1] < 3.0 <= rates[-2] == probe.failing


def test_nothing_is_certified_where_one_stream_is_too_slow() -> None:
    verdict, hunted = hunt(lambda rate: 0.5)
    assert (verdict.rate, verdict.reason) == (None, "one stream alone is over the limit")
    assert len(hunted.played) == 1


def test_nothing_is_certified_where_no_rate_passes() -> None:
    verdict, _ = hunt(lambda rate: 0.08, Search("latency_p99", 1.0, max_s=1e5))
    assert (verdict.state, verdict.reason) == ("uncertified", "no rate passes")


def test_a_lower_rate_that_fails_on_a_second_look_widens_the_bracket() -> None:
    hunted, looked = Hunt(Search("latency_p99", 1.0, max_s=1e5)), False
    while not isinstance(probe := hunted.next(), SearchVerdict):
        share = step_at(3.0 if looked else 5.7)(probe.rate)
        looked |= probe.step is Step.RECHECK
        if probe.step is Step.RECHECK and share == 0:
            share = step_at(3.0)(probe.rate)
        hunted.tell(seen(probe, share))
    assert probe.monotone is False
    assert probe.rate is not None
    assert probe.rate <= 3.0
    assert probe.failing is not None
    assert probe.failing <= 4.0


def test_a_fault_of_the_load_generator_ends_the_search() -> None:
    hunted = Hunt(SEARCH)
    for index in range(3):
        assert hunted.next() == Probe(index, Step.SANITY, 0.0, 600.0), "two are forgiven, and played again"
        hunted.tell(Evidence(30, 0, 30.0, fault="the client was late"))
    verdict = hunted.next()
    assert isinstance(verdict, SearchVerdict)
    assert verdict.reason == "probe-02-sanity: the client was late"
    assert verdict.seconds == 90.0, "they are paid for"
    with pytest.raises(ValueError, match="over"):
        hunted.tell(Evidence(30, 0, 30.0))


def test_a_budget_in_minutes_leaves_a_bracket_uncertified() -> None:
    verdict, _ = hunt(step_at(5.7), Search("latency_p99", 1.0, max_s=600.0))
    assert verdict.rate is None
    assert verdict.reason == "the budget has no room for a certifying trial"
    assert verdict.passed is not None
    assert verdict.seconds <= 600


def test_a_budget_that_narrowing_would_spend_is_kept_for_the_certifying_trial() -> None:
    verdict, hunted = hunt(step_at(5.7), Search("latency_p99", 1.0, start=4.0, max_s=860.0))
    assert [probe.rate for probe, _ in hunted.played] == [0.0, 4.0, 8.0, 5.657, 5.143, 4.0]
    assert (verdict.rate, verdict.failing, verdict.monotone) == (5.143, 8.0, True)
    assert verdict.seconds <= 860


def test_a_budget_in_dollars_is_kept_too() -> None:
    search = Search("latency_p99", 1.0, max_usd=6.0)
    verdict, _ = hunt(step_at(5.7), search, usd_per_hour=36.0)
    assert verdict.usd is not None
    assert verdict.usd == pytest.approx(verdict.seconds / 100)
    assert verdict.usd <= 6.0
    with pytest.raises(ValueError, match="price"):
        Hunt(search)


def test_a_low_rate_is_certified_for_long_enough() -> None:
    verdict, hunted = hunt(step_at(0.3), Search("latency_p99", 1.0, start=0.25, max_s=1e5))
    probe = next(probe for probe, _ in hunted.played if probe.step is Step.CERTIFY)
    assert probe.rate * probe.seconds >= FEWEST
    assert verdict.rate == probe.rate


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_rate_whose_certifying_trial_failed_is_never_claimed(data: st.DataObject) -> None:
    hunted = Hunt(Search("latency_p99", 1.0, max_s=data.draw(st.floats(100, 20_000))))
    while not isinstance(probe := hunted.next(), SearchVerdict):
        assert math.isfinite(probe.rate)
        share = data.draw(st.sampled_from([0.0, 0.003, 0.008, 0.02, 0.2]))
        hunted.tell(replace(seen(probe, share), rising=data.draw(st.booleans())))
    trials = [(each.rate, each.passes(evidence)) for each, evidence in hunted.played if each.step is Step.CERTIFY]
    if probe.rate is not None:
        assert trials[-1] == (probe.rate, True)
        assert probe.failing is None or probe.rate < probe.failing
    assert hunted.spent_s == pytest.approx(sum(evidence.paid_s for _, evidence in hunted.played))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 12), st.floats(0.1, 60))
def test_a_hunt_resumes_from_its_recorded_evidence(played: int, capacity: float) -> None:
    verdict, whole = hunt(step_at(capacity))
    resumed = Hunt(SEARCH)
    for _, evidence in whole.played[:played]:
        resumed.tell(Evidence(**json.loads(json.dumps(asdict(evidence)))))
    rest = whole.played[played:]
    for probe, evidence in rest:
        assert resumed.next() == probe
        resumed.tell(evidence)
    assert resumed.next() == verdict


@pytest.mark.parametrize(
    ("field", "value"), [("metric", "itl_p99"), ("limit_s", 0.0), ("start", -1.0), ("max_usd", math.inf)]
)
def test_what_cannot_be_searched_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        Search(**({"metric": "ttft_p99", "limit_s": 1.0} | {field: value}))  # type: ignore[arg-type]


def test_a_probe_s_arrivals_have_a_partition_of_their_own() -> None:
    assert Offered(4.0, None, "probe-03-bracket").label == "probe-03-bracket-poisson-4.0"
    assert Alone(1, 0.0, "probe-00-sanity").label == "probe-00-sanity-closed-1"
    assert Offered(4.0).kind == "poisson"


def row(seq: int, planned_s: float, ttft_s: float | None, latency_s: float | None, phase: str = "measure") -> Row:
    """A request that began and ended so long after it was planned."""
    planned_ns = round(planned_s * 1e9)
    blank: dict[str, Any] = dict.fromkeys(Row._fields)
    told: dict[str, Any] = {
        "trial_id": "t", "repeat": 0, "seq": seq, "attempt": 0, "experiment": "e", "payload": "p", "load": "l",
        "actor": "a", "host": "h", "phase": phase, "planned_ns": planned_ns, "sent_ns": planned_ns,
        "chunk_ns": (), "request_bytes": 0, "response_bytes": 0,
        "outcome": Outcome.MODEL_ERROR if latency_s is None else Outcome.OK,
        "end_ns": planned_ns + round((latency_s or 1) * 1e9),
        "first_token_ns": None if ttft_s is None else planned_ns + round(ttft_s * 1e9),
    }  # fmt: skip
    return Row(**(blank | told))


def table(*rows: Row) -> pa.Table:
    return requests_table(rows)


PROBE = Probe(2, Step.BRACKET, 1.0, 100.0, 10.0)
PLANNED_S = np.arange(0.0, 110.0)


def test_late_and_failed_requests_are_counted_after_the_warm_up() -> None:
    rows = [row(0, 0, 5, 5, "warmup"), row(1, 20, 0.5, 0.9), row(2, 30, 0.5, 1.1), row(3, 40, 0.5, None)]
    found = probes.evidence(SEARCH, PROBE, table(*rows))
    assert (found.requests, found.late, found.paid_s) == (3, 2, 41.0)
    assert found.blocks[1:4] == ((1, 0), (1, 1), (1, 1))
    first_tokens = probes.evidence(Search("ttft_p99", 0.4), PROBE, table(*rows))
    assert (first_tokens.requests, first_tokens.late) == (3, 3)


def test_a_waiting_request_is_late_as_soon_as_its_latency_is_over_the_limit() -> None:
    rows = [row(seq, seq, 0.1, 0.5) for seq in range(15) if seq != 12]
    at_14 = probes.so_far(SEARCH, PROBE, table(*rows), PLANNED_S, 14.0)
    assert (at_14.requests, at_14.late) == (2, 0), "what was planned within the last 2 s is not looked at"
    at_15 = probes.so_far(SEARCH, PROBE, table(*rows), PLANNED_S, 15.0)
    assert (at_15.requests, at_15.late) == (3, 1)


def test_a_reply_that_is_not_over_may_have_begun_in_time() -> None:
    search = Search("ttft_p99", 1.0)
    rows = [row(seq, seq, 0.1, 0.5) for seq in range(30) if seq != 17]
    found = probes.so_far(search, PROBE, table(*rows), PLANNED_S, 30.0)
    assert (found.requests, found.late) == (7, 0)
    late = [*rows, row(17, 17, 1.2, 8.0)]
    found = probes.so_far(search, PROBE, table(*late), PLANNED_S, 30.0)
    assert (found.requests, found.late) == (18, 1)


def test_a_block_is_looked_at_once_it_is_over() -> None:
    rows = [row(seq, seq, 0.1, 0.5) for seq in range(10, 50)]
    assert probes.so_far(SEARCH, PROBE, table(*rows), PLANNED_S, 41.9).blocks == ((10, 0),) * 2
    assert probes.so_far(SEARCH, PROBE, table(*rows), PLANNED_S, 42.1).blocks == ((10, 0),) * 3


def test_a_probe_without_a_measured_row_is_a_fault() -> None:
    assert probes.evidence(SEARCH, PROBE, table(row(0, 0, 1, 1, "warmup"))).fault == "nothing was measured"


def test_a_search_that_starts_low_ends_above_the_lowest_rate_there_is() -> None:
    verdict, hunted = hunt(lambda rate: 0.2 if rate else 0.0, Search("ttft_p99", 1.0, start=1e-4, max_s=1e9))
    assert verdict.reason == "no rate passes"
    assert min(probe.rate for probe, _ in hunted.played if probe.rate) >= MIN_RATE
