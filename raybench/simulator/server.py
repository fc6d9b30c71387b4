"""The SageMaker Runtime API on a loopback port: routes, credentials, errors, and the server's own health.

`connection` reads requests, `call` writes replies; what stands between them is here.
"""

import asyncio
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from uuid import UUID

import orjson

from raybench.clock import NS_PER_S, Clock, monotonic_ns
from raybench.payloads.tokens import estimate_tokens
from raybench.simulator import dialects, wire
from raybench.simulator.auth import Credentials, RefusedError, verify_bearer, verify_signature
from raybench.simulator.call import Call, Splitter, Stream, Unary
from raybench.simulator.connection import Connection, HttpRequest
from raybench.simulator.engine import Agenda, PrefixCache, engine
from raybench.simulator.faults import Fate, Fault, Faults
from raybench.simulator.profiles import Profile
from raybench.simulator.truth import Record, TruthLog

HOST = "127.0.0.1"
GRAIN_S = 0.001
PATIENCE_S = 0.5
ROUTE = re.compile(
    r"/endpoints/(?P<endpoint>[^/]+)(?:/inference-components/(?P<component>[^/]+)(?=/openai))?"
    r"/(?P<route>invocations|invocations-response-stream|openai/v1/chat/completions)"
)


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """One endpoint: how it performs, how it fails, and the seed of both."""

    profile: Profile
    faults: Faults = field(default_factory=Faults)
    seed: int = 0


class Endpoint:
    """An endpoint at work: its engine and its seeded streams of fates, words and request ids."""

    def __init__(self, name: str, spec: EndpointSpec, agenda: Agenda) -> None:
        self.name = name
        self.profile = spec.profile
        self.engine = engine(spec.profile, agenda, spec.seed)
        self.cache = PrefixCache() if spec.profile.prefix_cache else None
        self.fate = Fate(spec.faults, spec.seed)
        self.split = spec.faults.split
        self.random = Random(f"endpoint-{name}-{spec.seed}")


class Service:
    """Everything the connections share: endpoints, credentials, the agenda, the truth log, and counts."""

    def __init__(
        self,
        endpoints: Mapping[str, EndpointSpec],
        credentials: Credentials,
        truth: TruthLog,
        clock: Clock = monotonic_ns,
        grain_s: float = GRAIN_S,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self.clock, self.wall_s = clock, wall_s
        self.agenda = Agenda(lambda: clock() / NS_PER_S, grain_s)
        self.endpoints = {name: Endpoint(name, spec, self.agenda) for name, spec in endpoints.items()}
        self.credentials = credentials
        self.truth = truth
        self.random = Random("requests-to-nowhere")
        self.connections: set[Connection] = set()
        self.accepted = 0
        self.requests = 0
        self.events = 0
        self._started_s = time.monotonic()
        self._last = (self._started_s, time.process_time())

    def health(self) -> dict[str, float | int]:
        """The server's own load: CPU seconds, their share since the last call, and how late it acts, p99 of the
        most recent actions (up to a millisecond of which is the timer's grain)."""
        now, cpu_s = time.monotonic(), time.process_time()
        (then, cpu_then_s), self._last = self._last, (now, cpu_s)
        lags = sorted(self.agenda.lags_s)
        p99 = lags[math.ceil(0.99 * len(lags)) - 1] if lags else 0.0
        return {
            "cpu_s": cpu_s,
            "uptime_s": now - self._started_s,
            "cpu_share": (cpu_s - cpu_then_s) / max(now - then, 1e-9),
            "events": self.events,
            "requests": self.requests,
            "connections": self.accepted,
            "lag_p99_ms": p99 * 1e3,
            "lag_max_ms": (lags[-1] if lags else 0.0) * 1e3,
        }

    def handle(self, connection: Connection, request: HttpRequest) -> None:
        """Answers one request, now or later."""
        path = request.target.partition("?")[0]
        if request.method == "GET" and path == "/raybench/health":
            connection.say(orjson.dumps(self.health()))
            return
        matched = ROUTE.fullmatch(path)
        name = matched["endpoint"] if matched else ""
        endpoint = self.endpoints.get(name)
        random = endpoint.random if endpoint else self.random
        request_id = str(UUID(int=random.getrandbits(128), version=4))
        record = Record(request_id, name, connection.number, request.arrived_ns)
        openai = connection.openai = path.endswith("/openai/v1/chat/completions")
        if matched is None or request.method != "POST":
            connection.answer(record, wire.ServiceError(404, "UnknownOperationException", None))
            return
        if request.too_large:
            connection.answer(record, wire.too_large())
            return
        try:
            self._authenticate(request, openai)
        except RefusedError as refusal:
            connection.answer(record, wire.refused(refusal.code, refusal.message))
            return
        if endpoint is None:
            connection.answer(record, wire.not_found(name))
        elif openai and "x-amzn-sagemaker-inference-component" in request.headers:
            message = "The inference component belongs in the path of this route."
            connection.answer(record, wire.ServiceError(400, "ValidationError", message))
        else:
            self._invoke(connection, request, record, endpoint, matched["route"])

    def connect(self) -> Connection:
        """A protocol for the next connection."""
        self.accepted += 1
        return Connection(self, self.accepted - 1)

    def ended(self, record: Record) -> None:
        self.requests += 1
        self.events += len(record.chunks)
        self.truth.write(record)

    def _authenticate(self, request: HttpRequest, openai: bool) -> None:
        now = datetime.fromtimestamp(self.wall_s(), UTC)
        if openai:
            verify_bearer(self.credentials, request.headers, now)
        else:
            verify_signature(self.credentials, request.method, request.target, request.headers, request.body, now)

    def _invoke(
        self, connection: Connection, request: HttpRequest, record: Record, endpoint: Endpoint, route: str
    ) -> None:
        fault, where = endpoint.fate.draw()
        record.fault = fault
        failure = _Failure(endpoint.name, self.credentials.region)
        if fault in _REFUSALS:
            connection.answer(record, _REFUSALS[fault](failure))
            return
        try:
            completion = _completion(endpoint, request.body, record)
            if route.startswith("openai") and completion.ask.dialect != "openai":
                raise dialects.UnprocessableError("messages: field required")
        except dialects.UnprocessableError as error:
            connection.answer(record, failure(422, str(error)))
            return
        profile, total = endpoint.profile, completion.total
        voice = dialects.VOICES[completion.ask.dialect](completion)
        headers = connection.headers(record, profile.variant)
        framed = route == "invocations-response-stream"
        call: Call
        if framed or (completion.ask.stream and route != "invocations"):
            strike = None if fault is None else (fault, _tokens_before(fault, where, total, profile))
            split = Splitter(endpoint.split, endpoint.random) if endpoint.split else None
            whole = not completion.ask.stream
            stream = Stream(
                connection, record, voice, total, failure, strike, framed=framed, whole=whole, split=split
            )
            stream.begin(headers)
            call, cap_s = stream, profile.stream_cap_s
        else:
            call = Unary(connection, record, voice, total, failure, fault, headers)
            cap_s = profile.unary_cap_s
        connection.call = call
        call.limit(cap_s)
        endpoint.engine.submit(completion.prompt_tokens, total, call, completion.cached_tokens or 0)


@dataclass(frozen=True, slots=True)
class _Failure:
    """Makes the 424 of one endpoint from the container's own status and words."""

    endpoint: str
    region: str

    def __call__(self, original_status: int, message: str) -> wire.ServiceError:
        return wire.model_error(self.endpoint, self.region, original_status, message)


_REFUSALS: dict[Fault | None, Callable[[_Failure], wire.ServiceError]] = {
    Fault.THROTTLE: lambda failure: wire.throttled(),
    Fault.UNAVAILABLE: lambda failure: wire.unavailable(),
    Fault.MODEL_ERROR: lambda failure: failure(500, "Request failed during generation: CUDA out of memory"),
}


def _completion(endpoint: Endpoint, body: bytes, record: Record) -> dialects.Completion:
    """The facts of the reply to `body`; UnprocessableError if the container would refuse it."""
    profile = endpoint.profile
    ask = dialects.ask_of(body, profile.dialect, profile.echo_prompt)
    record.prompt_tokens = prompt_tokens = estimate_tokens(ask.prompt)
    wanted = ask.max_tokens or profile.tokens
    if profile.context_tokens is not None and prompt_tokens + wanted > profile.context_tokens:
        raise dialects.UnprocessableError(
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= "
            f"{profile.context_tokens}. Given: {prompt_tokens} `inputs` tokens and {wanted} `max_new_tokens`"
        )
    return dialects.Completion(
        ask=ask,
        prompt_tokens=prompt_tokens,
        cached_tokens=endpoint.cache.cached_tokens(ask.prompt, prompt_tokens) if endpoint.cache else None,
        total=min(wanted, profile.tokens),
        finish_reason="length" if ask.max_tokens is not None and wanted <= profile.tokens else "stop",
        id=record.request_id,
        created_s=int(time.time()),
        word=dialects.words(endpoint.random.randrange(len(dialects.WORDS))),
    )


def _tokens_before(fault: Fault, where: float, total: int, profile: Profile) -> int:
    """How many tokens a stream gets out before its fault strikes: the first chunk at least, never all."""
    first = profile.tokens_per_chunk
    if fault is Fault.HANG or total <= first:
        return min(first, total - 1)
    return first + int(where * (total - first))


class Running:
    """A server that listens; `url` says where."""

    def __init__(self, server: asyncio.Server, service: Service) -> None:
        self._server = server
        self.service = service
        self.url = f"http://{HOST}:{server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Stops listening, hangs up on everyone, and completes the truth log."""
        self._server.close()
        for connection in tuple(self.service.connections):
            connection.hang_up()
        patience_s = PATIENCE_S
        while self.service.connections and patience_s > 0:
            await asyncio.sleep(GRAIN_S)
            patience_s -= GRAIN_S
        for connection in tuple(self.service.connections):
            connection.abort()
        await asyncio.sleep(GRAIN_S)
        self.service.truth.close()


async def serve(
    endpoints: Mapping[str, EndpointSpec],
    *,
    credentials: Credentials,
    port: int = 0,
    truth: Path | None = None,
    clock: Clock = monotonic_ns,
    grain_s: float = GRAIN_S,
    wall_s: Callable[[], float] = time.time,
) -> Running:
    """Starts the service on 127.0.0.1 (port 0: any free one); never on another address.

    `clock` stamps and paces it; `grain_s` is the resolution of the running loop's timers, 0 in virtual time.
    `wall_s` (Unix time) says whether a signature has expired.
    """
    service = Service(endpoints, credentials, TruthLog(truth), clock, grain_s, wall_s)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(service.connect, HOST, port, backlog=1024)
    return Running(server, service)
