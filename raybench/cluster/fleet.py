"""The fleet: load actors on a Ray cluster, placed, agreed on T0, played, drained, and never restarted by Ray.

A lost actor is data about the run: Ray may not replay its share (`max_restarts=0`, `max_task_retries=0`), since
a replay would be load nobody planned on an endpoint somebody pays for.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from raybench.cluster.actor import ABOUT, Post, Share
from raybench.cluster.calibration import CalibratedActor
from raybench.errors import ClusterError, RaybenchError
from raybench.plan import Trial
from raybench.rows import REQUESTS, Prompt

START_TIMEOUT_S = 60.0
SILENCE_S = 10.0
LEAD_S = 0.15
OBJECT_STORE_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True)
class Played:
    """What a trial left: its rows, what each actor said of itself, and the actors that went away."""

    rows: pa.Table
    actors: tuple[dict[str, str], ...]
    lost: tuple[str, ...]


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
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError, RayError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ClusterError(f"no Ray cluster at {address!r}: {reason}") from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


class Crew:
    """The load actors of one endpoint; they play its trials one after another."""

    def __init__(self, posts: Sequence[Post]) -> None:
        load_actor: Any = ray.remote(CalibratedActor)
        options = {"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0, "max_concurrency": 4}
        self.posts = tuple(posts)
        self._actors = [load_actor.options(**options).remote(post) for post in posts]
        self._offsets_ns = [0] * len(posts)
        self.about: list[dict[str, Any]] = []

    def gather(self) -> None:
        """Waits until every actor stands, and measures how far its node's wall clock is from ours."""
        self.about = _get([actor.ready.remote() for actor in self._actors], START_TIMEOUT_S)
        for index, actor in enumerate(self._actors):
            offset_ns, rtt_ns = _clock_offset(actor)
            self._offsets_ns[index] = offset_ns
            self.about[index] |= {"clock_offset_ms": offset_ns / 1e6, "clock_bound_ms": rtt_ns / 2e6}

    def arm(self, pools: Mapping[str, Sequence[Prompt]]) -> None:
        """Gives every actor the prompts of every payload."""
        for payload, prompts in pools.items():
            ref = ray.put(prompts)
            _get([actor.arm.remote(payload, ref) for actor in self._actors], None)

    def play(self, trial: Trial, seed: int, seen: Callable[[pa.Table], None]) -> Played:
        """Plays one trial with prompts drawn by `seed`; `seen` gets every batch as it comes.

        EndpointError if the endpoint does not take the connections that the trial needs.
        """
        _get([actor.connect.remote(trial) for actor in self._actors], START_TIMEOUT_S)
        t0_wall_ns = time.time_ns() + int(LEAD_S * 1e9)
        streams = {}
        for index, actor in enumerate(self._actors):
            part = Share(trial, seed, t0_wall_ns + self._offsets_ns[index])
            streams[actor.play.options(num_returns="streaming").remote(part)] = self.posts[index].name
        return self._collect(streams, seen)

    def _collect(self, streams: dict[Any, str], seen: Callable[[pa.Table], None]) -> Played:
        batches, actors, lost = [REQUESTS.empty_table()], list[dict[str, str]](), list[str]()
        heard = dict.fromkeys(streams, time.monotonic())
        while streams:
            for stream in _ready(streams):
                heard[stream] = time.monotonic()
                try:
                    batch = ray.get(next(stream))
                except StopIteration:
                    del streams[stream]
                except RayTaskError as error:
                    raise _ours(error) from None
                except RayActorError:
                    lost.append(streams.pop(stream))
                else:
                    actors.extend(_about(batch))
                    batches.append(batch.replace_schema_metadata(REQUESTS.metadata))
                    seen(batch)
            for stream in [s for s in streams if time.monotonic() - heard[s] > SILENCE_S]:
                lost.append(streams.pop(stream))
        return Played(pa.concat_tables(batches).combine_chunks(), tuple(actors), tuple(lost))

    def stop(self) -> None:
        """Asks every actor to plan nothing more; `play` returns when they have drained."""
        for actor in self._actors:
            actor.stop.remote()

    def close(self) -> None:
        """Closes the connections; an actor that is gone already has none."""
        try:
            _get([actor.close.remote() for actor in self._actors], 5.0)
        except RaybenchError:
            return


def together(crews: Iterable[Crew], method: str, *args: Any) -> list[Any]:
    """Calls a method of every actor of every crew at once; their answers in order."""
    return _get([getattr(actor, method).remote(*args) for crew in crews for actor in crew._actors], START_TIMEOUT_S)


def warm_up() -> None:
    """Has a Ray worker import what the reduction needs, so that it need not when the load is over."""
    _get([ray.remote(_import_all).remote()], START_TIMEOUT_S)


def _import_all() -> None:

    pass


def _clock_offset(actor: Any) -> tuple[int, int]:
    """Its wall clock minus ours and the round trip that bounds the error, from the quickest of five."""
    best = (0, 2**63)
    for _ in range(5):
        before_ns, start_ns = time.time_ns(), time.monotonic_ns()
        theirs_ns = _get([actor.wall_ns.remote()], START_TIMEOUT_S)[0]
        rtt_ns = time.monotonic_ns() - start_ns
        if rtt_ns < best[1]:
            best = (theirs_ns - before_ns - rtt_ns // 2, rtt_ns)
    return best


def _ready(streams: Mapping[Any, str]) -> list[Any]:
    ready, _ = ray.wait(list(streams), timeout=1.0)
    return ready


def _about(batch: pa.Table) -> list[dict[str, str]]:
    """What an actor says of itself in the metadata of its last batch."""
    told = {key.decode(): value.decode() for key, value in (batch.schema.metadata or {}).items()}
    return [{key: told[key] for key in ABOUT}] if "actor" in told else []


def _get(refs: Sequence[Any], timeout_s: float | None) -> list[Any]:
    try:
        values: list[Any] = ray.get(list(refs), timeout=timeout_s)
    except RayTaskError as error:
        raise _ours(error) from None
    except GetTimeoutError:
        raise ClusterError(f"the load actors did not answer within {timeout_s:.0f} s") from None
    except RayActorError as error:
        raise ClusterError(f"a load actor died: {str(error).strip().splitlines()[0]}") from None
    return values


def _ours(error: RayTaskError) -> Exception:
    """What a task raised, if it is an error of ours; anything else is a bug and keeps its traceback."""
    return error.cause if isinstance(error.cause, RaybenchError) else error
