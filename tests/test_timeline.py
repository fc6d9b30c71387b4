"""A trial over time: every request ends in one stretch, and the tables stay small whatever the rows."""

from dataclasses import replace

import pytest
import reported
from made import failed, loop, requests, row, trial

from raybench.analysis import stats
from raybench.analysis.columns import TRIALS
from raybench.analysis.decide import decide
from raybench.analysis.reduce import Findings
from raybench.analysis.repeats import together
from raybench.analysis.tables import CURVES, FAILURES
from raybench.analysis.timeline import DENSITY, MOST_STRETCHES, OVER_TIME, timeline
from raybench.report.timeline import warm_ups
from raybench.report.view import look


def test_every_request_is_counted_in_the_stretch_in_which_it_ended() -> None:
    rows = [*loop(59), failed(59, 59.0)]
    lines, cells = timeline(requests(rows), trial())
    assert (lines.schema, cells.schema) == (OVER_TIME, DENSITY)
    spans = [(line["to_s"] - line["from_s"], line) for line in lines.to_pylist()]
    assert sum(wide * line["completed_per_s"] for wide, line in spans) == pytest.approx(59)
    assert sum(wide * line["failed_per_s"] for wide, line in spans) == pytest.approx(1)
    assert sum(cells["requests"].to_pylist()) == 59
    assert all(cell["latency_low_s"] <= 1.0 <= cell["latency_high_s"] for cell in cells.to_pylist())


def test_warm_up_is_there_and_a_request_that_never_ended_counts_when_it_was_planned() -> None:
    rows = [row(0, 0.0, phase="warmup"), row(1, 1.0), row(2, 2.0, outcome="lost", end_ns=None)]
    lines, _ = timeline(requests(rows), trial())
    ended = [(line["completed_per_s"], line["failed_per_s"]) for line in lines.to_pylist()]
    assert ended == [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)]


def test_a_stretch_has_percentiles_only_where_it_holds_enough_requests() -> None:
    rows = [row(i, 0.01 * (i % 80), end=1.5) for i in range(80)]
    ((line,),) = [timeline(requests(rows), trial())[0].to_pylist()[-1:]]
    assert line["p50_s"] is not None
    assert line["p95_s"] is not None
    (few,) = timeline(requests(rows[:5]), trial())[0].to_pylist()[-1:]
    assert few["p50_s"] is None


@pytest.mark.parametrize("number", [1, 10, 1_000, 20_000])
def test_the_tables_are_bounded(number: int) -> None:
    lines, cells = timeline(requests(loop(number, 0.5)), trial())
    assert lines.num_rows <= MOST_STRETCHES + 1
    assert cells.num_rows <= 3 * MOST_STRETCHES


def test_no_rows_have_no_timeline() -> None:
    lines, cells = timeline(requests([]), trial())
    assert (lines.num_rows, cells.num_rows) == (0, 0)


def findings(curves: list[dict[str, object]], failures: list[dict[str, object]]) -> Findings:
    import pyarrow as pa

    empty = {"tokens": pa.table({}), "over_time": OVER_TIME.empty_table(), "density": DENSITY.empty_table()}
    return Findings(
        trials=TRIALS.empty_table(),
        curves=pa.Table.from_pylist(curves, CURVES),
        failures=pa.Table.from_pylist(failures, FAILURES),
        **empty,
    )


def test_the_curve_of_repeats_is_their_geometric_mean_and_null_where_one_has_none() -> None:
    curves: list[dict[str, object]] = [
        {"trial_id": name, "quantile": q, "latency_s": value, "beyond": 5, "low_s": low, "high_s": value}
        for name, q, value, low in (
            *(("a", 0.5, 1.0, 0.9), ("b", 0.5, 4.0, 3.0), ("a", 0.9, 2.0, 1.0), ("b", 0.9, None, None)),
            *(("a", 0.75, 2.0, 1.0), ("b", 0.75, 2.1, None), ("c", 0.5, 9.0, 8.0)),
        )
    ]
    failure: dict[str, object] = {"outcome": "throttled", "error_code": "X", "requests": 2}
    failures: list[dict[str, object]] = [
        failure | {"trial_id": "a", "first_s": 1.0, "last_s": 2.0},
        failure | {"trial_id": "b", "first_s": 0.5, "last_s": 1.0},
    ]
    found = together(findings(curves, failures), {"a": ["a", "b"], "c": ["c"]})
    points = {(p["trial_id"], p["quantile"]): p for p in found.curves.to_pylist()}
    assert points["a", 0.5]["latency_s"] == pytest.approx(2.0)
    assert points["a", 0.5]["high_s"] == pytest.approx(stats.combined([1.0, 4.0]).high)
    assert points["a", 0.5]["beyond"] == 10
    assert points["a", 0.75]["latency_s"] == pytest.approx(4.2**0.5)
    assert points["a", 0.75]["low_s"] is None, "one repeat was refused an interval"
    assert points["a", 0.9]["latency_s"] is None
    assert points["c", 0.5]["latency_s"] == 9.0
    (line,) = found.failures.to_pylist()
    assert (line["requests"], line["first_s"], line["last_s"]) == (4, 0.5, 2.0)


def test_the_window_that_is_drawn_on_a_repeat_is_its_own() -> None:
    found, manifest = reported.repeated_run(2)
    rows = [row | {"window_s": 90.0 if row["repeat"] else 60.0} for row in found.trials.to_pylist()]
    found = replace(found, trials=reported.findings(rows).trials)
    view = look(found, decide(found.trials, manifest["criteria"]), manifest)
    windows = {(line["warm_s"], line["stop_s"]) for line in warm_ups(view)}
    assert windows == {(2.0, 62.0)}


def test_without_repeats_findings_stay_as_they_are() -> None:
    found = findings([{"trial_id": "a", "quantile": 0.5, "latency_s": 1.0, "beyond": 5}], [])
    assert together(found, {"a": ["a"]}) is found
