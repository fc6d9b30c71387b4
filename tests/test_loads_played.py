"""Loads played whole, in virtual time: the schedule to the nanosecond, and a row for every planned request."""

from pathlib import Path

import numpy as np
import pytest
from world import S, World

from raybench.load.arrivals import Constant, Gamma, Poisson, Ramp, Replay

TRACES = Path(__file__).parents[2] / "shared" / "data" / "traces"
QUICK = {"ttft_s": 0.01, "tokens": 1}

Drawn = Constant | Poisson | Gamma | Ramp

RAMPS = (Ramp(10.0, 50.0, 30.0), Ramp(10.0, 50.0, 30.0, steps=5))
LOADS: tuple[Drawn, ...] = (Constant(40.0), Poisson(40.0), Gamma(40.0, 0.3), *RAMPS)


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.kind)
@pytest.mark.parametrize("actors", [1, 3])
def test_every_request_leaves_at_its_planned_nanosecond_however_many_send(load: Drawn, actors: int) -> None:
    played = World(load, duration_s=30, route="invoke", overrides=QUICK, actors=actors).play()
    schedule = load.offsets_ns(7, duration_ns=30 * S)
    measured = [row for row in played.table.to_pylist() if row["phase"] == "measure"]
    assert sorted(row["planned_ns"] for row in measured) == schedule.tolist()
    assert all(row["sent_ns"] == row["planned_ns"] for row in measured)
    assert played.summary()["valid"] == "VALID"


def test_a_planned_request_without_a_place_is_a_row_and_makes_the_trial_invalid() -> None:
    slow = {"ttft_s": 1.0, "tokens": 1}
    played = World(Constant(100.0, max_in_flight=2), duration_s=20, route="invoke", overrides=slow).play()
    told = played.summary()
    assert (told["requests"], told["ok"], told["not_sent"]) == (2000, 40, 1960)
    assert sorted(played.column("seq"))[:2000] == list(range(2000))
    assert "not_sent" in told["reasons"]
    assert told["valid"] == "INVALID"
    assert told["requests_per_s"] == pytest.approx(2.0, rel=0.06)


@pytest.mark.parametrize("pattern", ["*.csv", "*.jsonl"])
def test_a_trace_replays_with_its_own_inter_arrival_times(pattern: str) -> None:
    found = sorted(TRACES.rglob(pattern))
    if not found:
        pytest.skip(f"no trace {pattern} in {TRACES}")
    load = Replay(found[0], speed=10.0)
    offsets = load.offsets_ns(0, count=500)
    played = World(load, requests=500, route="invoke", overrides=QUICK).play()
    sent_ns = np.sort(np.array(played.column("sent_ns")))[:500]
    assert np.array_equal(sent_ns, offsets)
    assert played.summary()["lateness_max"] == 0
