"""A world in virtual time for tests: the real loop and client, an endpoint simulated or scripted, the analysis."""

import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from raybench.analysis.reduce import reduce_trial
from raybench.client.bodies import request
from raybench.client.sagemaker import SageMakerClient
from raybench.client.sigv4 import Credentials
from raybench.client.target import Target, Timeouts
from raybench.clock import Clock
from raybench.cluster.lag import probe_lag
from raybench.cluster.part import Part, Post, Together
from raybench.load.arrivals import Closed, Load
from raybench.plan import Trial
from raybench.rows import Prompt, Row, requests_table
from raybench.simulator import auth
from raybench.simulator.faults import Faults
from raybench.simulator.profiles import profile
from raybench.simulator.server import EndpointSpec, serve
from raybench.virtual import VirtualNetwork, run_virtually

MS = 1_000_000
S = 1_000_000_000
PROMPTS = [Prompt(f"prompt number {n}", 4, "estimate") for n in range(5000)]
KEYS = auth.Credentials("AKIDVIRTUAL", "virtual-secret", "us-west-2")
HOST = "virtual.test"

Script = Callable[[int, float], Sequence[tuple[float, bytes]]]


@dataclass
class World:
    """What is played; `script`, if given, answers in place of the simulator.

    It gets the number of the request and the second at which it arrived, and gives (seconds from then, bytes), …

    `meddle` gets the network before T0, to make things happen in it. `stop` says when the load is stopped, in seconds
    since T0, and how much later what is in flight is given up. Everything else is as in a run.
    """

    load: Load
    requests: int | None = None
    duration_s: float | None = None
    warmup_s: float = 0.0
    profile: str = "fixed"
    overrides: dict[str, Any] = field(default_factory=dict)
    faults: dict[str, Any] = field(default_factory=dict)
    script: Script | None = None
    route: str = "stream"
    dialect: str = "tgi"
    parameters: dict[str, Any] = field(default_factory=dict)
    prompts: Sequence[Prompt] = field(default_factory=lambda: PROMPTS)
    timeouts: Timeouts = field(default_factory=Timeouts)
    actors: int = 1
    latency_s: float = 0.0
    price_per_hour: float | None = None
    criteria: dict[str, float] = field(default_factory=dict)
    meddle: Callable[[VirtualNetwork], None] | None = None
    connections: int | None = None
    seed: int = 7
    in_order: bool = False
    client: type[SageMakerClient] = SageMakerClient
    wall_s: Callable[[], float] = time.time
    stop: tuple[float, float] | None = None

    def play(self) -> "Played":
        """Plays it, always the same way."""
        network, rows, lag_ns = VirtualNetwork(self.latency_s), list[Row](), list[int]()
        with tempfile.TemporaryDirectory(prefix="world-") as folder:
            truth = Path(folder) / "truth.jsonl"
            run_virtually(lambda clock: self._main(network, clock, rows, lag_ns, truth), network)
            records = [json.loads(line) for line in truth.read_text().splitlines()] if truth.exists() else []
        return Played(self, requests_table(rows), records, network, sorted(lag_ns))

    @property
    def trial(self) -> Trial:
        return Trial(
            *("t", 0, "e", "p", self.load, 0, 0),
            *(self.warmup_s, self.duration_s, self.requests, self.seed, None, self.in_order),
        )

    async def _main(
        self, network: VirtualNetwork, clock: Clock, rows: list[Row], lag_ns: list[int], truth: Path
    ) -> None:
        url = f"http://{HOST}:80"
        if self.script is None:
            spec = EndpointSpec(profile(self.profile, **self.overrides), Faults(**self.faults), seed=self.seed)
            running = await serve(
                {"e": spec}, credentials=KEYS, truth=truth, clock=clock, grain_s=0, wall_s=self.wall_s
            )
            url = running.url
        else:
            await network.create_server(Scripted(self.script), HOST, 80)
        keys = Credentials(KEYS.access_key, KEYS.secret_key)
        target = Target(url, "e", KEYS.region, self.route, self.dialect, keys, timeouts=self.timeouts)
        bodies = [request(target, self.parameters, prompt) for prompt in self.prompts]
        posts = [Post("e", i, self.actors, target, self.parameters, Path()) for i in range(self.actors)]
        clients = [self.client(target, clock=clock, wall_s=self.wall_s) for _ in posts]
        for client, post in zip(clients, posts, strict=True):
            wanted = Part(self.trial, post, self.seed).connections
            await client.open(wanted if self.connections is None else self.connections)
        probe = asyncio.create_task(probe_lag(lag_ns, clock))
        if self.meddle is not None:
            self.meddle(network)
        t0_ns = clock()
        together = Together(Part(self.trial, posts[0], self.seed).players)
        async with asyncio.TaskGroup() as group:
            for client, post in zip(clients, posts, strict=True):
                part, over = Part(self.trial, post, self.seed), together.over(post.index)
                attack = part.attack(client, bodies, "h", t0_ns=t0_ns, clock=clock, write=rows.append, over=over)
                group.create_task(together.play(part, attack))
                if self.stop is not None:
                    asyncio.get_running_loop().call_later(self.stop[0], attack.stop, self.stop[1])
        probe.cancel()
        for client in clients:
            await client.close()
        if self.script is None:
            await running.close()


@dataclass
class Played:
    """The rows (REQUESTS), and what the simulator wrote of them."""

    world: World
    table: pa.Table
    truth: list[dict[str, Any]]
    network: VirtualNetwork
    lag_ns: list[int]

    def column(self, name: str) -> list[Any]:
        values: list[Any] = self.table[name].to_pylist()
        return values

    def summary(self, table: pa.Table | None = None, **noted: Any) -> dict[str, Any]:
        """The row of the trials table made of these rows, or of others in their place."""
        lag_ms = [ns / MS for ns in self.lag_ns] or [0.0]
        lags = (("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("max", 1))
        about = {f"lag_{which}_ms": lag_ms[int(q * (len(lag_ms) - 1))] for which, q in lags}
        return summary(self.world, self.table if table is None else table, **{"actors": [about], **noted})

    def changed(self, **columns: Any) -> dict[str, Any]:
        """The row of the trials table if some columns of the rows had been written down otherwise."""
        return self.summary(retold(self.table, **columns))


def retold(table: pa.Table, **columns: Any) -> pa.Table:
    """The same rows with some columns replaced."""
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    return table


def summary(world: World, table: pa.Table, **noted: Any) -> dict[str, Any]:
    """The row of the trials table; `noted` is added to what the manifest says of the trial."""
    trial = world.trial
    about = {
        "trial_id": "t",
        "experiment": "e",
        "payload": "p",
        "load": world.load.label,
        "kind": world.load.kind,
        "concurrency": getattr(world.load, "concurrency", None),
        "rate": getattr(world.load, "rate", None),
        "repeat": 0,
        "warmup_s": trial.warmup_s,
        "duration_s": trial.duration_s,
        "requests": trial.requests,
        "think_time_s": world.load.think_time_s if isinstance(world.load, Closed) else None,
        "state": "done",
        "rows": len(table),
    } | noted
    experiment = {
        "name": "e",
        "instance_type": "ml.g5.48xlarge",
        "instance_count": 1,
        "simulated": True,
        "price_per_hour": world.price_per_hour,
        "actors": [{}] * world.actors,
    }
    manifest = {"experiments": [experiment], "payloads": [], "criteria": world.criteria}
    told: dict[str, Any] = reduce_trial(table, about, manifest).trials.to_pylist()[0]
    return told


class Scripted:
    """Answers request n of an endpoint by `script(n)`; makes a protocol for each connection."""

    def __init__(self, script: Script) -> None:
        self.script, self.answered = script, 0

    def __call__(self) -> asyncio.Protocol:
        return _Answering(self)


class _Answering(asyncio.Protocol):
    def __init__(self, endpoint: Scripted) -> None:
        self.endpoint = endpoint

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """The virtual network brings a whole request in one piece."""
        n, self.endpoint.answered = self.endpoint.answered, self.endpoint.answered + 1
        loop = asyncio.get_running_loop()
        answers: dict[float, bytes] = {}  # one write an instant: timers that are due together ring in any order
        for after_s, answer in self.endpoint.script(n, loop.time()):
            answers[after_s] = answers.get(after_s, b"") + answer
        for after_s, answer in answers.items():
            loop.call_later(after_s, self.transport.write, answer)


def whole(tokens: int = 1, prompt_tokens: int = 4) -> bytes:
    """A TGI reply in one piece."""
    details = {"finish_reason": "length", "generated_tokens": tokens, "input_length": prompt_tokens}
    body = json.dumps([{"generated_text": "word " * tokens, "details": details}]).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
SSE_END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def event(document: dict[str, Any]) -> bytes:
    """A server-sent event in an HTTP chunk of its own."""
    data = b"data: " + json.dumps(document).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def delta(**said: Any) -> bytes:
    """A chunk of an OpenAI stream."""
    return event({"choices": [{"delta": said, "finish_reason": None}]})


def usage(completion_tokens: int, prompt_tokens: int = 4, cached_tokens: int | None = None) -> bytes:
    """The last chunk of an OpenAI stream: the server's own count."""
    counted: dict[str, Any] = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    if cached_tokens is not None:
        counted["prompt_tokens_details"] = {"cached_tokens": cached_tokens}
    return event({"choices": [], "usage": counted})
