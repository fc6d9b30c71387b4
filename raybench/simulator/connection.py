"""One keep-alive HTTP/1.1 connection of a caller: httptools reads requests, replies go out in SageMaker's shape."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Protocol, cast

import httptools

from raybench.clock import Clock
from raybench.rows import Outcome
from raybench.simulator import wire
from raybench.simulator.call import Call
from raybench.simulator.truth import Record

LARGEST_BODY_BYTES = 25 * 1024 * 1024


@dataclass(slots=True)
class HttpRequest:
    """One request as parsed; header names in lower case, a body over the limit left out and `too_large` set."""

    method: str = ""
    target: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    too_large: bool = False
    keep_alive: bool = True
    arrived_ns: int = 0


class Host(Protocol):
    """What a connection serves: it is told of each request, and of each that has ended."""

    connections: "set[Connection]"
    clock: Clock

    def handle(self, connection: "Connection", request: HttpRequest) -> None: ...

    def ended(self, record: Record) -> None: ...


def _outcome(error: wire.ServiceError) -> Outcome:
    """What an error reply is in the words of rows: 5xx and 424 are the endpoint's failures, 4xx the caller's."""
    if error.code == "ThrottlingException":
        return Outcome.THROTTLED
    if error.more.get("OriginalStatusCode") == 0:
        return Outcome.SERVER_TIMEOUT
    failed = error.status == HTTPStatus.FAILED_DEPENDENCY or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return Outcome.MODEL_ERROR if failed else Outcome.REJECTED


class Connection(asyncio.Protocol):
    """One keep-alive HTTP/1.1 connection; requests that come before the last is answered wait their turn."""

    def __init__(self, host: Host, number: int) -> None:
        self._host = host
        self.clock = host.clock
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._request = HttpRequest()
        self._parts: list[bytes] = []
        self._size = 0
        self._received_ns = 0
        self._queue: deque[HttpRequest] = deque()
        self._current: HttpRequest | None = None
        self.call: Call | None = None
        self.openai = False
        self.number = number

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._host.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._host.connections.discard(self)
        self._transport = None
        self._queue.clear()
        if self.call is not None:
            self.call.gone()

    def data_received(self, data: bytes) -> None:
        self._received_ns = self.clock()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.write(wire.head(400, [("Connection", "close")], 0))
            self.hang_up()

    def on_message_begin(self) -> None:
        self._request = HttpRequest()
        self._parts, self._size = [], 0

    def on_url(self, url: bytes) -> None:
        self._request.target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._request.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._request.method = self._parser.get_method().decode("latin-1")
        self._request.keep_alive = self._parser.should_keep_alive()
        if self._request.headers.get("expect", "").lower() == "100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size <= LARGEST_BODY_BYTES:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        request = self._request
        request.too_large = self._size > LARGEST_BODY_BYTES
        request.body = b"" if request.too_large else b"".join(self._parts)
        request.arrived_ns = self._received_ns
        self._queue.append(request)
        self._next()

    def _next(self) -> None:
        if self._current is None and self._queue and self._transport and not self._transport.is_closing():
            self._current = request = self._queue.popleft()
            self._host.handle(self, request)

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def hang_up(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Closes the connection whatever is still unsent."""
        if self._transport is not None:
            self._transport.abort()

    def headers(self, record: Record, variant: str) -> list[tuple[str, str]]:
        """What every reply of a model carries."""
        named = ("x-Amzn-Invoked-Production-Variant", variant)
        return [("x-amzn-RequestId", record.request_id), named, ("Date", formatdate(usegmt=True))]

    def answer(self, record: Record, error: wire.ServiceError) -> None:
        body = error.openai_body() if self.openai else error.body()
        headers = [
            ("x-amzn-RequestId", record.request_id),
            ("x-amzn-ErrorType", f"{error.code}:http://internal.amazon.com/coral/com.amazon.coral.service/"),
            ("Content-Type", "application/json"),
            ("Date", formatdate(usegmt=True)),
        ]
        record.status = error.status
        record.outcome = _outcome(error)
        record.ended_ns = self.clock()
        self.finished(record)
        self.write(wire.head(error.status, headers, len(body)) + body)

    def say(self, body: bytes) -> None:
        """A reply of the simulator's own, which leaves no record."""
        self._release()
        self.write(wire.head(200, [("Content-Type", "application/json")], len(body)) + body)

    def finished(self, record: Record) -> None:
        self._host.ended(record)
        self._release()

    def _release(self) -> None:
        """Turns to the next request once this one's last bytes are written."""
        self.call = None
        request, self._current = self._current, None
        loop = asyncio.get_running_loop()
        if request is not None and not request.keep_alive:
            loop.call_soon(self.hang_up)
        elif self._queue:
            loop.call_soon(self._next)
