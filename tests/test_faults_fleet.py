"""The fleet when actors die and consumers sleep, on a real local Ray cluster."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from simulated import Simulator, simulator
from waiting import until

from raybench.client.sigv4 import Credentials
from raybench.client.target import Target, Timeouts
from raybench.cluster import environment
from raybench.cluster.actor import SENDER
from raybench.cluster.part import Post
from raybench.errors import StorageError
from raybench.load.arrivals import Closed, Constant, Load
from raybench.plan import Trial
from raybench.rows import Phase, Prompt
from raybench.rundir import RunDir

pytestmark = pytest.mark.ray

PROMPTS = [Prompt(f"prompt number {n}", 4, "estimate") for n in range(500)]
FAST: dict[str, Any] = {"profile": "fixed", "overrides": {"ttft_s": 0.01, "itl_s": 0.002, "tokens": 4}}


@pytest.fixture(scope="module", autouse=True)
def ray_cluster() -> Iterator[None]:
    environment.prepare(local=True)
    from raybench.cluster.fleet import cluster

    with cluster("local", cpus=2):
        yield


@pytest.fixture(scope="module")
def running() -> Iterator[Simulator]:
    with simulator({"e": FAST, "hangs": FAST | {"faults": {"hang": 1.0}}}) as started:
        yield started


def crew_of(running: Simulator, actors: int, folder: Path, endpoint: str = "e", **options: Any) -> Any:
    from raybench.cluster.fleet import Crew

    keys = Credentials(running.credentials.access_key, running.credentials.secret_key)
    soon = Timeouts(connect_s=3.0)
    target = Target(running.url, endpoint, running.credentials.region, "stream", credentials=keys, timeouts=soon)
    crew = Crew([Post("e", index, actors, target, {}, folder) for index in range(actors)], **options)
    crew.gather()
    crew.arm({"p": PROMPTS})
    return crew


def trial(name: str, load: Load, duration_s: float) -> Trial:
    return Trial(name, 0, "e", "p", load, 0, 0, 0.2, duration_s, None, 7, None)


@pytest.mark.parametrize("load", [Closed(4), Constant(60.0)], ids=["closed", "open"])
def test_actor_killed_in_a_trial_keeps_its_rows_and_is_replaced_for_the_next(
    load: Load, running: Simulator, tmp_path: Path
) -> None:
    before = len(running.truth())
    crew = crew_of(running, 2, tmp_path)
    pid, killed_ns = crew.about[1]["pid"], list[int]()

    def kill() -> None:
        os.kill(pid, signal.SIGKILL)
        killed_ns.append(time.monotonic_ns())

    timer = threading.Timer(Random(load.label).uniform(1.0, 2.0), kill)
    timer.start()
    played = crew.play(trial("first", load, 3.0), 7, lambda batch: None)
    timer.join()
    assert played.lost == ("e-1",)
    rows = played.rows.to_pylist()
    assert len({row["seq"] for row in rows}) == len(rows)
    answered = [row for row in rows if row["outcome"] == "ok"]
    assert {row["actor"] for row in answered} == {"e-0", "e-1"}
    truth = {record["request_id"]: record for record in running.truth()[before:]}
    gone = [record for name, record in truth.items() if name not in {row["request_id"] for row in answered}]
    assert len(gone) <= 4, "in flight, or ended in the instant of the kill"
    lost = [row["seq"] for row in rows if row["outcome"] == "lost"]
    if isinstance(load, Constant):
        assert played.loss == {"known": len(lost), "unwritten_at_most": 0, "unshipped_at_most": 0}
        assert {row["seq"] for row in rows} >= set(range(round(60 * 3.2)))
        assert all(seq % 2 for seq in lost)
    else:
        assert played.loss == {"known": 0, "unwritten_at_most": 4, "unshipped_at_most": 0}

    played = crew.play(trial("second", load, 1.0), 7, lambda batch: None)
    crew.close()
    assert (played.lost, played.loss) == ((), None)
    assert {row["actor"] for row in played.rows.to_pylist()} == {"e-0", "e-1.1"}
    assert {row["outcome"] for row in played.rows.to_pylist()} == {"ok"}
    assert crew.about[1]["actor"] == "e-1.1"


def test_an_error_of_one_actor_stops_the_others_and_costs_none_of_their_rows(
    running: Simulator, tmp_path: Path
) -> None:
    crew = crew_of(running, 2, tmp_path)
    full = RunDir(tmp_path).segment("full", "e-1").path
    full.unlink()
    full.symlink_to("/dev/full")
    played = crew.play(trial("full", Closed(4), 60.0), 7, lambda batch: None)
    crew.close()
    assert isinstance(played.failure, StorageError)
    assert str(played.failure) == f"{full}: No space left on device"
    assert played.lost == ("e-1",)
    assert set(played.rows["actor"].to_pylist()) == {"e-0"}
    assert sorted(played.rows["seq"].to_pylist()) == list(range(0, 2 * len(played.rows), 2)), "each of its requests"


def test_a_run_that_is_to_end_gives_up_what_hangs_and_keeps_it_as_rows(running: Simulator, tmp_path: Path) -> None:
    crew, heard = crew_of(running, 2, tmp_path, endpoint="hangs", drain_s=0.3), Counter[bytes]()

    def seen(batch: pa.Table) -> None:
        heard[batch.schema.metadata[SENDER.encode()]] += 1
        if len(heard) == 2 and min(heard.values()) >= 3:  # the first is a sign of life, the next half a second later
            crew.drain()

    played = crew.play(trial("hangs", Closed(4), 60.0), 7, seen)
    crew.close()
    assert (played.lost, played.failure) == ((), None)
    rows = played.rows.to_pylist()
    assert {(row["outcome"], row["error_code"]) for row in rows} == {("client_timeout", "GivenUp")}
    assert len(rows) == 4, "each slot waits for its first request"


def test_actor_killed_between_trials_is_replaced_before_the_next(running: Simulator, tmp_path: Path) -> None:
    crew = crew_of(running, 2, tmp_path)
    os.kill(crew.about[0]["pid"], signal.SIGKILL)
    played = crew.play(trial("only", Closed(4), 0.5), 7, lambda batch: None)
    crew.close()
    assert played.lost == ()
    assert {row["actor"] for row in played.rows.to_pylist()} == {"e-0.1", "e-1"}


def test_actor_that_stands_still_between_trials_is_replaced_before_the_next(
    running: Simulator, tmp_path: Path
) -> None:
    crew = crew_of(running, 2, tmp_path, silence_s=3.0)
    os.kill(stopped := crew.about[0]["pid"], signal.SIGSTOP)
    try:
        played = crew.play(trial("only", Closed(4), 0.5), 7, lambda batch: None)
    finally:
        with suppress(ProcessLookupError):
            os.kill(stopped, signal.SIGKILL)
    crew.close()
    assert played.lost == ()
    assert {row["actor"] for row in played.rows.to_pylist()} == {"e-0.1", "e-1"}


def test_a_wall_clock_that_is_set_between_two_trials_moves_no_t0(running: Simulator, tmp_path: Path) -> None:
    crew = crew_of(running, 2, tmp_path)
    crew.play(trial("before", Constant(60.0), 0.5), 7, lambda batch: None)
    assert [abs(about["clock_offset_ms"]) < 1e3 for about in crew.about] == [True, True]

    def set_forward(actor: object) -> None:
        import time

        real = time.time_ns
        time.time_ns = lambda: real() + 3600 * 10**9

    crew.ask("__ray_call__", set_forward)
    played = crew.play(trial("after", Constant(60.0), 0.5), 7, lambda batch: None)
    crew.close()
    assert (played.lost, played.failure) == ((), None)
    assert [round(about["clock_offset_ms"] / 3.6e6) for about in crew.about] == [1, 1]
    rows = played.rows.filter(pc.equal(played.rows["outcome"], "ok")).to_pylist()
    assert {row["actor"] for row in rows} == {"e-0", "e-1"}
    assert max(row["sent_ns"] - row["planned_ns"] for row in rows) < 60e9, "an hour late, had T0 moved"


def test_consumer_that_sleeps_slows_no_load_and_makes_no_actor_look_dead(running: Simulator, tmp_path: Path) -> None:
    """It wakes when the load of 2.2 s is over, which is twice as long as an actor may be silent."""
    before, planned = len(running.truth()), 220
    crew = crew_of(running, 2, tmp_path, silence_s=1.0)
    taken_ns: list[int] = []

    def seen(batch: pa.Table) -> None:
        until(lambda: len(running.truth()) - before >= planned, lambda: "the load waits for its consumer")
        taken_ns.append(time.monotonic_ns())

    load = Constant(100.0)
    played = crew.play(trial("slow", load, 2.0), 7, seen)
    crew.close()
    assert played.lost == ()
    rows = played.rows.sort_by("seq")
    due = rows.filter(pc.not_equal(rows["phase"], Phase.DRAIN))  # the load is held until the consumer wakes
    assert due["planned_ns"].to_pylist() == load.offsets_ns(7, count=planned).tolist()
    sent = sorted(record["arrived_ns"] for record in running.truth()[before:])
    assert len(sent) == len(rows) >= planned
    assert sent[-1] - sent[0] > 2e9, "it was as long as planned"
    assert sent[planned - 1] < taken_ns[0], "all that was planned was sent before its consumer had taken anything"
