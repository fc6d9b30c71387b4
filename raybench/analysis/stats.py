"""Statistics of a trial: percentiles and their intervals, dependence, steady state, rates, repeats.

Everything takes plain arrays and gives plain numbers; None means that the sample cannot tell. Values may be +inf:
a request that never finished is slower than everything that did.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import special

Values = npt.NDArray[np.float64]

CONFIDENCE = 0.95
CERTAINTY = 0.99
BATCHES = 10
ALIKE = 2.0
"""How much larger the variance of a mean of batches is taken to be than of independent ones: neighbours resemble
each other (`benchmarks.truth_intervals`, `truth_rounds`)."""

WINDOW = 5
NOISE = 1.645
TRUSTED = 30
FEWEST_FOR_TREND = 20


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its two-sided 95 % interval; None where the sample cannot tell."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Quantile(Estimate):
    """A percentile; `certified` bounds it from above with 99 % confidence, `beyond` says it never finished."""

    certified: float | None = None
    beyond: bool = False


@cache
def interval_floor(q: float) -> int:
    """The fewest values whose two-sided 95 % interval of the q-quantile exists: 6, 36, 72, 368 for p50 to p99."""
    return math.ceil(math.log((1 - CONFIDENCE) / 2) / math.log(max(q, 1 - q)))


QUEUED_FLOOR = interval_floor(0.99)
"""The fewest independent values of an open load that give its numbers an interval."""


def queued(worth: float) -> float:
    """What `worth` independent values count for where requests may queue: nothing below QUEUED_FLOOR.

    So few cannot tell how dependent they are (`benchmarks.truth_intervals`).
    """
    return worth if worth >= QUEUED_FLOOR else 0.0


@cache
def certified_floor(q: float) -> int:
    """The fewest values that certify a bound on the q-quantile: 11, 64, 130, 662 for p50 to p99 (MLPerf LoadGen)."""
    return _least_below(q, 1) + 1


@cache
def _least_below(q: float, above: int) -> int:
    """The least h for which h values below and `above` above the bound are less likely than 1 - CERTAINTY."""
    step = high = max(8, above)
    while special.betainc(high, above + 1, q) >= 1 - CERTAINTY:
        high += (step := step * 2)
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        too_likely = special.betainc(middle, above + 1, q) >= 1 - CERTAINTY
        low, high = (middle, high) if too_likely else (low, middle)
    return high


@cache
def _bound_rank(n: int, q: float) -> int:
    """Which of the largest values of n bounds the q-quantile: max{i : n >= h(i) + i}; 0 if none does."""
    low, high = 0, max(1, math.ceil(n * (1 - q)) + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _least_below(q, middle) + middle <= n else (low, middle)
    return low


def quantile(ordered: Values, q: float) -> float:
    """The q-quantile of ascending values, as NumPy's default: linear between neighbours; +inf next to an inf."""
    place = (len(ordered) - 1) * q
    below = math.floor(place)
    if place == below or ordered[below] == ordered[below + 1]:
        return float(ordered[below])
    return float(ordered[below] + (ordered[below + 1] - ordered[below]) * (place - below))


def percentile(ordered: Values, q: float, effective: float) -> Quantile:
    """The q-quantile of ascending values that are worth `effective` independent ones.

    Nothing below the floor of values; no interval and no certified bound below their floors of independent ones, nor
    where dependent values are worth fewer than 30: so few cannot tell how dependent they are.
    """
    n = len(ordered)
    if n < interval_floor(q):
        return Quantile()
    worth = min(n, math.floor(effective))
    if worth < min(n, TRUSTED):
        worth = 0
    value, low, high, bound = quantile(ordered, q), math.nan, math.nan, math.nan
    if worth >= interval_floor(q):
        tail = (1 - CONFIDENCE) / 2
        first = _binomial_quantile(tail, worth, q)
        last = _binomial_quantile(1 - tail, worth, q) + 1
        low = ordered[max(1, math.floor(first * n / worth)) - 1]
        high = ordered[min(n, math.ceil(last * n / worth)) - 1]
    if rank := _bound_rank(worth, q):
        bound = ordered[n - max(1, math.floor(rank * n / worth))]
    return Quantile(_finite(value), _finite(low), _finite(high), _finite(bound), beyond=math.isinf(value))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def correlation_time(series: npt.ArrayLike) -> float:
    """1 + 2 Σ ρ_k up to Sokal's window (five times itself): how many values in a row say one thing; at least 1."""
    x = np.asarray(series, np.float64)
    x = x - x.mean() if len(x) else x
    if len(x) < 10 or not np.any(x):
        return 1.0
    size = 1 << (2 * len(x) - 1).bit_length()
    spectrum = np.fft.rfft(x, size)
    covariance = np.fft.irfft(spectrum * np.conj(spectrum), size)[: len(x)]
    times = 2 * np.cumsum(covariance / covariance[0]) - 1
    inside = np.arange(len(times)) >= WINDOW * times
    return max(1.0, float(times[int(np.argmax(inside))] if inside.any() else len(x)))


def effective_size(series: Values) -> float:
    """How many independent values a series in time order is worth, judged by when it exceeds its own percentiles.

    The longest correlation time of p50, p75 and p90 counts: a queue's memory shows in its middle before its tail. A
    time that pure noise of this length would show once in twenty is taken for noise.
    """
    n = len(series)
    if n < 10:
        return float(n)
    ordered = np.sort(series)
    longest = max(correlation_time(series > quantile(ordered, q)) for q in (0.5, 0.75, 0.9))
    noise = 1 + NOISE * 2 * math.sqrt(WINDOW / n)
    return n / longest if longest > noise else float(n)


def clustered_size(hits: Values, sizes: Values) -> float:
    """How many independent values a share is worth whose values come in clusters: `hits` of `sizes` in each."""
    total = float(sizes.sum())
    share = float(hits.sum()) / total if total else 0.0
    variance = float(np.sum((hits - share * sizes) ** 2)) / total**2 if total else 0.0
    return min(total, share * (1 - share) / variance) if variance > 0 else total


def mean(series: Values, worth: float | None = None, rounds: int | None = None) -> Estimate:
    """The mean of values in time order, with the interval of `ratio`."""
    return ratio(series, np.ones_like(series), worth, rounds)


def ratio(parts: Values, wholes: Values, worth: float | None = None, rounds: int | None = None) -> Estimate:
    """Σ parts / Σ wholes of pairs in time order, never below 0, with the interval of at most ten batches' ratios.

    Where pairs may have queued, `worth` says how many independent ones they are worth: no interval below the floor of
    p99. Where a slot's next request waits for its last, `rounds` says how often each slot was filled: no more batches
    than that, since those of one round may all say one thing; no interval of one round.
    """
    parts, wholes = parts[wholes > 0], wholes[wholes > 0]
    n = len(parts)
    if n == 0:
        return Estimate()
    value = float(math.fsum(parts) / math.fsum(wholes))
    if worth is not None and not queued(worth):
        return Estimate(value)
    number = max(1, min(BATCHES, n, n if rounds is None else rounds))
    cuts = np.arange(number) * n // number
    return around(value, np.add.reduceat(parts, cuts) / np.add.reduceat(wholes, cuts), floor=0.0, alike=ALIKE)


def around(value: float, batches: Values, floor: float | None = None, alike: float = 1.0) -> Estimate:
    """`value` with the Student interval that the spread of its batches gives it, cut off at `floor`.

    `alike`: by how much their likeness makes the variance of their mean larger.
    """
    k = len(batches)
    if k < 2:
        return Estimate(value)
    reach = float(special.stdtrit(k - 1, (1 + CONFIDENCE) / 2) * batches.std(ddof=1) * math.sqrt(alike / k))
    return Estimate(value, value - reach if floor is None else max(floor, value - reach), value + reach)


def _binomial_quantile(level: float, n: int, q: float) -> int:
    """The least k with P(Binomial(n, q) <= k) >= level; SciPy's own takes half a second to import."""
    k = math.ceil(special.bdtrik(level, n, q))
    return k - 1 if k > 0 and special.bdtr(k - 1, n, q) >= level else max(k, 0)


def wilson(hits: int, n: int) -> Estimate:
    """A rate `hits / n` with Wilson's interval."""
    if n == 0:
        return Estimate()
    z = float(special.ndtri((1 + CONFIDENCE) / 2))
    p, weight = hits / n, 1 + z * z / n
    middle = (p + z * z / (2 * n)) / weight
    reach = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / weight
    return Estimate(p, 0.0 if hits == 0 else middle - reach, 1.0 if hits == n else middle + reach)


def warmup_cut(series: Values) -> float | None:
    """MSER-5: which share of a series to cut so that the rest is steadiest; over one half says it never settled."""
    m = len(series) // 5
    if m < BATCHES:
        return None
    batches = series[: 5 * m].reshape(m, 5).mean(axis=1)
    left = np.arange(m, 0, -1)
    sums, squares = np.cumsum(batches[::-1])[::-1], np.cumsum((batches**2)[::-1])[::-1]
    spread = (squares / left - (sums / left) ** 2) / left
    return float(np.argmin(spread[: m - 4])) / m


def drift(times: Values, series: Values, confidence: float = CONFIDENCE) -> Estimate:
    """How much a series changed from first to last instant, as a share of its mean: least squares on batches."""
    n = len(series)
    if n < FEWEST_FOR_TREND or not series.any() or times[0] == times[-1]:
        return Estimate()
    cuts = np.arange(BATCHES) * n // BATCHES
    sizes = np.diff(np.append(cuts, n))
    x = np.add.reduceat(times, cuts) / sizes
    y = np.add.reduceat(series, cuts) / sizes
    x = (x - x.mean()) / (times[-1] - times[0])
    slope = float(x @ y / (x @ x))
    left = y - y.mean() - slope * x
    error = math.sqrt(float(left @ left) / (BATCHES - 2) / float(x @ x))
    reach = float(special.stdtrit(BATCHES - 2, (1 + confidence) / 2)) * error
    middle = float(series.mean())
    return Estimate(slope / middle, (slope - reach) / middle, (slope + reach) / middle)


def average(values: Sequence[float | None]) -> float | None:
    """The mean of those that are known."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def combined(repeats: Sequence[float | None]) -> Estimate:
    """One number from repeats of a trial: the geometric mean, with Student's interval on the log scale.

    Nothing where one is unknown, zero or endless.
    """
    values = np.asarray(repeats, np.float64)
    if len(values) == 0 or not np.all((values > 0) & np.isfinite(values)):
        return Estimate()
    logs = around(float(np.log(values).mean()), np.log(values))
    return Estimate(*(None if log is None else math.exp(log) for log in (logs.value, logs.low, logs.high)))


def combined_within(repeats: Sequence[Estimate]) -> Estimate:
    """As `combined`, no narrower than the repeats' own intervals are together, and without an end that one lacks.

    Repeats of an overloaded queue agree and are all far off; a few may also agree by chance.
    """
    one = combined([each.value for each in repeats])
    low = _end(one.value, one.low, [(each.value, each.low) for each in repeats], -1)
    return Estimate(one.value, low, _end(one.value, one.high, [(each.value, each.high) for each in repeats], 1))


def _end(
    value: float | None, end: float | None, own: Sequence[tuple[float | None, float | None]], sign: int
) -> float | None:
    """The farther of `end` and where the values' own ends put it (reaches squared, added, and the root taken)."""
    known = [(at, of) for at, of in own if at is not None and of is not None]
    if value is None or end is None or len(known) < len(own):
        return None
    reaches = [math.log(of / at) if of > 0 else math.inf for at, of in known]
    reach = max(abs(math.log(end / value)), math.hypot(*reaches) / len(own))
    return value * math.exp(sign * reach)


def change(base: Sequence[float], candidate: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """candidate / base of repeated trials, with Welch's interval on the log scale if each has two or more."""
    a, b = (np.log(np.asarray(side, np.float64)) for side in (base, candidate))
    if not len(a) or not len(b):
        return Estimate()
    gap = float(b.mean() - a.mean())
    if len(a) < 2 or len(b) < 2:
        return Estimate(math.exp(gap))
    va, vb = float(a.var(ddof=1)) / len(a), float(b.var(ddof=1)) / len(b)
    if va + vb == 0:
        return Estimate(math.exp(gap), math.exp(gap), math.exp(gap))
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    reach = float(special.stdtrit(freedom, (1 + confidence) / 2)) * math.sqrt(va + vb)
    return Estimate(math.exp(gap), math.exp(gap - reach), math.exp(gap + reach))
