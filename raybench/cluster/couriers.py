"""The spools of other nodes on their way to S3: one actor on each, that copies what is new when it is asked.

An actor here is a visitor of its node: no core of its own, never restarted, and gone with whoever conducts the run.
"""

import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raybench import s3
from raybench.cluster.collecting import answers, first_line, node_here
from raybench.errors import StorageError
from raybench.mirror import Mirror, Sittings

START_TIMEOUT_S = 60.0
LAST_TIMEOUT_S = 10.0
"""How long the last round may take."""


class Told(NamedTuple):
    """How a round went on a node: its host, why it was refused, empty if it was not, and what still waits there."""

    host: str
    why: str
    backlog_bytes: int


class Courier:
    """Copies the spools of a sitting from the node it stands on."""

    def __init__(self, run_dir: Path, place: s3.Prefix, sitting: int) -> None:
        self._place, self._mirror = place, Mirror(run_dir, s3.Store(place), sitting=sitting)
        self._sittings = Sittings({"resumed_utc": range(sitting)})

    def probe(self) -> None:
        """StorageError if this node may not write below the prefix, or cannot reach it in good time."""
        try:
            s3.in_time(lambda: s3.Store(self._place).put(s3.PROBE, b""), self._place)
        except StorageError as error:
            raise StorageError(f"{error}, from {socket.gethostname()}") from None

    def round(self) -> Told:
        """One round of the spools."""
        try:
            self._mirror.spools(self._sittings)
        except StorageError as error:
            return Told(socket.gethostname(), str(error), self._mirror.backlog_bytes())
        return Told(socket.gethostname(), "", 0)


class Couriers:
    """The couriers of a run by node; a node that vanishes takes its own along."""

    def __init__(self, run_dir: Path, place: s3.Prefix, sitting: int) -> None:
        self._run_dir, self._place, self._sitting = run_dir, place, sitting
        self._here = node_here()
        self._standing: dict[str, Any] = {}
        self._under_way: dict[Any, str] = {}

    @property
    def nodes(self) -> set[str]:
        """Where one stands."""
        return set(self._standing)

    def post(self, nodes: Iterable[str]) -> None:
        """Puts a courier on every node that lives, has none and is not ours; none is waited for."""
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
        courier: Any = ray.remote(Courier)
        for node in sorted(alive.intersection(nodes) - {self._here} - self.nodes):
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            options = {"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": there}
            self._standing[node] = courier.options(**options).remote(self._run_dir, self._place, self._sitting)

    def probe(self) -> None:
        """StorageError if one of them may not write; ClusterError if one does not say so in good time."""
        answers([courier.probe.remote() for courier in self._standing.values()], START_TIMEOUT_S)

    def round(self) -> list[Told]:
        """What those tell that have ended a round since; those that stand idle begin another; none is waited for."""
        told, busy = self._ended(0.0), set(self._under_way.values())
        for node, courier in self._standing.items():
            if node not in busy:
                self._under_way[courier.round.remote()] = node
        return told

    def last(self) -> list[Told]:
        """What is told of one more round of all; what is under way is waited for a while, and so is that round."""
        return [*self._ended(LAST_TIMEOUT_S), *self.round(), *self._ended(LAST_TIMEOUT_S)]

    def _ended(self, within_s: float) -> list[Told]:
        told, under_way = [], list(self._under_way)
        ended = ray.wait(under_way, num_returns=len(under_way), timeout=within_s)[0] if under_way else []
        for ref in ended:
            node = self._under_way.pop(ref)
            try:
                told.append(ray.get(ref))
            except RayTaskError as error:
                told.append(Told(f"node {node}", first_line(error.cause), 0))
            except RayError:
                del self._standing[node]
        return told
