"""Whether load actors are enough for a plan: known loads against ceilings that are made up."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raybench.cluster.calibration import Errors, Figures
from raybench.config import load_config
from raybench.load.arrivals import Closed, Constant, Load, Poisson, Ramp, Replay
from raybench.load.search import Search
from raybench.plan import Plan, Trial
from raybench.rows import Exchange, Outcome
from raybench.selftest import Measured, Selftest
from raybench.sizing import Pace, Short, pace, peak, short, too_few, wanted

ALONE = Pace(1.0, 50)
"""A stream just as selftest's own."""


def trial(load: Load | Search, experiment: str = "e") -> Trial:
    return Trial(load.label, 0, experiment, "p", load, 0, 0, 0.0, 10.0, None, 0, None)


def plan(*trials: Trial) -> Plan:
    return Plan("n", trials, ())


def rung(streams: int, *, passes: bool, slow_simulator: bool = False) -> Figures:
    late = Errors(100, 0.1, 0.2, 1.0 if passes else 30.0, 40.0)
    rates: dict[str, float] = dict.fromkeys(("planned_per_s", "sent_per_s", "cpu_share", "lag_p99_ms"), 0.5)
    simulator: dict[str, float] = {"simulator_cpu_share": float(slow_simulator), "simulator_lag_p99_ms": 0.5}
    return Figures(
        streams, 100, 0, late, late, late, lateness_p99_ms=0.5, chunks_per_s=50.0 * streams, **rates, **simulator
    )


def carrying(streams: int, fails: int | None = None, experiment: str = "e", **other: Any) -> Selftest:
    """One actor that passed a rung of so many streams, none if 0, and failed one of `fails`."""
    rungs = [rung(streams, passes=True)] if streams else []
    rungs += [rung(fails, passes=False, **other)] if fails else []
    return Selftest((Measured(experiment, f"{experiment}-0", "h", tuple(rungs)),))


@pytest.mark.parametrize(
    ("load", "alone", "streams"),
    [
        (Closed(64), Pace(1.0, 50), 64),
        (Closed(64), Pace(1.0, 25), 32),
        (Closed(64), Pace(1.0, 500), 64),
        (Closed(64, think_time_s=3.0), Pace(1.0, 50), 16),
        (Closed(64), Pace(1.0, 0), 0),
        (Constant(10.0), Pace(4.0, 200), 40),
        (Poisson(10.0), Pace(4.0, 100), 20),
        (Poisson(10.0, max_in_flight=8), Pace(4.0, 200), 8),
        (Ramp(1.0, 20.0, 60.0), Pace(4.0, 200), 80),
        (Search("ttft_p99", 1.0), Pace(1.0, 50), 0),
    ],
    ids=lambda value: getattr(value, "label", None),
)
def test_a_load_is_so_many_streams_of_the_selftest(load: Load | Search, alone: Pace, streams: float) -> None:
    assert peak(trial(load), alone) == streams


@pytest.mark.parametrize("latency_s", [0.1 + 0.001 * n for n in range(300)])
def test_rounding_asks_for_no_further_actor(latency_s: float) -> None:
    alone = {"e": Pace(latency_s, 1000)}
    for load in (Closed(4000), Constant(4000 / latency_s)):
        assert peak(trial(load), alone["e"]) == pytest.approx(4000)
        assert [each.needed for each in short(plan(trial(load)), alone, carrying(2000, 4000), {"e": 1})] == [2]


def test_a_replay_is_as_many_streams_as_its_busiest_moment_of_what_is_played(tmp_path: Path) -> None:
    at_s = [0.0, 1.0, 1.1, 1.2, 1.3, 1.9, 20.0, 20.1, 20.2, 20.3, 20.4, 20.5]
    trace = tmp_path / "trace.jsonl"
    lines = [{"timestamp": round(s * 1000), "input_length": 9, "output_length": 9} for s in at_s]
    trace.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert peak(trial(Replay(trace)), ALONE) == 5.0
    assert peak(replace(trial(Replay(trace)), duration_s=30.0), ALONE) == 6.0
    assert peak(trial(Replay(trace, max_in_flight=3)), ALONE) == 3.0
    assert peak(trial(Replay(trace, speed=10.0)), ALONE) == 6.0


def test_the_pace_of_an_endpoint_is_that_of_a_request_that_it_answered() -> None:
    answered = Exchange(Outcome.OK, sent_ns=5, end_ns=2_000_000_005, chunk_ns=[7, 8, 9])
    assert pace(answered) == Pace(2.0, 3)
    assert pace(Exchange(Outcome.THROTTLED, sent_ns=5, end_ns=9)) is None


def test_the_heaviest_trial_says_how_many_actors_it_takes() -> None:
    light, heavy = trial(Closed(8)), trial(Closed(200))
    (lacking,) = short(plan(light, heavy, trial(Closed(64))), {"e": ALONE}, carrying(64, 256), {"e": 1})
    assert lacking == Short(heavy, 200.0, actors=1, carries=64, needed=4)


@pytest.mark.parametrize(
    ("found", "actors"),
    [
        (carrying(200), 1),
        (carrying(64, 256), 4),
        (carrying(64, 256, slow_simulator=True), 1),
        (carrying(4, 16), 13),
    ],
    ids=["carried", "shared by enough", "a slow simulator hid it", "so few that more actors would not help"],
)
def test_actors_that_may_carry_it_are_not_objected_to(found: Selftest, actors: int) -> None:
    assert short(plan(trial(Closed(200))), {"e": ALONE}, found, {"e": actors}) == []


def test_where_no_rung_passed_the_least_that_it_takes_is_known() -> None:
    (lacking,) = short(plan(trial(Closed(200))), {"e": ALONE}, carrying(0, 16), {"e": 2})
    assert (lacking.carries, lacking.needed, lacking.at_most) == (16, 13, True)


def test_more_than_was_ever_tried_is_too_much() -> None:
    (lacking,) = short(plan(trial(Closed(1000))), {"e": ALONE}, carrying(256), {"e": 1})
    assert lacking.needed == 4


def test_an_endpoint_with_no_trial_left_asks_nothing() -> None:
    assert short(plan(trial(Closed(200), "other")), {"e": ALONE}, carrying(64, 256), {"e": 1}) == []


def test_each_endpoint_is_judged_by_its_own_pace_and_its_own_actors() -> None:
    trials = plan(trial(Closed(100), "fast"), trial(Closed(100), "slow"), trial(Closed(100), "unknown"))
    both = Selftest(tuple(carrying(32, 128, name).actors[0] for name in ("fast", "slow", "unknown")))
    actors = {"fast": 1, "slow": 1, "unknown": 1}
    lacking = short(trials, {"fast": ALONE, "slow": Pace(1.0, 5), "unknown": None}, both, actors)
    assert [each.trial.experiment for each in lacking] == ["fast"]
    assert wanted(lacking, actors) == {"fast": 4, "slow": 1, "unknown": 1}


CONFIG = """\
name: n
experiments:
  - {name: e, instance_type: ml.g5.xlarge, endpoint: {simulate: fixed}, route: stream}
payloads:
  - {name: p, dataset: {synthetic: {prompts: 5, tokens: [10, 30]}}}
loads:
  - {kind: closed, concurrency: 200, requests: 10}
fleet:
  actors: 1
"""


def test_the_line_says_the_load_what_an_actor_carries_how_many_it_takes_and_where_to_write_it(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_text(CONFIG)
    error = too_few(load_config(path), Short(trial(Closed(200)), 200.0, 1, 64, 4), in_all=5, cores=2)
    assert error.exit_code == 5
    assert str(error) == (
        f"{path}:9: fleet.actors: 1 load actor for closed-200 on 'e', up to 200 streams of 50 chunks/s, "
        "where selftest vouches for 64 an actor; at least 4, each with a core: 5 cores for all endpoints, "
        "where 2 are (a bigger machine, or more min_workers in a cluster's file; --no-selftest plays it unchecked)"
    )
    less = too_few(load_config(path), Short(trial(Closed(200)), 200.0, 2, 16, 13, at_most=True), in_all=13, cores=2)
    assert "2 load actors" in str(less)
    assert "vouches for fewer than 16 an actor; at least 13" in str(less)
    there = too_few(load_config(path), Short(trial(Closed(200)), 200.0, 1, 64, 4), in_all=5, cores=8)
    assert str(there).endswith("5 cores for all endpoints, where 8 are (--no-selftest plays it unchecked)")
