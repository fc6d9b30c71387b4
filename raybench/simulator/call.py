"""One accepted request: from the engine's tokens to bytes on the wire, past caps and faults, into the truth log."""

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

import orjson

from raybench.clock import Clock
from raybench.rows import Outcome
from raybench.simulator import wire
from raybench.simulator.dialects import Voice
from raybench.simulator.faults import Fault
from raybench.simulator.truth import Record

TIMER_GRAIN_S = 0.001

Part = tuple[bytes, int]
"""Bytes that travel together, and how many tokens are complete once they have arrived."""


class Line(Protocol):
    """The connection a reply goes out on, and the clock of its service."""

    @property
    def clock(self) -> Clock: ...

    def write(self, data: bytes) -> None: ...

    def hang_up(self) -> None:
        """Closes the connection once what was written has left."""

    def answer(self, record: Record, error: wire.ServiceError) -> None:
        """Ends the request with an error reply."""

    def finished(self, record: Record) -> None:
        """The request has ended: its record is final, and its last bytes are about to be written."""


class Call:
    """What unary and streamed replies share; a `Listener` of the engine, which works on whatever becomes of the call.

    `failure` makes the 424 of this endpoint from the container's own status and words.
    """

    def __init__(
        self, line: Line, record: Record, voice: Voice, total: int, failure: Callable[[int, str], wire.ServiceError]
    ) -> None:
        self.line = line
        self.record = record
        self.voice = voice
        self.total = total
        self.failure = failure
        self.made = 0
        self.over = False
        self._timer: asyncio.TimerHandle | None = None

    def started(self) -> None:
        self.record.started_ns = self.line.clock()

    def produced(self, tokens: int) -> None:
        raise NotImplementedError

    def expire(self) -> None:
        """The cap is reached; the engine goes on."""
        raise NotImplementedError

    def limit(self, cap_s: float) -> None:
        """Lets the call expire `cap_s` after its arrival; a timer alone is early by the age of the loop's time."""
        left_s = cap_s - (self.line.clock() - self.record.arrived_ns) / 1e9
        if left_s > 0:
            self._timer = asyncio.get_running_loop().call_later(left_s + TIMER_GRAIN_S, self.limit, cap_s)
        else:
            self.expire()

    def gone(self) -> None:
        """The caller hung up."""
        if not self.over:
            self.end(Outcome.CLIENT_TIMEOUT)

    def end(self, outcome: Outcome, ended_ns: int | None = None) -> None:
        """Makes the record final; what is still to be written is written after."""
        self._close()
        record = self.record
        record.ended_ns = ended_ns or self.line.clock()
        record.outcome = outcome
        record.completion_tokens = sum(tokens for _, tokens in record.chunks)
        self.line.finished(record)

    def _close(self) -> None:
        self.over = True
        if self._timer is not None:
            self._timer.cancel()

    def refuse(self, error: wire.ServiceError) -> None:
        """Ends the call with an error instead of a reply."""
        self._close()
        self.line.answer(self.record, error)


class Unary(Call):
    """The whole reply at once, when its last token is made."""

    def __init__(
        self,
        line: Line,
        record: Record,
        voice: Voice,
        total: int,
        failure: Callable[[int, str], wire.ServiceError],
        fault: Fault | None,
        headers: Sequence[tuple[str, str]],
    ) -> None:
        super().__init__(line, record, voice, total, failure)
        self.fault = fault
        self.headers = (*headers, ("Content-Type", voice.content_type))

    def produced(self, tokens: int) -> None:
        self.made += tokens
        if self.over or self.made < self.total or self.fault is Fault.HANG:
            return
        if self.fault is Fault.STREAM_ERROR:
            return self.refuse(self.failure(500, "the model stopped"))
        if self.fault is Fault.STREAM_FAILURE:
            return self.refuse(wire.internal_failure())
        self._reply()

    def _reply(self) -> None:
        body = self.voice.whole()
        length = len(body)
        outcome = Outcome.OK
        if self.fault is Fault.CUT:
            body, outcome = body[: length // 2], Outcome.CONNECTION_ERROR
        elif self.fault is Fault.TRUNCATE:
            body, outcome = body[: length // 2], Outcome.PROTOCOL_ERROR
            length = len(body)
        packet = wire.head(200, self.headers, length) + body
        self.record.status = 200
        now = self.line.clock()
        if outcome is Outcome.OK:
            self.record.chunks.append((now, self.total))
        self.end(outcome, now)
        self.line.write(packet)
        if outcome is Outcome.CONNECTION_ERROR:
            self.line.hang_up()

    def expire(self) -> None:
        """The cap is reached: 424 with original status 0, while the engine goes on."""
        if not self.over:
            self.refuse(self.failure(0, ""))


class Stream(Call):
    """A reply in parts, one for each chunk of tokens: event-stream frames if `framed`, else bare chunks.

    `strike` is the fault that befalls it, if any, and the number of tokens after which it does; `whole` sends a reply
    that was not asked to stream as one part.
    """

    def __init__(
        self,
        line: Line,
        record: Record,
        voice: Voice,
        total: int,
        failure: Callable[[int, str], wire.ServiceError],
        strike: tuple[Fault, int] | None,
        *,
        framed: bool,
        whole: bool = False,
        split: "Splitter | None" = None,
    ) -> None:
        super().__init__(line, record, voice, total, failure)
        self.strike = strike
        self.framed = framed
        self.whole = whole
        self.split = split

    def begin(self, headers: Sequence[tuple[str, str]]) -> None:
        """The head goes out at once, before any token."""
        inner = self.voice.content_type if self.whole else self.voice.stream_type
        kind = (
            (("Content-Type", wire.EVENT_STREAM), ("X-Amzn-SageMaker-Content-Type", inner))
            if self.framed
            else (("Content-Type", inner),)
        )
        self.record.status = 200
        self.line.write(wire.head(200, (*headers, *kind), None))

    def started(self) -> None:
        super().started()
        if not self.over and not self.whole and (opening := self.voice.opening()):
            self.line.write(self._packet(opening))

    def produced(self, tokens: int) -> None:
        if self.over:
            return
        first = self.made
        self.made = made = first + tokens
        if self.strike is not None and made > self.strike[1]:
            return self._strike(self.strike[0])
        last = made == self.total
        if self.whole:
            if last:
                self._send(((self.voice.whole(), made),), last)
        elif self.split is None:
            voice = self.voice
            record = voice.record
            if tokens == 1:
                data = voice.ending() if last else record(first)
            else:
                data = b"".join(map(record, range(first, made - last))) + (voice.ending() if last else b"")
            self._send(((data, tokens),), last)
        else:
            self._send(self.split.parts(self._records(first, made), last), last)

    def _records(self, first: int, made: int) -> list[bytes]:
        last = made == self.total
        records = list(map(self.voice.record, range(first, made - last)))
        return [*records, self.voice.ending()] if last else records

    def _send(self, parts: Sequence[Part], last: bool) -> None:
        packets = [self._packet(data) for data, _ in parts]
        if last:
            packets[-1] += wire.LAST_CHUNK
        chunks = self.record.chunks
        now = self.line.clock()
        for _, tokens in parts:
            if tokens:
                chunks.append((now, tokens))
        if last:
            self.end(Outcome.OK, now)
        self.line.write(packets[0] if len(packets) == 1 else b"".join(packets))

    def _packet(self, data: bytes) -> bytes:
        return wire.chunk(wire.frame(data)) if self.framed else wire.chunk(data)

    def _strike(self, fault: Fault) -> None:
        if fault is Fault.CUT:
            self.end(Outcome.CONNECTION_ERROR)
            self.line.hang_up()
        elif fault is Fault.TRUNCATE:
            self.end(Outcome.TRUNCATED)
            self.line.write(wire.LAST_CHUNK)
        elif fault is Fault.STREAM_ERROR:
            self._break("ModelStreamError", {"Message": "The model stream broke.", "ErrorCode": "StreamBroken"})
        elif fault is Fault.STREAM_FAILURE:
            self._break("InternalStreamFailure", {"Message": "Internal stream failure."})
        # a hang says nothing more until the cap

    def _break(self, kind: str, fields: dict[str, str]) -> None:
        if self.framed:
            data = wire.exception_frame(kind, fields)
        else:
            error = {"message": fields["Message"], "type": "server_error", "code": "model_error"}
            data = b"data: " + orjson.dumps({"error": error}) + b"\n\n"
        self.end(Outcome.STREAM_ERROR)
        self.line.write(wire.chunk(data) + wire.LAST_CHUNK)

    def expire(self) -> None:
        """The cap is reached: an exception frame, while the engine goes on."""
        if not self.over:
            message = "The model did not finish its response in time."
            fields = {"Message": message, "ErrorCode": "ModelInvocationTimeExceeded"}
            self._break("ModelStreamError", fields)


class Splitter:
    """Cuts some records in two, seeded: both halves at once as two parts, or the second held for the next part."""

    def __init__(self, rate: float, random: Random) -> None:
        self._rate = rate
        self._random = random
        self._held: list[Part] = []

    def parts(self, records: Sequence[bytes], last: bool) -> list[Part]:
        """The parts to send now; with `last` nothing stays behind."""
        parts: list[Part] = []
        together = self._held
        self._held = []
        for index, record in enumerate(records):
            if self._random.random() >= self._rate or len(record) < 2:
                together.append((record, 1))
                continue
            cut = self._random.randrange(1, len(record))
            parts.append(_joined([*together, (record[:cut], 0)]))
            together = [(record[cut:], 1)]
            if index == len(records) - 1 and not last and self._random.random() < 0.5:
                self._held, together = together, []
        if together:
            parts.append(_joined(together))
        return parts


def _joined(parts: Sequence[Part]) -> Part:
    return b"".join(data for data, _ in parts), sum(tokens for _, tokens in parts)
