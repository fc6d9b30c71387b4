"""Spools of other nodes on their way to S3: a courier on a Ray worker that may, may not, and is gone."""

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from buckets import BUCKET, StandIn, bucket

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


def soon(asked: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 60
    while not asked():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def test_a_courier_copies_what_is_new_on_its_node_and_leaves_with_it(
    nodes: tuple[Any, str, Any], standin: StandIn, tmp_path: Path
) -> None:
    from raybench.cluster.couriers import Couriers, Told

    cluster, head, worker = nodes
    place = s3.prefix(f"s3://{BUCKET}/run")
    store = s3.Store(place)
    spool = tmp_path / "spool" / "e~p~x" / "e-0.rows"
    spool.parent.mkdir(parents=True)
    spool.write_bytes(b"one\n")
    (tmp_path / "run.json").write_text("{}")

    standin.mood = "403"
    with pytest.raises(StorageError, match=rf"{place}: PutObject: ACCESS_DENIED.*, from {socket.gethostname()}"):
        Couriers(tmp_path, place, 1).post([worker.node_id])
    standin.mood = None

    couriers = Couriers(tmp_path, place, 1)
    couriers.post([head, worker.node_id, "", worker.node_id])
    assert list(couriers._standing) == [worker.node_id], "this node has its own way"
    told: list[Told] = []

    def heard(rounds: int) -> bool:
        told.extend(couriers.round())
        return len(told) >= rounds

    soon(lambda: heard(1))
    spool.write_bytes(b"one\ntwo\n")
    soon(lambda: heard(3))
    pieces = {"spool/e~p~x/e-0.rows.1.000000000000": b"one\n", "spool/e~p~x/e-0.rows.1.000000000004": b"two\n"}
    assert {key: store.get(key) for key in store.listed() if key != s3.PROBE} == pieces
    assert set(told) == {Told(socket.gethostname(), "", 0)}

    standin.mood = "503"
    spool.write_bytes(b"one\ntwo\nthree\n")
    told.clear()
    soon(lambda: heard(2))
    assert told[-1].backlog_bytes == 6
    assert "SLOW_DOWN" in told[-1].why
    standin.mood = None

    cluster.remove_node(worker)
    soon(lambda: heard(0) and not couriers._standing)
