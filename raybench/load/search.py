"""The highest rate that keeps a p99 within a limit: which rate to try next, when to stop trying, what to say.

Only decisions: no clock, no requests, no files. `Hunt` says what to play (`next`) and hears what came of it
(`tell`); who tells it the recorded evidence again has the same hunt again, which is how a hunt resumes.

    sanity -> bracket (double, or halve) -> narrow to a ratio of 1.10 -> certify, lower by 5 % each time -> recheck

Short probes only find the place. They flatter, since queues have not filled: the first certifying trial is a ratio
below what they passed, and what is claimed comes from certifying trials alone.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from raybench.load.arrivals import MAX_RATE, MIN_RATE, Closed, Poisson
from raybench.load.probe import FEWEST, Evidence, Probe, Step
from raybench.prices import cost_usd

METRICS = ("ttft_p99", "latency_p99")
SANITY_S = 600.0
SHORT_S, SHORT_REQUESTS = 150.0, 100
RATIO = 1.10
LOWER = 0.95
HALVINGS = 6
FORGIVEN = 2
"""How many probes of a search may be played again, since something was wrong with their measurement."""


@dataclass(frozen=True, slots=True)
class Search:
    """The highest Poisson rate at which at most 1 % of the requests have a `metric` over `limit_s` or fail.

    It starts at `start` requests a second, certifies for `certify_s` after `warmup_s`, and spends at most `max_s`
    seconds and `max_usd` dollars; what is in flight at the end of a probe may take it a little further.
    """

    metric: str
    limit_s: float
    start: float = 1.0
    certify_s: float = 600.0
    warmup_s: float = 30.0
    max_s: float = 3600.0
    max_usd: float | None = None

    kind: ClassVar[str] = "search"
    rate: ClassVar[None] = None

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"metric is {self.metric}; {' or '.join(METRICS)}")
        for name in ("limit_s", "start", "certify_s", "max_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; more than 0")
        if not 0 <= self.warmup_s < math.inf:
            raise ValueError(f"warmup_s is {self.warmup_s}; 0 or more")
        if self.max_usd is not None and not 0 < self.max_usd < math.inf:
            raise ValueError(f"max_usd is {self.max_usd}; more than 0")

    @property
    def label(self) -> str:
        return f"search-{self.metric}-{float(self.limit_s)}"

    def most_s(self, usd_per_hour: float | None) -> float:
        """Seconds that both budgets allow at a price."""
        if self.max_usd is None or not usd_per_hour:
            return self.max_s
        return min(self.max_s, self.max_usd / usd_per_hour * 3600)

    @property
    def max_in_flight(self) -> None:
        """Nothing limits it: a request that cannot be answered in time is what is looked for."""
        return None


USUAL = Search(METRICS[0], 1.0)
"""What a search does where nothing else is said."""


@dataclass(frozen=True, slots=True)
class SearchVerdict:
    """How a hunt ended: the `rate` that is certified, if any, and the bracket.

    `passed` is the highest rate that passed, `failing` the least that failed; `monotone` is False where a lower rate
    failed than one that had passed, None where that was not looked at. `reason` says why nothing is certified.
    """

    rate: float | None
    passed: float | None
    failing: float | None
    probes: int
    seconds: float
    usd: float | None
    monotone: bool | None = None
    reason: str | None = None

    @property
    def state(self) -> str:
        return "uncertified" if self.rate is None else "certified"


class Hunt:
    """One search on one endpoint: `next` says what to play or how it ended, `tell` hears what came of it."""

    def __init__(self, search: Search, usd_per_hour: float | None = None) -> None:
        if search.max_usd is not None and usd_per_hour is None:
            raise ValueError("max_usd needs a price")
        self.search, self.usd_per_hour = search, usd_per_hour
        self.spent_s = 0.0
        self.played: list[tuple[Probe, Evidence]] = []
        self._passed: list[float] = []
        self._failing: float | None = None
        self._certified: float | None = None
        self._monotone: bool | None = None
        self._next: Probe | SearchVerdict = Probe(0, Step.SANITY, 0.0, SANITY_S)

    def next(self) -> Probe | SearchVerdict:
        """The probe to play now, or the verdict; the same until `tell`."""
        return self._next

    def tell(self, seen: Evidence) -> bool:
        """Takes the evidence of the probe that `next` named, all of it, and returns whether it passed."""
        probe = self._next
        if isinstance(probe, SearchVerdict):
            raise ValueError("the hunt is over")
        self.played.append((probe, seen))
        self.spent_s += seen.paid_s
        passed = seen.fault is None and probe.passes(seen)
        if seen.fault is not None:
            self._next = self._again(probe) or self._end(f"{probe.name}: {seen.fault}")
        elif probe.step is Step.SANITY:
            self._next = self._bracket() if passed else self._end("one stream alone is over the limit")
        else:
            self._learn(probe, passed)
            self._next = self._plan(probe)
        return passed

    def _again(self, probe: Probe) -> Probe | None:
        """The same probe once more, if that may be and the budget has room for it."""
        faults = sum(seen.fault is not None for _, seen in self.played)
        if faults > FORGIVEN or probe.warmup_s + probe.seconds > self._left_s:
            return None
        return replace(probe, index=len(self.played))

    def _learn(self, probe: Probe, passed: bool) -> None:
        """A failure outdoes what passed at that rate or above, on less evidence."""
        if passed:
            self._passed = sorted({*self._passed, probe.rate})
        else:
            self._failing = min(self._failing or math.inf, probe.rate)
            self._passed = [rate for rate in self._passed if rate < probe.rate]
        if probe.step is Step.RECHECK:
            self._monotone = passed and self._monotone is not False
            self._certified = self._certified if passed else None
        elif probe.step is Step.CERTIFY and passed:
            self._certified = probe.rate

    def _plan(self, probe: Probe) -> Probe | SearchVerdict:
        if self._certified is not None:
            return self._end(None) if probe.step is Step.RECHECK else self._recheck()
        if probe.step is Step.CERTIFY:
            return self._certify(probe.rate * LOWER)
        return self._bracket()

    def _bracket(self) -> Probe | SearchVerdict:
        """Doubles until something fails, halves until something passes, then narrows, then certifies."""
        low, high = max(self._passed, default=None), self._failing
        if low is None and high is None:
            return self._short(Step.BRACKET, self.search.start)
        if low is None:
            assert high is not None
            if high <= self.search.start / 2**HALVINGS or high < 2 * MIN_RATE:
                return self._end("no rate passes")
            return self._short(Step.BRACKET, high / 2)
        if high is not None and high / low <= RATIO:
            return self._certify(low / RATIO)
        if high is None and low * 2 > MAX_RATE:
            return self._end("no rate fails")
        step, rate = (Step.BRACKET, low * 2) if high is None else (Step.NARROW, math.sqrt(low * high))
        if self._left_s - _short_s(rate) < self._certifying_s(low / RATIO):
            return self._certify(low / RATIO)
        return self._short(step, rate)

    def _short(self, step: Step, rate: float) -> Probe | SearchVerdict:
        seconds = min(_short_s(rate), self._left_s)
        return self._probe(step, rate, seconds) if seconds > 0 else self._end("the budget is spent")

    def _certify(self, rate: float) -> Probe | SearchVerdict:
        if self._certifying_s(rate) > self._left_s:
            return self._end("the budget has no room for a certifying trial")
        warmup_s = self.search.warmup_s
        return self._probe(Step.CERTIFY, rate, self._certifying_s(rate) - warmup_s, warmup_s)

    def _certifying_s(self, rate: float) -> float:
        """Seconds of a trial that can certify the rate: of a low one it takes longer to see enough requests."""
        return self.search.warmup_s + max(self.search.certify_s, 1.25 * FEWEST / rate)

    def _recheck(self) -> Probe | SearchVerdict:
        """One rate that passed, well below the certified one."""
        assert self._certified is not None
        below = [rate for rate in self._passed if rate * RATIO < self._certified]
        if not below or self._left_s < _short_s(below[-1]):
            return self._end(None)
        return self._probe(Step.RECHECK, below[-1], _short_s(below[-1]))

    def _probe(self, step: Step, rate: float, seconds: float, warmup_s: float = 0.0) -> Probe:
        return Probe(len(self.played), step, float(f"{rate:.4g}"), seconds, warmup_s)

    @property
    def _left_s(self) -> float:
        """Seconds that both budgets leave."""
        return self.search.most_s(self.usd_per_hour) - self.spent_s

    def _end(self, reason: str | None) -> SearchVerdict:
        usd = cost_usd(self.usd_per_hour, self.spent_s)
        passed, failing = max(self._passed, default=None), self._failing
        probes = len(self.played)
        return SearchVerdict(self._certified, passed, failing, probes, self.spent_s, usd, self._monotone, reason)


def _short_s(rate: float) -> float:
    """The most seconds of a short probe."""
    return max(SHORT_S, SHORT_REQUESTS / rate)


@dataclass(frozen=True, slots=True)
class Alone(Closed):
    """The one stream of a sanity check, under the probe's name."""

    name: str = ""

    @property
    def label(self) -> str:
        return f"{self.name}-closed-{self.concurrency}"


@dataclass(frozen=True, slots=True)
class Offered(Poisson):
    """The arrivals of a probe, under its name: no other load of the run shares its partition."""

    name: str = ""

    @property
    def label(self) -> str:
        return f"{self.name}-poisson-{float(self.rate)}"
