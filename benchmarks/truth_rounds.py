"""Do the means of short closed trials hold what their intervals promise? Seeds against a batching server.

    python -m benchmarks.truth_rounds [seeds]

Slots that wait for each other may answer a whole round at one time: three rounds of eight are then three values and
not twenty-four. The truth is the mean over hundreds of rounds. A trial is *wrong* where its 95 % interval misses it;
`half` is half of the interval's width, as a share of the truth.
"""

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from benchmarks.truth_search import Heard, Timeline
from raybench.analysis import stats
from raybench.simulator.engine import BatchingEngine
from raybench.simulator.profiles import Batching, profile

SLOTS = (1, 8, 32)
ROUNDS = (2, 3, 5, 10, 30)
LONG, SETTLED = 600, 5
"""How many rounds the truth is taken from, and how many of them are left out first."""

MOST_WRONG = 0.05
"""What is promised of the trials of each table, all together."""


@dataclass(frozen=True)
class Case:
    """Prompts and answers of such lengths in tokens, both ends included, measured after so many rounds."""

    name: str
    prompts: tuple[int, int]
    answers: tuple[int, int]
    warmup: float


CASES = (
    Case("in step: all alike, measured at once", (300, 300), (100, 100), 0.1),
    Case("in step: all alike, after one round", (300, 300), (100, 100), 1.0),
    Case("long prompts, answers of 80 to 120", (3000, 3839), (80, 120), 1.0),
    Case("prompts and answers of any length", (200, 2000), (20, 400), 1.0),
)


class Client:
    """Keeps `slots` requests in flight until so many were sent: when each was sent, and how long it took."""

    def __init__(self, case: Case, slots: int, rounds: float, seed: int) -> None:
        server = profile("llama2-70b-p4d-tgi")
        assert isinstance(server, Batching)
        self.timeline = Timeline()
        self.engine = BatchingEngine(server, self.timeline, seed)
        random = np.random.default_rng(seed)
        number = math.ceil(slots * rounds)
        self.prompts = random.integers(*case.prompts, number, endpoint=True).tolist()
        self.answers = random.integers(*case.answers, number, endpoint=True).tolist()
        self.took: list[tuple[float, float]] = []
        for _ in range(slots):
            self.send()
        self.timeline.until(math.inf)

    def send(self) -> None:
        """Sends the next request, if there is one."""
        if self.prompts:
            tokens = self.answers.pop()
            self.engine.submit(self.prompts.pop(), tokens, Answered(self, tokens), 0)

    def measured(self, begin_s: float, end_s: float) -> npt.NDArray[np.float64]:
        """The seconds that the requests sent from `begin_s` on and before `end_s` took, in the order sent."""
        sent_s, took_s = np.array(sorted(self.took)).T
        chosen: npt.NDArray[np.float64] = took_s[(sent_s >= begin_s) & (sent_s < end_s)]
        return chosen


class Answered(Heard):
    """A request that notes how long it took, and is followed by the next."""

    __slots__ = ("client", "sent_s")

    def __init__(self, client: Client, tokens: int) -> None:
        super().__init__(client.timeline, tokens)
        self.client, self.sent_s = client, client.timeline.now_s

    def produced(self, tokens: int) -> None:
        super().produced(tokens)
        if self.left == 0:
            now_s = self.client.timeline.now_s
            self.client.took.append((self.sent_s, now_s - self.sent_s))
            self.client.send()


@cache
def truth(case: Case, slots: int) -> float:
    """The mean seconds of a request once the load has settled."""
    took_s = Client(case, slots, LONG, seed=10_000).measured(0.0, math.inf)
    return float(took_s[slots * SETTLED :].mean())


def trial(case: Case, slots: int, rounds: int, seed: int) -> stats.Estimate:
    """The mean of a trial that lasts as long as so many rounds do."""
    round_s = truth(case, slots)
    client = Client(case, slots, case.warmup + rounds + 2, seed)
    took_s = client.measured(case.warmup * round_s, (case.warmup + rounds) * round_s)
    return stats.mean(took_s, rounds=len(took_s) // slots)


def table(case: Case, seeds: int, slots: Iterable[int]) -> float:
    """Prints how often trials of a case are wrong, and how sure they are; how many are wrong of them all."""
    print(f"\n{case.name}\nslots  rounds   truth  refused   wrong    half")
    wrong_of_all = []
    for number in slots:
        for rounds in ROUNDS:
            mean_s = truth(case, number)
            found = [trial(case, number, rounds, seed) for seed in range(seeds)]
            sure = [(one.low, one.high) for one in found if one.low is not None and one.high is not None]
            wrong = sum(not low <= mean_s <= high for low, high in sure) / seeds
            half = f"{np.median([high - low for low, high in sure]) / 2 / mean_s:.2%}" if sure else "–"
            refused = 1 - len(sure) / seeds
            print(f"{number:>5} {rounds:>7} {mean_s:>7.2f} {refused:>8.0%} {wrong:>7.1%} {half:>7}", flush=True)
            wrong_of_all.append(wrong)
    return float(np.mean(wrong_of_all))


def main(
    seeds: int = 40,
    *,
    cases: Iterable[Case] = CASES,
    slots: Iterable[int] = SLOTS,
    most_wrong: float = MOST_WRONG,
) -> None:
    """Prints the tables; exits 1 where a promise is broken."""
    print(f"means of closed trials, seeds 0 to {seeds - 1} each; wrong = with an interval that misses the truth")
    wrong = [table(case, seeds, tuple(slots)) for case in cases]
    kept = max(wrong) <= most_wrong
    told = ", ".join(f"{one:.1%}" for one in wrong)
    print(f"\nwrong of all in each table: {told} (promise {most_wrong:.0%})")
    print("every promise kept" if kept else "A PROMISE IS BROKEN")
    raise SystemExit(0 if kept else 1)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
