"""A load actor that is killed: what it wrote outlives it. Twenty kills at random instants, each of a real process."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import pytest
from simulated import Simulator, simulator

from raybench.client.sigv4 import Credentials
from raybench.client.target import Target
from raybench.cluster.actor import LoadActor, Share
from raybench.cluster.part import Post
from raybench.errors import ClusterError
from raybench.load.arrivals import Closed
from raybench.plan import Trial
from raybench.rows import Prompt
from raybench.rundir import RunDir

SLOTS = 8
PROMPTS = [Prompt(f"prompt number {n}", 4, "estimate") for n in range(500)]
TRIAL = Trial("t", 0, "e", "p", Closed(SLOTS), 0, 0, 0.0, 60.0, None, 7, None)
FAST: dict[str, Any] = {"profile": "fixed", "overrides": {"ttft_s": 0.002, "itl_s": 0.001, "tokens": 4}}


def load(post: Post, told: Connection) -> None:
    """The actor's process: plays for a minute, and tells the rows it gives out as it gives them."""
    actor = LoadActor(post)
    actor.arm("p", PROMPTS)
    actor.connect(TRIAL)
    for batch in actor.play(Share(TRIAL, 7, time.time_ns())):
        told.send(batch["request_id"].to_pylist())


@pytest.fixture(scope="module")
def running() -> Iterator[Simulator]:
    with simulator({"e": FAST}) as started:
        yield started


@pytest.fixture(scope="module")
def processes() -> Any:
    context = get_context("forkserver")
    context.set_forkserver_preload(["raybench.cluster.actor"])
    return context


@pytest.mark.parametrize("seed", range(20))
def test_actor_killed_at_a_random_instant_keeps_every_row_it_gave_out_and_loses_none_that_was_written(
    seed: int, running: Simulator, processes: Any, tmp_path: Path
) -> None:
    keys = Credentials(running.credentials.access_key, running.credentials.secret_key)
    target = Target(running.url, "e", running.credentials.region, "stream", credentials=keys)
    before = len(running.truth())
    ours, theirs = processes.Pipe(duplex=False)
    process = processes.Process(target=load, args=(Post("e", 0, 1, target, {}, tmp_path), theirs))
    process.start()
    theirs.close()
    given: set[str] = set()
    while not given:
        given |= set(ours.recv())
    ours.poll(Random(seed).uniform(0.0, 0.4))
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    while True:
        try:
            given |= set(ours.recv())
        except (EOFError, OSError):
            break
    ours.close()

    rows = list(RunDir(tmp_path).spooled("t", "e-0"))
    kept = {str(row.request_id) for row in rows}
    truth = {record["request_id"]: record for record in running.truth()[before:]}
    assert given <= kept, "a row that anybody saw is on the disk"
    assert len(kept) == len(rows)
    assert kept <= truth.keys()
    gone = [record for record in truth.values() if record["request_id"] not in kept]
    assert len(gone) <= 2 * SLOTS, "in flight, or ended in the instant of the kill"
    assert {row.outcome for row in rows} == {"ok"}


def test_an_actor_that_nobody_lets_go_holds_its_load_for_a_while_and_ends_by_itself(
    running: Simulator, tmp_path: Path
) -> None:
    keys = Credentials(running.credentials.access_key, running.credentials.secret_key)
    target = Target(running.url, "e", running.credentials.region, "stream", credentials=keys)
    actor = LoadActor(Post("e", 0, 2, target, {}, tmp_path), hold_s=0.3)
    short = replace(TRIAL, duration_s=None, requests=16)
    actor.arm("p", PROMPTS)
    actor.connect(short)
    rows = [row for batch in actor.play(Share(short, 7, time.time_ns())) for row in batch.to_pylist()]
    actor.close()
    measured_ns = [row["end_ns"] for row in rows if row["phase"] == "measure"]
    assert len(measured_ns) == 8, "its half"
    assert max(row["end_ns"] for row in rows) > max(measured_ns) + 0.3e9


@pytest.mark.parametrize("hours", [-1, 1])
def test_t0_that_is_an_hour_away_is_refused(hours: int, tmp_path: Path) -> None:
    nobody = Target("http://127.0.0.1:9", "nobody", "us-west-2", credentials=Credentials("a", "b"))
    actor = LoadActor(Post("e", 0, 1, nobody, {}, tmp_path))
    actor.arm("p", PROMPTS)
    batches = actor.play(Share(TRIAL, 7, time.time_ns() + hours * 3600 * 10**9))
    next(batches)
    with pytest.raises(ClusterError, match=r"T0 is [+-]3(59|6\d)\d s from now"):
        next(batches)


def nice(post: Post, told: Connection) -> None:
    """A process as Ray starts its workers: with an actor in it, it tells how nice its threads are, and if it may."""
    try:
        os.nice(1)
        os.setpriority(os.PRIO_PROCESS, 0, 0)
        may = True
    except PermissionError:
        may = False
    os.setpriority(os.PRIO_PROCESS, 0, 15)
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    LoadActor(post)
    threads = [int(thread) for thread in os.listdir("/proc/self/task")]
    told.send((may, len(threads) >= 3, {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads}))


def test_an_actor_is_no_nicer_than_others_where_it_may_say_so(processes: Any, tmp_path: Path) -> None:
    nobody = Target("http://127.0.0.1:9", "nobody", "us-west-2", credentials=Credentials("a", "b"))
    ours, theirs = processes.Pipe(duplex=False)
    process = processes.Process(target=nice, args=(Post("e", 0, 1, nobody, {}, tmp_path), theirs))
    process.start()
    theirs.close()
    may, several, niceness = ours.recv()
    process.join()
    assert several
    assert niceness == ({0} if may else {15})


def test_an_actor_says_at_last_how_late_its_loop_woke(running: Simulator, tmp_path: Path) -> None:
    import time

    keys = Credentials(running.credentials.access_key, running.credentials.secret_key)
    target = Target(running.url, "e", running.credentials.region, "stream", credentials=keys)
    actor, short = LoadActor(Post("e", 0, 1, target, {}, tmp_path)), replace(TRIAL, duration_s=0.3)
    actor.arm("p", PROMPTS)
    actor.connect(short)
    *_, last = actor.play(Share(short, 7, time.time_ns()))
    actor.close()
    lags = [float(last.schema.metadata[f"lag_{which}_ms".encode()]) for which in ("p90", "p95", "p99", "max")]
    assert lags[0] > 0
    assert lags == sorted(lags)
