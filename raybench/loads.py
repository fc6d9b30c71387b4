"""How requests arrive, as the config file says it: each entry makes the load objects that are played."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from raybench.load.arrivals import (
    MAX_BURSTINESS,
    MAX_CONCURRENCY,
    MAX_OVER_S,
    MAX_RATE,
    MAX_SPEED,
    MAX_STEPS,
    MAX_THINK_S,
    MIN_BURSTINESS,
    MIN_OVER_S,
    MIN_RATE,
    MIN_SPEED,
    MIN_STEPS,
    Closed,
    Constant,
    Gamma,
    Load,
    Poisson,
    Ramp,
    Replay,
)
from raybench.load.search import USUAL, Search
from raybench.strict import Distinct, File, Model, OneOrMore, Seconds, Slice, wrong

Rate = Annotated[float, Field(ge=MIN_RATE, le=MAX_RATE)]
Concurrency = Annotated[int, Field(ge=1, le=MAX_CONCURRENCY)]


class ForSome(Model):
    """For whom a load is: every payload and experiment by default."""

    payloads: Annotated[tuple[str, ...], OneOrMore, Distinct] | None = None
    experiments: Annotated[tuple[str, ...], OneOrMore, Distinct] | None = None


class LoadModel(ForSome):
    """What every way of loading but a search has: how long or how many, and after which warm-up."""

    duration_s: Seconds | None = Field(default=None, alias="duration", gt=0, le=7 * 86400)
    requests: int | None = Field(default=None, ge=1, le=100_000_000)
    warmup_s: Seconds = Field(default=0.0, alias="warmup", ge=0, le=86400)

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if (self.duration_s is None) == (self.requests is None):
            problem = "neither duration nor requests is given" if self.requests is None else "it would end twice"
            raise wrong(problem, "exactly one of duration and requests")
        return self


class ClosedLoad(LoadModel):
    """So many requests in flight, always; a slot waits `think_time` before it is filled again."""

    kind: Literal["closed"]
    concurrency: Annotated[tuple[Concurrency, ...], OneOrMore, Distinct]
    think_time_s: Seconds = Field(default=0.0, alias="think_time", ge=0, le=MAX_THINK_S)

    def arrivals(self) -> Iterator[Load]:
        """One load for each concurrency."""
        return (Closed(slots, self.think_time_s) for slots in self.concurrency)


class OpenLoad(LoadModel):
    """Requests that arrive whether or not earlier ones are done; above `max_in_flight` they are not sent."""

    max_in_flight: Concurrency | None = None


class ConstantLoad(OpenLoad):
    """Requests at equal intervals, `rate` a second."""

    kind: Literal["constant"]
    rate: Annotated[tuple[Rate, ...], OneOrMore, Distinct]

    def arrivals(self) -> Iterator[Load]:
        """One load for each rate."""
        return (Constant(rate, self.max_in_flight) for rate in self.rate)


class PoissonLoad(OpenLoad):
    """Requests at random instants, `rate` a second on average."""

    kind: Literal["poisson"]
    rate: Annotated[tuple[Rate, ...], OneOrMore, Distinct]

    def arrivals(self) -> Iterator[Load]:
        """One load for each rate."""
        return (Poisson(rate, self.max_in_flight) for rate in self.rate)


class GammaLoad(OpenLoad):
    """Like poisson, but burstier (burstiness < 1) or smoother (> 1)."""

    kind: Literal["gamma"]
    rate: Annotated[tuple[Rate, ...], OneOrMore, Distinct]
    burstiness: float = Field(ge=MIN_BURSTINESS, le=MAX_BURSTINESS)

    def arrivals(self) -> Iterator[Load]:
        """One load for each rate."""
        return (Gamma(rate, self.burstiness, self.max_in_flight) for rate in self.rate)


class RampLoad(OpenLoad):
    """Requests whose rate goes evenly, or in `steps`, from one value to another `over` a time, and stays there."""

    kind: Literal["ramp"]
    start_rate: float = Field(alias="from", ge=0, le=MAX_RATE)
    end_rate: Rate = Field(alias="to")
    over_s: Seconds = Field(alias="over", ge=MIN_OVER_S, le=MAX_OVER_S)
    steps: int | None = Field(default=None, ge=MIN_STEPS, le=MAX_STEPS)

    def arrivals(self) -> Iterator[Load]:
        """The one ramp."""
        yield Ramp(self.start_rate, self.end_rate, self.over_s, self.steps, self.max_in_flight)


class ReplayLoad(OpenLoad):
    """Requests at the instants of a recorded trace, or of a `slice` of it, `speed` times as fast."""

    kind: Literal["replay"]
    trace: File
    speed: float = Field(default=1.0, ge=MIN_SPEED, le=MAX_SPEED)
    slice_s: Slice | None = Field(default=None, alias="slice")

    def arrivals(self) -> Iterator[Load]:
        """The one trace."""
        yield Replay(self.trace, self.speed, self.slice_s, self.max_in_flight)


class SearchLoad(ForSome):
    """The highest Poisson rate that keeps `metric` within `limit`: short probes, then trials that certify it.

    It ends by itself, or at `max_minutes` of load or `max_usd` of instances, whichever comes first.
    """

    kind: Literal["search"]
    metric: Literal["ttft_p99", "latency_p99"]
    limit_s: Seconds = Field(alias="limit", gt=0, le=3600)
    start: Rate = USUAL.start
    certify_s: Seconds = Field(default=USUAL.certify_s, alias="certify", ge=10, le=86400)
    warmup_s: Seconds = Field(default=USUAL.warmup_s, alias="warmup", ge=0, le=3600)
    max_minutes: float = Field(default=USUAL.max_s / 60, gt=0, le=7 * 1440)
    max_usd: float | None = Field(default=None, gt=0, le=1e6)

    duration_s: ClassVar[None] = None
    requests: ClassVar[None] = None

    def arrivals(self) -> Iterator[Search]:
        """The one search."""
        most_s = self.max_minutes * 60
        yield Search(self.metric, self.limit_s, self.start, self.certify_s, self.warmup_s, most_s, self.max_usd)


LoadSpec = ClosedLoad | ConstantLoad | PoissonLoad | GammaLoad | RampLoad | ReplayLoad | SearchLoad
"""How requests arrive, by `kind`."""
