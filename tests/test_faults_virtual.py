"""The fault matrix, where a fault can be had in virtual time or on a file: twenty seeds each, nothing by chance."""

import asyncio
import time
from collections import Counter
from dataclasses import replace
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from world import Played, World, summary, whole

from raybench.client.http import Reply
from raybench.client.sagemaker import SageMakerClient
from raybench.client.sigv4 import Credentials
from raybench.client.target import Target, Timeouts
from raybench.cluster.losses import Lost, complete, once, unanswered
from raybench.cluster.part import Part, Post
from raybench.errors import EndpointError
from raybench.load.arrivals import Closed, Constant, Load, Poisson
from raybench.plan import Trial
from raybench.rows import REQUESTS, Outcome, Request, Row, row_from_values
from raybench.rundir import RunDir
from raybench.simulator.faults import Fault
from raybench.virtual import VirtualNetwork

SEEDS = range(20)
QUICK = {"ttft_s": 0.01, "itl_s": 0.005, "tokens": 4}
NOBODY = Target("http://virtual.test", "e", "us-west-2")


def rows_of(table: pa.Table) -> list[Row]:
    return [row_from_values(list(values.values())) for values in table.to_pylist()]


def posts(actors: int) -> list[Post]:
    return [Post("e", index, actors, NOBODY, {}, Path()) for index in range(actors)]


# Processes that end: what a segment keeps, and what a lost actor leaves


@pytest.fixture(scope="module")
def played() -> Played:
    return World(Closed(4), requests=60, overrides=QUICK).play()


@pytest.mark.parametrize("seed", SEEDS)
def test_actor_killed_while_it_writes_loses_the_row_it_was_writing_and_no_other(
    seed: int, played: Played, tmp_path: Path
) -> None:
    segment = RunDir(tmp_path).segment("t", "e-0")
    ends = [0]
    for row in rows_of(played.table):
        segment.append(row)
        ends.append(segment.path.stat().st_size)
    segment.close()
    cut = Random(seed).randrange(ends[-1] + 1)
    with segment.path.open("r+b") as file:
        file.truncate(cut)
    whole_rows = sum(end <= cut for end in ends) - 1
    assert list(RunDir(tmp_path).spooled("t", "e-0")) == rows_of(played.table)[:whole_rows]


def lost_actor(load: Load, seed: int, **trial: Any) -> tuple[World, pa.Table, pa.Table]:
    """A world of two actors, its rows, and those that are left when the second dies at a random instant."""
    made = World(load, overrides=QUICK, actors=2, **trial)
    table = made.play().table
    planned_ns = table["planned_ns"].to_numpy()
    died_ns = Random(seed).uniform(0, float(planned_ns.max()))
    theirs = np.array([name == "e-1" for name in table["actor"].to_pylist()])
    unwritten = theirs & ~(table["end_ns"].to_numpy() < died_ns)
    return made, table, table.filter(pa.array(~unwritten))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ends", [{"duration_s": 2.0}, {"requests": 200}])
def test_actor_lost_in_an_open_load_leaves_a_lost_row_for_all_that_it_planned(
    seed: int, ends: dict[str, Any]
) -> None:
    lost, table, left = lost_actor(Poisson(100.0), seed, warmup_s=0.2, **ends)
    loss = complete(lost.trial, [Lost(posts(2)[1], "h", True)], [left, left])
    known = loss.rows.filter(pa.array([row.outcome == Outcome.LOST for row in rows_of(loss.rows)]))
    wanted = {row.seq: (row.planned_ns, row.phase) for row in rows_of(table) if row.phase != "drain"}
    assert {row.seq: (row.planned_ns, row.phase) for row in rows_of(loss.rows) if row.phase != "drain"} == wanted
    assert len(loss.rows) == len(left) + loss.known
    assert loss.known == len(known)
    assert loss.unwritten_at_most == loss.unshipped_at_most == 0
    told = summary(lost, loss.rows, lost=["e-1"], state="partial", actors=[])
    assert told["valid"] == "INVALID"
    assert "lost_rows" in told["reasons"]
    assert told["lost"] == sum(row.phase == "measure" for row in rows_of(known))


@pytest.mark.parametrize("seed", SEEDS)
def test_actor_lost_in_a_closed_load_leaves_at_most_two_requests_a_slot_unknown(seed: int) -> None:
    lost, _, left = lost_actor(Closed(5), seed, duration_s=2.0)
    loss = complete(lost.trial, [Lost(posts(2)[1], "h", True)], [left])
    assert loss.rows.equals(once([left]))
    assert loss.as_dict() == {"known": 0, "unwritten_at_most": 4, "unshipped_at_most": 0}
    theirs = sum(row.actor == "e-1" for row in rows_of(left))
    vanished = complete(lost.trial, [Lost(posts(2)[1], "h", False)], [left])
    assert vanished.as_dict() == {"known": 0, "unwritten_at_most": 4, "unshipped_at_most": theirs}, (
        "all in five seconds"
    )
    told = summary(lost, loss.rows, lost=["e-1"], state="partial", actors=[])
    assert (told["valid"], told["lost_actors"]) == ("INVALID", 1)
    assert "lost_rows" in told["reasons"]


def test_actor_lost_after_the_run_was_stopped_planned_nothing_more_than_the_others() -> None:
    lost, _, left = lost_actor(Constant(100.0), 3, duration_s=2.0)
    before = left.filter(pa.array([row.planned_ns < 1_000_000_000 for row in rows_of(left)]))
    loss = complete(lost.trial, [Lost(posts(2)[1], "h", True)], [before], stopped=True)
    assert max(loss.rows["planned_ns"].to_pylist()) == max(before["planned_ns"].to_pylist())


def test_actor_lost_before_it_sent_anything_leaves_its_whole_share() -> None:
    trial = Trial("t", 0, "e", "p", Constant(50.0), 0, 0, 1.0, 2.0, None, 7, None)
    rows = unanswered(Part(trial, posts(2)[1], 7), "h", REQUESTS.empty_table())
    assert rows["seq"].to_pylist() == list(range(1, 150, 2))
    assert Counter(rows["phase"].to_pylist()) == {"warmup": 25, "measure": 50}
    assert set(rows["host"].to_pylist()) == {"h"}


# Endpoints that fail


MEANS = {
    None: Outcome.OK,
    Fault.THROTTLE: Outcome.THROTTLED,
    Fault.UNAVAILABLE: Outcome.MODEL_ERROR,
    Fault.MODEL_ERROR: Outcome.MODEL_ERROR,
    Fault.STREAM_ERROR: Outcome.STREAM_ERROR,
    Fault.STREAM_FAILURE: Outcome.STREAM_ERROR,
    Fault.CUT: Outcome.TRUNCATED,
    Fault.TRUNCATE: Outcome.TRUNCATED,
    Fault.HANG: Outcome.CLIENT_TIMEOUT,
}
"""What a client must call each fault of a streaming endpoint."""

FAULTS = tuple(Fault)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("load", [Closed(8), Poisson(200.0)], ids=["closed", "open"])
def test_endpoint_that_fails_three_in_ten_is_counted_exactly_and_never_asked_again(seed: int, load: Load) -> None:
    script = [*FAULTS * 4, *[None] * 75]
    Random(seed).shuffle(script)
    timeouts = Timeouts(idle_s=2.0)
    played = World(
        load, requests=len(script), overrides=QUICK, faults={"script": tuple(script)}, timeouts=timeouts
    ).play()
    truth = {record["request_id"]: record for record in played.truth}
    rows = rows_of(played.table)
    assert len(truth) == len(played.truth) == len(rows)
    assert {row.request_id for row in rows} == truth.keys()
    assert all(row.outcome == MEANS[truth[str(row.request_id)]["fault"]] for row in rows)
    assert {record["fault"] for record in played.truth} == MEANS.keys()


@pytest.mark.parametrize("seed", SEEDS)
def test_endpoint_that_hangs_is_given_up_at_the_idle_timeout_exactly_and_keeps_its_tokens(seed: int) -> None:
    random = Random(seed)
    script = tuple(Fault.HANG if random.random() < 0.3 else None for _ in range(40))
    idle_s = random.uniform(1.0, 5.0)
    timeouts = Timeouts(idle_s=idle_s)
    table = World(Closed(4), requests=30, overrides=QUICK, faults={"script": script}, timeouts=timeouts).play().table
    hung = [row for row in rows_of(table) if row.outcome == Outcome.CLIENT_TIMEOUT]
    assert hung
    for row in hung:
        assert len(row.chunk_ns) >= 1
        assert row.last_token_ns is not None
        assert row.end_ns is not None
        assert row.end_ns - row.last_token_ns == pytest.approx(idle_s * 1e9, abs=2)


@pytest.mark.parametrize("seed", SEEDS)
def test_stopped_load_gives_up_what_hangs_when_its_time_is_over_and_every_request_issued_is_a_row(seed: int) -> None:
    at_s = Random(seed).uniform(0.5, 5.0)
    load = (Closed(8), Poisson(20.0))[seed % 2]
    patient = Timeouts(idle_s=600, stream_s=900)
    faults = {"hang": 0.1}
    played = World(load, duration_s=60, overrides=QUICK, faults=faults, timeouts=patient, stop=(at_s, 30.0)).play()
    rows = rows_of(played.table)
    assert {row.request_id for row in rows} == {record["request_id"] for record in played.truth}
    assert max(row.planned_ns for row in rows) <= at_s * 1e9
    given_up = [row for row in rows if row.outcome != Outcome.OK]
    assert given_up, "something hangs"
    assert {(row.outcome, row.error_code) for row in given_up} == {(Outcome.CLIENT_TIMEOUT, "GivenUp")}
    assert {row.end_ns for row in given_up} == {round((at_s + 30.0) * 1e9)}
    assert all(row.first_token_ns for row in given_up), "what had come is kept"


def test_stopped_load_sends_nothing_on_a_connection_that_opens_after_it_was_given_up() -> None:
    played = World(Closed(2), duration_s=60, overrides=QUICK, connections=0, latency_s=1.0, stop=(0.5, 0.5)).play()
    assert [(row.error_code, row.sent_ns, row.end_ns) for row in rows_of(played.table)] == [
        ("GivenUp", None, 2e9)
    ] * 2
    assert played.truth == []


@pytest.mark.parametrize("seed", SEEDS)
def test_endpoint_that_cuts_a_stream_leaves_truncated_rows_with_the_tokens_that_came(seed: int) -> None:
    random = Random(seed)
    script = tuple(random.choice((Fault.CUT, Fault.TRUNCATE)) if random.random() < 0.3 else None for _ in range(80))
    played = World(Closed(4), requests=60, overrides={**QUICK, "tokens": 12}, faults={"script": script}).play()
    truth = {record["request_id"]: record for record in played.truth}
    broken = [row for row in rows_of(played.table) if truth[str(row.request_id)]["fault"]]
    assert broken
    assert {row.outcome for row in broken} == {Outcome.TRUNCATED}
    for row in broken:
        whole_chunks = len(truth[str(row.request_id)]["chunks"])
        assert whole_chunks - 1 <= len(row.chunk_ns) <= whole_chunks, "all but the record that was cut in two"


# Clocks, CPU, credentials


@pytest.mark.parametrize("seed", SEEDS)
def test_wall_clock_that_jumps_an_hour_changes_no_instant(seed: int) -> None:
    played = World(Poisson(50.0), requests=50, overrides={"jitter": 0.2})
    before, stepped = played.play().table, 0
    random = Random(seed)
    at_s, step_s = random.uniform(0.1, 0.9), random.choice((-3600, 3600))

    def stepping_s() -> float:
        nonlocal stepped
        late = asyncio.get_running_loop().time() > at_s
        stepped += late
        return time.time() + (step_s if late else 0)

    assert replace(played, wall_s=stepping_s).play().table.equals(before)
    assert stepped


@pytest.mark.parametrize("seed", SEEDS)
def test_cpu_hog_that_stops_the_client_makes_the_trial_invalid(seed: int) -> None:
    random = Random(seed)
    at_s, lasts_s = random.uniform(0.1, 9.0), random.uniform(0.2, 1.0)

    def hog(network: VirtualNetwork) -> None:
        network.call_later(at_s, network.block, lasts_s)

    told = World(Constant(50.0), duration_s=10, overrides=QUICK, meddle=hog).play().summary()
    assert told["valid"] == "INVALID"
    assert "client_lag" in told["reasons"]


def test_no_cpu_hog_is_no_client_lag() -> None:
    told = World(Constant(50.0), duration_s=10, overrides=QUICK).play().summary()
    assert "client_lag" not in told["reasons"]


@pytest.mark.parametrize("seed", SEEDS)
def test_straggler_among_the_actors_shows_as_the_rate_that_is_missing(seed: int) -> None:
    """Two actors of four slots each; every request of the second one waits in the client before it is sent."""
    held_s = Random(seed).uniform(0.01, 0.1)
    made = count()

    class Held(SageMakerClient):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.held_s = held_s * (next(made) % 2)

        async def send(self, request: Request) -> Reply:
            await asyncio.sleep(self.held_s)
            return await super().send(request)

    told = World(Closed(8), duration_s=5, actors=2, overrides=QUICK, client=Held).play().summary()
    takes_s = 0.01 + 3 * 0.005
    assert told["requests_per_s"] == pytest.approx(4 / takes_s + 4 / (takes_s + held_s), rel=0.01)
    assert told["little_ratio"] == pytest.approx(0.5 + 0.5 * takes_s / (takes_s + held_s), rel=0.01)
    assert told["valid"] == "INVALID"
    assert {"late_starts", "slots_idle"} <= set(told["reasons"])


@pytest.mark.parametrize("seed", SEEDS)
def test_credentials_that_expire_in_a_trial_make_typed_rows_and_are_never_tried_twice(seed: int) -> None:
    last = Random(seed).randrange(1, 90)
    asked = 0

    def expiring(n: int, now_s: float) -> list[tuple[float, bytes]]:
        nonlocal asked
        asked += 1
        return [(0.01, whole() if n < last else EXPIRED)]

    rows = rows_of(World(Closed(4), requests=100, route="invoke", script=expiring).play().table)
    assert asked == len(rows)
    assert Counter((row.outcome, row.error_code) for row in rows) == {
        (Outcome.OK, None): last,
        (Outcome.REJECTED, "ExpiredTokenException"): len(rows) - last,
    }


SAID = b'{"message":"The security token included in the request is expired"}'
EXPIRED = b"HTTP/1.1 403 Forbidden\r\nx-amzn-ErrorType: ExpiredTokenException\r\nContent-Length: %d\r\n\r\n%b" % (
    len(SAID),
    SAID,
)


def test_credentials_that_cannot_be_renewed_between_trials_are_a_named_end() -> None:
    renewed = iter([Credentials("a", "b")])

    def freeze() -> Credentials:
        for credentials in renewed:
            return credentials
        raise EndpointError("AWS credentials cannot be refreshed: no luck")

    async def main() -> None:
        client = SageMakerClient(NOBODY, provider=lambda: freeze)
        await client.open(0)
        with pytest.raises(EndpointError, match="cannot be refreshed"):
            await client.open(0)

    asyncio.run(main())
