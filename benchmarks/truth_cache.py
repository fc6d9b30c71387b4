"""Is a cache noticed by how fast repeated prompts are answered, and is none cried: seeds against a batching server.

    python -m benchmarks.truth_cache [seeds]

Prompts of 3,000 to 3,839 tokens out of a pool of sixty, three hundred requests: pass after pass over the pool, or
each drawn from all of it. The server reads every prompt, or with a prefix cache only those it has not read before.
"""

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from benchmarks.truth_search import Heard, Timeline
from raybench.analysis.resent import second_over_first, twice
from raybench.analysis.validity import FASTER
from raybench.simulator.engine import BatchingEngine
from raybench.simulator.profiles import Batching, profile

POOL, REQUESTS, TOKENS = 60, 300, 8
MOST_CRIED, LEAST_NOTICED = 0.03, 0.8
"""What is promised of the trials of each case, without a cache and with one."""


@dataclass(frozen=True)
class Case:
    """How requests arrive, `slots` at a time or `rate` a second, and whether prompts are drawn or come in passes."""

    name: str
    slots: int = 0
    rate: float = 0.0
    drawn: bool = False


CASES = (
    Case("closed, 1 slot, passes", slots=1),
    Case("closed, 8 slots, passes", slots=8),
    Case("closed, 1 slot, drawn", slots=1, drawn=True),
    Case("poisson, 0.4/s, passes", rate=0.4),
    Case("poisson, 0.4/s, drawn", rate=0.4, drawn=True),
    Case("poisson, 0.7/s, passes", rate=0.7),
)


class Client:
    """Sends every request of a case to a server of its own, and notes when its first token came."""

    def __init__(self, case: Case, seed: int, *, cache: bool) -> None:
        server = profile("llama2-70b-p4d-tgi")
        assert isinstance(server, Batching)
        self.timeline, self.cache = Timeline(), cache
        self.engine = BatchingEngine(server, self.timeline, seed)
        random = np.random.default_rng(seed)
        self.lengths = random.integers(3000, 3840, POOL)
        passes = np.concatenate([random.permutation(POOL) for _ in range(REQUESTS // POOL)])
        self.prompts = random.integers(0, POOL, REQUESTS) if case.drawn else passes
        self.sent_s: list[float] = []
        self.heard: list[Heard] = []
        self.known: set[int] = set()
        if case.slots:
            for _ in range(case.slots):
                self.send()
        else:
            for at_s in np.cumsum(random.exponential(1 / case.rate, REQUESTS)).tolist():
                self.timeline.until(at_s)
                self.send(again=False)
        self.timeline.until(math.inf)

    def send(self, *, again: bool = True) -> None:
        """Sends the next request now, if there is one; once it has ended the next, if `again`."""
        if len(self.heard) == REQUESTS:
            return
        prompt = int(self.prompts[len(self.heard)])
        tokens = int(self.lengths[prompt])
        cached = tokens if self.cache and prompt in self.known else 0
        self.known.add(prompt)
        self.sent_s.append(self.timeline.now_s)
        self.heard.append(Refilled(self) if again else Heard(self.timeline, TOKENS))
        self.engine.submit(tokens, TOKENS, self.heard[-1], cached)

    @property
    def alarmed(self) -> bool:
        """Whether the second time of a prompt was so much faster that it is called a cache."""
        first, second = (np.sort(places) for places in twice(self.prompts))
        answered_s = np.array([each.first_s for each in self.heard]) - np.array(self.sent_s)
        most = second_over_first(answered_s[first], answered_s[second]).high
        return most is not None and most < FASTER


class Refilled(Heard):
    """A request in a slot: when it has ended the slot is filled again."""

    __slots__ = ("client",)

    def __init__(self, client: Client) -> None:
        super().__init__(client.timeline, TOKENS)
        self.client = client

    def produced(self, tokens: int) -> None:
        super().produced(tokens)
        if self.left == 0:
            self.client.send()


def main(
    seeds: int = 100,
    *,
    cases: Iterable[Case] = CASES,
    most_cried: float = MOST_CRIED,
    least_noticed: float = LEAST_NOTICED,
) -> None:
    """Prints the table; exits 1 where a promise is broken."""
    print(f"seeds 0 to {seeds - 1} of each case; called a cache where there is none: at most {most_cried:.0%},")
    print(f"where there is one: at least {least_noticed:.0%}")
    print(f"{'':24}  without    with")
    kept = []
    for case in cases:
        cried, noticed = (
            sum(Client(case, seed, cache=cache).alarmed for seed in range(seeds)) / seeds for cache in (False, True)
        )
        print(f"{case.name:24}  {cried:7.1%}  {noticed:6.1%}", flush=True)
        kept.append(cried <= most_cried and noticed >= least_noticed)
    print("every promise kept" if all(kept) else "A PROMISE IS BROKEN")
    raise SystemExit(0 if all(kept) else 1)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
