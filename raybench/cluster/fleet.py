"""The fleet: load actors on a Ray cluster, placed, agreed on T0, played, drained, and never restarted by Ray.

A lost actor is data about the run: Ray may not replay its share (`max_restarts=0`, `max_task_retries=0`), since
a replay would be load nobody planned on an endpoint somebody pays for. Its post is taken by a new actor, under a name
of its own, before the next trial.
"""

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raybench.cluster import losses
from raybench.cluster.actor import Share
from raybench.cluster.calibration import CalibratedActor
from raybench.cluster.collecting import (
    SILENCE_S,
    LostActorError,
    answers,
    collect,
    first_line,
    node_here,
    recovered,
)
from raybench.cluster.metrics import Meter
from raybench.cluster.offsets import offsets
from raybench.cluster.part import Post
from raybench.errors import ClusterError, RaybenchError
from raybench.plan import Trial
from raybench.rows import Prompt

START_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 10.0
LEAD_S = 0.15
DRAIN_S = 30.0
NAMESPACE = "raybench"
HEAD = "node:__internal_head__"
OBJECT_STORE_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True)
class Played:
    """What a trial left: its rows, what each actor said of itself, and the actors that went away.

    `loss` says what is not known of the latter; see `losses.Loss`. `failure` is the error that one of them ended
    with, to be raised once the rows are safe. `t0_bound_ms` is the most that any of them may have been off T0.
    """

    rows: pa.Table
    actors: tuple[dict[str, str], ...]
    lost: tuple[str, ...]
    loss: dict[str, int] | None = None
    failure: Exception | None = None
    t0_bound_ms: float = 0.0


@contextmanager
def cluster(address: str, cpus: int | None = None) -> Iterator[None]:
    """A Ray cluster: a quiet one of our own (`local`), or the one at `address`; ClusterError if there is none."""
    local = address == "local"
    try:
        if local:
            ray.init(
                address="local",
                num_cpus=cpus or os.cpu_count(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=OBJECT_STORE_BYTES,
            )
        else:
            _answers(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError, RayError) as error:
        why = getattr(error, "strerror", None) or first_line(error)
        raise ClusterError(f"no Ray cluster at {address!r}: {why}") from None
    try:
        yield
    finally:
        ray.shutdown()


def _answers(address: str) -> None:
    """OSError if nobody answers at HOST:PORT: Ray would try for minutes, and hear no Ctrl-C meanwhile."""
    host, colon, port = address.rpartition(":")
    if colon and "/" not in host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()


def load_nodes(*, here: bool, without: Collection[str] = ()) -> dict[str, int]:
    """The cores of the nodes for load actors, by id: workers not in `without`, or what there is if there are none.

    `here` is this node alone: a simulated endpoint listens on its loopback.
    """
    nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
    workers = {name for name, resources in nodes.items() if HEAD not in resources}
    names = [node_here()] if here else workers.difference(without) or workers or nodes
    return {name: int(nodes[name].get("CPU", 0)) for name in sorted(names)}


def load_cores(*, here: bool) -> int:
    """The cores of the nodes that `load_nodes` names."""
    return sum(load_nodes(here=here).values())


def seats(cores: Mapping[str, int]) -> list[str]:
    """Every node once for each of its cores, all nodes in turn; where none has a core, every node once."""
    rounds = range(max(cores.values()))
    return [node for turn in rounds for node, number in cores.items() if turn < number] or list(cores)


class Crew:
    """The load actors of one endpoint; they play its trials one after another."""

    def __init__(
        self,
        posts: Sequence[Post],
        turn: int = 0,
        *,
        here: bool = False,
        silence_s: float = SILENCE_S,
        drain_s: float = DRAIN_S,
    ) -> None:
        """Takes the cores for load in turn, from the `turn`-th on; with `here`, all actors stand on this node.

        Whoever says nothing for `silence_s` in a trial is lost; before a trial, replaced. `drain_s` is how long
        requests in flight are waited for once the run is to end.
        """
        self._turn, self._here, self._left = turn, here, set[str]()
        self._silence_s, self._drain_s = silence_s, drain_s
        self.posts = list(posts)
        self.about: list[dict[str, Any]] = [{} for _ in posts]
        self.nodes = [""] * len(posts)
        self._name = secrets.token_hex(3)
        self._actors = [self._enlist(post) for post in posts]
        self._offsets_ns, self._t0_bound_ms = [0] * len(posts), 0.0
        self._pools: dict[str, Any] = {}
        self._gone: set[int] = set()
        self._stopped = self._killed = False

    def _enlist(self, post: Post) -> Any:
        load_actor: Any = ray.remote(CalibratedActor)
        options: dict[str, Any] = {"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0, "max_concurrency": 4}
        nodes = seats(load_nodes(here=self._here, without=self._left))
        there = NodeAffinitySchedulingStrategy(nodes[(self._turn + post.index) % len(nodes)], soft=False)
        options |= {"name": actor_name(post, self._name), "namespace": NAMESPACE, "scheduling_strategy": there}
        named = load_actor.options(**options)
        return named.remote(post, Meter(post.name))

    def gather(self) -> None:
        """Waits until every actor stands."""
        self._meet(range(len(self._actors)))

    def _meet(self, places: Iterable[int]) -> None:
        met = {place: self._actors[place] for place in places}
        found = answers([actor.ready.remote() for actor in met.values()], START_TIMEOUT_S)

        def node_id(actor: object) -> str:  # travels by value: by name, it would have the actor import all of this
            import ray

            return str(ray.get_runtime_context().get_node_id())

        streams = {actor.warm.options(num_returns="streaming").remote(): place for place, actor in met.items()}
        warmed = collect(streams, lambda batch: None, START_TIMEOUT_S)
        if warmed.failure:
            raise warmed.failure
        self._gone |= warmed.gone
        nodes = answers([actor.__ray_call__.remote(node_id) for actor in met.values()], START_TIMEOUT_S)
        for place, about, node in zip(met, found, nodes, strict=True):
            self.about[place], self.nodes[place] = about, node

    def arm(self, pools: Mapping[str, Sequence[Prompt]]) -> None:
        """Gives every actor the prompts of every payload."""
        self._pools |= {payload: ray.put(prompts) for payload, prompts in pools.items()}
        self._arm(self._actors)

    def _arm(self, actors: Sequence[Any]) -> None:
        for payload, ref in self._pools.items():
            answers([actor.arm.remote(payload, ref) for actor in actors], None)

    def _mend(self) -> None:
        """Puts a new actor in the place of each that is gone; one that is only silent is ended first."""
        if self._killed:
            raise LostActorError("the load actors were ended")
        gone, self._gone = sorted(self._gone), set()
        self._left |= {self.nodes[place] for place in gone}
        for place in gone:
            ray.kill(self._actors[place])
            self.posts[place] = replace(self.posts[place], epoch=self.posts[place].epoch + 1)
            self._actors[place] = self._enlist(self.posts[place])
        if gone:
            self._meet(gone)
            self._arm([self._actors[place] for place in gone])

    def _connect(self, trial: Trial) -> None:
        """Has every actor draw its part and open its connections; whoever turns out to be gone is replaced once."""
        for _ in range(2):
            self._mend()
            connecting = [actor.connect.remote(trial) for actor in self._actors]
            longest_s = max(post.target.timeouts.connect_s for post in self.posts)
            self._gone |= _unanswered(connecting, longest_s + self._silence_s)
            self._agree()
            if not self._gone:
                return
        raise LostActorError("load actors die before they can send anything")

    def _agree(self) -> None:
        """Measures how far every wall clock is from ours, since any may be set at any time; the silent are gone."""
        asked = {place: actor for place, actor in enumerate(self._actors) if place not in self._gone}
        found = offsets(asked, self._silence_s)
        self._gone |= asked.keys() - found.keys()
        self._t0_bound_ms = 0.0
        for place, (rtt_ns, offset_ns) in found.items():
            self._offsets_ns[place] = offset_ns
            self._t0_bound_ms = max(self._t0_bound_ms, rtt_ns / 2e6)
            self.about[place] = self.about[place] | {"clock_offset_ms": offset_ns / 1e6}

    def play(self, trial: Trial, seed: int, seen: Callable[[pa.Table], None]) -> Played:
        """Plays one trial with prompts drawn by `seed`; `seen` gets every batch as it comes.

        An actor that ends with an error stops the others, and is lost with what it had left to do.
        EndpointError if the endpoint does not take the connections that the trial needs.
        """
        self._stopped = False
        self._connect(trial)
        t0_wall_ns = time.time_ns() + int(LEAD_S * 1e9)
        streams = {}
        for index, actor in enumerate(self._actors):
            part = Share(trial, seed, t0_wall_ns + self._offsets_ns[index])
            streams[actor.play.options(num_returns="streaming").remote(part)] = index
        rows, told, gone, failure = collect(streams, seen, self._silence_s, self.drain, self._let_go)
        if not gone:
            return Played(rows, told, (), t0_bound_ms=self._t0_bound_ms)
        self._gone |= gone
        places = sorted(gone)
        found = recovered(trial.trial_id, {place: (self.posts[place], self.nodes[place]) for place in places})
        lost = [
            losses.Lost(self.posts[place], str(self.about[place].get("host", "")), place in found) for place in places
        ]
        loss = losses.complete(trial, lost, [rows, *found.values()], stopped=self._stopped)
        names = tuple(one.post.name for one in lost)
        return Played(loss.rows, told, names, loss.as_dict(), failure, self._t0_bound_ms)

    def ask(self, method: str, *args: Any) -> list[Any]:
        """Calls a method of every actor; the references to their answers."""
        return [getattr(actor, method).remote(*args) for actor in self._actors]

    def _let_go(self) -> None:
        """Nothing is measured any more: no actor needs to hold its load."""
        self.ask("stop")

    def stop(self) -> None:
        """Asks every actor to plan nothing more; `play` returns when they have drained."""
        self._stopped = True
        self.ask("stop")

    def drain(self) -> None:
        """Stops for good: what is in flight for too long after is given up, and its rows say so."""
        self._stopped = True
        self.ask("stop", self._drain_s)

    def kill(self) -> None:
        """Ends every actor at once; what they wrote stays, and `play` returns with it."""
        self._stopped = self._killed = True
        for actor in self._actors:
            ray.kill(actor)

    def close(self) -> None:
        """Closes the connections; an actor that is gone already has none."""
        try:
            answers(self.ask("close"), 5.0)
        except RaybenchError:
            return


def actor_name(post: Post, crew: str) -> str:
    """What Ray's dashboard calls an actor: its run, its endpoint, which one it is, and which crew's."""
    return f"{post.run_dir.name or 'selftest'}/{post.name}/{crew}"


def together(crews: Iterable[Crew], method: str, *args: Any) -> list[Any]:
    """Calls a method of every actor of every crew at once; their answers in order."""
    return answers([ref for crew in crews for ref in crew.ask(method, *args)], START_TIMEOUT_S)


def _unanswered(calls: Sequence[Any], within_s: float) -> set[int]:
    """The places of calls that have no answer in time: their actors are dead, stand still, or are out of reach."""
    _, late = ray.wait(list(calls), num_returns=len(calls), timeout=within_s)
    gone = {place for place, call in enumerate(calls) if call in late}
    for place, call in enumerate(calls):
        try:
            if place not in gone:
                answers([call], within_s)
        except LostActorError:
            gone.add(place)
    return gone
