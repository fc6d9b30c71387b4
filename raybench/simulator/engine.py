"""Model servers in asyncio: when each token of each request is made, on an absolute schedule.

The schedule is of the running loop's time, so the same engine runs in real time and in virtual time. A step that is
announced late does not delay the next one: lateness is counted (`Agenda.lags_s`), never added up.
"""

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import Protocol

from raybench.simulator.profiles import Batching, Fixed, Profile

LAGS_KEPT = 8192
ROUNDING_S = 1e-9


class Listener(Protocol):
    """Hears of one request's progress; `produced` is called until the tokens asked for have been made."""

    def started(self) -> None: ...

    def produced(self, tokens: int) -> None: ...


class Agenda:
    """What is due when, on one timer of the running loop; never early, late by the timer's grain at most.

    `clock` gives seconds; the running loop's own if not given. `grain_s` is the loop's timer resolution: uvloop
    rounds to milliseconds, and waiting for less than one would spin.
    """

    def __init__(self, clock: Callable[[], float] | None = None, grain_s: float = 0.0) -> None:
        self._loop = asyncio.get_running_loop()
        self.now: Callable[[], float] = clock or self._loop.time
        self._grain_s = grain_s
        self._due: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self.lags_s: deque[float] = deque(maxlen=LAGS_KEPT)

    def at(self, when: float, action: Callable[[float], None]) -> None:
        """Calls `action(when)` at that instant; actions of one instant run in the order they were added."""
        self._count += 1
        heapq.heappush(self._due, (when, self._count, action))
        if when < self._timer_at:
            self._wind(when)

    def _wind(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = max(0.0, when - self.now())
        if self._grain_s:
            delay = math.ceil(delay / self._grain_s) * self._grain_s
        self._timer_at = when
        self._timer = self._loop.call_later(delay, self._ring)

    def _ring(self) -> None:
        self._timer, self._timer_at = None, -math.inf  # until the end nothing that is added winds the timer
        now = self.now() + ROUNDING_S
        due = self._due
        try:
            while due and due[0][0] <= now:
                when, _, action = heapq.heappop(due)
                self.lags_s.append(max(0.0, now - ROUNDING_S - when))
                action(when)
        finally:
            self._timer_at = math.inf
            if due:
                self._wind(due[0][0])


class Engine(Protocol):
    """Makes tokens for requests, in its own time; `cached_tokens` of a prompt are known to it and not read again."""

    def submit(
        self, prompt_tokens: int, completion_tokens: int, listener: Listener, cached_tokens: int = 0
    ) -> None: ...


class FixedEngine:
    """Every request by the same timetable, as if alone."""

    def __init__(self, profile: Fixed, agenda: Agenda, seed: int) -> None:
        self._profile = profile
        self._agenda = agenda
        self._random = Random(f"fixed-{seed}")

    def submit(self, prompt_tokens: int, completion_tokens: int, listener: Listener, cached_tokens: int = 0) -> None:
        """Starts at once; the first chunk of tokens comes `ttft_s` from now, less the cached share of it."""
        profile, agenda = self._profile, self._agenda
        ttft_s = profile.ttft_s * (1 - cached_tokens / max(1, prompt_tokens))
        listener.started()
        left = completion_tokens
        gap_s = profile.itl_s * profile.tokens_per_chunk

        def make(when: float) -> None:
            nonlocal left
            tokens = min(left, profile.tokens_per_chunk)
            left -= tokens
            if left:
                agenda.at(when + gap_s * _wobble(self._random, profile.jitter), make)
            listener.produced(tokens)

        agenda.at(agenda.now() + ttft_s * _wobble(self._random, profile.jitter), make)


@dataclass(slots=True, eq=False)
class _Sequence:
    prompt_tokens: int
    completion_tokens: int
    listener: Listener
    new_tokens: int
    made: int = 0
    held: int = 0


class BatchingEngine:
    """Continuous batching, first come first served: a prefill holds up decoding, then all running sequences advance
    by one token a step. A prefill is due when nothing runs, when enough wait, or after enough decode steps."""

    def __init__(self, profile: Batching, agenda: Agenda, seed: int) -> None:
        self._profile = profile
        self._agenda = agenda
        self._random = Random(f"batching-{seed}")
        self._waiting: deque[_Sequence] = deque()
        self._running: list[_Sequence] = []
        self._busy = False
        self._steps = 0
        self._kv_tokens = 0

    def submit(self, prompt_tokens: int, completion_tokens: int, listener: Listener, cached_tokens: int = 0) -> None:
        """Queues one request; its first token comes at the end of its prefill, which reads what is not cached."""
        self._waiting.append(_Sequence(prompt_tokens, completion_tokens, listener, prompt_tokens - cached_tokens))
        if not self._busy:
            self._busy = True
            self._agenda.at(self._agenda.now(), self._next)

    def _next(self, now: float) -> None:
        """Begins whatever comes next at `now`: a prefill, a decode step, or rest."""
        profile = self._profile
        batch = self._admitted() if self._prefill_is_due() else []
        if batch:
            self._steps = 0
            for sequence in batch:
                sequence.listener.started()
            took_s = sum(profile.prefill_s(sequence.new_tokens) for sequence in batch)
            self._end(now + took_s * _wobble(self._random, profile.jitter), batch)
        elif self._running:
            self._steps += 1
            took_s = profile.step_s(len(self._running))
            self._end(now + took_s * _wobble(self._random, profile.jitter), self._running)
        else:
            self._busy = False

    def _prefill_is_due(self) -> bool:
        profile, running = self._profile, len(self._running)
        enough = len(self._waiting) >= profile.waiting_ratio * running
        return bool(self._waiting) and (not running or enough or self._steps >= profile.steps_before_prefill)

    def _admitted(self) -> list[_Sequence]:
        """Those at the head of the queue that fit one prefill and the KV cache; a long prompt goes alone."""
        profile = self._profile
        batch: list[_Sequence] = []
        new_tokens = 0
        while self._waiting:
            head = self._waiting[0]
            holds = head.prompt_tokens + head.completion_tokens
            too_long = batch and new_tokens + head.new_tokens > profile.prefill_limit_tokens
            too_full = (batch or self._running) and self._kv_tokens + holds > profile.kv_limit_tokens
            if too_long or too_full:
                break
            new_tokens += head.new_tokens
            self._kv_tokens += holds
            batch.append(self._waiting.popleft())
        return batch

    def _end(self, when: float, sequences: list[_Sequence]) -> None:
        """At `when` each of `sequences` has one token more, those that are done leave, and the next thing begins."""

        def end(now: float) -> None:
            joining = sequences is not self._running
            staying = [] if not joining else list(self._running)
            per_chunk = self._profile.tokens_per_chunk
            ready = []
            for sequence in sequences:
                sequence.made += 1
                sequence.held += 1
                done = sequence.made == sequence.completion_tokens
                if done:
                    self._kv_tokens -= sequence.prompt_tokens + sequence.completion_tokens
                else:
                    staying.append(sequence)
                if done or sequence.held == per_chunk:
                    ready.append((sequence.listener, sequence.held))
                    sequence.held = 0
            self._running = staying
            self._next(now)
            for listener, tokens in ready:
                listener.produced(tokens)

        self._agenda.at(when, end)


class PrefixCache:
    """The prompts that a server has read; whole ones only, and none is ever forgotten."""

    def __init__(self) -> None:
        self._known: set[bytes] = set()

    def cached_tokens(self, prompt: str, prompt_tokens: int) -> int:
        """How many of a prompt's tokens need not be read: all of one that came before."""
        digest = blake2b(prompt.encode(), digest_size=16).digest()
        known = digest in self._known
        self._known.add(digest)
        return prompt_tokens if known else 0


def _wobble(random: Random, jitter: float) -> float:
    """A factor around 1 with relative standard deviation `jitter`, never below a half."""
    return max(0.5, random.gauss(1.0, jitter)) if jitter else 1.0


def engine(profile: Profile, agenda: Agenda, seed: int = 0) -> Engine:
    """The engine that keeps the profile's time."""
    if isinstance(profile, Batching):
        return BatchingEngine(profile, agenda, seed)
    if isinstance(profile, Fixed):
        return FixedEngine(profile, agenda, seed)
    raise TypeError(f"no engine keeps the time of {type(profile).__name__}")
