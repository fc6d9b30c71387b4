"""Does the search find the truth, and what does it cost: many seeds against a batching server in virtual time.

    python -m benchmarks.truth_search [seeds] [processes]

The truth is the rate at which 1 % of the requests are over the limit, from runs of 100,000 requests. An over-claim is
a certified rate more than 5 % above it. Minutes are what the endpoint would have been paid for: every probe from its
first to its last instant, and a second between probes.
"""

import heapq
import math
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from raybench.analysis.probe import of_open, of_values
from raybench.analysis.stats import Values
from raybench.load.probe import Evidence, Probe, Step
from raybench.load.search import Hunt, Search, SearchVerdict
from raybench.simulator.engine import Agenda, BatchingEngine
from raybench.simulator.profiles import Batching, profile

MOST_OVERCLAIMS, MOST_MINUTES, LEAST_CERTIFIED = 1, 30.0, 0.75
"""What is promised of 24 seeds of each case; that so many certify at all keeps the promise from being empty."""

LOOK_S = 1.0
BETWEEN_S = 1.0
TRUTH_REQUESTS = 100_000
OVERCLAIM = 1.05


@dataclass(frozen=True)
class Case:
    """A server, what is asked of it, and how long it may take to find out."""

    name: str
    server: Batching
    search: Search


def _server(**overrides: int) -> Batching:
    server = profile("llama2-70b-p4d-tgi", **overrides)
    assert isinstance(server, Batching)
    return server


CASES = (
    Case("p4d, eager prefill, p99 TTFT <= 1 s", _server(steps_before_prefill=2), Search("ttft_p99", 1.0)),
    Case("p4d as it is, p99 latency <= 6 s", _server(), Search("latency_p99", 6.0)),
)


class Timeline(Agenda):
    """The engine's agenda without an event loop: `until` plays what is due."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.now: Callable[[], float] = lambda: self.now_s
        self._due: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = 0

    def at(self, when: float, action: Callable[[float], None]) -> None:
        self._count += 1
        heapq.heappush(self._due, (when, self._count, action))

    def until(self, when: float) -> None:
        """Plays everything up to an instant."""
        while self._due and self._due[0][0] <= when:
            self.now_s, _, action = heapq.heappop(self._due)
            action(self.now_s)
        if math.isfinite(when):
            self.now_s = when


class Heard:
    """One request of the server: when its first and last tokens came."""

    __slots__ = ("end_s", "first_s", "left", "timeline")

    def __init__(self, timeline: Timeline, tokens: int) -> None:
        self.timeline, self.left = timeline, tokens
        self.first_s = self.end_s = math.nan

    def started(self) -> None: ...

    def produced(self, tokens: int) -> None:
        if math.isnan(self.first_s):
            self.first_s = self.timeline.now_s
        self.left -= tokens
        if self.left == 0:
            self.end_s = self.timeline.now_s


class Server:
    """A server that is offered Poisson arrivals of prompts of 100 to 499 tokens, for 26 tokens each."""

    def __init__(self, case: Case, seed: int) -> None:
        self.search, self.timeline = case.search, Timeline()
        self._engine = BatchingEngine(case.server, self.timeline, seed)
        self._random = np.random.default_rng(seed)

    def offer(self) -> Heard:
        """Submits one request now."""
        heard = Heard(self.timeline, 26)
        self._engine.submit(int(self._random.integers(100, 500)), 26, heard)
        return heard

    def arrivals(self, rate: float, number: int) -> Values:
        """Poisson arrivals in seconds."""
        return np.cumsum(self._random.exponential(1 / rate, number))

    def metric(self, planned_s: Values, heard: list[Heard]) -> Values:
        """What is searched on, NaN while a request is not over, as a client's rows would say it."""
        ends = np.array([each.end_s for each in heard])
        came = ends if self.search.metric == "latency_p99" else np.array([each.first_s for each in heard])
        return np.where(np.isnan(ends), np.nan, came - planned_s)

    def play(self, probe: Probe) -> Evidence:
        """Plays a probe as the conductor does: looks at what is known, stops early, drains."""
        if probe.step is Step.SANITY:
            return self._alone(probe)
        timeline, start_s = self.timeline, self.timeline.now_s
        ends_s = probe.warmup_s + probe.seconds
        offsets = self.arrivals(probe.rate, int(probe.rate * (ends_s + 60) * 1.3) + 100)
        heard: list[Heard] = []
        look_s = LOOK_S
        for offset_s in offsets.tolist():
            while look_s < offset_s and offset_s < ends_s:
                timeline.until(start_s + look_s)
                planned = offsets[: len(heard)]
                values = self.metric(start_s + planned, heard)
                if probe.settled(of_open(self.search, probe, values, planned - probe.warmup_s, look_s)) is not None:
                    ends_s = look_s
                look_s += LOOK_S
            if offset_s >= ends_s:
                break
            timeline.until(start_s + offset_s)
            heard.append(self.offer())
        timeline.until(math.inf)
        planned = offsets[: len(heard)]
        measured = planned >= probe.warmup_s
        values = self.metric(start_s + planned, heard)[measured]
        evidence = of_values(
            self.search, probe, values, planned[measured] - probe.warmup_s, timeline.now_s - start_s + BETWEEN_S
        )
        timeline.until(timeline.now_s + BETWEEN_S)
        return evidence

    def _alone(self, probe: Probe) -> Evidence:
        timeline, start_s = self.timeline, self.timeline.now_s
        planned, heard = [], []
        for _ in range(probe.requests or 0):
            planned.append(timeline.now_s)
            heard.append(self.offer())
            timeline.until(math.inf)
        values = self.metric(np.array(planned), heard)
        return of_values(self.search, probe, values, np.array(planned) - start_s, timeline.now_s - start_s)


def over_share(case: Case, rate: float, seed: int = 0) -> float:
    """The share of requests over the limit in the long run."""
    server = Server(case, seed)
    planned = server.arrivals(rate, TRUTH_REQUESTS)
    heard = []
    for at_s in planned.tolist():
        server.timeline.until(at_s)
        heard.append(server.offer())
    server.timeline.until(math.inf)
    return float((server.metric(planned, heard) > case.search.limit_s).mean())


def truth(case: Case) -> float:
    """The rate at which 1 % of the requests are over the limit, to 0.5 %."""
    low, high = 0.1, 10.0
    while high / low > 1.005:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if over_share(case, middle) <= 0.01 else (low, middle)
    return math.sqrt(low * high)


def hunt(case: Case, seed: int) -> tuple[SearchVerdict, list[tuple[Probe, Evidence]]]:
    """One search with one seed."""
    server, search = Server(case, seed), Hunt(case.search)
    while not isinstance(probe := search.next(), SearchVerdict):
        search.tell(server.play(probe))
    return probe, search.played


def table(case: Case, seeds: int, processes: ProcessPoolExecutor) -> bool:
    """Prints the figures of a case; whether it keeps its promise."""
    true = processes.submit(truth, case)
    verdicts = [verdict for verdict, _ in processes.map(partial(hunt, case), range(seeds))]
    capacity = true.result()
    lines = [f"{case.name}: truth {capacity:.2f}/s", "seed  certified  of truth  failing  probes  minutes  why not"]
    for seed, each in enumerate(verdicts):
        rate = f"{each.rate:9.3f}  {each.rate / capacity:8.3f}" if each.rate else f"{'-':>9}  {'-':>8}"
        failing = f"{each.failing:7.3f}" if each.failing else f"{'-':>7}"
        lines.append(
            f"{seed:4}  {rate}  {failing}  {each.probes:6}  {each.seconds / 60:7.1f}  {each.reason or ''}".rstrip()
        )
    claims = [each.rate / capacity for each in verdicts if each.rate]
    over = sum(claim > OVERCLAIM for claim in claims)
    minutes = [each.seconds / 60 for each in verdicts]
    lines.append(
        f"over-claims above 5 %: {over} of {seeds}; certified {len(claims)}; claimed / truth: mean "
        f"{np.mean(claims or math.nan):.3f}, most {max(claims, default=math.nan):.3f}; "
        f"paid minutes: mean {np.mean(minutes):.1f}, most {max(minutes):.1f}"
    )
    print("\n".join(lines), end="\n\n", flush=True)
    return kept(claims, minutes)


def kept(claims: list[float], minutes: list[float]) -> bool:
    """Whether the promise is: `claims` are certified rates over the truth, `minutes` those of every seed."""
    over = sum(claim > OVERCLAIM for claim in claims)
    enough = len(claims) >= LEAST_CERTIFIED * len(minutes)
    return enough and over <= MOST_OVERCLAIMS and float(np.mean(minutes)) <= MOST_MINUTES


def main(seeds: int = 24, processes: int = 2) -> None:
    """Prints the tables; exits 1 where a promise is broken."""
    print(f"seeds 0 to {seeds - 1} of each case; promised: over-claims at most 1, paid minutes at most 30 on average")
    with ProcessPoolExecutor(processes) as pool:
        promises = [table(case, seeds, pool) for case in CASES]
    print("every promise kept" if all(promises) else "A PROMISE IS BROKEN")
    raise SystemExit(0 if all(promises) else 1)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
