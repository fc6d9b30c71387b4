"""How requests arrive: the loads, and for the open ones the whole schedule as integers before it is played.

A schedule is sorted nanoseconds since T0. It depends on the load and the seed alone, and the schedule of a longer
trial begins with that of a shorter one. Actor `i` of `n` plays every `n`-th arrival, so that all together play the
very schedule.

Even schedules (constant, ramp) are exact: arrival k is the first nanosecond by which k requests are due, however
many came before. Random ones (Poisson, gamma) round each gap to a nanosecond and add integers: after N arrivals
rounding has moved the schedule by about 0.3·√N ns, while chance itself moves it by √N gaps.
"""

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import repeat
from pathlib import Path
from typing import ClassVar

import numpy as np

from raybench.clock import NS_PER_S
from raybench.errors import InputError
from raybench.load.schedule import BLOCK, Leg, Offsets, blocks, cut, even, summed
from raybench.load.traces import Trace, read_trace

MAX_CONCURRENCY = 100_000
MAX_THINK_S = 86_400
MIN_RATE = 1e-5
MAX_RATE = 1_000_000.0
MIN_BURSTINESS, MAX_BURSTINESS = 0.01, 1000
MIN_OVER_S, MAX_OVER_S = 1e-9, 1e6
MIN_STEPS, MAX_STEPS = 2, 1000
MIN_SPEED, MAX_SPEED = 1e-3, 1e6


@dataclass(frozen=True, slots=True)
class Closed:
    """`concurrency` requests in flight, each followed by the next, after `think_time_s` seconds if given."""

    concurrency: int
    think_time_s: float = 0.0

    kind: ClassVar[str] = "closed"
    rate: ClassVar[None] = None

    def __post_init__(self) -> None:
        _within("concurrency", self.concurrency, 1, MAX_CONCURRENCY)
        _within("think_time_s", self.think_time_s, 0, MAX_THINK_S)

    @property
    def label(self) -> str:
        return f"closed-{self.concurrency}" + (f"-think-{float(self.think_time_s)}" if self.think_time_s else "")

    @property
    def max_in_flight(self) -> int:
        """As many as it has slots."""
        return self.concurrency

    @property
    def think_time_ns(self) -> int:
        return round(self.think_time_s * NS_PER_S)


class _OneRate:
    """What loads of one rate have in common."""

    __slots__ = ()
    rate: float

    def most_due(self, within_ns: int, until_ns: int) -> float:
        """As many as its rate brings."""
        return self.rate * within_ns / NS_PER_S


@dataclass(frozen=True, slots=True)
class Constant(_OneRate):
    """`rate` requests a second, evenly spaced, the first at T0."""

    rate: float
    max_in_flight: int | None = None

    kind: ClassVar[str] = "constant"

    def __post_init__(self) -> None:
        _rate("rate", self.rate)
        _places(self.max_in_flight)

    @property
    def label(self) -> str:
        return f"constant-{float(self.rate)}{_most(self.max_in_flight)}"

    def offsets_ns(self, seed: int, *, duration_ns: int | None = None, count: int | None = None) -> Offsets:
        """Arrival k at k/rate seconds, rounded up to a nanosecond; the seed changes nothing."""
        rate = _exact(self.rate)
        return cut(blocks(even([(None, rate, rate)])), duration_ns, count)


@dataclass(frozen=True, slots=True)
class Poisson(_OneRate):
    """`rate` requests a second on average, each independent of all others: exponential gaps."""

    rate: float
    max_in_flight: int | None = None

    kind: ClassVar[str] = "poisson"

    def __post_init__(self) -> None:
        _rate("rate", self.rate)
        _places(self.max_in_flight)

    @property
    def label(self) -> str:
        return f"poisson-{float(self.rate)}{_most(self.max_in_flight)}"

    def offsets_ns(self, seed: int, *, duration_ns: int | None = None, count: int | None = None) -> Offsets:
        """Sums of exponential gaps of mean 1/rate, the first of them before the first arrival."""
        rng = _rng(seed)
        gaps = (rng.exponential(NS_PER_S / self.rate, BLOCK) for _ in repeat(None))
        return cut(summed(gaps), duration_ns, count)


@dataclass(frozen=True, slots=True)
class Gamma(_OneRate):
    """`rate` requests a second on average, with gamma gaps of shape `burstiness`: 1 is Poisson, less is burstier.

    The gaps' deviation over their mean is 1/√burstiness.
    """

    rate: float
    burstiness: float
    max_in_flight: int | None = None

    kind: ClassVar[str] = "gamma"

    def __post_init__(self) -> None:
        _rate("rate", self.rate)
        _within("burstiness", self.burstiness, MIN_BURSTINESS, MAX_BURSTINESS)
        _places(self.max_in_flight)

    @property
    def label(self) -> str:
        return f"gamma-{float(self.rate)}-burstiness-{float(self.burstiness)}{_most(self.max_in_flight)}"

    def offsets_ns(self, seed: int, *, duration_ns: int | None = None, count: int | None = None) -> Offsets:
        """Sums of gamma gaps of mean 1/rate, the first of them before the first arrival."""
        rng = _rng(seed)
        scale = NS_PER_S / self.rate / self.burstiness
        gaps = (rng.gamma(self.burstiness, scale, BLOCK) for _ in repeat(None))
        return cut(summed(gaps), duration_ns, count)


@dataclass(frozen=True, slots=True)
class Ramp:
    """From `start_rate` to `end_rate` requests a second over `over_s` seconds from T0, then on at `end_rate`.

    Evenly spaced at the rate of the moment: a straight line, or `steps` equal stairs, the last at `end_rate`.
    """

    start_rate: float
    end_rate: float
    over_s: float
    steps: int | None = None
    max_in_flight: int | None = None

    kind: ClassVar[str] = "ramp"
    rate: ClassVar[None] = None

    def __post_init__(self) -> None:
        _within("start_rate", self.start_rate, 0, MAX_RATE)
        _rate("end_rate", self.end_rate)
        _within("over_s", self.over_s, MIN_OVER_S, MAX_OVER_S)
        if self.steps is not None:
            _within("steps", self.steps, MIN_STEPS, MAX_STEPS)
        _places(self.max_in_flight)

    @property
    def label(self) -> str:
        steps = f"-steps-{self.steps}" if self.steps else ""
        rates = f"{float(self.start_rate)}-{float(self.end_rate)}-over-{float(self.over_s)}"
        return f"ramp-{rates}{steps}{_most(self.max_in_flight)}"

    def most_due(self, within_ns: int, until_ns: int) -> float:
        """As many as its highest rate brings."""
        return max(self.start_rate, self.end_rate) * within_ns / NS_PER_S

    def offsets_ns(self, seed: int, *, duration_ns: int | None = None, count: int | None = None) -> Offsets:
        """Arrival k at the first nanosecond by which the rate's integral reaches k; the seed changes nothing."""
        return cut(blocks(even(self._legs())), duration_ns, count)

    def _legs(self) -> list[Leg]:
        start, end = _exact(self.start_rate), _exact(self.end_rate)
        over_ns = round(self.over_s * NS_PER_S)
        if self.steps is None:
            return [(over_ns, start, end), (None, end, end)]
        edges_ns = [over_ns * i // self.steps for i in range(self.steps + 1)]
        rates = [start + (end - start) * i / (self.steps - 1) for i in range(self.steps)]
        stairs = zip(edges_ns, edges_ns[1:], rates, strict=False)
        return [*((to_ns - from_ns, rate, rate) for from_ns, to_ns, rate in stairs), (None, end, end)]


@dataclass(frozen=True, slots=True)
class Replay:
    """The arrivals of a recorded trace from `slice_s[0]` until before `slice_s[1]` seconds, `speed` times as fast."""

    trace: Path
    speed: float = 1.0
    slice_s: tuple[float, float] | None = None
    max_in_flight: int | None = None

    kind: ClassVar[str] = "replay"
    rate: ClassVar[None] = None

    def __post_init__(self) -> None:
        _within("speed", self.speed, MIN_SPEED, MAX_SPEED)
        if self.slice_s is not None and not 0 <= self.slice_s[0] < self.slice_s[1] < math.inf:
            raise ValueError(f"slice_s is [{self.slice_s[0]}, {self.slice_s[1]}]; from and to with 0 <= from < to")
        _places(self.max_in_flight)

    @property
    def label(self) -> str:
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", self.trace.stem)
        part = "" if self.slice_s is None else f"-from-{float(self.slice_s[0])}-to-{float(self.slice_s[1])}"
        return f"replay-{stem}-x{float(self.speed)}{part}{_most(self.max_in_flight)}"

    def requests(self) -> Trace:
        """The trace as it will be played; T0 is the slice's beginning, else the first arrival."""
        trace = read_trace(self.trace)
        if self.slice_s is not None:
            low_ns, high_ns = (round(_exact(edge) * NS_PER_S) for edge in self.slice_s)
            last_s = int(trace.offsets_ns[-1]) / NS_PER_S
            trace = trace.part(low_ns, high_ns)
            if not len(trace):
                problem = f"no arrival from {self.slice_s[0]:.1f} s to {self.slice_s[1]:.1f} s"
                raise InputError(problem, where=str(self.trace), allowed=f"within 0.0 s to {last_s:.1f} s")
        return trace.faster(_exact(self.speed))

    def most_due(self, within_ns: int, until_ns: int) -> float:
        """As many as the trace has in its busiest such time."""
        offsets = self.offsets_ns(0, duration_ns=until_ns)
        return float(
            np.max(np.arange(1, len(offsets) + 1) - np.searchsorted(offsets, offsets - within_ns, "right"), initial=0)
        )

    @property
    def covers_s(self) -> float | None:
        """Seconds that the slice covers, its silent end included; None where the trace ends within it."""
        if self.slice_s is None or self.slice_s[1] * NS_PER_S > read_trace(self.trace).offsets_ns[-1]:
            return None
        return (self.slice_s[1] - self.slice_s[0]) / self.speed

    def offsets_ns(self, seed: int, *, duration_ns: int | None = None, count: int | None = None) -> Offsets:
        """The trace's own offsets divided by `speed`, rounded down to a nanosecond; the seed changes nothing."""
        offsets = self.requests().offsets_ns
        end = len(offsets) if duration_ns is None else int(np.searchsorted(offsets, duration_ns))
        return offsets[: end if count is None else min(end, count)]


Load = Closed | Constant | Poisson | Gamma | Ramp | Replay
"""All but `Closed` are open: requests are sent when they are due, whatever became of those before.

`most_due` is the most requests due in any `within_ns` before `until_ns`, on average where chance decides;
`offsets_ns` the arrivals before `duration_ns`, at most `count`; ValueError if neither bounds them.
"""


def stripe(offsets: Offsets, actor: int, actors: int) -> Offsets:
    """The arrivals that actor `actor` of `actors` plays: every `actors`-th, of which all together make the whole."""
    return offsets[actor::actors]


def share(total: int, actor: int, actors: int) -> int:
    """Actor's part of `total` slots: all parts sum to it and differ by at most one."""
    return len(range(actor, total, actors))


def _rng(seed: int) -> np.random.Generator:
    """The generator of this one dimension, arrivals: nothing else drawn from the same seed can shift it."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int.from_bytes(b"arrivals"),)))


def _exact(number: float) -> Fraction:
    """The decimal that was written, not the binary float next to it."""
    return Fraction(repr(float(number)))


def _most(max_in_flight: int | None) -> str:
    return "" if max_in_flight is None else f"-max-{max_in_flight}"


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; {low} to {high}")


def _rate(name: str, rate: float) -> None:
    _within(name, rate, MIN_RATE, MAX_RATE)


def _places(max_in_flight: int | None) -> None:
    if max_in_flight is not None:
        _within("max_in_flight", max_in_flight, 1, MAX_CONCURRENCY)
