"""What comes back from load actors: answers, a trial's rows as they finish, and what the disks of lost ones hold."""

import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raybench.cluster.actor import ABOUT, MEASURED
from raybench.cluster.part import Post
from raybench.errors import ClusterError, RaybenchError
from raybench.rows import REQUESTS, requests_table
from raybench.rundir import RunDir

SILENCE_S, LISTEN_S = 10.0, 1.0
"""How long an actor may say nothing while we listen, and how long we listen at a time."""

RECOVERY_TIMEOUT_S = 10.0
"""How long the nodes of lost actors may take, all together, to say what their disks hold."""

LEFT_TIMEOUT_S, ENDING_S = 60.0, 10.0
"""How long nodes may take to give what a killed run left there, and how long its load actors may take to end."""


class LostActorError(ClusterError):
    """A load actor is gone: its process, or the node it was on."""


class Collected(NamedTuple):
    """The rows that came, what the actors said of themselves, and the places of those that went away.

    `failure` is the first error that one of the latter ended with, if one did.
    """

    rows: pa.Table
    told: tuple[dict[str, str], ...]
    gone: set[int]
    failure: Exception | None = None


def collect(
    streams: Mapping[Any, int],
    seen: Callable[[pa.Table], None],
    silence_s: float = SILENCE_S,
    failed: Callable[[], None] = lambda: None,
    over: Callable[[], None] = lambda: None,
) -> Collected:
    """Listens to streams of batches, each of the actor at a place, until all end; `seen` gets each batch as it comes.

    Whoever says nothing for `silence_s` is given up. That is counted in time spent listening: a `seen` that is slow
    makes no actor look dead. An error of one actor costs the others nothing: `failed` is called, and they are heard.
    `over` is called once nobody measures any more, so that those who hold their load may end.
    """
    open_, batches, told, gone = dict(streams), [REQUESTS.empty_table()], list[dict[str, str]](), set[int]()
    failure: Exception | None = None
    listened_s, heard_s = 0.0, dict.fromkeys(streams, 0.0)
    done, let_go = set[Any](), False
    while open_:
        began_s = time.monotonic()
        ready = _ready(open_)
        listened_s += min(time.monotonic() - began_s, LISTEN_S)
        for stream in ready:
            heard_s[stream] = listened_s
            try:
                batch = ray.get(next(stream))
            except StopIteration:
                del open_[stream]
            except RayTaskError as error:
                gone.add(open_.pop(stream))
                failure = failure or _ours(error)
                failed()
            except RayError:
                gone.add(open_.pop(stream))
            else:
                told.extend(_about(batch))
                if MEASURED.encode() in (batch.schema.metadata or {}):
                    done.add(stream)
                batches.append(batch.replace_schema_metadata(REQUESTS.metadata))
                seen(batch)
        for stream in [s for s in open_ if listened_s - heard_s[s] > silence_s]:
            gone.add(open_.pop(stream))
        if open_ and not let_go and open_.keys() <= done:
            let_go = True
            over()
    return Collected(pa.concat_tables(batches).combine_chunks(), tuple(told), gone, failure)


def spooled(post: Post, trial_id: str) -> pa.Table:
    """Runs on an actor's node: the rows that its spool of a trial holds there."""
    return requests_table(list(RunDir(post.run_dir).spooled(trial_id, post.name, post.sitting)))


def recovered(
    trial_id: str,
    lost: Mapping[int, tuple[Post, str]],
    read: Callable[[Post, str], pa.Table] = spooled,
    within_s: float = RECOVERY_TIMEOUT_S,
) -> dict[int, pa.Table]:
    """What lost actors, each a post and the node it was on, left on their nodes' disks, by place.

    All are asked at once and share one deadline; those that do not answer are left out.
    """
    remote: Any = ray.remote(read)
    here, found, asked = node_here(), dict[int, pa.Table](), dict[Any, int]()
    for place, (post, node) in lost.items():
        if node != here:
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            sent = remote.options(num_cpus=0, max_retries=0, scheduling_strategy=there)
            asked[sent.remote(post, trial_id)] = place
    for place, (post, node) in lost.items():
        if node == here:
            found[place] = read(post, trial_id)
    answered = ray.wait(list(asked), num_returns=len(asked), timeout=within_s)[0] if asked else []
    for ref in answered:
        with suppress(RayError, GetTimeoutError):
            found[asked[ref]] = ray.get(ref, timeout=LISTEN_S)
    return found


def left_elsewhere(
    run_dir: Path, trial_ids: Sequence[str], before: int
) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """By host, what sittings `before` this one left in the spools of trials there: see `RunDir.left_in_spools`.

    The load actors of the last one, if it was killed, are given time to end. A node that does not answer, or cannot
    read them, is left out.
    """
    _until_none_is_left(f"{run_dir.name}/")
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
    read: Any = ray.remote(_left_here)
    options = {"num_cpus": 0, "max_retries": 0}
    nodes = [NodeAffinitySchedulingStrategy(node, soft=False) for node in sorted(alive - {node_here()})]
    asked = [read.options(scheduling_strategy=node, **options).remote(run_dir, trial_ids, before) for node in nodes]
    answered = ray.wait(asked, num_returns=len(asked), timeout=LEFT_TIMEOUT_S)[0] if asked else []
    for ref in answered:
        with suppress(RayError):
            yield ray.get(ref)


def _left_here(run_dir: Path, trial_ids: Sequence[str], before: int) -> tuple[str, list[tuple[str, bytes]]]:
    return socket.gethostname(), list(RunDir(run_dir).left_in_spools(trial_ids, before))


def _until_none_is_left(beginning: str) -> None:
    """Returns once no load actor has a name that begins so; they end soon after whoever raised them."""
    until_s = time.monotonic() + ENDING_S
    while time.monotonic() < until_s:
        if not any(one["name"].startswith(beginning) for one in ray.util.list_named_actors(all_namespaces=True)):
            return
        time.sleep(0.1)


def answers(refs: Sequence[Any], timeout_s: float | None) -> list[Any]:
    """What calls of actors return, in order; LostActorError or ClusterError where one does not."""
    try:
        values: list[Any] = ray.get(list(refs), timeout=timeout_s)
    except RayTaskError as error:
        raise _ours(error) from None
    except GetTimeoutError:
        raise ClusterError(f"the load actors did not answer within {timeout_s:.0f} s") from None
    except RayError as error:
        raise LostActorError(f"a load actor died: {first_line(error)}") from None
    return values


def first_line(error: Exception) -> str:
    """What an error says first, or what it is if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def node_here() -> str:
    """The id of the node that this process runs on."""
    return str(ray.get_runtime_context().get_node_id())


def _ready(streams: Mapping[Any, int]) -> list[Any]:
    ready, _ = ray.wait(list(streams), timeout=LISTEN_S)
    return ready


def _about(batch: pa.Table) -> list[dict[str, str]]:
    """What an actor says of itself in the metadata of its last batch."""
    told = {key.decode(): value.decode() for key, value in (batch.schema.metadata or {}).items()}
    return [{key: told[key] for key in ABOUT}] if told.keys() >= set(ABOUT) else []


def _ours(error: RayTaskError) -> Exception:
    """What a task raised, if it is an error of ours; anything else is a bug and keeps its traceback."""
    return error.cause if isinstance(error.cause, RaybenchError) else error
