"""What a rehearsal says: as text for people, as values for programs."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from raybench.analysis.spoken import aligned, dollars, lasting
from raybench.cluster.search_text import sentence
from raybench.rehearsal import Found, Need, Rehearsal, Rehearsed


def text(rehearsal: Rehearsal) -> str:
    """The rehearsal as plain text: what the trials and the searches came to, and a line per experiment."""
    counted = ((rehearsal.trials, "trial", "s"), (rehearsal.searches, "search", "es"))
    played = " and ".join(f"{len(some)} {name}{ending * (len(some) > 1)}" for some, name, ending in counted if some)
    least = "at least " if any(_left_off(found) for found in rehearsal.searches) else ""
    total = f"{least}{lasting(rehearsal.seconds())} of load with endpoints in parallel, {dollars(rehearsal.usd())}"
    costs = ("experiment", "instances", "trials", "about", "cost")
    lines = [f"{rehearsal.plan.name}: {played} in virtual time; the run: {total}", ""]
    if rehearsal.trials:
        lines += [*_trials(rehearsal), ""]
    if rehearsal.searches:
        lines += [*_searches(rehearsal), ""]
    return "\n".join((*lines, *aligned([costs, *_cost_cells(rehearsal)])))


def _trials(rehearsal: Rehearsal) -> Iterator[str]:
    """A line per trial, and what is too short."""
    metrics = [need.metric for need in rehearsal.trials[0].needs]
    heads = ("experiment", "payload", "load", "about", "requests", "failed", "mean", "p95", "per minute", "verdict")
    certified = tuple(f"certifies {metric}" for metric in metrics)
    yield from aligned([(*heads, *certified), *map(_trial_cells, rehearsal.trials)])
    yield ""
    yield from (_short(rehearsal, metric) for metric in metrics)


def _searches(rehearsal: Rehearsal) -> Iterator[str]:
    """A line per search, and a sentence: what it would find, or how it would end without."""
    heads = ("experiment", "payload", "search", "probes", "about", "cost", "certifies", "fails at")
    yield from aligned([heads, *map(_search_cells, rehearsal.searches)])
    yield ""
    for found in rehearsal.searches:
        if _left_off(found):
            trial = found.trial
            left = f"left off at {rehearsal.most_searched:,} requests with no rate certified"
            most = lasting(trial.expected_s)
            yield f"{trial.experiment}, {trial.payload}: {left}; more than {lasting(found.seconds)}, at most {most}."
        else:
            yield sentence(found.searched)


def _left_off(found: Found) -> bool:
    return found.searched.verdict is None


def _search_cells(found: Found) -> tuple[str, ...]:
    verdict, trial = found.searched.verdict, found.trial
    rates = (verdict.rate, verdict.failing) if verdict else (None, None)
    certified, failing = ("-" if rate is None else f"{_number(rate)}/s" for rate in rates)
    cost = (str(len(found.searched.probes)), lasting(found.seconds), dollars(found.usd))
    return (trial.experiment, trial.payload, trial.load.label, *cost, certified, failing)


def as_dict(rehearsal: Rehearsal) -> dict[str, Any]:
    """The rehearsal as JSON values; `row` is the trial's row of the trials table, a search is as in run.json."""
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
    searches = [
        {"seconds": found.seconds, "usd": found.usd, **found.searched.as_dict(), "sentence": sentence(found.searched)}
        for found in rehearsal.searches
    ]
    experiments = [
        {"experiment": name, "seconds": rehearsal.seconds(name), "usd": rehearsal.usd(name)}
        for name in (forecast.experiment for forecast in rehearsal.plan.forecasts)
    ]
    total = {"seconds": rehearsal.seconds(), "usd": rehearsal.usd()}
    return {"name": rehearsal.plan.name, **total, "experiments": experiments, "trials": trials, "searches": searches}


def _trial_cells(each: Rehearsed) -> tuple[str, ...]:
    trial, row = each.trial, each.row
    verdict = " ".join((row["valid"], *row["reasons"]))
    numbers = (_seconds(row["latency_mean"]), _seconds(row["latency_p95"]), _number(row["transactions_per_minute"]))
    counts = (lasting(each.seconds), str(row["requests"]), str(row["failed"]))
    needs = (_need(need, row) for need in each.needs)
    return (trial.experiment, trial.payload, trial.load.label, *counts, *numbers, verdict, *needs)


def _need(need: Need, row: Mapping[str, Any]) -> str:
    if need.requests is None:
        end = ", all there are" if need.whole else f", {lasting(need.tried_s)}" if need.tried_s else ""
        return f"not in {need.tried:,} requests{end}{' (failures)' if row['failed'] else ''}"
    least = f"{need.requests:,} requests, {lasting(need.duration_s)}"
    return f"yes (least: {least})" if need.met else f"needs {least}"


def _short(rehearsal: Rehearsal, metric: str) -> str:
    """Which trials are too short for a percentile, and what would do for all of them."""
    needs = [need for each in rehearsal.trials for need in each.needs if need.metric == metric]
    short = [need for need in needs if not need.met]
    if not short:
        return f"{metric}: every trial certifies it"
    would = [need for need in short if need.requests is not None]
    tried = [need.tried for need in short if need.requests is None]
    are = "trial is" if len(needs) == 1 else "trials are"
    said = f"{metric}: {len(short)} of {len(needs)} {are} too short to certify it"
    if would:
        requests = max(need.requests or 0 for need in would)
        longest_s = max(need.duration_s or 0 for need in would)
        said += f"; {len(would)} would at {requests:,} requests, or {lasting(longest_s)}, each"
    if tried:
        most = " to ".join(f"{number:,}" for number in sorted({min(tried), max(tried)}))
        said += f"; {len(tried)} would not even at {most} requests"
    return said


def _cost_cells(rehearsal: Rehearsal) -> Iterator[tuple[str, ...]]:
    for forecast in rehearsal.plan.forecasts:
        seconds, usd = rehearsal.seconds(forecast.experiment), rehearsal.usd(forecast.experiment)
        cost = "not billed: simulated" if usd is None else f"{dollars(usd)}, not billed: simulated"
        trials = str(len(rehearsal.of(forecast.experiment)))
        yield forecast.experiment, forecast.instance, trials, lasting(seconds), cost


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{_number(seconds)} s"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
