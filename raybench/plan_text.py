"""The plan as it is shown: lines for people, values for programs."""

from dataclasses import asdict, fields
from typing import Any

from raybench.analysis.spoken import aligned, dollars, lasting
from raybench.load.search import Search
from raybench.plan import Forecast, Plan, Trial


def text(plan: Plan) -> str:
    """The plan as plain text: a line per trial, a line per experiment, and the total."""
    trials = ("experiment", "payload", "load", "repeat", "warm-up", "measured", "about")
    costs = ("experiment", "instances", "trials", "about", "cost")
    upper = aligned([trials, *map(_trial_cells, plan.trials)])
    lower = aligned([costs, *map(_cost_cells, plan.forecasts)])
    count = f"{len(plan.trials)} trial{'s' if len(plan.trials) > 1 else ''}"
    most = "at most " if any(isinstance(trial.load, Search) for trial in plan.trials) else ""
    total = f"{count}, {most}{lasting(plan.seconds)} of load with endpoints in parallel, {dollars(plan.usd)}"
    return "\n".join((f"{plan.name}: {total}", "", *upper, "", *lower))


def as_dict(plan: Plan) -> dict[str, Any]:
    """The plan as JSON values."""
    trials = [
        {field.name: getattr(trial, field.name) for field in fields(trial)} | {"load": trial.load.label}
        for trial in plan.trials
    ]
    total = {"expected_s": plan.seconds, "expected_usd": plan.usd}
    return {"name": plan.name, **total, "experiments": [asdict(each) for each in plan.forecasts], "trials": trials}


def _trial_cells(trial: Trial) -> tuple[str, ...]:
    measured = f"{trial.requests} requests" if trial.duration_s is None else f"{trial.duration_s:g} s"
    load, warmup, about = trial.load.label, f"{trial.warmup_s:g} s", lasting(trial.expected_s)
    if isinstance(trial.load, Search):
        measured, about = "until certified", f"at most {about}"
    return trial.experiment, trial.payload, load, str(trial.repeat), warmup, measured, about


def _cost_cells(each: Forecast) -> tuple[str, ...]:
    usd = "not billed" if each.simulated else dollars(each.usd)
    usd = f"{dollars(each.usd)}, not billed" if each.simulated and each.usd is not None else usd
    return each.experiment, each.instance, str(each.trials), lasting(each.seconds), usd
