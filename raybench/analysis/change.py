"""One metric of one cell in two runs: how much it changed, how sure that is, and whether it can be called.

A ratio is called worse or better where its whole 95 % interval lies outside ±5 %, the same where it lies inside. With
two or more repeats on both sides the interval is Welch's, on logs of whole trials; requests are never pooled. Else it
is put together, on the log scale, from the two trials' own intervals and an allowance for the spread between runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

from raybench.analysis import stats
from raybench.analysis.columns import PRICE
from raybench.analysis.metrics import Facts
from raybench.analysis.standing import Setting
from raybench.analysis.stats import Estimate

ZONE = 0.05
"""A ratio so near to 1 is no change worth a call."""

POINTS = 0.01
"""Error rates are the same where their difference, interval and all, is at most so large."""

MOST_REQUESTS = 100_000_000
Z = NormalDist().inv_cdf((1 + stats.CONFIDENCE) / 2)

SPREAD = 0.05
"""Standard deviation, on the log scale, that is allowed for between runs of one system where no repeats measure it.

An assumption: the spread of the A/A pairs of the design's section on statistics, which `make bench-truth` plays.
"""

ALLOWED = Z * SPREAD
"""What one run that was not repeated adds, in quadrature, to how far an interval reaches on the log scale."""

CALLABLE_ONCE = tuple(
    edge * math.exp(side * math.hypot(ALLOWED, ALLOWED)) for edge, side in ((1 + ZONE, 1), (1 - ZONE, -1))
)
"""Between these ratios nothing is called worse or better without repeats, however many requests there are."""

ONLY_REPEATS = f"within the {SPREAD * 100:.0f} % between runs: only repeats tell"

MORE_IS_BETTER = ("requests_per_s",)
METRICS = ("latency_mean", "latency_p95", "ttft_p95", "requests_per_s", PRICE, "error_rate")


class Call(StrEnum):
    """What is said of a change."""

    WORSE = "worse"
    BETTER = "better"
    SAME = "same"
    UNSURE = "can't tell"


@dataclass(frozen=True, slots=True)
class Change:
    """One metric of one cell in both runs: candidate / base, its interval, and the call.

    Of error rates `difference` is candidate - base, and the ratio counts half an error more in each run, so that none
    is a number too. Where it can't tell, about `needed` requests (or repeats, of Welch) in each run would; None if no
    number can be named, and `why` says what is wanting. Not of Welch, no number of requests outdoes the allowance.
    """

    metric: str
    base: Estimate
    candidate: Estimate
    ratio: Estimate
    call: Call
    welch: bool = False
    needed: int | None = None
    why: str = ""
    difference: Estimate | None = None


def change_of(
    metric: str, base: Setting, candidate: Setting, ours: Sequence[Facts], theirs: Sequence[Facts]
) -> Change | None:
    """How one metric changed; None where neither run has it."""
    if metric == "error_rate":
        return _errors(ours, theirs)
    before, after = _estimate(base.row, metric), _estimate(candidate.row, metric)
    if before.value is None and after.value is None and not _endless(metric, base, candidate):
        return None
    welch = len(ours) > 1 and len(theirs) > 1
    if not all(_positive(estimate.value) for estimate in (before, after)):
        return Change(metric, before, after, Estimate(), Call.UNSURE, welch, *_wanting(metric, base, candidate))
    if welch:
        ratio = stats.change([row[metric] for row in ours], [row[metric] for row in theirs])
        number = max(len(ours), len(theirs))
    else:
        ratio = _exp(_gap(_log(before), _log(after), ALLOWED, ALLOWED))
        number = max(base.row["requests"], candidate.row["requests"])
    call = _call(ratio, worse_up=metric not in MORE_IS_BETTER)
    if call is not Call.UNSURE:
        return Change(metric, before, after, ratio, call, welch)
    needed = _needed(ratio, number, 0.0 if welch else math.hypot(ALLOWED, ALLOWED))
    why = "one has no interval" if ratio.low is None else "" if welch or needed else ONLY_REPEATS
    return Change(metric, before, after, ratio, call, welch, needed, why)


def _estimate(row: Facts, metric: str) -> Estimate:
    return Estimate(row.get(metric), row.get(f"{metric}_low"), row.get(f"{metric}_high"))


def _positive(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value > 0


def _endless(metric: str, *settings: Setting) -> bool:
    return any(metric in (setting.row.get("beyond") or ()) for setting in settings)


def _wanting(metric: str, base: Setting, candidate: Setting) -> tuple[int | None, str]:
    """How many requests a number would need that one run lacks, and why it lacks it."""
    for setting, side in ((base, "base"), (candidate, "candidate")):
        if _endless(metric, setting):
            return None, f"it falls among requests that never finished in the {side}"
        floor, requests = stats.interval_floor(0.95), setting.row["requests"]
        if metric.endswith("_p95") and requests < floor:
            return floor, f"{requests:,} requests in the {side}"
        if setting.row["requests_per_s"] == 0:
            return None, f"nothing was served in the {side}"
    return None, "one run has no number"


def _gap(base: Estimate, candidate: Estimate, *allowed: float) -> Estimate:
    """candidate - base, its interval from both and what is allowed for (each squared, added, and the root taken)."""
    gap = (candidate.value or 0.0) - (base.value or 0.0)
    ends = (base.value, base.low, base.high, candidate.value, candidate.low, candidate.high)
    known = [end for end in ends if end is not None and math.isfinite(end)]
    if len(known) < len(ends):
        return Estimate(gap)
    b, b_low, b_high, c, c_low, c_high = known
    down, up = math.hypot(c - c_low, b_high - b, *allowed), math.hypot(c_high - c, b - b_low, *allowed)
    return Estimate(gap, gap - down, gap + up)


def _log(estimate: Estimate) -> Estimate:
    """The logarithm, without an interval where that reaches down to nothing."""
    value, low, high = (
        math.log(end) if end is not None and _positive(end) else None
        for end in (estimate.value, estimate.low, estimate.high)
    )
    return Estimate(value, low, high)


def _exp(estimate: Estimate) -> Estimate:
    value, low, high = (
        None if end is None else math.exp(min(end, 700)) for end in (estimate.value, estimate.low, estimate.high)
    )
    return Estimate(value, low, high)


def _call(ratio: Estimate, *, worse_up: bool) -> Call:
    if ratio.low is None or ratio.high is None:
        return Call.UNSURE
    if ratio.low > 1 + ZONE:
        return Call.WORSE if worse_up else Call.BETTER
    if ratio.high < 1 - ZONE:
        return Call.BETTER if worse_up else Call.WORSE
    return Call.SAME if ratio.low >= 1 - ZONE and ratio.high <= 1 + ZONE else Call.UNSURE


def _needed(ratio: Estimate, number: int, allowed: float) -> int | None:
    """How many of what there are `number` of now would bring the interval to one side of the zone's nearest edge.

    Intervals shrink with the root of their number, down to what is `allowed`; so near to an edge none would do.
    """
    gap, low, high = (math.log(end) if end else None for end in (ratio.value, ratio.low, ratio.high))
    if gap is None or low is None or high is None:
        return None
    room = min(abs(gap - math.log(1 + ZONE)), abs(gap - math.log(1 - ZONE)))
    spare, shrinks = room**2 - allowed**2, max(gap - low, high - gap) ** 2 - allowed**2
    wanted = number * shrinks / spare if spare > 0 else math.inf
    return None if wanted > MOST_REQUESTS else max(number + 1, math.ceil(wanted))


def _errors(ours: Sequence[Facts], theirs: Sequence[Facts]) -> Change | None:
    """How error rates changed: the ratio decides worse and better, the difference decides the same."""
    counts = [sum(row[name] or 0 for row in rows) for rows in (ours, theirs) for name in ("failed", "requests")]
    failed, requests, failed_then, requests_then = counts
    if not requests or not requests_then:
        return None
    base, candidate = stats.wilson(failed, requests), stats.wilson(failed_then, requests_then)
    welch = len(ours) > 1 and len(theirs) > 1
    between = stats.change(_rates(ours), _rates(theirs)) if welch else Estimate()
    allowed = 0.0 if welch else ALLOWED
    ratio, difference, call = _compared(counts, allowed, between)
    needed, why = None, ""
    if call is Call.UNSURE:
        scales = (1.25**step for step in range(1, 60))
        enough = (s for s in scales if _compared([round(n * s) for n in counts], allowed)[2] is not Call.UNSURE)
        scale = next(enough, math.inf)
        most = max(requests, requests_then) * scale
        needed = None if most > MOST_REQUESTS else math.ceil(most)
        why = "" if welch or needed else ONLY_REPEATS
    return Change("error_rate", base, candidate, ratio, call, welch, needed, why, difference)


def _rates(rows: Sequence[Facts]) -> list[float]:
    return [(row["failed"] + 0.5) / (row["requests"] + 1) for row in rows]


def _compared(
    counts: Sequence[int], allowed: float, between: Estimate | None = None
) -> tuple[Estimate, Estimate, Call]:
    """Ratio, difference and call of (failed, requests) twice; repeats must say the same as the counts together.

    Each run is allowed for as other numbers are: on the log scale, so that no errors spread by nothing.
    The ratio adds half an error and one request to each (Walter, 1975); the difference is Newcombe's, of Wilson's.
    """
    failed, requests, failed_then, requests_then = counts
    middle = math.log((failed_then + 0.5) / (requests_then + 1)) - math.log((failed + 0.5) / (requests + 1))
    spread = 1 / (failed + 0.5) - 1 / (requests + 1) + 1 / (failed_then + 0.5) - 1 / (requests_then + 1)
    reach = math.hypot(Z * math.sqrt(spread), allowed, allowed)
    ratio = _exp(Estimate(middle, middle - reach, middle + reach))
    if between is not None and between.low is not None and ratio.low is not None:
        ratio = Estimate(ratio.value, min(ratio.low, between.low), max(ratio.high or 0.0, between.high or 0.0))
    base, candidate = stats.wilson(failed, requests), stats.wilson(failed_then, requests_then)
    difference = _gap(base, candidate, allowed * failed / requests, allowed * failed_then / requests_then)
    call = _call(ratio, worse_up=True)
    if call in (Call.WORSE, Call.BETTER):
        return ratio, difference, call
    small = all(end is not None and abs(end) <= POINTS for end in (difference.low, difference.high))
    return ratio, difference, Call.SAME if small else Call.UNSURE
