"""One load actor: a SageMaker client on an event loop of its own, and the stream of rows it yields.

The loop runs in its own thread, so that nobody who takes rows, slowly or not at all, can ever slow it: a row
goes onto this node's disk, then into a buffer; the generator that Ray drains only empties the buffer. This
class knows nothing of Ray; `fleet.py` makes actors of it. It has no coroutine methods: with one, Ray would run
every method on a single event loop, and `stop` would wait for `play` to end.
"""

import asyncio
import gc
import os
import resource
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import uvloop

from raybench.client.bodies import request
from raybench.client.http import Reply
from raybench.client.sagemaker import SageMakerClient
from raybench.client.target import Target
from raybench.clock import NS_PER_S, monotonic_ns
from raybench.cluster import environment
from raybench.cluster.lag import probe_lag
from raybench.cluster.part import Part, Post
from raybench.errors import ClusterError, EndpointError, RaybenchError
from raybench.load.attack import Attack, alone
from raybench.plan import Trial
from raybench.rows import REQUESTS, Client, Exchange, Outcome, Prompt, Request, Row, requests_table
from raybench.rundir import RunDir, Segment

if TYPE_CHECKING:
    from raybench.cluster.metrics import Meter

FLUSH_S = 0.5
HOLD_S = 60.0
"""How long an actor that has measured holds its load for others at most: nobody may be there to let it go."""

REFRESH_EVERY_S = 60.0
SLICE_ROWS = 256
SWITCH_INTERVAL_S = 0.0005
FAR_NS = 30 * NS_PER_S
"""How far from now T0 may be: later is a wait that looks alive, earlier a schedule that is sent all at once."""

SENDER, MEASURED = "actor", "measured"
COST = ("cpu_s", "lag_p90_ms", "lag_p95_ms", "lag_p99_ms", "lag_max_ms")
ABOUT = (SENDER, *COST)
"""What an actor says of itself: its name with each batch; after a trial its CPU time, and how late its loop woke.

`MEASURED` is with each batch once all that it measures has ended: from then on it only holds its load.
"""


@dataclass(frozen=True, slots=True)
class Share:
    """One actor's part of a trial; `seed` draws the prompts, `t0_wall_ns` is T0 on the actor's own wall clock."""

    trial: Trial
    seed: int
    t0_wall_ns: int


class LoadActor:
    """Holds one SageMaker client and plays its shares of trials against one endpoint; `meter` sees every batch."""

    def __init__(self, post: Post, meter: "Meter | None" = None, hold_s: float = HOLD_S) -> None:
        environment.hurry()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self.post = post
        self.meter = meter
        self.host = socket.gethostname()
        self._loop = uvloop.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="load", daemon=True).start()
        self._client = SageMakerClient(post.target, clock=monotonic_ns, keep_text=post.keep_text)
        self._requests: dict[str, tuple[Request, ...]] = {}
        self._rows: deque[Row] = deque()
        self._attack: Attack[Reply] | None = None
        self._hold_s = hold_s
        self._measured_ns: int | None = None
        self._news = threading.Event()

    def __repr__(self) -> str:
        return f"LoadActor({self.post.name})"

    @property
    def t0_ns(self) -> int:
        """T0 of the trial played last, on this host's monotonic clock."""
        assert self._attack is not None
        return self._attack.t0_ns

    def ready(self) -> dict[str, Any]:
        """Who and where this actor is."""
        return {"actor": self.post.name, "host": self.host, "pid": os.getpid(), "cpus": os.cpu_count()}

    def warm(self) -> Iterator[pa.Table]:
        """Yields as `play` does when nothing has happened: a first batch takes 0.1 s, which no clock counts here."""
        if self.meter:
            self.meter.prepare()
        yield self._signed(requests_table([]))

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
        """Draws its part of the trial and opens the connections it needs; EndpointError if they are not taken."""
        part = Part(trial, self.post, 0)
        part.prepare()
        asyncio.run_coroutine_threadsafe(self._client.open(part.connections), self._loop).result()

    def play(self, share: Share) -> Iterator[pa.Table]:
        """Plays a share and yields its rows as they finish; an empty table is a sign of life.

        Each table carries this actor's name in its schema's metadata; the last one has its CPU seconds and
        event-loop lag too.
        """
        yield self._signed(REQUESTS.empty_table())
        segment = RunDir(self.post.run_dir).segment(share.trial.trial_id, self.post.name, self.post.sitting)
        cpu_s, lag_ns = _cpu_s(), list[int]()
        self._measured_ns = None
        part = Part(share.trial, self.post, share.seed)
        self._attack = attack = self._prepare(part, segment, share.t0_wall_ns)
        if self.meter:
            self.meter.begin(share.trial.experiment, share.trial.payload, share.trial.load.label)
        future = asyncio.run_coroutine_threadsafe(_play(part, attack, lag_ns), self._loop)
        future.add_done_callback(lambda _: self._news.set())
        try:
            while not future.done():
                self._news.wait(FLUSH_S)
                self._news.clear()
                segment.sync()
                yield self._signed(self._take(), **({MEASURED: ""} if self._measured_ns else {}))
            future.result()
        finally:
            segment.close()
        lag_ns.sort()
        lag_ms = [ns / 1e6 for ns in lag_ns] or [0.0]
        about = (_cpu_s() - cpu_s, *(lag_ms[int(q * (len(lag_ms) - 1))] for q in (0.9, 0.95, 0.99, 1)))
        told = dict(zip(COST, (f"{figure:.3f}" for figure in about), strict=True))
        yield self._signed(self._take(last=True), **told)

    def _over(self) -> bool:
        """Says that all that is measured here has ended; whoever hears it of all actors stops them."""
        now_ns = monotonic_ns()
        if self._measured_ns is None:
            self._measured_ns = now_ns
            self._news.set()
        return now_ns - self._measured_ns > self._hold_s * NS_PER_S

    def stop(self, within_s: float | None = None) -> None:
        """Plans no more requests; `play` ends once those in flight have, or are given up: see `Attack.stop`."""
        if self._attack is not None:
            self._loop.call_soon_threadsafe(self._attack.stop, within_s)

    def close(self) -> None:
        """Closes the connections."""
        asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result(timeout=5)

    def _prepare(self, part: Part, segment: Segment, t0_wall_ns: int) -> Attack[Reply]:
        def write(row: Row) -> None:
            segment.append(row)
            self._rows.append(row)

        away_ns = t0_wall_ns - time.time_ns()
        if abs(away_ns) > FAR_NS:
            raise ClusterError(f"{self.host}: T0 is {away_ns / NS_PER_S:+.0f} s from now by its clock, which was set")
        t0_ns = monotonic_ns() + away_ns
        pool = self._requests[part.trial.payload]
        self._client.count_tokens = self.post.tokenizers.get(part.trial.payload)
        over = alone if part.players == 1 else self._over
        return part.attack(self._client, pool, self.host, t0_ns=t0_ns, clock=monotonic_ns, write=write, over=over)

    def _take(self, *, last: bool = False) -> pa.Table:
        rows = [self._rows.popleft() for _ in range(len(self._rows))]
        slices = [requests_table(rows[at : at + SLICE_ROWS]) for at in range(0, len(rows), SLICE_ROWS)]
        table = pa.concat_tables(slices) if slices else REQUESTS.empty_table()
        if self.meter and self._attack:
            self.meter.seen(table, self._attack.in_flight, time.monotonic(), last=last)
        return table

    def _signed(self, table: pa.Table, **told: str) -> pa.Table:
        return table.replace_schema_metadata({**REQUESTS.metadata, SENDER: self.post.name, **told})


async def _play(part: Part, attack: Attack[Reply], lag_ns: list[int]) -> None:
    beside = [
        asyncio.create_task(probe_lag(lag_ns, monotonic_ns)),
        asyncio.create_task(_keep_fresh(attack.client)),
    ]
    try:
        await part.play(attack)
    finally:
        for task in beside:
            task.cancel()


async def _keep_fresh(client: Client[Reply]) -> None:
    """Renews what the client signs with during a long trial; where that fails, its requests will say so."""
    while isinstance(client, SageMakerClient):
        await asyncio.sleep(REFRESH_EVERY_S)
        with suppress(RaybenchError):
            await client.refresh_if_due()


def preflight(target: Target, parameters: Mapping[str, Any], prompt: Prompt) -> Exchange:
    """Sends one request that is in no trial; EndpointError if the endpoint refuses it or cannot be reached."""
    exchange = asyncio.run(_ask(target, request(target, parameters, prompt)))
    if exchange.outcome in (Outcome.REJECTED, Outcome.CONNECTION_ERROR):
        said = ": ".join(part for part in (exchange.error_code, exchange.error_message) if part)
        status = f"HTTP {exchange.http_status}, " if exchange.http_status else ""
        raise EndpointError(f"endpoint {target.endpoint!r} at {target.url}: {status}{said}")
    return exchange


async def _ask(target: Target, request: Request) -> Exchange:
    client = SageMakerClient(target)
    try:
        await client.open(1)
        return await client.read(request, await client.send(request))
    finally:
        await client.close()


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
