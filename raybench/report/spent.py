"""What the run itself cost, as the page shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raybench.analysis.spent import spent
from raybench.analysis.spoken import listed, usd
from raybench.report.naming import NamedExperiment
from raybench.report.text import clean, count
from raybench.report.view import View

_WHAT = {"load": "under load", "deploy": "deploying", "idle": "idle"}


@dataclass(frozen=True, slots=True)
class Spent:
    """What one experiment cost for one thing."""

    experiment: NamedExperiment
    instance: str
    price: float | None
    what: str
    seconds: float | None
    usd: float | None


def lines(view: View) -> list[Spent]:
    """What each experiment cost, under load and, where the manifest tells them, deploying and idle."""
    found = []
    for experiment in view.manifest["experiments"]:
        number, kind = experiment["instance_count"], clean(experiment["instance_type"])
        head = (view.experiments[experiment["name"]], kind if number == 1 else f"{number} × {kind}")
        for what, held in spent(experiment).items():
            found.append(Spent(*head, experiment["price_per_hour"], _WHAT[what], held.seconds, held.usd))
    return found


def said(found: Sequence[Spent], experiments: Sequence[Mapping[str, Any]]) -> str:
    """What the run cost, and what that leaves out."""
    known = [one for one in found if one.usd is not None]
    without = sum(experiment["price_per_hour"] is None for experiment in experiments)
    if not known:
        why = "No price is known" if without == len(experiments) else "Nothing that has a price was played"
        return f"{why}, so no cost is given."
    by = {what: sum(one.usd or 0 for one in known if one.what == what) for what in _WHAT.values()}
    parts = [f"${usd(cost)} {what}" for what, cost in by.items() if any(one.what == what for one in known)]
    text = f"The run itself: {listed(parts)}, at hourly prices."
    if not any(one.what != _WHAT["load"] for one in known):
        text += " Deployment and idle time are not known, and not in it."
    text += f" {count(without, 'experiment')} without a price left out." if without else ""
    return text + (" None of it was billed: simulated." if all(e["simulated"] for e in experiments) else "")
