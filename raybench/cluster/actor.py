"""One load actor: a SageMaker client on an event loop of its own, and the stream of rows it yields.

The loop runs in its own thread, so that nobody who takes rows, slowly or not at all, can ever slow it: a row
goes onto this node's disk, then into a buffer; the generator that Ray drains only empties the buffer. This
class knows nothing of Ray; `fleet.py` makes actors of it.
"""

import asyncio
import gc
import hashlib
import os
import resource
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import uvloop

from raybench.client import dialects
from raybench.client.http import Reply
from raybench.client.sagemaker import SageMakerClient
from raybench.client.target import Target
from raybench.clock import NS_PER_S, monotonic_ns
from raybench.errors import EndpointError
from raybench.load.arrivals import Closed, Offsets, stripe
from raybench.load.arrivals import share as part_of
from raybench.load.attack import Attack, Identity, Span
from raybench.payloads.pool import order
from raybench.plan import Trial
from raybench.rows import REQUESTS, Exchange, Outcome, Prompt, Request, Row, requests_table
from raybench.rundir import RunDir, Segment

FLUSH_S = 0.5
SLICE_ROWS = 256
SWITCH_INTERVAL_S = 0.0005
OPEN_CONNECTIONS = 64
"""Opened ahead for an open load that has no bound of its own."""
LAG_PROBE_S = 0.02
ABOUT = ("actor", "cpu_s", "lag_p99_ms", "lag_max_ms")
"""What an actor says of itself after a trial: its CPU time, and how late its event loop woke up."""

TAIL_NS = 600 * NS_PER_S
"""How much longer than the measuring window an open load goes on at most, while measured requests are in flight."""


@dataclass(frozen=True, slots=True)
class Post:
    """Where an actor stands: its endpoint, how to speak to it, and which of the endpoint's `actors` it is."""

    experiment: str
    index: int
    actors: int
    target: Target
    parameters: dict[str, Any]
    run_dir: Path
    keep_text: bool = False

    @property
    def name(self) -> str:
        return f"{self.experiment}-{self.index}"


@dataclass(frozen=True, slots=True)
class Share:
    """One actor's part of a trial; `seed` draws the prompts, `t0_wall_ns` is T0 on the actor's own wall clock."""

    trial: Trial
    seed: int
    t0_wall_ns: int


class LoadActor:
    """Holds one SageMaker client and plays its shares of trials against one endpoint."""

    def __init__(self, post: Post) -> None:
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self.post = post
        self.host = socket.gethostname()
        self._loop = uvloop.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="load", daemon=True).start()
        self._client = SageMakerClient(post.target, clock=monotonic_ns, keep_text=post.keep_text)
        self._requests: dict[str, tuple[Request, ...]] = {}
        self._rows: deque[Row] = deque()
        self._attack: Attack[Reply] | None = None

    def __repr__(self) -> str:
        return f"LoadActor({self.post.name})"

    def ready(self) -> dict[str, Any]:
        """Who and where this actor is."""
        return {"actor": self.post.name, "host": self.host, "pid": os.getpid(), "cpus": os.cpu_count()}

    def wall_ns(self) -> int:
        """This node's wall clock, for agreeing on T0; nothing else reads it."""
        return time.time_ns()

    def arm(self, payload: str, prompts: Sequence[Prompt]) -> None:
        """Makes the bodies of a payload, so that no body is made while the clock runs."""
        post = self.post
        self._requests[payload] = tuple(request(post.target, post.parameters, prompt) for prompt in prompts)
        gc.collect()
        gc.freeze()

    def connect(self, trial: Trial) -> None:
        """Opens the keep-alive connections that its part of the trial needs; EndpointError if they are not taken."""
        connections = part_of(trial.max_in_flight or OPEN_CONNECTIONS, self.post.index, self.post.actors)
        asyncio.run_coroutine_threadsafe(self._client.open(connections), self._loop).result()

    def play(self, share: Share) -> Iterator[pa.Table]:
        """Plays a share and yields its rows as they finish; an empty table is a sign of life.

        The last table carries this actor's CPU seconds and event-loop lag in its schema's metadata.
        """
        yield REQUESTS.empty_table()
        segment = RunDir(self.post.run_dir).segment(share.trial.trial_id, self.post.name)
        cpu_s, lag_ns = _cpu_s(), list[int]()
        future = asyncio.run_coroutine_threadsafe(self._play(share, segment, lag_ns), self._loop)
        try:
            while not future.done():
                _wait(future, FLUSH_S)
                segment.sync()
                yield self._take()
            future.result()
        finally:
            segment.close()
        lag_ns.sort()
        lag_ms = [ns / 1e6 for ns in lag_ns] or [0.0]
        about = (self.post.name, _cpu_s() - cpu_s, lag_ms[int(0.99 * (len(lag_ms) - 1))], lag_ms[-1])
        told = dict(zip(ABOUT, (a if isinstance(a, str) else f"{a:.3f}" for a in about), strict=True))
        yield self._take().replace_schema_metadata({**REQUESTS.metadata, **told})

    def stop(self) -> None:
        """Plans no more requests; `play` ends once those in flight have."""
        if self._attack is not None:
            self._loop.call_soon_threadsafe(self._attack.stop)

    def close(self) -> None:
        """Closes the connections."""
        asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result(timeout=5)

    async def _play(self, share: Share, segment: Segment, lag_ns: list[int]) -> None:
        post, trial = self.post, share.trial
        pool = self._requests[trial.payload]
        turns = order(len(pool), share.seed, trial.cell, post.index, post.actors)
        span = _span(trial, post)

        def write(row: Row) -> None:
            segment.append(row)
            self._rows.append(row)

        self._attack = attack = Attack(
            self._client,
            (pool[turn] for turn in turns),
            span,
            self._identity(trial),
            t0_ns=monotonic_ns() + share.t0_wall_ns - time.time_ns(),
            clock=monotonic_ns,
            write=write,
        )
        probe = asyncio.create_task(_probe_lag(lag_ns))
        try:
            if isinstance(trial.load, Closed):
                slots = part_of(trial.load.concurrency, post.index, post.actors)
                await attack.closed(slots, trial.load.think_time_ns)
            else:
                await attack.open(_offsets(trial, post), _part(trial.max_in_flight, post))
        finally:
            probe.cancel()

    def _identity(self, trial: Trial) -> Identity:
        post = self.post
        return Identity(
            trial_id=trial.trial_id,
            repeat=trial.repeat,
            experiment=trial.experiment,
            payload=trial.payload,
            load=trial.load.label,
            actor=post.name,
            host=self.host,
            index=post.index,
            actors=post.actors,
            keep_text=post.keep_text,
        )

    def _take(self) -> pa.Table:
        rows = [self._rows.popleft() for _ in range(len(self._rows))]
        slices = [requests_table(rows[at : at + SLICE_ROWS]) for at in range(0, len(rows), SLICE_ROWS)]
        return pa.concat_tables(slices) if slices else REQUESTS.empty_table()


def request(target: Target, parameters: Mapping[str, Any], prompt: Prompt) -> Request:
    """A prompt as the body that the endpoint's dialect wants."""
    body = dialects.body(target.dialect, prompt.text, parameters, target.streams)
    digest = hashlib.blake2b(body, digest_size=8).hexdigest()
    return Request(body, digest, prompt, dialects.max_tokens(parameters))


def preflight(target: Target, parameters: Mapping[str, Any], prompt: Prompt) -> None:
    """Sends one request that is not measured; EndpointError if the endpoint refuses it or cannot be reached."""
    exchange = asyncio.run(_ask(target, request(target, parameters, prompt)))
    if exchange.outcome in (Outcome.REJECTED, Outcome.CONNECTION_ERROR):
        said = ": ".join(part for part in (exchange.error_code, exchange.error_message) if part)
        status = f"HTTP {exchange.http_status}, " if exchange.http_status else ""
        raise EndpointError(f"endpoint {target.endpoint!r} at {target.url}: {status}{said}")


async def _ask(target: Target, request: Request) -> Exchange:
    client = SageMakerClient(target)
    try:
        await client.open(1)
        return await client.read(request, await client.send(request))
    finally:
        await client.close()


def _span(trial: Trial, post: Post) -> Span:
    """When this actor measures; a number of requests is dealt out among the actors."""
    duration_ns = None if trial.duration_s is None else round(trial.duration_s * NS_PER_S)
    return Span(round(trial.warmup_s * NS_PER_S), duration_ns, _part(trial.requests, post))


def _part(total: int | None, post: Post) -> int | None:
    return None if total is None else part_of(total, post.index, post.actors)


def _offsets(trial: Trial, post: Post) -> Offsets:
    """This actor's arrivals: the trial's own, then as many as it may take to hold the load until it ends."""
    load, warmup_ns = trial.load, round(trial.warmup_s * NS_PER_S)
    assert not isinstance(load, Closed)
    if trial.duration_s is not None:
        end_ns = warmup_ns + round(trial.duration_s * NS_PER_S)
    else:
        before = len(load.offsets_ns(trial.seed, duration_ns=warmup_ns))
        end_ns = int(load.offsets_ns(trial.seed, count=before + (trial.requests or 0))[-1])
    return stripe(load.offsets_ns(trial.seed, duration_ns=end_ns + TAIL_NS), post.index, post.actors)


def _wait(future: Any, seconds: float) -> None:
    try:
        future.exception(timeout=seconds)
    except TimeoutError:
        return


async def _probe_lag(lag_ns: list[int]) -> None:
    """Notes how much later than asked the loop wakes a sleeper: what a stamp could be late by."""
    while True:
        due_ns = monotonic_ns() + int(LAG_PROBE_S * 1e9)
        await asyncio.sleep(LAG_PROBE_S)
        lag_ns.append(max(0, monotonic_ns() - due_ns))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
