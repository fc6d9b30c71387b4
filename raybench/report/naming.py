"""How the report names and colours what a run is about: its experiments, and its data sets."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raybench.analysis.columns import PRICE
from raybench.analysis.decide import Decision
from raybench.analysis.spoken import data_set
from raybench.report import palette
from raybench.report.text import clean

LABEL_CHARS = 28


@dataclass(frozen=True, slots=True)
class NamedExperiment:
    """One experiment as the report names it: a short label for charts, its full name, its colour."""

    key: str
    label: str
    name: str
    colour: str
    instance_type: str
    simulated: bool


def payload_label(payload: object) -> str:
    """A payload's data set, as the page writes it."""
    return clean(data_set(str(payload)))


def named_experiments(manifest: Mapping[str, Any], chosen: Sequence[str]) -> dict[str, NamedExperiment]:
    """Experiment -> how the report names and colours it, in the order of the config; those not chosen are grey.

    The instance type is the label where it tells the experiments apart; else the name without its common beginning.
    """
    experiments = manifest["experiments"]
    names = [clean(experiment["name"], 200) for experiment in experiments]
    types = {experiment["instance_type"] for experiment in experiments}
    if len(types) == len(experiments) and all(types):
        labels = [experiment["instance_type"] for experiment in experiments]
    else:
        labels = [name[len(_common_prefix(names)) :] for name in names]
    labels = _told_apart([clean(label, LABEL_CHARS) for label in labels])
    return {
        experiment["name"]: NamedExperiment(
            key=experiment["name"],
            label=label,
            name=clean(name, 120),
            colour=palette.series(chosen.index(experiment["name"])) if experiment["name"] in chosen else "mute",
            instance_type=clean(experiment["instance_type"]),
            simulated=bool(experiment["simulated"]),
        )
        for experiment, name, label in zip(experiments, names, labels, strict=True)
    }


def chosen(decision: Decision, manifest: Mapping[str, Any]) -> list[str]:
    """The experiments that charts with a panel each have room for, in the order of the config.

    Those that come nearest to the answer: by the price of what passes on the data set decided, then the others.
    """
    names = [experiment["name"] for experiment in manifest["experiments"]]
    if len(names) <= palette.SERIES:
        return names
    prices = {name: (2, 0.0) for name in names}
    for found in decision.recommendations:
        best = found.trial_id or found.nearest
        if found.payload == decision.payload and best is not None:
            price = decision.settings[best].row[PRICE]
            prices[found.experiment] = (0 if found.trial_id else 1, math.inf if price is None else price)
    return sorted(sorted(names, key=lambda name: prices[name])[: palette.SERIES], key=names.index)


def _told_apart(labels: list[str]) -> list[str]:
    """The labels, numbered where two would read the same."""
    return [
        label if labels.count(label) == 1 else f"{label} ({labels[: place + 1].count(label)})"
        for place, label in enumerate(labels)
    ]


def _common_prefix(names: Sequence[str]) -> str:
    """What all names start with, up to a separator; nothing for one name."""
    if len(names) < 2:
        return ""
    low, high = min(names), max(names)
    same = next((n for n, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    cut = max(low.rfind(separator, 0, same) for separator in "-_ ./")
    return low[: cut + 1]
