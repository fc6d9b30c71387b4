"""The spools of other nodes on their way to S3: one actor on each, that copies what is new when it is asked.

An actor here is a visitor of its node: no core of its own, never restarted, and gone with whoever conducts the run.
"""

import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raybench import s3
from raybench.cluster.collecting import answers, node_here
from raybench.errors import StorageError
from raybench.mirror import Mirror, Sittings

START_TIMEOUT_S = 60.0


class Told(NamedTuple):
    """How a round went on a node: its host, why it was refused, empty if it was not, and what still waits there."""

    host: str
    why: str
    backlog_bytes: int


class Courier:
    """Copies the spools of the node it stands on."""

    def __init__(self, run_dir: Path, place: s3.Prefix) -> None:
        self._place, self._mirror = place, Mirror(run_dir, s3.Store(place))

    def probe(self) -> None:
        """StorageError if this node may not write below the prefix, or cannot reach it in good time."""
        try:
            s3.in_time(lambda: s3.Store(self._place).put(s3.PROBE, b""), self._place)
        except StorageError as error:
            raise StorageError(f"{error}, from {socket.gethostname()}") from None

    def round(self, sitting: int) -> Told:
        """One round of the spools, which are all of the run's sitting."""
        why = ""
        try:
            self._mirror.spools(Sittings({"resumed_utc": range(sitting)}))
        except StorageError as error:
            why = str(error)
        return Told(socket.gethostname(), why, self._mirror.backlog_bytes() if why else 0)


class Couriers:
    """The couriers of a run by node; a node that vanishes takes its own along."""

    def __init__(self, run_dir: Path, place: s3.Prefix, sitting: int) -> None:
        self._run_dir, self._place, self._sitting = run_dir, place, sitting
        self._here = node_here()
        self._standing: dict[str, Any] = {}
        self._under_way: dict[Any, str] = {}

    def post(self, nodes: Iterable[str]) -> None:
        """Puts a courier on every node that has none and is not ours; StorageError if one of them may not write."""
        new = sorted({node for node in nodes if node} - {self._here} - self._standing.keys())
        courier: Any = ray.remote(Courier)
        for node in new:
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            options = {"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": there}
            self._standing[node] = courier.options(**options).remote(self._run_dir, self._place)
        answers([self._standing[node].probe.remote() for node in new], START_TIMEOUT_S)

    def round(self) -> list[Told]:
        """What those tell that have ended a round since; those that stand idle begin another; none is waited for."""
        told, under_way = [], list(self._under_way)
        ended = ray.wait(under_way, num_returns=len(under_way), timeout=0)[0] if under_way else []
        for ref in ended:
            node = self._under_way.pop(ref)
            try:
                told.append(ray.get(ref))
            except RayActorError:
                del self._standing[node]
            except RayError:
                continue
        busy = set(self._under_way.values())
        for node, courier in self._standing.items():
            if node not in busy:
                self._under_way[courier.round.remote(self._sitting)] = node
        return told
