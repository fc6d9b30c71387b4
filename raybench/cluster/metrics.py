"""What a load actor tells Ray's metrics: totals once a second, whatever the number of requests.

Ray's own histogram takes one value a call and forgets where in its bucket it lay. Ours are counted here and set as
gauges by upper bound (`le`), which Prometheus reads as a histogram: the same few calls for one request or a million.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from raybench.analysis.columns import DURATIONS
from raybench.analysis.metrics import Requests

EVERY_S = 1.0
WHOSE = ("experiment", "payload", "load", "actor")
"""The tags of every metric."""

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0, 120.0)
LATE_SECONDS = (0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 1.0, 10.0)
HISTOGRAMS = {"ttft": SECONDS, "latency": SECONDS, "lateness": LATE_SECONDS}
"""Durations of `analysis.columns` in seconds, of ok requests but for lateness: the upper bounds of their buckets."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric as Ray is told it."""

    kind: Literal["counter", "gauge"]
    name: str
    means: str
    tags: tuple[str, ...] = WHOSE

    @property
    def exported(self) -> str:
        """Its name at a node's /metrics."""
        return f"ray_{self.name}_total" if self.kind == "counter" else f"ray_{self.name}"


def means(name: str) -> str:
    """What a histogram is of, in words."""
    return DURATIONS[name].means + ("" if name == "lateness" else ", ok requests")


def histogram(name: str) -> tuple[Instrument, Instrument, Instrument]:
    """The three that Prometheus reads as one: how many are at most each bound, how many there are, and their sum."""
    whole, of = f"raybench_{name}_seconds", means(name)
    return (
        Instrument("gauge", f"{whole}_bucket", f"requests at most `le` seconds: {of}", (*WHOSE, "le")),
        Instrument("gauge", f"{whole}_count", f"requests: {of}"),
        Instrument("gauge", f"{whole}_sum", f"seconds in all: {of}"),
    )


IN_FLIGHT = Instrument("gauge", "raybench_in_flight", "requests sent and not yet answered")
REQUESTS = Instrument(
    "counter", "raybench_requests", "requests that ended, by outcome and phase", (*WHOSE, "outcome", "phase")
)
TOKENS = Instrument("counter", "raybench_completion_tokens", "tokens of ok replies")
INSTRUMENTS = (IN_FLIGHT, REQUESTS, TOKENS, *(part for name in HISTOGRAMS for part in histogram(name)))


class Totals:
    """Values counted by upper bound since the beginning, as Prometheus wants a histogram."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.within = np.zeros(len(bounds) + 1, np.int64)
        self.sum = 0.0

    def add(self, values: "np.typing.NDArray[np.float64]") -> None:
        """Counts values in; NaN is none."""
        known = values[~np.isnan(values)]
        places = np.searchsorted(self.bounds, known)
        self.within += np.bincount(places, minlength=len(self.within)).cumsum()
        self.sum += float(known.sum())

    def by_bound(self) -> dict[str, int]:
        """How many values are at most each bound, `+Inf` last."""
        names = [*(f"{bound:g}" for bound in self.bounds), "+Inf"]
        return dict(zip(names, self.within.tolist(), strict=True))


class Meter:
    """Counts one actor's rows and, once a second, tells Ray; it may be made anywhere and pickled to the actor."""

    def __init__(self, actor: str, instruments: "Callable[[], Instruments] | None" = None) -> None:
        self.actor = actor
        self._instruments = instruments or of_ray
        self._whose: dict[str, str] = {}
        self._batches: list[pa.Table] = []
        self._totals: dict[str, Totals] = {}
        self._told_s = 0.0

    def prepare(self) -> None:
        """Makes the instruments, so that none is made while the clock runs."""
        assert self._told

    def begin(self, experiment: str, payload: str, load: str) -> None:
        """The rows that come now are of this trial."""
        self._whose = {"experiment": experiment, "payload": payload, "load": load, "actor": self.actor}
        self._totals = {name: Totals(bounds) for name, bounds in HISTOGRAMS.items()}

    def seen(self, batch: pa.Table, in_flight: int, now_s: float, *, last: bool = False) -> None:
        """Takes a batch; tells Ray if the last time was a second ago, or if this was the trial's `last`."""
        if len(batch):
            self._batches.append(batch)
        if last or now_s - self._told_s >= EVERY_S:
            self._told_s = now_s
            self._tell(in_flight)

    def _tell(self, in_flight: int) -> None:
        self._told[IN_FLIGHT.name].set(in_flight, self._whose)
        if self._batches:
            rows = pa.concat_tables(self._batches)
            self._batches.clear()
            self._count(rows)
        for name, totals in self._totals.items():
            self._tell_histogram(name, totals)

    def _count(self, rows: pa.Table) -> None:
        for (outcome, phase), number in ended(rows).items():
            self._told[REQUESTS.name].inc(number, {**self._whose, "outcome": outcome, "phase": phase})
        found = Requests(rows)
        if tokens := np.nansum(found.numbers("completion_tokens")[found.ok]):
            self._told[TOKENS.name].inc(int(tokens), self._whose)
        seconds = found.durations()
        for name, totals in self._totals.items():
            totals.add(seconds[name] if name == "lateness" else seconds[name][found.ok])

    def _tell_histogram(self, name: str, totals: Totals) -> None:
        bucket, count, total = (self._told[part.name] for part in histogram(name))
        for bound, number in totals.by_bound().items():
            bucket.set(number, {**self._whose, "le": bound})
        count.set(int(totals.within[-1]), self._whose)
        total.set(totals.sum, self._whose)

    @cached_property
    def _told(self) -> "Instruments":
        return self._instruments()


Instruments = Mapping[str, Any]
"""What to tell, by name: `set` of a gauge and `inc` of a counter, each with a number and tags."""


def of_ray() -> Instruments:
    """The instruments of this process's Ray worker."""
    from ray.util.metrics import Counter, Gauge

    kinds: dict[str, Callable[..., Any]] = {"counter": Counter, "gauge": Gauge}
    return {each.name: kinds[each.kind](each.name, each.means, each.tags) for each in INSTRUMENTS}


def ended(rows: pa.Table) -> dict[tuple[str, str], int]:
    """How many rows there are of each outcome and phase."""
    groups = rows.group_by(["outcome", "phase"]).aggregate([([], "count_all")])
    keys = zip(groups["outcome"].to_pylist(), groups["phase"].to_pylist(), strict=True)
    return dict(zip(keys, groups["count_all"].to_pylist(), strict=True))
