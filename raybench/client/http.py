"""One keep-alive HTTP/1.1 connection: it writes a request, stamps the reply's bytes as they arrive, and parses later.

The stamp is taken first thing when the loop hands over bytes. httptools (HTTP in C) takes off the framing; what the
body means is nobody's business here. A connection serves one exchange at a time and cannot repeat one.
"""

import asyncio
import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from raybench.clock import NS_PER_S, Clock

RESPONSE_BYTES = 32 * 1024 * 1024
"""The longest response kept, head included; SageMaker's own limit is 25 MB."""

STOPPED = "the run was stopped"
"""Why an exchange is given up."""


class Failure(StrEnum):
    """How an exchange can end without a whole response; the value is the row's error code."""

    UNREACHABLE = "ConnectFailed"
    UNTRUSTED = "TLSFailed"
    RESET = "ConnectionReset"
    CUT = "ConnectionCut"
    TOTAL_TIMEOUT = "TotalTimeout"
    IDLE_TIMEOUT = "IdleTimeout"
    GIVEN_UP = "GivenUp"
    MALFORMED = "MalformedHTTP"
    TOO_LARGE = "ResponseTooLarge"


class ConnectError(Exception):
    """A connection could not be opened: `failure` says at which step, the text why."""

    def __init__(self, failure: Failure, why: str) -> None:
        super().__init__(why)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect, and with which TLS context if any."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None


class Reply(NamedTuple):
    """What came back, unread: the body, and when its bytes arrived, in instants of the client's clock.

    Read `i` was stamped at `stamps[i]` and began at the body's byte `starts[i]`; the head may have taken it all.
    `status` is None where no response head arrived; header names are in lower case. A reply that is not whole has a
    `failure`.
    """

    end_ns: int
    sent_ns: int | None = None
    status: int | None = None
    headers: Mapping[bytes, bytes] | None = None
    stamps: Sequence[int] = ()
    starts: Sequence[int] = ()
    body: bytes = b""
    failure: Failure | None = None
    problem: str = ""
    reused: bool | None = None

    @property
    def first_byte_ns(self) -> int | None:
        """When the head began to arrive."""
        return self.stamps[0] if self.stamps else None

    def header(self, name: bytes) -> str | None:
        """The value of a header, None where there is none."""
        value = self.headers.get(name) if self.headers else None
        return None if value is None else value.decode("latin-1")


class Connection(asyncio.Protocol):
    """One open connection; `exchange` sends bytes and collects the response, whatever becomes of it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._body = bytearray()
        self.on_body = self._body.extend
        self._parser = HttpResponseParser(self)
        self._waiter: asyncio.Future[Reply] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._look_ns = 0
        self._reused = False
        self._start(0, 0)

    def _start(self, total_ns: int, idle_ns: int) -> None:
        self._total_ns, self._idle_ns = total_ns, idle_ns
        self._received = 0
        self._status: int | None = None
        self._headers: dict[bytes, bytes] = {}
        self._stamps: list[int] = []
        self._starts: list[int] = []
        self._body.clear()
        self._until_close = False
        self._sent_ns = self._clock()

    @property
    def usable(self) -> bool:
        """Whether a request may be sent on it: open and idle."""
        return self._transport is not None and self._waiter is None and not self._transport.is_closing()

    async def exchange(self, request: bytes, total_ns: int, idle_ns: int, *, reused: bool) -> Reply:
        """Sends `request` and returns when the last byte of its response is stamped, or something went wrong.

        `total_ns` counts from the first byte sent; `idle_ns` between two reads once the response has begun.
        """
        assert self._transport is not None
        waiter: asyncio.Future[Reply] = self._loop.create_future()
        self._waiter = waiter
        self._reused = reused
        self._start(total_ns, idle_ns)
        self._transport.write(request)
        self._look_at(self._sent_ns + min(total_ns, idle_ns))
        try:
            return await waiter
        except asyncio.CancelledError:
            self._waiter = None
            self.abort()
            raise

    def abort(self) -> None:
        """Closes at once; what was in flight is dropped."""
        if self._transport is not None:
            self._transport.abort()

    def give_up(self) -> None:
        """Ends the exchange now, if there is one."""
        if self._waiter is not None:
            self._fail(Failure.GIVEN_UP, STOPPED)

    def close(self) -> None:
        """Closes an idle connection."""
        if self._transport is not None:
            self._transport.close()

    def _look_at(self, instant_ns: int) -> None:
        """Has `_watch` look at an instant or before; a timer is not cancelled but left to the exchanges to come."""
        if self._timer is not None:
            if self._look_ns <= instant_ns:
                return
            self._timer.cancel()
        self._look_ns = instant_ns
        self._timer = self._loop.call_later((instant_ns - self._clock()) / NS_PER_S, self._watch)

    def _watch(self) -> None:
        """Ends the exchange if its time is over, else looks again when it could be."""
        self._timer = None
        if self._waiter is None:
            return
        now_ns, over_ns = self._clock(), self._sent_ns + self._total_ns
        idle_ns = (self._stamps[-1] if self._stamps else now_ns) + self._idle_ns
        if over_ns <= now_ns:
            self._fail(Failure.TOTAL_TIMEOUT, f"no end of response within {self._total_ns / NS_PER_S:g} s")
        elif idle_ns <= now_ns:
            self._fail(Failure.IDLE_TIMEOUT, f"no byte for {self._idle_ns / NS_PER_S:g} s")
        else:
            self._look_at(min(over_ns, idle_ns))

    def _fail(self, failure: Failure, problem: str) -> None:
        self._finish(self._clock(), failure, problem)
        self.abort()

    def _finish(self, end_ns: int, failure: Failure | None = None, problem: str = "") -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            return
        headers, self._headers = self._headers, {}  # nothing that comes later is part of this reply
        waiter.set_result(
            Reply(
                end_ns,
                self._sent_ns,
                self._status,
                headers,
                self._stamps,
                self._starts,
                bytes(self._body),
                failure,
                problem,
                self._reused,
            )
        )

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        stamp = self._clock()
        if self._waiter is None:  # bytes nobody asked for: whose reply they are cannot be known
            self.abort()
            return
        self._stamps.append(stamp)
        self._starts.append(len(self._body))
        self._received += len(data)
        if self._received > RESPONSE_BYTES:
            self._fail(Failure.TOO_LARGE, f"more than {RESPONSE_BYTES} bytes of response")
            return
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._fail(Failure.MALFORMED, str(error) or type(error).__name__)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if self._waiter is None:
            return
        if self._until_close and exc is None:
            self._finish(self._stamps[-1])
            return
        failure = Failure.CUT if self._stamps else Failure.RESET
        self._finish(self._clock(), failure, str(exc) if exc else "closed by the peer")

    # httptools

    def on_message_begin(self) -> None:
        if self._waiter is None:
            self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        headers = self._headers
        self._until_close = b"content-length" not in headers and b"transfer-encoding" not in headers

    def on_message_complete(self) -> None:
        if self._status is not None and self._status < 200:  # 100 Continue: the response is still to come
            self._status, self._headers, self._until_close = None, {}, False
            return
        if not self._parser.should_keep_alive():
            self.close()
        self._finish(self._stamps[-1])


async def connect(address: Address, clock: Clock, timeout_s: float) -> Connection:
    """Opens a connection, TLS handshake included; raises ConnectError."""
    loop = asyncio.get_running_loop()
    name = address.host if address.tls else None
    try:
        async with asyncio.timeout(timeout_s):
            _, connection = await loop.create_connection(
                lambda: Connection(clock), address.host, address.port, ssl=address.tls, server_hostname=name
            )
    except TimeoutError:
        raise ConnectError(Failure.UNREACHABLE, f"no connection within {timeout_s:g} s") from None
    except ssl.SSLError as error:
        why = getattr(error, "verify_message", "") or error.reason or "TLS handshake failed"
        raise ConnectError(Failure.UNTRUSTED, why) from error
    except OSError as error:
        raise ConnectError(Failure.UNREACHABLE, _why(error)) from error
    return connection


def tls_context(ca_bundle: str | None = None) -> ssl.SSLContext:
    """A context that verifies the peer, against the system's authorities or those of a PEM file."""
    context = ssl.create_default_context(cafile=ca_bundle)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _why(error: OSError) -> str:
    """An operating system error in a few words."""
    text = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
    return text.splitlines()[0] if text else type(error).__name__
