"""SageMaker's runtime: one Request becomes one wire request, and what the wire said becomes one Exchange.

`send` puts a signed request on an open connection and collects stamped bytes; it reads nothing, raises nothing and
cannot repeat itself. `read` makes sense of them in small steps, so that no other stream's bytes wait for it.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from itertools import accumulate

from raybench.client.credentials import chain
from raybench.client.dialects import dialect_named
from raybench.client.discretion import without
from raybench.client.endings import FINE, Ending, broken, ending, excerpt, refused, stream_fault, unexpected
from raybench.client.eventstream import FrameError, runs
from raybench.client.http import STOPPED, ConnectError, Connection, Failure, Reply, connect
from raybench.client.sigv4 import Credentials, Signer, bearer_token
from raybench.client.target import Target
from raybench.client.transcript import Arrivals, RecordError, Transcript, records
from raybench.clock import NS_PER_S, Clock, monotonic_ns
from raybench.counting import Source
from raybench.errors import EndpointError
from raybench.rows import Exchange, Outcome, Request

STEP_RECORDS = 32
"""The most records read in one step: some 30 µs of work."""
EVENT_STREAM = "application/vnd.amazon.eventstream"


Counted = tuple[int | None, Source | None]
"""Completion tokens, and by what means they were counted."""

Provider = Callable[[], Callable[[], Credentials]]
"""Finds what gives the credentials as they are at each call."""


class SageMakerClient:
    """The client of one endpoint: `open` it, `send` and `read` as often as you like, `close` it.

    `clock` stamps, `wall_s` (Unix time) dates signatures; everything else is asyncio, so it runs on any loop.
    `provider` has the credentials of a target that has none. `count_tokens`, where it is set, counts the completions
    of which the server does not say how long they are; it runs in a thread.
    """

    count_tokens: Callable[[str], int] | None = None

    def __init__(
        self,
        target: Target,
        *,
        clock: Clock = monotonic_ns,
        wall_s: Callable[[], float] = time.time,
        keep_text: bool = False,
        provider: Provider = chain,
    ) -> None:
        self.target = target
        self._provider = provider
        self._clock, self._wall_s = clock, wall_s
        self._keep_text = keep_text
        self._dialect = dialect_named(target.dialect)
        self._address = target.address
        timeouts = target.timeouts
        total_s = timeouts.stream_s if target.streams else timeouts.invoke_s
        self._total_ns, self._idle_ns = round(total_s * NS_PER_S), round(timeouts.idle_s * NS_PER_S)
        lines = "".join(f"{name}: {value}\r\n" for name, value in target.headers.items())
        self._head = f"POST {target.path} HTTP/1.1\r\n{lines}User-Agent: raybench\r\n".encode()
        self._freeze: Callable[[], Credentials] | None = None
        self._credentials = target.credentials
        self._signer: Signer | None = None
        self._token, self._bearer = "", b""
        self._free: deque[Connection] = deque()
        self._busy: set[Connection] = set()
        self._given_up = False

    async def open(self, connections: int) -> None:
        """Finds credentials and opens keep-alive connections in place of idle ones, which may have gone stale.

        EndpointError, in one line, if it cannot.
        """
        await self.close()
        self._given_up = False
        await self.refresh_if_due()
        timeout_s = self.target.timeouts.connect_s
        opening = [connect(self._address, self._clock, timeout_s) for _ in range(connections)]
        opened = await asyncio.gather(*opening, return_exceptions=True)
        self._free.extend(each for each in opened if isinstance(each, Connection))
        for problem in opened:
            if isinstance(problem, BaseException):
                await self.close()
                where = f"{self._address.host}:{self._address.port}"
                raise EndpointError(f"endpoint {self.target.endpoint!r}: {where}: {problem}") from problem

    async def refresh_if_due(self) -> None:
        """Takes fresh credentials, and a fresh bearer token, where they are due; call it between trials."""
        if self.target.credentials is None:
            if self._freeze is None:
                self._freeze = await asyncio.to_thread(self._provider)
            credentials = await asyncio.to_thread(self._freeze)
        else:
            credentials = self.target.credentials
        if self.target.route == "openai":
            self._token = bearer_token(credentials, self.target.region, int(self._wall_s()))
            self._bearer = f"Authorization: Bearer {self._token}\r\n".encode()
        elif self._signer is None or credentials != self._credentials:
            self._signer = Signer(credentials, self.target.region, self.target.headers, self.target.path)
        self._credentials = credentials

    async def close(self) -> None:
        """Closes every connection."""
        for connection in self._free:
            connection.close()
        for connection in self._busy:
            connection.abort()
        self._free.clear()
        await asyncio.sleep(0)

    def give_up(self) -> None:
        """Ends every exchange now, as a timeout of ours, and none begins before the next `open`; the rows say so."""
        self._given_up = True
        for connection in tuple(self._busy):
            connection.give_up()

    async def send(self, request: Request) -> Reply:
        """Sends one request once; returns when the last byte of its reply is stamped, or why there is none.

        With no open connection left it opens one first: the row then says `connection_reused` false.
        """
        connection, reused = self._take(), True
        if connection is None:
            reused = False
            try:
                connection = await connect(self._address, self._clock, self.target.timeouts.connect_s)
            except ConnectError as error:
                return Reply(self._clock(), failure=error.failure, problem=str(error), reused=False)
            if self._given_up:
                connection.close()
                return Reply(self._clock(), failure=Failure.GIVEN_UP, problem=STOPPED, reused=False)
        self._busy.add(connection)
        try:
            return await connection.exchange(self._wire(request), self._total_ns, self._idle_ns, reused=reused)
        finally:
            self._busy.discard(connection)
            if connection.usable:
                self._free.append(connection)

    async def read(self, request: Request, reply: Reply) -> Exchange:
        """Makes sense of a reply, giving the loop back every few records."""
        transcript = Transcript()
        if reply.status is None:
            ending = broken(reply, Outcome.CONNECTION_ERROR)
        elif not 200 <= reply.status < 300:
            ending = refused(reply)
        elif self._is_stream(reply):
            ending = await self._read_stream(reply, transcript)
        else:
            ending = self._read_whole(reply, transcript)
        counted = _counted(transcript)
        if counted[1] is Source.ESTIMATE and self.count_tokens is not None:  # in a thread: a long text takes its time
            counted = await asyncio.to_thread(self.count_tokens, transcript.whole_text), Source.TOKENIZER
        return _exchange(request, reply, transcript, counted, self._discreet(ending), self._keep_text)

    def _discreet(self, ending: Ending) -> Ending:
        """What the server said of a failure, without our credentials, which it may have quoted."""
        if ending.message is None or self._credentials is None:
            return ending
        ours = self._credentials
        secrets = (self._token, ours.token or "", ours.secret_key, ours.access_key)
        return ending._replace(message=without(ending.message, secrets))

    def _take(self) -> Connection | None:
        while self._free:  # the one used last: others go stale, and one that a peer closes unseen costs a request
            connection = self._free.pop()
            if connection.usable:
                return connection
        return None

    def _wire(self, request: Request) -> bytes:
        """Head and body as they go out, signed now."""
        body = request.body
        signed = self._signer.lines(request.body_sha256, int(self._wall_s())) if self._signer else self._bearer
        return b"%b%bContent-Length: %d\r\n\r\n%b" % (self._head, signed, len(body), body)

    def _is_stream(self, reply: Reply) -> bool:
        if self.target.route != "openai":
            return self.target.route == "stream"
        kind = (reply.header(b"content-type") or "").partition(";")[0].strip().lower()
        return self.target.stream and kind != "application/json"

    def _read_whole(self, reply: Reply, transcript: Transcript) -> Ending:
        if reply.failure is not None:
            return broken(reply, Outcome.CONNECTION_ERROR)
        try:
            self._dialect.read_reply(transcript, reply.body)
        except RecordError as error:
            return ending(Outcome.PROTOCOL_ERROR, "MalformedBody", f"{error}: {excerpt(reply.body)}")
        if transcript.error is not None:
            return ending(Outcome.MODEL_ERROR, *transcript.error)
        return FINE

    async def _read_stream(self, reply: Reply, transcript: Transcript) -> Ending:
        kind = reply.header(b"content-type") or ""
        framed = self.target.route == "stream"
        if framed and reply.failure is None and not kind.startswith(EVENT_STREAM):
            return unexpected(reply, kind)
        arrivals = Arrivals(reply.body, reply.stamps, [*reply.starts[1:], len(reply.body)])
        fault: Ending | None = None
        whole = True
        if framed:
            arrivals, whole, fault = await _unframed(arrivals)
        try:
            whole = await self._read_records(arrivals, transcript) and whole
        except RecordError as error:
            return ending(Outcome.PROTOCOL_ERROR, "MalformedRecord", error)
        if transcript.error is not None:
            return ending(Outcome.STREAM_ERROR, *transcript.error)
        if fault is not None:
            return fault
        if reply.failure is not None:
            return broken(reply, Outcome.TRUNCATED)
        ended = transcript.ended if self._dialect.terminal else transcript.records > 0
        if not (whole and ended):
            return ending(Outcome.TRUNCATED, "NoTerminalRecord", "the stream ended without its last record")
        return FINE

    async def _read_records(self, arrivals: Arrivals, transcript: Transcript) -> bool:
        """Reads every record up to an error; false if the stream ends inside one."""
        for step, (ends, found) in enumerate(records(arrivals.data, STEP_RECORDS)):
            if step:
                await asyncio.sleep(0)
            before = transcript.records
            try:
                self._dialect.read_records(transcript, found, arrivals.stamps(ends))
            except RecordError:
                if arrivals.ends_a_line(ends[transcript.records - before - 1]):
                    raise
                return False
            if transcript.error is not None:
                break
        return True


async def _unframed(arrivals: Arrivals) -> tuple[Arrivals, bool, Ending | None]:
    """What the parts of an event stream carry, whether it ends with a whole frame, and the fault that ended it."""
    stamps: list[int] = []
    parts: list[bytes] = []
    fault = None
    end = 0
    try:
        for step, (headers, ends, payloads) in enumerate(runs(arrivals.data)):
            if step:
                await asyncio.sleep(0)
            end = ends[-1]
            if headers.get(":event-type") == "PayloadPart":
                stamps += arrivals.stamps(ends)
                parts += payloads
            elif fault := stream_fault(headers, payloads[0]):
                break
    except FrameError as error:
        fault = ending(Outcome.PROTOCOL_ERROR, "MalformedFrame", error)
    edges = list(accumulate(map(len, parts)))
    return Arrivals(b"".join(parts), stamps, edges), end == len(arrivals.data), fault


def _exchange(
    request: Request, reply: Reply, transcript: Transcript, counted: Counted, ending: Ending, keep_text: bool
) -> Exchange:
    text = transcript.text
    chunk_ns = transcript.chunk_ns
    return Exchange(
        outcome=ending.outcome,
        sent_ns=reply.sent_ns,
        first_byte_ns=reply.first_byte_ns,
        first_token_ns=chunk_ns[0] if chunk_ns else None,
        last_token_ns=chunk_ns[-1] if chunk_ns else None,
        end_ns=reply.end_ns,
        chunk_ns=chunk_ns,
        chunk_tokens=transcript.chunk_tokens or None,
        http_status=reply.status,
        error_code=ending.code,
        original_status=ending.original_status,
        error_message=ending.message,
        request_id=reply.header(b"x-amzn-requestid"),
        variant=reply.header(b"x-amzn-invoked-production-variant"),
        connection_reused=reply.reused,
        prompt_tokens=transcript.prompt_tokens,
        completion_tokens=counted[0],
        cached_tokens=transcript.cached_tokens,
        completion_tokens_source=counted[1],
        finish_reason=transcript.finish_reason,
        echoed_prompt=_echoes(text, request.prompt.text) if text else None,
        request_bytes=len(request.body),
        response_bytes=len(reply.body),
        completion=text if keep_text else None,
    )


def _counted(transcript: Transcript) -> Counted:
    """The server's own count, else its token records, else an estimate; none where nothing was said."""
    if transcript.completion_tokens is not None:
        return transcript.completion_tokens, Source.SERVER
    if transcript.chunk_tokens:
        return sum(transcript.chunk_tokens), Source.SERVER
    estimate = transcript.estimated_tokens
    return (estimate, Source.ESTIMATE) if estimate or transcript.ended else (None, None)


def _echoes(text: str, prompt: str) -> bool:
    start = prompt.strip()
    return bool(start) and text.lstrip().startswith(start)
