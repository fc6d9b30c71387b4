"""The decision on tables small enough to decide by eye."""

import math
import re
from typing import Any

import pyarrow as pa
import pytest
from made import setting

from raybench.analysis import decide, standing
from raybench.analysis.columns import TRIALS, criterion_column, criterion_unit
from raybench.analysis.decide import Decision, plain
from raybench.analysis.pooled import ESTIMATED, RULES
from raybench.analysis.spoken import criterion_name, criterion_value, seconds
from raybench.analysis.standing import Standing
from raybench.config import COSTS, TIMES
from raybench.config import CRITERIA as CRITERIA_ALLOWED
from raybench.report.text import span

PER = {
    "price_per_txn": "request",
    "price_per_10k_txn": "10,000 requests",
    "price_per_1m_output_tokens": "million output tokens",
    "price_per_1m_good_tokens": "million good tokens",
}
CRITERIA = {"latency_mean": 5.0, "cost_per_10k": 50.0, "error_rate": 0.0}


def made(experiment: str, load: int, latency: float | None, price: float | None, **known: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"latency_mean": latency, "price_per_10k_txn": price, "error_rate": 0.0, "failed": 0}
    named = {"experiment": experiment, "load": f"closed-{load}", "concurrency": load, "repeat": 0}
    return setting(**(named | values | known))


def decided(*rows: dict[str, Any], criteria: dict[str, float] | None = None, payload: str | None = None) -> Decision:
    trials = pa.Table.from_pylist(list(rows), TRIALS)
    return decide.decide(trials, CRITERIA if criteria is None else criteria, payload)


def said(decision: Decision) -> list[str]:
    return [plain(sentence) for sentence in decision.sentences]


def test_the_cheapest_setting_that_meets_every_criterion_wins() -> None:
    found = decided(
        made("a", 1, 1.0, 45.0), made("a", 4, 3.0, 20.0), made("b", 8, 6.0, 10.0), made("b", 1, 1.0, 60.0)
    )
    assert (found.winner, found.nearest) == ("a/p/closed-4/0", None)


def test_the_winner_is_said_with_its_rule_its_intervals_and_what_its_sample_leaves_open() -> None:
    intervals = {"latency_mean_low": 2.9, "latency_mean_high": 3.1, "price_per_10k_txn_low": 19.0}
    intervals |= {"price_per_10k_txn_high": 21.0, "error_rate_high": 0.037, "requests": 1204}
    found = decided(made("a", 4, 3.0, 20.0, **intervals))
    assert said(found) == [
        "Cheapest inside the criteria: a at concurrency 4. 3.00 s mean (95 % interval 2.90–3.10), $20.00 per 10k "
        "(95 % interval 19.00–21.00), 0 errors in 1,204 (which leaves room for a true rate up to 3.7 %)."
    ]
    assert [phrase.text for phrase in found.sentences[0] if phrase.strong] == ["a", "concurrency 4"]


def test_none_qualifies_is_an_answer_with_the_nearest_miss_and_what_it_misses_by() -> None:
    """The seed's rows on its longest prompts: it named c=1; c=2 meets the latency budget too, and costs less."""
    p4d = ((1, 2.60, 251.25), (2, 3.80, 209.38), (4, 6.09, 216.60), (6, 8.09, 216.60), (8, 10.29, 209.38))
    g5 = ((1, 10.71, 678.67), (2, 19.35, 678.67), (4, 31.97, 678.67), (6, 42.79, 565.56), (8, 55.85, 678.67))
    found = decided(*(made("g5", *each) for each in g5), *(made("p4d", *each) for each in p4d))
    assert (found.winner, found.nearest) == (None, "p4d/p/closed-2/0")
    assert said(found) == [
        "No configuration meets every criterion. The nearest is p4d at concurrency 2: mean latency passes, "
        "cost per 10,000 requests is 4.2× the limit, error rate passes."
    ]


def test_the_nearest_miss_has_the_smallest_product_of_exceedances() -> None:
    found = decided(made("a", 1, 10.0, 100.0), made("a", 2, 4.0, 175.0), made("a", 4, 15.0, 40.0))
    assert found.nearest == "a/p/closed-4/0"


def test_an_error_where_none_is_allowed_is_further_off_than_any_finite_miss() -> None:
    found = decided(made("a", 1, 4.0, 40.0, error_rate=0.01), made("a", 2, 50.0, 500.0))
    assert found.nearest == "a/p/closed-2/0"
    found = decided(made("a", 1, 4.0, 40.0, error_rate=0.01))
    assert "error rate is 1.0 % where none is allowed" in said(found)[0]


@pytest.mark.parametrize("fault", [{"valid": "INCONCLUSIVE"}, {"state": "partial"}])
def test_what_cannot_be_trusted_cannot_win_and_is_said_to_be_cheaper(fault: dict[str, str]) -> None:
    found = decided(made("a", 1, 1.0, 10.0, reasons=["client_lag"], **fault), made("b", 1, 1.0, 40.0))
    assert found.winner == "b/p/closed-1/0"
    assert "a at concurrency 1 would pass at $10.00 per 10k, but its trial is" in said(found)[1]


@pytest.mark.parametrize("state", ["done", "partial"])
def test_of_an_invalid_setting_neither_a_price_is_said_nor_that_it_would_pass(state: str) -> None:
    late = made("a", 1, 1.0, 10.0, reasons=["client_lag", "late_starts"], valid="INVALID", state=state)
    not_counted = "a at concurrency 1 is not counted: its trial is INVALID (client_lag and late_starts)."
    for others in ((made("b", 1, 1.0, 40.0),), ()):
        assert said(decided(late, *others))[1] == not_counted


@pytest.mark.parametrize("criteria", [{}, {"error_rate": 0.0}])
def test_a_trial_that_was_never_played_is_not_said_to_be_cheaper(criteria: dict[str, float]) -> None:
    idle = made("a", 1, None, None, requests=0, state="planned", valid="INCONCLUSIVE")
    found = decided(idle, made("b", 1, 1.0, 40.0), criteria=criteria)
    assert found.winner == "b/p/closed-1/0"
    assert len(said(found)) == 1


def test_where_nothing_can_be_trusted_nothing_is_nearest_either() -> None:
    found = decided(made("a", 1, 1.0, 60.0, valid="INVALID"))
    assert (found.winner, found.nearest) == (None, None)
    assert said(found) == ["No trial can be decided by: none is both whole and VALID."]


def test_prices_whose_intervals_overlap_are_too_close_to_call() -> None:
    a = made("a", 1, 1.0, 20.0, price_per_10k_txn_low=18.0, price_per_10k_txn_high=22.0)
    b = made("b", 1, 1.0, 23.0, price_per_10k_txn_low=21.0, price_per_10k_txn_high=25.0)
    c = made("c", 1, 1.0, 30.0, price_per_10k_txn_low=28.0, price_per_10k_txn_high=32.0)
    found = decided(c, b, a)
    assert found.winner == "a/p/closed-1/0"
    assert said(found)[1] == "Too close to call on cost, the intervals overlap: b at concurrency 1 ($23.00)."


def test_equal_prices_are_told_apart_by_latency_and_then_by_order() -> None:
    assert decided(made("a", 1, 2.0, 20.0), made("b", 1, 1.0, 20.0)).winner == "b/p/closed-1/0"
    found = decided(made("a", 1, 1.0, 20.0), made("b", 1, 1.0, 20.0))
    assert found.winner == "a/p/closed-1/0"
    assert said(found)[1] == "Too close to call on cost, the intervals overlap: b at concurrency 1 ($20.00)."


def test_without_criteria_the_cheapest_wins_and_without_prices_the_fastest() -> None:
    found = decided(made("a", 1, 1.0, 90.0), made("a", 2, 9.0, 80.0), criteria={})
    assert found.winner == "a/p/closed-2/0"
    assert said(found)[0].startswith("Cheapest (no criteria are set): ")
    found = decided(made("a", 1, 1.0, None), made("a", 2, 9.0, None), criteria={"latency_mean": 10.0})
    assert found.winner == "a/p/closed-1/0"
    assert said(found)[0].startswith("No price is known; fastest inside the criteria: ")
    found = decided(made("a", 1, 1.0, None), made("b", 1, 20.0, 9.0), criteria={"latency_mean": 10.0})
    assert said(found)[0].startswith("Nothing that passes has a price; fastest inside the criteria: a ")


def states(row: dict[str, Any], **criteria: float) -> list[tuple[Standing, float | None]]:
    return [(state.standing, state.exceedance) for state in standing.states(row, criteria)]


def test_a_criterion_passes_fails_by_a_multiple_or_is_unsure_or_missing() -> None:
    row = made("a", 1, 4.0, 100.0, latency_mean_low=3.5, latency_mean_high=4.5)
    row |= {"price_per_10k_txn_low": 90.0, "price_per_10k_txn_high": 110.0}
    assert states(row, latency_mean=5.0) == [(Standing.PASS, 0.8)]
    assert states(row, cost_per_10k=50.0) == [(Standing.FAIL, 2.0)]
    assert states(row, latency_mean=4.2)[0][0] is Standing.UNSURE
    assert states(row, latency_mean=3.8)[0][0] is Standing.UNSURE
    assert states(row, latency_p99=1.0) == [(Standing.MISSING, None)]


def test_what_has_no_upper_end_to_its_interval_is_not_surely_within_a_limit() -> None:
    """Failures may lie among the ranks of a percentile's upper end; a rate that may be none has no highest price."""
    endless = {"latency_p95": 1.49, "latency_p95_low": 1.48, "price_per_10k_txn_low": 9.0}
    row = made("a", 1, 1.0, 10.0, **endless)
    assert states(row, latency_p95=2.0) == [(Standing.UNSURE, 0.745)]
    assert states(row, latency_p95=1.0) == [(Standing.FAIL, 1.49)]
    assert states(row, cost_per_10k=50.0) == [(Standing.UNSURE, 0.2)]
    assert "$10.00 per 10k (95 % interval ≥ 9.00)" in said(decided(row))[0]
    assert (span(1.48, None, seconds), span(None, None, seconds)) == ("(≥ 1.48)", "")


@pytest.mark.parametrize(
    ("criterion", "why"),
    [
        ("latency_p95", "its requests were too much alike"),
        ("latency_mean", "a single request was answered"),
        ("cost_per_10k", "the window had no room for two requests"),
    ],
)
def test_a_number_without_an_interval_neither_surely_passes_nor_fails(criterion: str, why: str) -> None:
    column = criterion_column(criterion)
    bare = made("a", 1, 1.0, 10.0) | {column: 10.0}
    for limit in (10.1, 9.9):
        assert states(bare, **{criterion: limit}) == [(Standing.UNSURE, 10.0 / limit)], why
        assert standing.met(standing.states(bare, {criterion: limit})) is None
    known = bare | {f"{column}_low": 9.95, f"{column}_high": 10.05}
    assert states(known, **{criterion: 10.1})[0][0] is Standing.PASS
    assert standing.met(standing.states(known, {criterion: 10.1})) is True
    assert states(known, **{criterion: 9.9})[0][0] is Standing.FAIL
    assert standing.met(standing.states(known, {criterion: 9.9})) is False


def test_a_number_without_an_interval_counts_by_itself() -> None:
    found = decided(made("a", 1, 1.0, 45.0), made("a", 4, 6.0, 20.0))
    assert found.winner == "a/p/closed-1/0"
    assert [state.standing for state in found.settings["a/p/closed-1/0"].states] == [
        *(Standing.UNSURE, Standing.UNSURE, Standing.PASS)
    ]


def test_a_percentile_among_requests_that_never_finished_fails_without_a_number() -> None:
    row = made("a", 1, 4.0, 10.0, beyond=["latency_p95"])
    assert states(row, latency_p95=5.0) == [(Standing.FAIL, math.inf)]
    assert "p95 latency never ends" in said(decided(row, criteria={"latency_p95": 5.0}))[0]


def test_every_time_is_said_in_words() -> None:
    assert criterion_name("ttft_p50") == "median time to first token"
    assert criterion_name("worst_gap_p95") == "p95 longest gap between tokens"
    assert not [name for name in TIMES if re.search(r"_|p\d\d$|mean$", criterion_name(name))]


@pytest.mark.parametrize("name", COSTS)
def test_a_price_of_any_kind_is_said_in_dollars(name: str) -> None:
    row = made("a", 1, 1.0, 24.0) | dict.fromkeys(COSTS[1:], 24.0)
    (state,) = standing.states(row, {name: 0.0})
    assert criterion_value(state.criterion, state.value) == "$24.00"
    assert (
        f"cost per {PER[criterion_column(name)]} is $24.00 where none is allowed"
        in said(decided(row, criteria={name: 0.0}))[0]
    )


def test_every_criterion_has_a_unit_and_only_times_are_in_seconds() -> None:
    units = {criterion: criterion_unit(criterion) for criterion in CRITERIA_ALLOWED}
    assert [name for name, unit in units.items() if unit == "USD"] == list(COSTS)
    assert [name for name, unit in units.items() if unit == "s"] == list(TIMES)
    assert units["error_rate"] == "1"


def test_no_throughput_has_no_price_and_fails_a_limit_on_it() -> None:
    assert states(made("a", 1, None, None, requests_per_s=0.0), cost_per_10k=5.0) == [(Standing.FAIL, math.inf)]
    (nothing_served,) = said(decided(made("a", 1, None, None, requests_per_s=0.0), criteria={"cost_per_10k": 5.0}))
    assert nothing_served.endswith("cost per 10,000 requests has no bound, as none was served.")
    nothing_good = made("a", 1, 9.0, 5.0, requests_per_s=3.0, good_token_throughput=0.0)
    assert states(nothing_good, price_per_1m_good_tokens=5.0) == [(Standing.FAIL, math.inf)]


def test_no_error_meets_an_error_budget_of_zero_although_no_sample_could_prove_it() -> None:
    row = made("a", 1, 1.0, 1.0, error_rate_low=0.0, error_rate_high=0.05)
    assert states(row, error_rate=0.0) == [(Standing.PASS, 0.0)]
    assert states(row, error_rate=0.01)[0][0] is Standing.UNSURE


def test_an_unsure_criterion_counts_by_its_best_estimate() -> None:
    interval = {"latency_mean_low": 3.0, "latency_mean_high": 7.0}
    assert decided(made("a", 1, 4.9, 20.0, **interval)).winner is not None
    assert decided(made("a", 1, 5.1, 20.0, **interval)).winner is None
    row = made("a", 1, 5.1, 20.0, **interval)
    assert standing.met(standing.states(row, CRITERIA)) is None


def test_a_missing_number_cannot_win_and_is_named() -> None:
    found = decided(made("a", 1, 1.0, 20.0), criteria={"latency_p99": 5.0})
    assert (found.winner, found.nearest) == (None, "a/p/closed-1/0")
    assert "p99 latency is not known" in said(found)[0]
    assert standing.met(()) is None


def test_each_payload_and_experiment_gets_the_cheapest_passing_setting_or_its_nearest_miss() -> None:
    rows = [
        made(e, load, 1.0 * load, 40.0 / load, payload=p)
        for p in ("p9", "p10")
        for e in ("b", "a")
        for load in (1, 4)
    ]
    rows += [made("b", 8, 9.0, 40.0, payload="p3")]
    found = decided(*rows, payload="p9")
    assert [(r.experiment, r.payload, r.trial_id, r.nearest) for r in found.recommendations] == [
        ("b", "p10", "b/p10/closed-4/0", None),
        ("b", "p3", None, "b/p3/closed-8/0"),
        ("b", "p9", "b/p9/closed-4/0", None),
        ("a", "p10", "a/p10/closed-4/0", None),
        ("a", "p9", "a/p9/closed-4/0", None),
    ]


def test_the_payload_asked_about_is_decided_and_without_one_the_first() -> None:
    rows = (made("a", 1, 1.0, 40.0, payload="x"), made("a", 1, 1.0, 10.0, payload="y"))
    assert decided(*rows, payload="x").winner == "a/x/closed-1/0"
    assert decided(*rows, payload="z").payload == "x"
    assert decided(*rows).payload == "x"


def test_nothing_measured_is_said() -> None:
    found = decided()
    assert (found.winner, found.nearest, found.recommendations) == (None, None, ())
    assert said(found) == ["Nothing was measured."]


def test_a_load_that_thinks_is_told_from_one_that_does_not() -> None:
    found = decided(
        made("a", 8, 1.0, 20.0), made("a", 8, 2.0, 40.0) | {"load": "closed-8-think-1.0", "trial_id": "b"}
    )
    assert [setting.load for setting in found.settings.values()] == ["concurrency 8", "closed-8-think-1.0"]


def test_repeats_are_one_setting_with_the_interval_between_them() -> None:
    ends = {"latency_mean_low": 1.9, "latency_mean_high": 8.1}
    rows = [
        made("a", 1, latency, 20.0, repeat=i, requests=100, failed=i, **ends) for i, latency in enumerate((2.0, 8.0))
    ]
    (one,) = decided(*rows).settings.values()
    assert one.row["latency_mean"] == pytest.approx(4.0)
    assert one.row["latency_mean_high"] > 8.0
    assert (one.row["requests"], one.row["failed"], one.row["error_rate"]) == (200, 1, 0.005)
    assert one.counts


def test_repeats_have_no_end_of_an_interval_that_one_of_them_was_refused() -> None:
    """Five repeats of an overloaded queue agree, and all are too low."""
    sure = {"latency_p99_low": 4.0, "latency_p99_high": 6.0, "latency_mean_low": 0.9, "latency_mean_high": 1.1}
    rows = [made("a", 1, 1.0, 20.0, repeat=i, latency_p99=5.0 + i, **sure) for i in range(3)]
    (one,) = decided(*rows).settings.values()
    assert one.row["latency_p99_low"] < 5.94 < one.row["latency_p99_high"]
    for refused in ({"latency_p99_low": None, "latency_p99_high": None}, {"latency_p99_high": None}):
        (one,) = decided(*rows[:2], rows[2] | refused).settings.values()
        assert one.row["latency_p99"] == pytest.approx(210 ** (1 / 3))
        assert (one.row["latency_p99_low"] is None) is ("latency_p99_low" in refused)
        assert one.row["latency_p99_high"] is None
        assert one.row["latency_mean_low"] == pytest.approx(0.9 ** (1 / 3**0.5)), "no narrower than their own"


def test_what_is_odd_about_the_tokens_of_any_repeat_is_odd_about_the_setting() -> None:
    odd = {"echoed": 100, "over_max": 2, "token_mismatches": 3, "prompt_tokens_source": "tokenizer"}
    rows = [made("a", 1, 2.0, 20.0, repeat=0, prompt_tokens_source="server", latency_p95_certified=3.0)]
    rows += [made("a", 1, 2.0, 20.0, repeat=1, latency_p95_certified=9.0, **odd)]
    rows += [made("a", 1, 2.0, 20.0, repeat=2, prompt_tokens_source="server", completion_tokens_source="estimate")]
    (one,) = decided(*rows).settings.values()
    assert {name: one.row[name] for name in odd} == odd
    assert one.row["completion_tokens_source"] == "estimate"
    assert one.row["latency_p95_certified"] is None


def test_where_every_repeat_failed_the_price_fails_as_it_does_in_one() -> None:
    rows = [made("a", 1, None, None, repeat=i, requests_per_s=0.0) for i in range(2)]
    for played in (rows[:1], rows):
        (one,) = decided(*played, criteria={"cost_per_10k": 5.0}).settings.values()
        assert one.row["requests_per_s"] == 0.0
        assert [(state.standing, state.exceedance) for state in one.states] == [(Standing.FAIL, math.inf)]


def test_every_column_of_a_trial_says_how_repeats_are_put_together() -> None:
    intervals = {f"{name}{end}" for name in (*ESTIMATED, "error_rate") for end in ("", "_low", "_high")}
    assert set(RULES) | intervals == set(TRIALS.names)
    assert not set(RULES) & intervals


def test_what_went_wrong_in_a_later_repeat_is_in_the_setting() -> None:
    """Each of these was once the first repeat's alone."""
    odd = {"stamp_disorders": 2, "new_connections": 5, "lost_actors": 1, "cached_repeats": 7}
    later = {"drift": -0.4, "ceiling_streams": 64.0, "streams": 70.0, "missed": ["latency_mean"]}
    rows = [made("a", 1, 2.0, 20.0, repeat=0, drift=0.1, ceiling_streams=96.0, streams=8.0)]
    rows += [made("a", 1, 2.0, 20.0, repeat=1, **odd, **later)]
    (one,) = decided(*rows).settings.values()
    assert {name: one.row[name] for name in odd | later} == odd | later


def test_one_bad_repeat_spoils_the_setting() -> None:
    rows = [made("a", 1, 2.0, 20.0, repeat=i, valid=valid) for i, valid in enumerate(("VALID", "INVALID"))]
    assert decided(*rows).winner is None


def test_what_never_answered_is_not_chosen_where_no_criterion_would_tell() -> None:
    """All requests failed: the trial is whole and VALID, has no latency and no price, and nothing to miss."""
    dead = made("a", 1, None, None, failed=100, error_rate=1.0)
    found = decided(dead, made("b", 1, 1.0, 40.0), criteria={})
    assert (found.winner, len(said(found))) == ("b/p/closed-1/0", 1)
    found = decided(dead, criteria={})
    assert (found.winner, found.nearest) == (None, None)
    assert said(found) == [
        "Nothing can be chosen: every setting that is whole and VALID has a trial in which no request succeeded."
    ]
    found = decided(dead | {"valid": "INVALID", "reasons": ["not_sent"]}, made("b", 1, 1.0, 40.0), criteria={})
    assert len(said(found)) == 1, "it would not pass"
