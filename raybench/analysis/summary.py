"""One trial's rows become its row of numbers: what every column of `columns.py` is made of.

Numbers about requests are of those planned in the phase `measure`; throughput counts what ended inside the measuring
window, whenever it was planned. A request that failed stays in every denominator and, in percentiles, is slower than
everything that finished.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from raybench.analysis import stats
from raybench.analysis.columns import CERTIFIED, QUANTILES, SPREADS, TRIALS
from raybench.analysis.metrics import Facts, Gaps, Mask, Requests, Window, little_ratio, window
from raybench.analysis.stats import Estimate, Quantile, Values
from raybench.clock import NS_PER_S
from raybench.counting import Source
from raybench.rows import Outcome


def summarize(rows: Requests, trial: Facts, experiment: Facts, criteria: Mapping[str, float]) -> dict[str, Any]:
    """One trial's numbers by column of TRIALS, what has an interval as an Estimate; `flat` spreads those.

    The columns of `validity.py` and `standing.py` are left out.
    """
    seconds, gaps = rows.durations(), Gaps.between_chunks(rows)
    total, number, seconds["worst_gap"] = gaps.totals(len(rows.order))
    seconds["itl"] = np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)
    good = rows.ok & _within(seconds, criteria)
    inside = window(rows, trial)
    rounds = int(rows.measured.sum()) // int(trial["concurrency"]) if trial.get("kind") == "closed" else None
    return {
        **_identity(trial, experiment),
        **_counts(rows),
        **_window(inside),
        **_tokens(rows),
        **_throughput(rows, inside, good, seconds["service_latency"], experiment),
        **_spreads(rows, seconds, rounds=rounds),
        **_gaps(rows, gaps, total, number, rounds=rounds),
        **_parts(rows, seconds),
        **_lateness(seconds["lateness"][rows.measured]),
        **_trend(rows, seconds["latency"]),
        "little_ratio": little_ratio(rows, inside, trial),
    }


def beyond(summary: Facts) -> list[str]:
    """The percentiles of a summary that fall among requests that never finished."""
    return [name for name, value in summary.items() if isinstance(value, Quantile) and value.beyond]


def _within(seconds: Mapping[str, Values], criteria: Mapping[str, float]) -> Mask:
    """Where a request meets, by itself, every criterion on a time; itl is then its mean gap."""
    met = np.ones(len(seconds["latency"]), bool)
    for name, limit in criteria.items():
        metric = name.rpartition("_")[0]
        if metric in seconds:
            met &= ~(seconds[metric] > limit)
    return met


def _identity(trial: Facts, experiment: Facts) -> dict[str, Any]:
    ours = ("trial_id", "experiment", "payload", "load", "kind", "concurrency", "rate", "repeat", "state")
    theirs = ("instance_type", "instance_count", "simulated", "price_per_hour")
    return {name: trial.get(name) for name in ours} | {name: experiment.get(name) for name in theirs}


def _counts(rows: Requests) -> dict[str, Any]:
    requests, ok = int(rows.measured.sum()), int((rows.ok & rows.measured).sum())
    named = (Outcome.NOT_SENT, Outcome.LOST, Outcome.THROTTLED, Outcome.TRUNCATED)
    counts: dict[str, Any] = {"requests": requests, "ok": ok, "failed": requests - ok}
    counts |= {name.value: int((rows.equal("outcome", name) & rows.measured).sum()) for name in named}
    return counts | {"error_rate": stats.wilson(requests - ok, requests)}


def _window(inside: Window | None) -> dict[str, Any]:
    if inside is None:
        return {"window_start_s": None, "window_s": None}
    return {"window_start_s": inside.start_ns / NS_PER_S, "window_s": inside.seconds}


def _tokens(rows: Requests) -> dict[str, Any]:
    told: dict[str, Any] = {}
    counted = rows.ok & rows.measured
    for kind in ("prompt", "completion"):
        tokens = rows.numbers(f"{kind}_tokens")[counted]
        tokens = tokens[~np.isnan(tokens)]
        told[f"{kind}_token_count_mean"] = float(tokens.mean()) if len(tokens) else None
        sources = [s.value for s in Source if (rows.equal(f"{kind}_tokens_source", s) & counted).any()]
        told[f"{kind}_tokens_source"] = sources[-1] if sources else None
    return told


def _throughput(
    rows: Requests, inside: Window | None, good: Mask, service_s: Values, experiment: Facts
) -> dict[str, Estimate]:
    prompt, completion = (np.nan_to_num(rows.numbers(f"{kind}_tokens")) for kind in ("prompt", "completion"))
    each = rows.ok.astype(np.float64)
    weights = {
        "requests_per_s": each,
        "prompt_token_throughput": each * prompt,
        "completion_token_throughput": each * completion,
        "goodput_per_s": good.astype(np.float64),
        "good_token_throughput": good * completion,
    }
    told = _rates(rows, inside, weights, service_s)
    per_s, price = told["requests_per_s"], experiment.get("price_per_hour")
    hourly = None if price is None else price * experiment["instance_count"]
    return told | {
        "transactions_per_minute": _times(per_s, 60),
        "price_per_txn": _price(hourly, per_s, 1),
        "price_per_10k_txn": _price(hourly, per_s, 10_000),
        "price_per_1m_output_tokens": _price(hourly, told["completion_token_throughput"], 1_000_000),
        "price_per_1m_good_tokens": _price(hourly, told["good_token_throughput"], 1_000_000),
    }


def _rates(
    rows: Requests, inside: Window | None, weights: Mapping[str, Values], service_s: Values
) -> dict[str, Estimate]:
    """What was served in the window, per second, with intervals from up to ten slices of it.

    A request that the edge of the window cuts counts by the share of its time in service that lies inside: counted
    whole or not at all, six requests in a short window would be one sixth off. No slice is shorter than a request;
    neighbours share the requests that an edge cuts, and are alike.
    """
    if inside is None:
        return dict.fromkeys(weights, Estimate())
    served = rows.ok & (service_s > 0)
    number = int(min(stats.BATCHES, inside.seconds / service_s[served].mean())) if served.any() else 0
    lasting_ns = np.where(served, service_s * NS_PER_S, np.inf)
    shares = [cut.inside_ns(rows.sent_ns, rows.end_ns) / lasting_ns for cut in inside.slices(max(1, number))]
    width_s = inside.seconds / max(1, number)
    told = {}
    for name, weight in weights.items():
        slices = np.array([float(share @ weight) for share in shares]) / width_s
        told[name] = stats.around(float(slices.mean()), slices, floor=0.0, alike=stats.ALIKE)
    return told


def _times(rate: Estimate, factor: float) -> Estimate:
    return Estimate(*(None if x is None else x * factor for x in (rate.value, rate.low, rate.high)))


def _price(hourly_usd: float | None, per_s: Estimate, things: float) -> Estimate:
    """USD for so many things of which an hour yields `per_s` a second; none where it yields none."""
    if hourly_usd is None:
        return Estimate()
    value, high, low = (hourly_usd / (3600 * x) * things if x else None for x in (per_s.value, per_s.low, per_s.high))
    return Estimate(value, low, high)


def _spreads(rows: Requests, seconds: Mapping[str, Values], *, rounds: int | None) -> dict[str, Any]:
    """`rounds`: how often a closed load's slots were filled; None where requests may queue."""
    told: dict[str, Any] = {}
    for name in SPREADS:
        if name in seconds and name != "itl":
            told |= _spread(name, rows, seconds[name], np.inf, rounds=rounds)
    speed = np.divide(1.0, seconds["tpot"], out=np.full_like(seconds["tpot"], np.nan), where=seconds["tpot"] > 0)
    told |= _spread("output_tokens_per_s_per_user", rows, speed, 0.0, rounds=rounds)
    tpot: Estimate = told["tpot_mean"]
    mean, high, low = (1 / x if x is not None and x > 0 else None for x in (tpot.value, tpot.low, tpot.high))
    told["output_tokens_per_s_per_user_mean"] = Estimate(mean, low, high)
    told["n_eff"] = stats.effective_size(ranked(rows, seconds["latency"])) or None
    return told


def ranked(rows: Requests, values: Values, worst: float = np.inf) -> Values:
    """The measured requests' values in the order planned; a failed one is `worst`, one without a value left out."""
    ranked = np.where(rows.ok, values, worst)[rows.measured]
    return ranked[~np.isnan(ranked)]


def _spread(name: str, rows: Requests, values: Values, worst: float, *, rounds: int | None) -> dict[str, Estimate]:
    known = values[rows.measured & rows.ok]
    known = known[~np.isnan(known)]
    if len(known) == 0 and name not in ("latency", "service_latency"):
        return {f"{name}_mean": Estimate()}
    series = ranked(rows, values, worst)
    ordered, effective = np.sort(series), stats.effective_size(series)
    worth = effective if len(known) == len(series) else stats.effective_size(known)
    told: dict[str, Estimate] = {"mean": stats.mean(known, worth if rounds is None else None, rounds)}
    worth = stats.queued(effective) if rounds is None else effective
    told |= {p: stats.percentile(ordered, q, worth) for p, q in QUANTILES.items()}
    return {f"{name}_{statistic}": found for statistic, found in told.items()}


def _gaps(rows: Requests, gaps: Gaps, total: Values, number: Values, *, rounds: int | None) -> dict[str, Estimate]:
    """ITL: the mean over gaps of ok requests; percentiles over all gaps, a failed request's last being endless.

    Gaps of one reply resemble each other: the intervals take requests, not gaps, as independent.
    """
    if len(gaps.seconds) == 0:
        return {}
    counted = rows.ok & (number > 0)
    worth = stats.effective_size(total[counted] / number[counted]) if rounds is None else None
    told: dict[str, Estimate] = {"itl_mean": stats.ratio(total[counted], number[counted], worth, rounds)}
    failed = (rows.measured & ~rows.ok).astype(np.float64)
    ordered = np.sort(np.append(gaps.seconds, np.full(int(failed.sum()), np.inf)))
    for p, q in QUANTILES.items():
        below = gaps.seconds <= stats.quantile(ordered, q)
        hits = np.bincount(gaps.request, below, len(number)).astype(np.float64)
        size = stats.clustered_size(hits, number + failed)
        told[f"itl_{p}"] = stats.percentile(ordered, q, size if worth is None or stats.queued(worth) else 0.0)
    return told


def _parts(rows: Requests, seconds: Mapping[str, Values]) -> dict[str, float | None]:
    counted = rows.ok & rows.measured & ~np.isnan(seconds["ttft"])
    parts = {
        "client_mean": seconds["lateness"],
        "prefill_mean": seconds["service_ttft"],
        "decode_mean": seconds["answering"],
    }
    return {name: float(part[counted].mean()) if counted.any() else None for name, part in parts.items()}


def _lateness(seconds: Values) -> dict[str, float | None]:
    ordered = np.sort(seconds[~np.isnan(seconds)])
    places = {"lateness_p50": 0.5, "lateness_p99": 0.99, "lateness_max": 1.0}
    return {name: stats.quantile(ordered, q) if len(ordered) else None for name, q in places.items()}


def _trend(rows: Requests, latency_s: Values) -> dict[str, float | None]:
    """Whether latency changed inside the window: drift, and what MSER-5 would still cut as warm-up."""
    known = rows.ok & rows.measured
    series, cut = latency_s[known], stats.warmup_cut(latency_s[known])
    drift = stats.drift(rows.numbers("planned_ns")[known], series, stats.CERTAINTY)
    shift = None
    if cut is not None and series.any():
        shift = float(series[int(cut * len(series)) :].mean() / series.mean()) - 1
    return {
        "drift": drift.value,
        "drift_low": drift.low,
        "drift_high": drift.high,
        "warmup_cut": cut,
        "warmup_shift": shift,
    }


def flat(summary: Facts) -> dict[str, Any]:
    """A summary as one row of TRIALS: estimates spread over their columns, everything that is not there null."""
    row = dict.fromkeys(TRIALS.names)
    for name, value in summary.items():
        if isinstance(value, Estimate):
            parts = {"": value.value, "_low": value.low, "_high": value.high}
            if isinstance(value, Quantile) and name.rpartition("_")[0] in CERTIFIED:
                parts["_certified"] = value.certified
            row |= {name + end: part for end, part in parts.items()}
        else:
            row[name] = value
    return row
