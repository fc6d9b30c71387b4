"""The load loop: due, sent, chunks, row. It knows no Ray, no AWS and no files, and runs on any clock.

A closed load has one task per slot; a slot is refilled the moment its reply ends, so no slot ever waits for
another. An open load sends at absolute instants drawn before T0; an arrival that finds every place taken
becomes a row with the outcome `not_sent`. Load is held until the last measured request has ended (phase
`drain`), this actor's or another's, so that nothing is measured on an emptying endpoint.

Replies are read by one scribe task, in small steps between which the loop takes bytes off the wire: making
sense of one reply never delays the stamp of another.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from raybench.clock import NS_PER_S, Clock, sleep_until
from raybench.counting import Source
from raybench.rows import Client, Exchange, Outcome, Phase, Request, Row

LOOK_EVERY_NS = NS_PER_S
"""How long a load that waits for its next request may not notice that it is over."""


class Ended(Protocol):
    """A reply as the load loop sees it: something that ended at `end_ns` of the client's clock."""

    @property
    def end_ns(self) -> int: ...


R = TypeVar("R", bound=Ended)


@dataclass(frozen=True, slots=True)
class Span:
    """What is measured: after `warmup_ns`, for `duration_ns` or for `requests` planned requests of this actor."""

    warmup_ns: int
    duration_ns: int | None = None
    requests: int | None = None

    def phase(self, planned_ns: int, measured: int) -> Phase:
        """The phase of a request planned at `planned_ns` since T0, after `measured` measured ones."""
        if planned_ns < self.warmup_ns:
            return Phase.WARMUP
        if self.duration_ns is not None:
            inside = planned_ns < self.warmup_ns + self.duration_ns
        else:
            inside = measured < (self.requests or 0)
        return Phase.MEASURE if inside else Phase.DRAIN


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose rows these are; actor `index` of `actors` numbers its requests index, index + actors, …"""

    trial_id: str
    repeat: int
    experiment: str
    payload: str
    load: str
    actor: str
    host: str
    index: int = 0
    actors: int = 1
    keep_text: bool = False


def alone() -> bool:
    """Nobody else measures anything."""
    return True


class Attack(Generic[R]):
    """One actor's part of one trial: give it a client, bodies and a span, then run a load through it.

    `write` gets each Row as soon as its reply is understood; what it raises ends the attack. `over` is asked whether
    all that others measure has ended, from when all that is measured here has; until then the load is held.
    """

    def __init__(
        self,
        client: Client[R],
        requests: Iterator[Request],
        span: Span,
        identity: Identity,
        *,
        t0_ns: int,
        clock: Clock,
        write: Callable[[Row], None],
        over: Callable[[], bool] = alone,
    ) -> None:
        self.client, self.requests, self.span, self.identity = client, requests, span, identity
        self.t0_ns, self.clock, self.write, self.over = t0_ns, clock, write, over
        self.in_flight = 0
        self._planned = self._measured = self._measured_open = 0
        self._stopped = False
        self._giving_up: asyncio.TimerHandle | None = None
        self._finished: deque[tuple[int, Phase, int, Request, R | None]] = deque()
        self._wake = asyncio.Event()
        self._sealed = False

    def stop(self, within_s: float | None = None) -> None:
        """Plans nothing more; what is in flight is waited for, `within_s` at most from when that is first said."""
        self._stopped = True
        if within_s is not None and self._giving_up is None and not self._sealed:
            self._giving_up = asyncio.get_running_loop().call_later(within_s, self.client.give_up)

    async def closed(self, slots: int, think_time_ns: int = 0) -> None:
        """Keeps `slots` requests in flight until everything measured has ended, then drains."""
        await self._run(lambda group: [group.create_task(self._slot(think_time_ns)) for _ in range(slots)])

    async def open(self, offsets_ns: npt.NDArray[np.int64], max_in_flight: int | None = None) -> None:
        """Sends at `offsets_ns` since T0, never earlier and never skipping, until everything measured has ended."""
        offsets = offsets_ns.tolist()  # while nothing is due
        await self._run(lambda group: [group.create_task(self._arrivals(group, offsets, max_in_flight))])

    async def _run(self, start: Callable[[asyncio.TaskGroup], list[asyncio.Task[None]]]) -> None:
        try:
            async with asyncio.TaskGroup() as outer:
                outer.create_task(self._scribe())
                await sleep_until(self.t0_ns, self.clock)
                async with asyncio.TaskGroup() as group:
                    start(group)
                self._sealed = True
                self._wake.set()
        except BaseExceptionGroup as group_error:
            raise _first(group_error) from None
        finally:
            if self._giving_up is not None:
                self._giving_up.cancel()

    async def _slot(self, think_time_ns: int) -> None:
        free_ns = self.t0_ns
        while not self._over(free_ns):
            if think_time_ns and not await self._due(free_ns := free_ns + think_time_ns):
                return
            seq, phase = self._plan(free_ns)
            self.in_flight += 1
            free_ns = await self._send(seq, phase, free_ns, next(self.requests))

    async def _arrivals(self, group: asyncio.TaskGroup, offsets_ns: Sequence[int], max_in_flight: int | None) -> None:
        for offset_ns in offsets_ns:
            planned_ns = self.t0_ns + offset_ns
            if not await self._due(planned_ns):
                return
            seq, phase = self._plan(planned_ns)
            request = next(self.requests)  # here, so that the k-th arrival has the k-th whatever becomes of others
            if max_in_flight is not None and self.in_flight >= max_in_flight:
                self._note(seq, phase, planned_ns, request, None)
            else:
                self.in_flight += 1
                group.create_task(self._send(seq, phase, planned_ns, request))

    async def _due(self, planned_ns: int) -> bool:
        """Waits for the instant that a request is planned at, never shorter; False once the load is over."""
        while (left_ns := planned_ns - (now_ns := self.clock())) > 0:
            if self._over(now_ns):
                return False
            await asyncio.sleep(min(left_ns, LOOK_EVERY_NS) / NS_PER_S)
        return not self._over(planned_ns)

    def _over(self, now_ns: int) -> bool:
        if self._stopped:
            return True
        in_span = self.span.phase(now_ns - self.t0_ns, self._measured) is not Phase.DRAIN
        return not in_span and self._measured_open == 0 and self.over()

    def _plan(self, planned_ns: int) -> tuple[int, Phase]:
        seq = self.identity.index + self._planned * self.identity.actors
        phase = self.span.phase(planned_ns - self.t0_ns, self._measured)
        self._planned += 1
        if phase is Phase.MEASURE:
            self._measured += 1
            self._measured_open += 1
        return seq, phase

    async def _send(self, seq: int, phase: Phase, planned_ns: int, request: Request) -> int:
        reply = await self.client.send(request)
        self.in_flight -= 1
        self._note(seq, phase, planned_ns, request, reply)
        return reply.end_ns

    def _note(self, seq: int, phase: Phase, planned_ns: int, request: Request, reply: R | None) -> None:
        if phase is Phase.MEASURE:
            self._measured_open -= 1
        self._finished.append((seq, phase, planned_ns, request, reply))
        self._wake.set()

    async def _scribe(self) -> None:
        while True:
            while self._finished:
                seq, phase, planned_ns, request, reply = self._finished.popleft()
                if reply is None:
                    exchange = Exchange(Outcome.NOT_SENT)
                else:
                    exchange = await self.client.read(request, reply)
                self.write(self._row(seq, phase, planned_ns, request, exchange))
            if self._sealed:
                return
            self._wake.clear()
            await self._wake.wait()

    def _row(self, seq: int, phase: Phase, planned_ns: int, request: Request, x: Exchange) -> Row:
        i, prompt, t0_ns = self.identity, request.prompt, self.t0_ns
        from_server = x.prompt_tokens is not None
        return Row(
            trial_id=i.trial_id,
            repeat=i.repeat,
            seq=seq,
            attempt=0,
            experiment=i.experiment,
            payload=i.payload,
            load=i.load,
            actor=i.actor,
            host=i.host,
            phase=phase.value,
            planned_ns=planned_ns - t0_ns,
            sent_ns=_since(x.sent_ns, t0_ns),
            first_byte_ns=_since(x.first_byte_ns, t0_ns),
            first_token_ns=_since(x.first_token_ns, t0_ns),
            last_token_ns=_since(x.last_token_ns, t0_ns),
            end_ns=_since(x.end_ns, t0_ns),
            chunk_ns=[ns - t0_ns for ns in x.chunk_ns],
            chunk_tokens=x.chunk_tokens,
            outcome=x.outcome.value,
            http_status=x.http_status,
            error_code=x.error_code,
            original_status=x.original_status,
            error_message=x.error_message,
            request_id=x.request_id,
            variant=x.variant,
            connection_reused=x.connection_reused,
            prompt_id=request.prompt_id,
            prompt_tokens=x.prompt_tokens if from_server else prompt.tokens,
            completion_tokens=x.completion_tokens,
            cached_tokens=x.cached_tokens,
            max_tokens=request.max_tokens,
            prompt_tokens_source=Source.SERVER if from_server else prompt.tokens_source,
            completion_tokens_source=x.completion_tokens_source,
            finish_reason=x.finish_reason,
            echoed_prompt=x.echoed_prompt,
            request_bytes=x.request_bytes,
            response_bytes=x.response_bytes,
            prompt_text=prompt.text if i.keep_text else None,
            completion_text=x.completion if i.keep_text else None,
        )


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _since(instant_ns: int | None, t0_ns: int) -> int | None:
    return None if instant_ns is None else instant_ns - t0_ns
