"""The fleet on a real local Ray cluster, held against what the simulator says it did."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from simulated import Simulator, simulator

from raybench.client.sigv4 import Credentials
from raybench.client.target import Target
from raybench.cluster import environment
from raybench.cluster.actor import preflight
from raybench.cluster.part import Post
from raybench.errors import EndpointError
from raybench.load.arrivals import Closed, Constant, Load
from raybench.plan import Trial
from raybench.rows import Prompt
from raybench.rundir import RunDir

pytestmark = pytest.mark.ray

PROMPTS = [Prompt(f"{n} hello world", 4, "estimate") for n in range(500)]
ENDPOINTS: dict[str, dict[str, Any]] = {
    "steady": {"profile": "fixed", "overrides": {"ttft_s": 0.03, "itl_s": 0.01, "tokens": 10}},
    "hasty": {"profile": "fixed", "overrides": {"ttft_s": 0.001, "itl_s": 0.001, "tokens": 2}},
}


@pytest.fixture(scope="module", autouse=True)
def ray_cluster() -> Iterator[None]:
    environment.prepare(local=True)
    from raybench.cluster.fleet import cluster

    with cluster("local", cpus=2):
        yield


@pytest.fixture(scope="module")
def endpoints() -> Iterator[Simulator]:
    with simulator(ENDPOINTS) as running:
        yield running


def target(running: Simulator, endpoint: str, secret: str | None = None) -> Target:
    keys = Credentials(running.credentials.access_key, secret or running.credentials.secret_key)
    return Target(running.url, endpoint, "us-west-2", route="stream", dialect="tgi", credentials=keys)


def trial(
    load: Load, *, requests: int | None = None, duration_s: float | None = None, warmup_s: float = 0.2
) -> Trial:
    return Trial(
        trial_id=f"t~{load.label}",
        index=0,
        experiment="e",
        payload="p",
        load=load,
        repeat=0,
        lot=0,
        warmup_s=warmup_s,
        duration_s=duration_s,
        requests=requests,
        seed=7,
        expected_s=None,
    )


def play(to: Target, run_dir: Path, played: Trial, actors: int = 1) -> pa.Table:
    return outcome_of(to, run_dir, played, actors).rows


def outcome_of(to: Target, run_dir: Path, played: Trial, actors: int = 1) -> Any:
    from raybench.cluster.fleet import Crew

    crew = Crew([Post("e", index, actors, to, {}, run_dir) for index in range(actors)])
    crew.gather()
    crew.arm({"p": PROMPTS})
    outcome = crew.play(played, 7, lambda batch: None)
    crew.close()
    assert outcome.lost == ()
    assert len(outcome.actors) == actors
    return outcome


def late_ms(running: Simulator, rows: pa.Table) -> list[float]:
    """How much longer the client saw each request take than the server's truth says, ids and counts held equal."""
    truth = {record["request_id"]: record for record in running.truth()}
    late = []
    for row in rows.to_pylist():
        record = truth[row["request_id"]]
        assert row["outcome"] == "ok"
        assert row["connection_reused"]
        assert row["completion_tokens"] == record["completion_tokens"] == 10
        assert len(row["chunk_ns"]) <= len(record["chunks"])
        late.append((row["end_ns"] - row["sent_ns"] - (record["ended_ns"] - record["arrived_ns"])) / 1e6)
    assert len(set(rows["request_id"].to_pylist())) == len(rows)
    return late


@contextmanager
def machine() -> Iterator[list[float]]:
    """How much later than asked this process, which has nothing to do, was woken: others are busy on the machine."""
    late_s, over = [0.0], threading.Event()

    def sleep() -> None:
        while not over.is_set():
            due_s = time.monotonic() + 0.002
            time.sleep(0.002)
            late_s.append(time.monotonic() - due_s)

    sleeper = threading.Thread(target=sleep)
    sleeper.start()
    try:
        yield late_s
    finally:
        over.set()
        sleeper.join()


def test_every_row_agrees_with_the_truth_log(endpoints: Simulator, tmp_path: Path) -> None:
    found_ms = []
    for attempt in range(3):
        with machine() as late_s:
            played = outcome_of(target(endpoints, "steady"), tmp_path / str(attempt), trial(Closed(8), requests=400))
        assert sum(phase == "measure" for phase in played.rows["phase"].to_pylist()) == 400
        late = late_ms(endpoints, played.rows)
        assert min(late) >= 0, "a reply cannot be read before it was sent"
        p99_ms, machine_ms = float(np.percentile(late, 99)), 1000 * max(late_s)
        if p99_ms <= 5 + machine_ms:
            return
        found_ms.append((p99_ms, machine_ms))
    raise AssertionError(f"p99 of the difference, and the machine's share, in three attempts: {found_ms} ms")


def test_two_actors_number_their_rows_in_stripes_and_share_the_slots(endpoints: Simulator, tmp_path: Path) -> None:
    rows = play(target(endpoints, "steady"), tmp_path, trial(Closed(3), requests=61), actors=2).to_pylist()
    assert sum(row["phase"] == "measure" for row in rows) == 61
    measured_ns = max(row["end_ns"] for row in rows if row["phase"] == "measure")
    for index in (0, 1):
        mine = sorted(row["seq"] for row in rows if row["actor"] == f"e-{index}")
        assert mine == list(range(index, index + 2 * len(mine), 2))
        held_ns = max(row["end_ns"] for row in rows if row["actor"] == f"e-{index}")
        assert held_ns >= measured_ns, "load is held until the other has measured, too"
    assert len(rows) < 10 * 61, "both are let go then: a minute more would be thousands of requests"
    assert len({row["prompt_id"] for row in rows}) == len(rows), "stripes of one order share no prompt"


def test_what_streams_through_ray_is_what_is_on_the_disk(endpoints: Simulator, tmp_path: Path) -> None:
    played = trial(Closed(4), duration_s=0.5)
    rows = play(target(endpoints, "hasty"), tmp_path, played).sort_by("seq")
    names = {"experiment": "e", "payload": "p", "load": played.load.label}
    spooled = RunDir(tmp_path).requests({"trial_id": played.trial_id, "repeat": 0, **names})
    assert spooled.equals(rows)


def test_an_open_load_arrives_at_its_planned_instants(endpoints: Simulator, tmp_path: Path) -> None:
    load = Constant(100.0)
    rows = play(target(endpoints, "hasty"), tmp_path, trial(load, duration_s=1.0, warmup_s=0.1)).sort_by("seq")
    planned = rows["planned_ns"].to_pylist()
    assert planned == load.offsets_ns(7, count=len(planned)).tolist()
    assert sum(phase == "measure" for phase in rows["phase"].to_pylist()) == 100


def test_a_missing_endpoint_is_named_before_anything_is_measured(endpoints: Simulator) -> None:
    with pytest.raises(EndpointError, match=r"'nowhere'.*HTTP 400.*ValidationError"):
        preflight(target(endpoints, "nowhere"), {}, PROMPTS[0])


def test_a_wrong_key_is_named(endpoints: Simulator) -> None:
    with pytest.raises(EndpointError, match="HTTP 403"):
        preflight(target(endpoints, "steady", secret="wrong"), {}, PROMPTS[0])


def test_a_closed_port_is_named() -> None:
    nobody = Target("http://127.0.0.1:9", "e", "us-west-2", credentials=Credentials("a", "b"))
    with pytest.raises(EndpointError, match=r"127\.0\.0\.1:9"):
        preflight(nobody, {}, PROMPTS[0])
