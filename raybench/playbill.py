"""What a rehearsal says: as text for people, as values for programs."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from raybench.load.search import Search
from raybench.plan import aligned, dollars, lasting
from raybench.rehearsal import MOST_REQUESTS, Need, Rehearsal, Rehearsed


def text(rehearsal: Rehearsal) -> str:
    """The rehearsal as plain text: a line per trial, what is too short, a line per experiment."""
    metrics = [need.metric for need in rehearsal.trials[0].needs]
    heads = ("experiment", "payload", "load", "about", "requests", "failed", "mean", "p95", "per minute", "verdict")
    certified = tuple(f"certifies {metric}" for metric in metrics)
    upper = aligned([(*heads, *certified), *map(_trial_cells, rehearsal.trials)])
    costs = ("experiment", "instances", "trials", "about", "cost")
    lower = aligned([costs, *_cost_cells(rehearsal)])
    total = f"{lasting(rehearsal.seconds())} of load with endpoints in parallel, {dollars(rehearsal.usd())}"
    count = f"{len(rehearsal.trials)} trial{'s' if len(rehearsal.trials) > 1 else ''} in virtual time"
    short = [_short(rehearsal, metric) for metric in metrics]
    head = f"{rehearsal.plan.name}: {count}; the run: {total}"
    return "\n".join((head, *_searches(rehearsal), "", *upper, "", *short, "", *lower))


def _searches(rehearsal: Rehearsal) -> Iterator[str]:
    """That searches were left out, if there are any, and what they may add."""
    searches = [trial for trial in rehearsal.plan.trials if isinstance(trial.load, Search)]
    if searches:
        most = lasting(sum(trial.expected_s or 0.0 for trial in searches))
        many = f"{len(searches)} search{'es' if len(searches) > 1 else ''}"
        yield f"{many} not rehearsed and not counted: at most {most} together"


def as_dict(rehearsal: Rehearsal) -> dict[str, Any]:
    """The rehearsal as JSON values; `row` is the trial's row of the trials table."""
    trials = [
        {
            "trial_id": each.trial.trial_id,
            "seconds": each.seconds,
            "usd": each.usd,
            "needs": [asdict(need) for need in each.needs],
            "row": dict(each.row),
        }
        for each in rehearsal.trials
    ]
    experiments = [
        {"experiment": name, "seconds": rehearsal.seconds(name), "usd": rehearsal.usd(name)}
        for name in (estimate.experiment for estimate in rehearsal.plan.estimates)
    ]
    total = {"seconds": rehearsal.seconds(), "usd": rehearsal.usd()}
    return {"name": rehearsal.plan.name, **total, "experiments": experiments, "trials": trials}


def _trial_cells(each: Rehearsed) -> tuple[str, ...]:
    trial, row = each.trial, each.row
    verdict = " ".join((row["valid"], *row["reasons"]))
    numbers = (_seconds(row["latency_mean"]), _seconds(row["latency_p95"]), _number(row["transactions_per_minute"]))
    counts = (lasting(each.seconds), str(row["requests"]), str(row["failed"]))
    needs = (_need(need, row) for need in each.needs)
    return (trial.experiment, trial.payload, trial.load.label, *counts, *numbers, verdict, *needs)


def _need(need: Need, row: Mapping[str, Any]) -> str:
    if need.requests is None:
        why = " (failures)" if row["failed"] else ""
        return f"not in {MOST_REQUESTS:,} requests{why}"
    least = f"{need.requests:,} requests, {lasting(need.duration_s)}"
    return f"yes (least: {least})" if need.met else f"needs {least}"


def _short(rehearsal: Rehearsal, metric: str) -> str:
    """Which trials are too short for a percentile, and what would do for all of them."""
    needs = [need for each in rehearsal.trials for need in each.needs if need.metric == metric]
    short = [need for need in needs if not need.met]
    if not short:
        return f"{metric}: every trial certifies it"
    would = [need for need in short if need.requests is not None]
    said = f"{metric}: {len(short)} of {len(needs)} trials are too short to certify it"
    if would:
        requests = max(need.requests or 0 for need in would)
        longest_s = max(need.duration_s or 0 for need in would)
        said += f"; {len(would)} would at {requests:,} requests, or {lasting(longest_s)}, each"
    if len(would) < len(short):
        said += f"; {len(short) - len(would)} would not in {MOST_REQUESTS:,} requests"
    return said


def _cost_cells(rehearsal: Rehearsal) -> Iterator[tuple[str, ...]]:
    for estimate in rehearsal.plan.estimates:
        seconds, usd = rehearsal.seconds(estimate.experiment), rehearsal.usd(estimate.experiment)
        cost = f"{dollars(usd)}, not billed: simulated"
        trials = str(len(rehearsal.of(estimate.experiment)))
        yield estimate.experiment, estimate.instance, trials, lasting(seconds), cost


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{_number(seconds)} s"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
