"""One probe of a search: the sequential test that ends a short one, and what a certifying trial must show.

The short ones are Wald's test of the share of requests over the limit, 0.4 % against 2 %, wrong 5 % of the time
either way on independent requests. A certifying trial is ten blocks whose mean late share, and Student's bound above
it, stay within 1 %: blocks, since requests that wait behind each other are late together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

ALLOWED = 0.01
"""The share of requests that a p99 leaves over its limit."""
GOOD, BAD = 0.004, 0.02
BOUND = math.log(0.95 / 0.05)
BLOCKS = 10
STUDENT = 1.8331
"""Student's t at 0.95 with nine degrees of freedom."""
FEWEST = 662
"""The fewest independent requests that certify a p99 (`analysis.stats.certified_floor`)."""
HOPELESS, HOPELESS_AFTER = 0.03, 300
SANITY_REQUESTS = 30


class Step(StrEnum):
    """What a probe is for."""

    SANITY = "sanity"
    BRACKET = "bracket"
    NARROW = "narrow"
    CERTIFY = "certify"
    RECHECK = "recheck"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a probe: how many of its `requests` are over the limit, still waiting ones included.

    `dependence` says how many requests in a row say one thing, `blocks` has (requests, late) of each tenth of a
    certifying trial that is over, `rising` that the metric grew as it went on, `fault` why none of it can be trusted.
    `paid_s` is what the probe took from first to last instant.
    """

    requests: int
    late: int
    paid_s: float
    dependence: float = 1.0
    blocks: Sequence[tuple[int, int]] = ()
    rising: bool = False
    fault: str | None = None

    @property
    def shares(self) -> list[float]:
        """The late share of each block; of an empty one, all."""
        return [late / requests if requests else 1.0 for requests, late in self.blocks]


@dataclass(frozen=True, slots=True)
class Probe:
    """One trial to play: Poisson arrivals at `rate` for `seconds` after `warmup_s`; a sanity check has no rate."""

    index: int
    step: Step
    rate: float
    seconds: float
    warmup_s: float = 0.0

    @property
    def name(self) -> str:
        return f"probe-{self.index:02d}-{self.step}"

    @property
    def requests(self) -> int | None:
        """How many requests end it before its time is over."""
        return SANITY_REQUESTS if self.step is Step.SANITY else None

    def settled(self, seen: Evidence) -> bool | None:
        """Whether it passes, as soon as that is plain; None to go on."""
        if self.step is Step.CERTIFY:
            return False if self._hopeless(seen) else None
        score = llr(seen.requests, seen.late, seen.dependence)
        return None if abs(score) < BOUND else score < 0

    def passes(self, seen: Evidence) -> bool:
        """Whether it passed, now that it is over."""
        if self.step is Step.CERTIFY:
            return not doubts(seen)
        score = llr(seen.requests, seen.late, seen.dependence)
        return seen.requests > 0 and score < (BOUND if self.step is Step.SANITY else 0)

    def _hopeless(self, seen: Evidence) -> bool:
        """Over 3 % late, or blocks so late that no others could make up for them."""
        bad = seen.requests >= HOPELESS_AFTER and seen.late > HOPELESS * seen.requests
        return bad or least_bound(seen.shares) > ALLOWED


def llr(requests: int, late: int, dependence: float = 1.0) -> float:
    """Log likelihood ratio of 2 % late against 0.4 %, of requests of which `dependence` in a row say one thing."""
    bad = late * math.log(BAD / GOOD) + (requests - late) * math.log((1 - BAD) / (1 - GOOD))
    return bad / max(1.0, dependence)


def bound(shares: Sequence[float]) -> float:
    """What the late share is under with 95 % confidence, from the late shares of ten blocks."""
    mean = sum(shares) / BLOCKS
    variance = sum((share - mean) ** 2 for share in shares) / (BLOCKS - 1)
    return mean + STUDENT * math.sqrt(variance / BLOCKS)


def least_bound(shares: Sequence[float]) -> float:
    """The least `bound` of ten blocks that begin with these: the bound is convex, so the rest are equal."""
    mean, left = sum(shares) / max(1, len(shares)), BLOCKS - len(shares)
    return min(bound([*shares, *[mean * tenth / 10] * left]) for tenth in range(11))


def doubts(seen: Evidence) -> list[str]:
    """Why a trial does not certify its rate; nothing if it does."""
    if len(seen.blocks) != BLOCKS or any(requests == 0 for requests, _ in seen.blocks):
        return ["it was not played to its end"]
    shares = seen.shares
    mean, most = sum(shares) / BLOCKS, bound(shares)
    worth = seen.requests / max(1.0, seen.dependence)
    found = (
        (most > ALLOWED, f"{mean:.2%} of the requests are over the limit, at most {most:.2%}; 1 % may be"),
        (seen.rising, "it grew slower as it went on"),
        (worth < FEWEST, f"its requests are worth {worth:.0f} independent ones; {FEWEST} are needed"),
    )
    return [doubt for holds, doubt in found if holds]
