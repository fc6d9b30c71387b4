"""The table of truth says no where a figure misses its bound."""

import math
from pathlib import Path

import pytest

from benchmarks import truth, truth_cache, truth_intervals, truth_rounds, truth_search, truth_stamps
from raybench.analysis import stats
from raybench.cluster.calibration import Errors, Figures
from raybench.selftest import Measured, Selftest


@pytest.mark.parametrize(
    ("claims", "minutes", "kept"),
    [
        ([0.9] * 23 + [1.06], [27.0] * 24, True),
        ([0.9] * 22 + [1.06, 1.2], [27.0] * 24, False),
        ([0.9] * 24, [30.1] * 24, False),
        ([0.9] * 17, [20.0] * 24, False),
        ([], [20.0] * 24, False),
    ],
)
def test_a_search_may_over_claim_once_in_half_an_hour_each(
    claims: list[float], minutes: list[float], kept: bool
) -> None:
    assert truth_search.kept(claims, minutes) is kept


@pytest.mark.parametrize(
    ("utilisation", "requests", "certified", "wrong", "kept"),
    [
        (0.3, 3000, 0.98, 0.05, True),
        (0.3, 3000, 0.98, 0.051, False),
        (0.95, 3000, 0.0, 0.0, True),
        (0.3, 80, 0.0, 0.0, True),
        (0.3, 3000, 0.0, 0.0, False),
    ],
)
def test_an_interval_is_wrong_in_one_run_of_twenty_and_there_is_one(
    utilisation: float, requests: int, certified: float, wrong: float, kept: bool
) -> None:
    assert truth_intervals.keeps(utilisation, requests, certified, wrong) is kept


def measured(streams: int, late_ms: float | None, simulator_cpu_share: float = 0.3) -> Selftest:
    errors = Errors(100, 0.0, 0.1, late_ms, late_ms)
    rates = {"planned_per_s": 1.0, "sent_per_s": 1.0, "lateness_p99_ms": 0.1, "chunks_per_s": 50.0 * streams}
    rung = Figures(
        streams, 100, 0, errors, errors, errors, **rates,
        cpu_share=0.5, lag_p99_ms=0.1, simulator_cpu_share=simulator_cpu_share, simulator_lag_p99_ms=0.1,
    )  # fmt: skip
    return Selftest((Measured("e", "e-0", "h", (rung,)),))


def test_stamps_are_good_at_64_streams_or_it_says_how_late() -> None:
    assert truth_stamps.broken(measured(64, 5.0)) == []
    assert truth_stamps.broken(measured(64, 5.2)) == ["e-0: first tokens of 64 streams are stamped 5.2 ms late (p99)"]
    assert truth_stamps.broken(measured(64, 9.0, 1.0))[0].endswith("so this machine cannot tell")
    assert truth_stamps.broken(measured(64, None)) == ["e-0: 64 streams were not measured"]
    assert truth_stamps.broken(measured(16, 0.1)) == ["e-0: 64 streams were not measured"]


def test_the_table_has_every_figure_and_ends_badly_with_one_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    figures = ("cache", "intervals", "replay", "rounds", "search", "stamps")
    assert truth.names() == [f"benchmarks.truth_{name}" for name in figures]
    (tmp_path / "fine.py").write_text("print('kept')")
    (tmp_path / "poor.py").write_text("raise SystemExit(1)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert truth.main(["poor", "fine"]) == 1
    assert "A PROMISE IS BROKEN: poor" in capfd.readouterr().out
    assert truth.main(["fine"]) == 0


@pytest.mark.parametrize(
    ("bounds", "code"),
    [({}, 0), ({"most_cried": -1.0}, 1), ({"least_noticed": 1.1}, 1)],
    ids=["kept", "cried", "noticed"],
)
def test_a_figure_that_misses_its_bound_is_an_exit_code(
    bounds: dict[str, float], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        truth_cache.main(2, cases=truth_cache.CASES[:1], **bounds)
    assert ended.value.code == code
    assert ("A PROMISE IS BROKEN" in capsys.readouterr().out) == bool(code)


@pytest.mark.parametrize(("most_wrong", "code"), [(0.5, 0), (-0.1, 1)])
def test_the_benchmark_of_short_closed_trials_ends_badly_where_more_are_wrong_than_promised(
    most_wrong: float, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        truth_rounds.main(2, cases=truth_rounds.CASES[:1], slots=[1], most_wrong=most_wrong)
    assert ended.value.code == code
    assert ("A PROMISE IS BROKEN" in capsys.readouterr().out) == bool(code)


def test_replies_that_come_in_rounds_are_as_many_values_as_there_are_rounds() -> None:
    case, seeds = truth_rounds.CASES[1], range(30)
    mean_s = truth_rounds.truth(case, 8)

    def wrong(rounds: int | None) -> int:
        missed = 0
        for seed in seeds:
            client = truth_rounds.Client(case, 8, case.warmup + 5, seed)
            took_s = client.measured(case.warmup * mean_s, (case.warmup + 3) * mean_s)
            found = stats.mean(took_s, rounds=rounds)
            assert found.low is not None
            assert found.high is not None
            missed += not found.low <= mean_s <= found.high
        return missed

    assert wrong(3) <= 3
    assert wrong(None) >= 8, "values of one round, taken for independent ones"


def test_single_trials_of_one_system_are_seldom_called_different_where_the_promise_says_so() -> None:
    assert truth_intervals.single_alarms(2000, 0.05, 0.01, 7) <= truth_intervals.MOST_ALARMS


def test_the_interval_benchmark_ends_badly_where_nothing_can_be_right(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        truth_intervals.main(["--runs", "4"], lambda utilisation, q: math.inf)
    assert ended.value.code == 1
    assert "A PROMISE IS BROKEN" in capsys.readouterr().out
