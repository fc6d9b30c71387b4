"""The errors that load generators make when they send: ours does not, and whoever does is seen."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from test_compare import run
from world import MS, Played, S, World, summary, whole

from raybench.analysis.compare import compare
from raybench.clock import Clock
from raybench.cluster.lag import probe_lag
from raybench.errors import InputError
from raybench.load.arrivals import Closed, Constant, Poisson
from raybench.rows import Outcome
from raybench.virtual import VirtualNetwork, run_virtually

QUICK = {"ttft_s": 0.01, "tokens": 1}


def stalling(network: VirtualNetwork) -> None:
    """The client's process stands still for two seconds from just before the fifth."""
    network.call_later(5 - 1e-6, network.block, 2.0)


def stalled_server(n: int, now_s: float) -> Sequence[tuple[float, bytes]]:
    """Answers in 10 ms, but nothing from the fifth to the seventh second."""
    return [((7.01 if 5 <= now_s < 7.01 else now_s + 0.01) - now_s, whole())]


@pytest.fixture(scope="module")
def stalled_client() -> Played:
    return World(Constant(50.0), duration_s=10, route="invoke", overrides=QUICK, meddle=stalling).play()


# 1 Coordinated omission


def test_1_coordinated_omission_a_stall_of_the_client_shows_in_latency_from_the_plan(stalled_client: Played) -> None:
    told = stalled_client.summary()
    assert (told["requests"], told["ok"]) == (500, 500)
    assert told["latency_p99"] == pytest.approx(1.9102, abs=2e-6)
    assert told["service_latency_p99"] == pytest.approx(0.010, abs=1e-9)
    assert told["valid"] == "INVALID"
    assert {"late_starts", "client_lag"} <= set(told["reasons"])


def test_1_coordinated_omission_a_clock_that_starts_when_sent_hides_the_stall(stalled_client: Played) -> None:
    told = stalled_client.changed(planned_ns=stalled_client.column("sent_ns"))
    assert told["latency_p99"] == pytest.approx(0.010, abs=1e-9)
    assert "late_starts" not in told["reasons"]


def test_1_coordinated_omission_a_stall_of_the_server_shows_to_all_who_arrive_in_it() -> None:
    told = World(Constant(50.0), duration_s=10, route="invoke", script=stalled_server).play().summary()
    assert told["latency_p99"] == told["service_latency_p99"] == pytest.approx(1.9102, abs=1e-6)
    assert told["lateness_max"] == 0


def test_1_coordinated_omission_one_request_at_a_time_meets_a_stall_of_the_server_once() -> None:
    one = World(Closed(1, 0.01), duration_s=10, route="invoke", script=stalled_server).play().summary()
    assert one["latency_p99"] == pytest.approx(0.010, abs=1e-9)


def frozen(network: VirtualNetwork) -> None:
    """The client's process stands still for 0.145 s in every 2.4, six hundredths of the time."""
    for k in range(25):
        network.call_later(0.37 + 2.4 * k, network.block, 0.145)


@pytest.mark.parametrize(("meddle", "lag_p99_s"), [(frozen, 0.1), (None, 0.0)], ids=["frozen", "awake"])
def test_1_coordinated_omission_the_lag_of_a_loop_that_stands_still_is_that_of_all_it_woke_too_late_for(
    meddle: Callable[[VirtualNetwork], None] | None, lag_p99_s: float
) -> None:
    usual = {"ttft_s": 0.1, "tokens": 5, "itl_s": 0.02, "jitter": 0.05}
    told = World(Closed(8), duration_s=30, overrides=usual, meddle=meddle).play().summary()
    assert told["lateness_p99"] == 0, "who freezes sends nothing late: a closed load waits for its replies"
    assert told["lag_p99_s"] == pytest.approx(lag_p99_s, abs=0.03)
    assert (told["valid"], told["reasons"]) == (("INVALID", ["client_lag"]) if meddle else ("VALID", []))


def test_1_coordinated_omission_a_stall_is_one_waking_and_as_many_lags_as_it_took_the_place_of() -> None:
    lag_ns, network = list[int](), VirtualNetwork()

    async def one_stall(clock: Clock) -> None:
        probe = asyncio.create_task(probe_lag(lag_ns, clock))
        network.call_later(0.05, network.block, 0.1)
        await asyncio.sleep(0.25)
        probe.cancel()

    run_virtually(one_stall, network)
    assert sorted(lag_ns) == [0] * 6 + [10 * MS, 30 * MS, 50 * MS, 70 * MS, 90 * MS]


# 2 Open and closed mixed


def test_2_open_and_closed_mixed_response_times_differ_and_each_says_its_kind() -> None:
    free_s = 0.0

    def one_by_one(n: int, now_s: float) -> Sequence[tuple[float, bytes]]:
        nonlocal free_s
        free_s = max(free_s, now_s) + 0.01
        return [(free_s - now_s, whole())]

    told = []
    for load in (Closed(1), Poisson(90.0)):
        free_s = 0.0
        told.append(World(load, requests=2000, route="invoke", script=one_by_one).play().summary())
    closed, opened = told
    assert (closed["kind"], opened["kind"]) == ("closed", "poisson")
    assert opened["requests_per_s"] < closed["requests_per_s"]
    assert opened["latency_mean"] > 4 * closed["latency_mean"]
    assert (closed["rate"], opened["concurrency"]) == (None, None)


@pytest.mark.parametrize(("base", "candidate"), [("closed", "poisson"), ("poisson", "closed")])
def test_2_open_and_closed_mixed_are_refused_a_comparison(base: str, candidate: str) -> None:
    told = {
        load.kind: World(load, requests=100, route="invoke", overrides=QUICK).play().summary()
        for load in (Closed(1), Poisson(90.0))
    }
    with pytest.raises(InputError, match=rf'load kind is \["{base}"\] in the base, \["{candidate}"\] in the cand'):
        compare(run(told[base]), run(told[candidate]))
    assert compare(run(told[base]), run(told[base])).differences == ()


# 3 Pacing that drifts


def costly(network: VirtualNetwork) -> None:
    """Every request costs the client 157 microseconds."""
    for k in range(2_000):
        network.call_later(k * 1e-3, network.block, 157e-6)


def test_3_pacing_that_drifts_the_schedule_is_absolute() -> None:
    played = World(Constant(1000.0), requests=2_000, route="invoke", overrides=QUICK).play()
    assert sorted(played.column("sent_ns"))[:2_000] == [k * MS for k in range(2_000)]


def test_3_pacing_that_drifts_the_cost_of_sending_delays_a_request_but_not_the_next() -> None:
    played = World(Constant(1000.0), requests=2_000, route="invoke", overrides=QUICK, meddle=costly).play()
    told = played.summary()
    assert played.column("planned_ns")[1999] == 1999 * MS
    assert told["lateness_max"] <= 0.0005
    assert "late_starts" not in told["reasons"]


def test_3_pacing_that_drifts_sleeping_between_requests_loses_an_eighth_and_is_seen() -> None:
    network, sent_ns = VirtualNetwork(), list[int]()

    async def relative(clock: Any) -> None:
        for _ in range(2_000):
            sent_ns.append(clock())
            network.block(157e-6)
            await asyncio.sleep(1e-3)

    run_virtually(relative, network)
    assert 1999 * S / sent_ns[-1] == pytest.approx(1000 * (1 - 0.136), rel=1e-3)
    world = World(Constant(1000.0), requests=2_000, route="invoke", overrides=QUICK)
    played = world.play()
    order = np.argsort(np.array(played.column("seq")))[:2_000]
    late = np.array(played.column("sent_ns"), np.int64)
    late[order] = sent_ns
    told = played.changed(sent_ns=late, first_byte_ns=late + MS, end_ns=late + 10 * MS, **tokenless(played))
    assert "late_starts" in told["reasons"]
    assert told["valid"] == "INVALID"


def tokenless(played: Played) -> dict[str, Sequence[Any]]:
    nothing = [None] * len(played.table)
    return {"first_token_ns": nothing, "last_token_ns": nothing}


# 4 Lock-step waves


def exponential(n: int, now_s: float) -> Sequence[tuple[float, bytes]]:
    return [(Random(n).expovariate(1.0), whole())]


def test_4_waves_every_slot_is_refilled_at_once() -> None:
    told = World(Closed(32), requests=3200, route="invoke", script=exponential).play().summary()
    assert told["little_ratio"] >= 0.99
    assert told["valid"] == "VALID"


def test_4_waves_leave_three_of_four_slots_idle_and_are_seen() -> None:
    played = World(Closed(32), requests=3200, route="invoke", script=exponential).play()
    measured = played.table.slice(0, 3200)
    took = np.array(measured["end_ns"].to_pylist()) - np.array(measured["sent_ns"].to_pylist())
    waves = took.reshape(100, 32)
    begins = np.repeat(np.concatenate([[0], np.cumsum(waves.max(axis=1))[:-1]]), 32)
    order = {"seq": np.arange(3200), "phase": ["measure"] * 3200}
    waved = Played(played.world, measured, [], played.network, []).changed(
        planned_ns=begins, sent_ns=begins, first_byte_ns=begins, end_ns=begins + took, **order
    )
    harmonic = sum(1 / k for k in range(1, 33))
    assert waved["little_ratio"] == pytest.approx(1 / harmonic, rel=0.05)
    assert waved["reasons"] == ["slots_idle"]
    assert waved["valid"] == "INVALID"


# 5 Client saturation


def test_5_client_saturation_every_stamp_is_the_instant_the_server_wrote() -> None:
    played = World(Closed(64), requests=640, overrides={"ttft_s": 0.1, "itl_s": 0.02, "jitter": 0.1}).play()
    wrote = {record["request_id"]: [ns for ns, _ in record["chunks"]] for record in played.truth}
    base_ns = min(record["arrived_ns"] for record in played.truth)
    for name, stamps in zip(played.column("request_id"), played.column("chunk_ns"), strict=True):
        assert [ns + base_ns for ns in stamps] == wrote[name]
    assert played.summary()["lag_max_s"] == 0


def test_5_client_saturation_a_loop_blocked_for_200_ms_is_client_lag() -> None:
    def busy(network: VirtualNetwork) -> None:
        network.call_later(1.0, network.block, 0.2)

    told = World(Closed(64), requests=640, overrides={"ttft_s": 0.1, "itl_s": 0.02}, meddle=busy).play().summary()
    assert told["lag_max_s"] >= 0.18
    assert "client_lag" in told["reasons"]
    assert told["valid"] == "INVALID"


# 6 Clock steps


@pytest.mark.parametrize("step_s", [-3600, 3600])
def test_6_clock_steps_of_the_wall_change_nothing(step_s: int) -> None:
    world = World(Constant(50.0), requests=100, overrides={"jitter": 0.2})
    before, asked = world.play().table, 0

    def stepping_s() -> float:
        nonlocal asked
        asked += 1
        return time.time() + (step_s if asked > 100 else 0)

    assert replace(world, wall_s=stepping_s).play().table.equals(before)
    assert asked > 100


def test_6_clock_steps_inside_a_request_are_stamp_disorder() -> None:
    played = World(Constant(50.0), requests=100, overrides=QUICK).play()
    back = [ns - 3600 * S if ns > S else ns for ns in played.column("end_ns")]
    told = played.changed(end_ns=back)
    assert "stamp_disorder" in told["reasons"]
    assert told["valid"] == "INVALID"


# 7 Where the stamp is taken


def test_7_stamp_position_sent_is_the_instant_the_bytes_leave() -> None:
    played = World(Closed(4), requests=100, overrides=QUICK, latency_s=0.003).play()
    arrived = {record["request_id"]: record["arrived_ns"] for record in played.truth}
    connected_ns = 6 * MS
    for name, sent_ns in zip(played.column("request_id"), played.column("sent_ns"), strict=True):
        assert arrived[name] - (sent_ns + connected_ns) == 3 * MS


def test_7_stamp_position_a_stamp_after_the_reply_began_is_stamp_disorder() -> None:
    played = World(Closed(4), requests=100, overrides=QUICK).play()
    told = played.changed(sent_ns=played.column("last_token_ns"))
    assert told["stamp_disorders"] == len(played.table)
    assert told["valid"] == "INVALID"


# 8 Connections opened inside the time of a request


def test_8_connection_cost_the_server_accepts_as_many_connections_as_there_are_slots() -> None:
    played = World(Closed(8), requests=200, overrides=QUICK, latency_s=0.02).play()
    assert played.network.accepted == len({record["connection"] for record in played.truth}) == 8
    assert set(played.column("connection_reused")) == {True}
    assert played.summary()["latency_p50"] == pytest.approx(0.05, abs=1e-9)


def test_8_connection_cost_a_connection_for_every_request_is_in_its_latency_and_is_seen() -> None:
    def closing(n: int, now_s: float) -> Sequence[tuple[float, bytes]]:
        return [(0.01, whole().replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"))]

    world = World(Closed(8), requests=200, route="invoke", script=closing, latency_s=0.02, connections=0)
    played = world.play()
    told = played.summary()
    assert played.network.accepted == len(played.table)
    assert told["latency_p50"] == pytest.approx(0.09, abs=1e-9)
    assert told["new_connections"] == 200
    assert told["service_latency_p50"] == pytest.approx(0.05, abs=1e-9)
    assert "new_connections" in told["reasons"]
    assert told["valid"] == "INVALID"


# 19 Retries inside the stopwatch


def test_19_retries_one_planned_request_is_one_request_on_the_wire() -> None:
    faults = {"script": ("throttle", "unavailable", "model_error", None, "throttle")}
    played = World(Closed(1), requests=200, overrides=QUICK, faults=faults).play()
    assert [record["request_id"] for record in played.truth] == played.column("request_id")
    assert set(played.column("attempt")) == {0}
    told = played.summary()
    assert (told["failed"], told["throttled"]) == (4, 2)


def test_19_retries_a_request_that_hides_its_failed_attempts_is_fewer_than_the_server_saw() -> None:
    faults = {"script": ("throttle", "throttle", None)}
    played = World(Closed(1), requests=100, overrides=QUICK, faults=faults).play()
    ok = [outcome == Outcome.OK for outcome in played.column("outcome")]
    hiding = played.table.filter(ok)
    assert len(hiding) == len(played.truth) - 2
    told = summary(played.world, hiding, rows=len(played.truth))
    assert told["missing_rows"] == 2
    assert told["reasons"] == ["lost_rows"]


# 22 Credentials refreshed inside a call


def test_22_credential_refresh_that_blocks_a_call_for_three_seconds_is_seen() -> None:
    def refreshing(network: VirtualNetwork) -> None:
        network.call_later(5 - 1e-6, network.block, 3.0)

    told = World(Constant(50.0), duration_s=20, overrides=QUICK, meddle=refreshing).play().summary()
    assert told["latency_p90"] > 1
    assert told["service_latency_p99"] == pytest.approx(0.01, abs=1e-9)
    assert {"late_starts", "client_lag"} <= set(told["reasons"])
    assert told["valid"] == "INVALID"
