"""What a run cost: each endpoint under load, and deploying and idle where that is known."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raybench.prices import cost_usd


@dataclass(frozen=True, slots=True)
class Held:
    """What an endpoint cost while it was held for something."""

    seconds: float
    usd: float | None


def spent(experiment: Mapping[str, Any]) -> dict[str, Held]:
    """What an experiment of run.json cost: under load, and deploying and idle where it says how long those took."""
    price, number = experiment["price_per_hour"], experiment["instance_count"] or 1
    found = {}
    if experiment["duration_s"] is not None:
        found["load"] = Held(experiment["duration_s"], experiment["cost_usd"])
    for what in ("deploy", "idle"):
        seconds = experiment.get(f"{what}_s")
        if seconds is not None:
            found[what] = Held(seconds, cost_usd(None if price is None else price * number, seconds))
    return found
