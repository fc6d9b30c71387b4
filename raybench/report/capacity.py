"""Capacity: what each configuration takes for a demand, in whole instances and dollars."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from raybench.analysis.capacity import DEMANDS, HEADROOM, MONTH_H, Supply, need
from raybench.analysis.spoken import listed
from raybench.report.cells import Cell
from raybench.report.columns import Rows
from raybench.report.view import View

CURVE = [10 ** (place / 16) for place in range(4 * 16 + 1)]
"""The demands that the chart is drawn through, 1 to 10,000 requests a minute."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One configuration at the setting to choose, or its nearest miss, and what that needs for each demand."""

    cell: Cell
    passes: bool
    needs: list[Supply]


def lines(view: View) -> list[Choice]:
    """One per configuration on the data set asked about, those that pass first, then by price of the last demand."""
    found = []
    for experiment in view.experiments:
        winner, nearest = view.choice(view.payload_name, experiment)
        cell = winner or nearest
        needs = [need(cell.row, demand) for demand in DEMANDS] if cell else []
        known = [one for one in needs if one is not None]
        if cell is not None and known:
            found.append(Choice(cell, winner is not None, known))
    return sorted(found, key=lambda line: (not line.passes, _usd(line.needs[-1])))


def cheapest(found: Sequence[Choice], place: int) -> Choice | None:
    """The line that passes and costs least at a demand."""
    known = [line for line in found if line.passes and line.needs[place].usd_per_month is not None]
    return min(known, key=lambda line: _usd(line.needs[place]), default=None)


def _usd(one: Supply) -> float:
    """What it is ordered by; unknown is last."""
    return math.inf if one.usd_per_month is None else one.usd_per_month


def steps(found: Sequence[Choice]) -> Rows:
    """USD a month over demand, as the chart draws it."""
    rows: Rows = []
    for line in found:
        for demand in CURVE:
            one = need(line.cell.row, demand)
            if one is not None and one.usd_per_month is not None:
                rows.append(
                    {
                        "config": line.cell.experiment.label,
                        "level_text": line.cell.level_text,
                        "demand": demand,
                        "instances": one.instances,
                        "usd": one.usd_per_month,
                        "usd_text": f"${one.usd_per_month:,.0f}",
                        "passes": line.passes,
                        "last": demand == CURVE[-1],
                        "said": f"{line.cell.experiment.label}, {line.cell.level_text}",
                    }
                )
    return rows


def said(found: Sequence[Choice]) -> str:
    """How far one copy of the cheapest goes, and whether the cheapest changes with demand."""
    best = [cheapest(found, place) for place in range(len(DEMANDS))]
    known = [(demand, line) for demand, line in zip(DEMANDS, best, strict=True) if line is not None]
    if not known:
        return "No configuration meets every criterion with a price: broken lines show what the nearest misses cost."
    line = known[0][1]
    most = line.cell.row["transactions_per_minute"] * (1 - HEADROOM)
    text = f"One copy of {line.cell.experiment.label} at {line.cell.load_text} carries {most:,.0f} requests/min. "
    names = list(dict.fromkeys(line.cell.experiment.label for _, line in known))
    if len(names) == 1:
        others = sum(line.passes for line in found) > 1
        return text + ("It is the cheapest at every demand shown." if others else "Nothing else passes.")
    changes = [f"{line.cell.experiment.label} at {demand:,}" for demand, line in known]
    return text + f"Which is cheapest depends on the demand: {listed(changes)}."


def rule() -> str:
    """By which rule instances are counted."""
    return (
        "Each configuration at its cheapest setting inside every limit, else at its nearest miss (broken line), with "
        f"{HEADROOM:.0%} headroom, {MONTH_H} hours a month, at the hourly price of the config. Whole copies only."
    )
