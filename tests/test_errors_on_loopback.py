"""The errors that only real sockets and a real clock can show, held against what the simulator says it did.

Bounds are one-sided, or integers; where a bound is from above the best of three attempts counts.
"""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import uvloop
from simulated import Simulator, simulator

from raybench.client.bodies import request
from raybench.client.sagemaker import SageMakerClient
from raybench.client.sigv4 import Credentials
from raybench.client.target import Target
from raybench.clock import NS_PER_S, monotonic_ns
from raybench.cluster.part import Part, Post
from raybench.load.arrivals import Closed, Constant, Load, Replay
from raybench.plan import Trial
from raybench.rows import Prompt, Row

PROMPTS = [Prompt(f"prompt number {n}", 4, "estimate") for n in range(1000)]
FAST = {"ttft_s": 0.005, "itl_s": 0.002, "tokens": 4}


@pytest.fixture
def running() -> Iterator[Simulator]:
    with simulator({"e": {"profile": "fixed", "overrides": FAST}}) as started:
        yield started


def play(running: Simulator, load: Load, requests: int) -> tuple[int, list[Row]]:
    """T0 on the shared monotonic clock, and the rows."""
    keys = Credentials(running.credentials.access_key, running.credentials.secret_key)
    target = Target(running.url, "e", running.credentials.region, "stream", "tgi", keys)
    post = Post("e", 0, 1, target, {}, Path())
    part = Part(Trial("t", 0, "e", "p", load, 0, 0, 0.0, None, requests, 7, None), post, 7)
    rows: list[Row] = []

    async def main() -> int:
        client = SageMakerClient(target)
        part.prepare()
        await client.open(part.connections)
        bodies = [request(target, {}, prompt) for prompt in PROMPTS]
        t0_ns = monotonic_ns() + NS_PER_S // 50
        await part.play(part.attack(client, bodies, "h", t0_ns=t0_ns, clock=monotonic_ns, write=rows.append))
        await client.close()
        return t0_ns

    return uvloop.run(main()), rows


def within_three(attempt: Callable[[], bool]) -> bool:
    return any(attempt() for _ in range(3))


def test_3_pacing_that_drifts_500_a_second_are_500_a_second(running: Simulator) -> None:
    def on_time() -> bool:
        _, rows = play(running, Constant(500.0), 1000)
        late_ns = [(row.sent_ns or 0) - row.planned_ns for row in sorted(rows, key=lambda row: row.seq)[:1000]]
        assert min(late_ns) >= 0
        assert [row.planned_ns for row in sorted(rows, key=lambda row: row.seq)][999] == 999 * NS_PER_S // 500
        assert len({row.seq for row in rows}) == len(rows) >= 1000
        return min(late_ns[-100:]) <= 10_000_000  # where lateness adds up, none of the last is on time

    assert within_three(on_time)


TRACE = Path(__file__).parents[1] / "configs" / "replay.jsonl"
PUBLIC = sorted((Path(__file__).parents[2] / "shared" / "data" / "traces").glob("*"))


@pytest.mark.parametrize("trace", [TRACE, *PUBLIC], ids=lambda path: path.stem)
def test_3_pacing_that_drifts_a_replay_keeps_the_traces_own_instants(running: Simulator, trace: Path) -> None:
    load = Replay(trace, speed=30.0)
    _, rows = play(running, load, 100)
    measured = sorted((row for row in rows if row.phase == "measure"), key=lambda row: row.seq)
    assert [row.planned_ns for row in measured] == load.offsets_ns(0, count=100).tolist()
    assert all(row.sent_ns is not None and row.sent_ns >= row.planned_ns for row in measured)


def test_7_stamp_position_nothing_arrives_before_it_was_sent_or_is_read_before_it_was_written(
    running: Simulator,
) -> None:
    def close() -> bool:
        t0_ns, rows = play(running, Closed(4), 200)
        gaps_ns = []
        truth = {record["request_id"]: record for record in running.truth()}
        for row in rows:
            assert row.request_id is not None
            assert row.sent_ns is not None
            did = truth[row.request_id]
            assert t0_ns + row.sent_ns <= did["arrived_ns"]
            wrote_ns = [ns for ns, _ in did["chunks"]]
            assert all(t0_ns + read >= wrote for read, wrote in zip(row.chunk_ns, wrote_ns, strict=True))
            gaps_ns.append(did["arrived_ns"] - t0_ns - row.sent_ns)
        return float(np.quantile(gaps_ns, 0.1)) <= 1_000_000

    assert within_three(close)


def test_8_connection_cost_the_server_accepts_as_many_connections_as_there_are_slots(running: Simulator) -> None:
    before = running.health()["connections"]
    _, rows = play(running, Closed(6), 120)
    assert running.health()["connections"] - before - 1 == 6  # the one is for asking
    assert {row.connection_reused for row in rows} == {True}


def test_19_retries_the_ids_of_the_rows_are_those_of_the_servers_log() -> None:
    faults = {"throttle": 0.2, "unavailable": 0.1, "cut": 0.1}
    with simulator({"e": {"profile": "fixed", "overrides": FAST, "faults": faults}}) as running:
        _, rows = play(running, Closed(4), 200)
        ids = [row.request_id for row in rows]
        assert None not in ids
        assert sorted(str(each) for each in ids) == sorted(record["request_id"] for record in running.truth())
        assert len({row.outcome for row in rows}) >= 3


def test_22_credential_refresh_happens_between_trials_and_never_in_a_call(running: Simulator) -> None:
    asked = 0

    def provider() -> Callable[[], Credentials]:
        def freeze() -> Credentials:
            nonlocal asked
            asked += 1
            return Credentials(running.credentials.access_key, running.credentials.secret_key)

        return freeze

    target = Target(running.url, "e", running.credentials.region, "stream")

    async def main() -> list[int]:
        client, seen = SageMakerClient(target, provider=provider), []
        body = request(target, {}, PROMPTS[0])
        for _ in range(2):
            await client.open(1)
            seen.append(asked)
            for _ in range(20):
                said = await client.read(body, await client.send(body))
                assert said.http_status == 200
            seen.append(asked)
        await client.close()
        return seen

    assert asyncio.run(main()) == [1, 1, 2, 2]
