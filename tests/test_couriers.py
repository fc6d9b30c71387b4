"""Spools of other nodes on their way to S3: a courier on a Ray worker that may, may not, and is gone."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from buckets import BUCKET, StandIn, bucket
from waiting import until

from raybench import s3
from raybench.cluster import environment
from raybench.errors import StorageError

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def standin() -> Iterator[StandIn]:
    with bucket() as served:
        yield served


@pytest.fixture(scope="module")
def nodes(standin: StandIn) -> Iterator[tuple[Any, str, Any]]:
    """A cluster, the id of its head, and its worker; both may write to the bucket."""
    environment.prepare(local=True)
    import ray
    from ray.cluster_utils import Cluster

    from raybench.cluster.fleet import cluster

    store = {"object_store_memory": 80 * 2**20}
    soon = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_failure_threshold": 2}
    head_is = {"num_cpus": 1, "include_dashboard": False, "_system_config": soon, **store}
    made: Any = Cluster(initialize_head=True, head_node_args=head_is)
    try:
        with cluster(made.address):
            worker = made.add_node(num_cpus=1, **store)
            made.wait_for_nodes()
            yield made, ray.get_runtime_context().get_node_id(), worker
    finally:
        made.shutdown()


def test_a_courier_copies_what_is_new_on_its_node_and_leaves_with_it(
    nodes: tuple[Any, str, Any], standin: StandIn, tmp_path: Path
) -> None:
    from raybench.cluster.couriers import Couriers, Told

    cluster, head, worker = nodes
    place = s3.prefix(f"s3://{BUCKET}/run")
    store = s3.Store(place)
    spool = tmp_path / "spool" / "e~p~x" / "e-0@1.rows"
    spool.parent.mkdir(parents=True)
    spool.write_bytes(b"one\n")
    spool.with_name("e-0@0.rows").write_bytes(b"what the sitting before left")
    (tmp_path / "run.json").write_text("{}")

    standin.mood = "403"
    denied = Couriers(tmp_path, place, 1)
    denied.post([worker.node_id])
    with pytest.raises(StorageError, match=rf"{place}: PutObject: ACCESS_DENIED.*, from {socket.gethostname()}"):
        denied.probe()
    couriers = Couriers(tmp_path, place, 1)
    couriers.post([head, ""])
    couriers.probe()  # nothing is asked of this node, which has its own way
    standin.mood = None

    couriers.post([head, worker.node_id, "", worker.node_id])
    assert couriers.nodes == {worker.node_id}
    couriers.probe()
    told: list[Told] = []

    def heard(rounds: int) -> bool:
        told.extend(couriers.round())
        return len(told) >= rounds

    until(lambda: heard(1))
    spool.write_bytes(b"one\ntwo\n")
    until(lambda: heard(3))
    pieces = {f"spool/e~p~x/e-0@1.rows.1.{at:012d}": line for at, line in ((0, b"one\n"), (4, b"two\n"))}
    assert {key: store.get(key) for key in store.listed() if key != s3.PROBE} == pieces
    assert set(told) == {Told(socket.gethostname(), "", 0)}

    standin.mood = "503"
    spool.write_bytes(b"one\ntwo\nthree\n")
    told.clear()
    until(lambda: heard(2))
    assert told[-1].backlog_bytes == 6
    assert "SLOW_DOWN" in told[-1].why
    standin.mood = None

    (last,) = couriers.last()[-1:]
    assert (last.why, last.backlog_bytes) == ("", 0)
    assert store.get("spool/e~p~x/e-0@1.rows.1.000000000008") == b"three\n"

    cluster.remove_node(worker)
    until(lambda: heard(0) and not couriers.nodes)
    assert couriers.round() == []
    couriers.post([worker.node_id])
    assert couriers.nodes == set(), "nobody is sent to a node that is gone"
    assert couriers.last() == []


def test_an_actor_that_has_no_node_to_stand_on_is_lost(nodes: tuple[Any, str, Any]) -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from raybench.cluster.collecting import LostActorError, answers, collect

    class Speaker:
        def speak(self) -> Iterator[None]:
            yield

    nowhere = NodeAffinitySchedulingStrategy("ab" * 28, soft=False)
    speaker: Any = ray.remote(Speaker)
    sent = speaker.options(num_cpus=0, scheduling_strategy=nowhere).remote()
    with pytest.raises(LostActorError, match="a load actor died: "):
        answers([sent.speak.options(num_returns=1).remote()], 60.0)
    streams = {sent.speak.options(num_returns="streaming").remote(): 3}
    assert collect(streams, lambda batch: None).gone == {3}
