"""Whether the load actors are enough: what a plan asks of each at its peak, against what selftest found one to carry.

Both are counted in streams as selftest plays them, `CHUNKS_PER_S` chunks a second each: many streams of few chunks
are little work. How fast an endpoint's streams are is known from the request that checked it: it was alone, so that
under load none is faster. What cannot be known before (how many requests pile up) is left to the trials' verdicts.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from raybench.clock import NS_PER_S
from raybench.cluster.calibration import CHUNKS_PER_S
from raybench.cluster.part import ends_ns
from raybench.config import Config
from raybench.errors import ClusterError
from raybench.load.arrivals import Closed
from raybench.load.search import Search
from raybench.plan import Plan, Trial
from raybench.rows import Exchange, Outcome
from raybench.selftest import Limit, Selftest

FEW = 16
"""The streams that every actor carries: one that does not is short of CPU, which more actors would not bring."""


ROUNDING = 1e-6
"""What a float's last digits are worth in actors: nothing."""


class Pace(NamedTuple):
    """One request of an endpoint that has no other: how long it took, how many chunks came."""

    service_latency_s: float
    chunks: int


@dataclass(frozen=True, slots=True)
class Short:
    """An experiment whose actors are too few: its heaviest trial, that in streams, what one of `actors` carries.

    With `at_most`, one carries fewer than `carries`, and `needed` are the fewest it could take.
    """

    trial: Trial
    streams: float
    actors: int
    carries: int
    needed: int
    at_most: bool = False


def pace(exchange: Exchange) -> Pace | None:
    """How an endpoint answered one request; None if it did not."""
    if exchange.outcome is not Outcome.OK or exchange.sent_ns is None or exchange.end_ns is None:
        return None
    return Pace((exchange.end_ns - exchange.sent_ns) / NS_PER_S, len(exchange.chunk_ns))


def peak(trial: Trial, alone: Pace) -> float:
    """The streams of `CHUNKS_PER_S` that a trial is at least known to be, if its endpoint is as fast as `alone`."""
    load = trial.load
    if isinstance(load, Search):
        return 0.0
    if isinstance(load, Closed):
        streams = load.concurrency * (alone.service_latency_s / (alone.service_latency_s + load.think_time_s))
    else:
        due = load.most_due(round(alone.service_latency_s * NS_PER_S), ends_ns(trial))
        streams = min(due, load.max_in_flight or math.inf)
    return min(streams, streams * alone.chunks / alone.service_latency_s / CHUNKS_PER_S)


def short(plan: Plan, paces: Mapping[str, Pace | None], found: Selftest, actors: Mapping[str, int]) -> list[Short]:
    """The experiments whose actors, so many, do not carry the plan's heaviest trial by what selftest `found`.

    One whose pace is unknown, or whose actors a slow simulator kept from showing what they carry, is not among them.
    """
    return [
        lacking
        for name, alone in paces.items()
        if alone and (mine := plan.of(name)) and (lacking := _short(mine, alone, found.of(name), actors[name]))
    ]


def _short(trials: Iterable[Trial], alone: Pace, found: Selftest, actors: int) -> Short | None:
    streams, trial = max(((peak(trial, alone), trial) for trial in trials), key=lambda each: each[0])
    ceiling = found.ceiling
    if ceiling.limit is Limit.SIMULATOR or streams <= FEW * actors:
        return None
    if ceiling.streams:
        needed = math.ceil(streams / ceiling.streams - ROUNDING)
        return Short(trial, streams, actors, ceiling.streams, needed) if needed > actors else None
    least = min(each.rungs[0].streams for each in found.actors)
    return Short(trial, streams, actors, least, max(actors, math.floor(streams / least)) + 1, at_most=True)


def wanted(lacking: Iterable[Short], actors: Mapping[str, int]) -> dict[str, int]:
    """How many actors each experiment would do with."""
    return {**actors, **{each.trial.experiment: each.needed for each in lacking}}


def too_few(config: Config, lacking: Short, in_all: int, cores: int) -> ClusterError:
    """The one line of a run whose load is too big: by how much, and how many actors and cores it takes."""
    trial, some = lacking.trial, "s" if lacking.actors > 1 else ""
    load = f"{trial.load.label} on '{trial.experiment}', up to {lacking.streams:,.0f} streams"
    carries = f"{'fewer than ' if lacking.at_most else ''}{lacking.carries}"
    shown = f"selftest vouches for {carries} an actor"
    problem = f"{lacking.actors} load actor{some} for {load} of {CHUNKS_PER_S:g} chunks/s, where {shown}"
    allowed = f"at least {lacking.needed}, each with a core: {in_all} cores for all endpoints, where {cores} are"
    more = "a bigger machine, or more min_workers in a cluster's file; " if in_all > cores else ""
    allowed += f" ({more}--no-selftest plays it unchecked)"
    return ClusterError(str(config.wrong(problem, allowed, "fleet", "actors")))
