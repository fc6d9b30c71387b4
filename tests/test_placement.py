"""Where load actors stand: several Ray nodes on this machine, a head alone at first, then with two workers."""

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, cast

import pyarrow as pa
import pytest
from made import row
from simulated import simulator

from raybench.client.sigv4 import Credentials
from raybench.client.target import Target
from raybench.cluster import environment
from raybench.cluster.part import Post
from raybench.load.arrivals import Constant
from raybench.plan import Trial
from raybench.rows import Prompt, requests_table
from raybench.rundir import RunDir

pytestmark = pytest.mark.ray

STORE = {"object_store_memory": 80 * 2**20}
NOBODY = Target("http://127.0.0.1:9", "nobody", "us-west-2")
FAST: dict[str, Any] = {"profile": "fixed", "overrides": {"ttft_s": 0.01, "itl_s": 0.002, "tokens": 4}}


def posts(experiment: str, actors: int, folder: Path, to: Target = NOBODY) -> list[Post]:
    return [Post(experiment, index, actors, to, {}, folder) for index in range(actors)]


@dataclass(frozen=True)
class Placed:
    """A cluster, the ids of its nodes, and crews: one from when the head was alone, two from when it was not."""

    cluster: Any
    head: str
    workers: dict[str, Any]
    alone: Any
    two: tuple[Any, Any]

    def complete(self) -> None:
        """Puts a new worker where one has died."""
        while len(self.workers) < 2:
            node = self.cluster.add_node(num_cpus=1, **STORE)
            self.workers[node.node_id] = node
        self.cluster.wait_for_nodes()


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Placed]:
    environment.prepare(local=True)
    import ray
    from ray.cluster_utils import Cluster

    from raybench.cluster.fleet import Crew, cluster

    soon = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_failure_threshold": 2}
    head_is = {"num_cpus": 1, "include_dashboard": False, "_system_config": soon, **STORE}
    nodes: Any = Cluster(initialize_head=True, head_node_args=head_is)
    folder = tmp_path_factory.mktemp("placed")
    try:
        with cluster(nodes.address):
            head = ray.get_runtime_context().get_node_id()
            alone = Crew(posts("a", 2, folder))
            workers = {node.node_id: node for node in (nodes.add_node(num_cpus=1, **STORE) for _ in range(2))}
            nodes.wait_for_nodes()
            two = Crew(posts("b", 3, folder)), Crew(posts("c", 3, folder), turn=3)
            for crew in (alone, *two):
                crew.gather()
            yield Placed(nodes, head, workers, alone, two)
    finally:
        nodes.shutdown()


@pytest.mark.parametrize(
    ("cores", "order"),
    [
        ({"a": 2, "b": 5}, "ababbbb"),
        ({"a": 3, "b": 1, "c": 2}, "abcaca"),
        ({"a": 1, "b": 1}, "ab"),
        ({"a": 0, "b": 2}, "bb"),
        ({"a": 0, "b": 0}, "ab"),
    ],
)
def test_each_core_is_a_seat_and_nodes_take_turns(cores: dict[str, int], order: str) -> None:
    environment.prepare(local=True)
    from raybench.cluster.fleet import seats

    assert "".join(seats(cores)) == order


def test_eighteen_actors_on_two_and_sixteen_cores_have_one_each() -> None:
    environment.prepare(local=True)
    from raybench.cluster.fleet import seats

    taken = seats({"small": 2, "big": 16})
    nodes = [taken[index % len(taken)] for index in range(18)]
    assert (nodes.count("small"), nodes.count("big")) == (2, 16)


def test_a_node_that_is_alone_takes_every_actor(placed: Placed) -> None:
    assert placed.alone.nodes == [placed.head] * 2


def test_actors_stand_on_the_workers_in_turn_and_none_on_the_head(placed: Placed) -> None:
    for crew in placed.two:
        assert set(crew.nodes) == set(placed.workers)
    everywhere = [node for crew in placed.two for node in crew.nodes]
    assert sorted(everywhere.count(node) for node in placed.workers) == [3, 3], (
        "the second goes on where the first ends"
    )


def test_a_simulated_endpoint_is_loaded_from_its_own_node(placed: Placed, tmp_path: Path) -> None:
    from raybench.cluster.fleet import Crew

    crew = Crew(posts("s", 2, tmp_path), here=True)
    crew.gather()
    crew.kill()
    assert crew.nodes == [placed.head] * 2


def test_endpoints_share_no_actor(placed: Placed) -> None:
    pids = [about["pid"] for crew in (placed.alone, *placed.two) for about in crew.about]
    assert len(set(pids)) == len(pids) == 8


def test_the_disks_of_lost_actors_are_read_all_at_once_and_one_that_is_silent_costs_only_its_own_rows(
    placed: Placed, tmp_path: Path
) -> None:
    from raybench.cluster.collecting import recovered

    found = [requests_table([row(seq)]) for seq in range(3)]
    never = tmp_path / "never"

    def read(post: Post, trial_id: str) -> pa.Table:
        """The first two meet: neither ends before the other has begun; the last outlasts the deadline."""
        (tmp_path / post.name).touch()
        awaited = {0: tmp_path / "d-1", 1: tmp_path / "d-0", 2: never}[post.index]
        until_s = time.monotonic() + 60
        while not (awaited.exists() or time.monotonic() > until_s):
            time.sleep(0.01)
        return found[post.index]

    first, second = placed.workers
    everyone = dict(enumerate(zip(posts("d", 3, tmp_path), (first, second, first), strict=True)))
    try:
        assert recovered("t", {place: everyone[place] for place in (0, 1)}, read, 50.0) == dict(enumerate(found[:2]))
        assert recovered("t", everyone, read, 3.0) == dict(enumerate(found[:2]))
    finally:
        never.touch()


class Said:
    """A screen that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_what_a_killed_run_left_on_other_nodes_is_put_aside_and_hosts_that_give_nothing_are_named(
    placed: Placed, tmp_path: Path
) -> None:
    from raybench.resume import _bring_aside

    placed.complete()
    run, screen = RunDir(tmp_path), Said()
    segment = run.segment("t", "e-0", 0)
    segment.append(row(0))
    segment.close()
    manifest = {"experiments": [{"actors": [{"host": socket.gethostname()}, {"host": "gone-2"}, {"host": "gone-1"}]}]}
    _bring_aside(run, manifest, ["t"], 1, cast("Any", screen))
    assert screen.lines == [
        f"fetched 2 rows of cut trials from other nodes: {tmp_path / 'abandoned'}",  # both workers have this disk
        "rows of cut trials that are on gone-1, gone-2 could not be fetched",
    ]
    aside = tmp_path / "abandoned" / "sitting-0" / segment.path.relative_to(tmp_path)
    assert aside.read_bytes() == segment.path.read_bytes()
    segment.path.unlink()
    segment.path.mkdir()
    elsewhere = {"experiments": [{"actors": [{"host": "unreadable"}]}]}
    _bring_aside(run, elsewhere, ["t"], 1, cast("Any", screen))
    assert screen.lines[2:] == ["rows of cut trials that are on unreadable could not be fetched"]


@pytest.mark.kill_points(1)
def test_a_worker_that_dies_is_replaced_by_the_one_that_is_left_and_never_by_the_head(
    seed: int, placed: Placed, tmp_path: Path
) -> None:
    from raybench.cluster.fleet import Crew

    placed.complete()
    random = Random(seed)
    killed, after = random.randrange(2), random.randrange(2, 120)
    with simulator({"e": FAST}) as running:
        keys = Credentials(running.credentials.access_key, running.credentials.secret_key)
        to = Target(running.url, "e", running.credentials.region, "stream", credentials=keys)
        crew = Crew(posts("e", 2, tmp_path, to))
        crew.gather()
        crew.arm({"p": [Prompt(f"prompt {n}", 2, "estimate") for n in range(100)]})
        doomed, left = crew.nodes[killed], crew.nodes[1 - killed]
        rows = 0

        def seen(batch: pa.Table) -> None:
            nonlocal rows
            if rows < after <= rows + len(batch):
                placed.cluster.remove_node(placed.workers.pop(doomed), allow_graceful=False)
            rows += len(batch)

        first = crew.play(trial("first", 3.0), 7, seen)
        second = crew.play(trial("second", 0.5), 7, lambda batch: None)
        crew.kill()
    assert first.lost == (f"e-{killed}",)
    assert {row["actor"] for row in first.rows.to_pylist() if row["outcome"] == "ok"} == {"e-0", "e-1"}
    assert first.loss is not None
    assert first.loss["known"] > 0
    assert second.lost == ()
    assert crew.nodes == [left, left]


def trial(name: str, duration_s: float) -> Trial:
    return Trial(name, 0, "e", "p", Constant(60.0), 0, 0, 0.2, duration_s, None, 7, None)
