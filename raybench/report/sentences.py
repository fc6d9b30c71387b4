"""The report's sentences: each by rule from named columns, each with a guard, every outside word escaped."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from raybench.analysis.columns import PRICE, criterion_unit
from raybench.analysis.decide import Phrase
from raybench.analysis.spoken import (
    between,
    criterion_beyond,
    criterion_limit,
    criterion_name,
    criterion_value,
    listed,
    room,
    seconds,
    times,
    usd,
)
from raybench.analysis.standing import State
from raybench.report import columns
from raybench.report.cells import Cell
from raybench.report.text import block, count, fixed
from raybench.report.view import View

DATASETS = "For each data set and configuration: the setting to choose, or that none of those tried will do."
LATENCY = "Percentiles are taken over all requests of a trial, and only where the sample can bound them."
TOKENS = "Longer prompts take longer: how much of the spread comes from the prompts themselves."


def short_name(criterion: str) -> str:
    """A criterion as a table's head: `Mean latency, s`, `$ per 10,000 requests`."""
    name, unit = criterion_name(criterion), criterion_unit(criterion)
    if unit == "USD":
        return name.replace("cost", "$", 1)
    return name[0].upper() + name[1:] + (", s" if unit == "s" else "")


def asked(criteria: Mapping[str, float]) -> list[str]:
    """The criteria as short texts: `mean latency ≤ 5 s`."""
    return [f"{criterion_name(name)} ≤ {criterion_limit(name, limit)}" for name, limit in criteria.items()]


def measured(cell: Cell) -> str:
    """What a setting does, with its intervals and what its sample cannot exclude."""
    row = cell.row
    parts = [f"{seconds(row['latency_mean'])} s mean latency{_interval(row, 'latency_mean', seconds)}"]
    if row[PRICE] is not None:
        parts.append(f"${usd(row[PRICE])} per 10,000 requests{_interval(row, PRICE, usd)}")
    failed = row["requests"] - row["ok"]
    left = room(row.get("error_rate_high"))
    parts.append(f"{count(failed, 'error')} in {count(row['requests'], 'request')}{left}")
    return ", ".join(parts) + "."


def _interval(row: Mapping[str, Any], metric: str, write: Callable[[float], str]) -> str:
    return between(row.get(f"{metric}_low"), row.get(f"{metric}_high"), write)


def missed(state: State) -> str:
    """How one criterion stands that is not simply met: `mean latency is 4.2× the limit (21.0 s against 5 s)`."""
    name, limit = criterion_name(state.criterion), criterion_limit(state.criterion, state.limit)
    if state.exceedance is None:
        return f"{name} could not be measured"
    if state.value is None:
        return f"{name} {criterion_beyond(state.criterion)} (limit {limit})"
    value = criterion_value(state.criterion, state.value)
    if state.bare:
        return f"{name} is not certain ({value}, limit {limit}): it has no interval"
    if state.standing == "unsure":
        return f"{name} is too close to call ({value}, limit {limit})"
    if math.isfinite(state.exceedance):
        return f"{name} is {times(state.exceedance)} the limit ({value} against {limit})"
    return f"{name} is {value} where {limit} is allowed"


def kept(state: State) -> str:
    """How one criterion is met: `mean latency passes (3.80 s, limit 5 s)`."""
    value, limit = criterion_value(state.criterion, state.value), criterion_limit(state.criterion, state.limit)
    return f"{criterion_name(state.criterion)} passes ({value}, limit {limit})"


def misses_of(cell: Cell) -> list[str]:
    """Each criterion that a setting does not simply pass, in words."""
    return [missed(state) for state in cell.setting.states if state.standing != "pass"]


def account(cell: Cell) -> str:
    """How a setting stands, criterion by criterion: what passes, then what does not."""
    passes = [kept(state) for state in cell.setting.states if state.standing == "pass"]
    return ", but ".join(part for part in (listed(passes), listed(misses_of(cell))) if part)


def emphasized(sentence: Sequence[Phrase], labels: Mapping[str, str]) -> Markup:
    """A sentence of the decision with its strong pieces in bold and experiments by their labels."""
    strong, weak = Markup("<b>{}</b>"), Markup("{}")
    return Markup("").join(
        (strong if phrase.strong else weak).format(
            labels.get(phrase.text, block(phrase.text)) if phrase.experiment else block(phrase.text)
        )
        for phrase in sentence
    )


def saturation(cells: Sequence[Cell]) -> str:
    """Where each configuration stops scaling, or that it did not."""
    said = []
    for (label, *_), line in columns.lines(cells).items():
        knee = columns.knee(line)
        if knee is None:
            continue
        rate = fixed(knee.best.row["transactions_per_minute"], 0)
        if knee.reached:
            said.append(f"{label} saturates near {rate} requests/min, from {knee.cell.load_text} on.")
        else:
            said.append(f"{label} still scales at {knee.last.load_text} ({rate} requests/min): its knee lies beyond.")
    return " ".join(said) or "Fewer than three loads that can be counted: too few to say where it saturates."


def errors(cells: Sequence[Cell]) -> str:
    """How many requests failed in all, and how little an absence of errors says."""
    failed = sum(cell.row["requests"] - cell.row["ok"] for cell in cells)
    total = sum(cell.row["requests"] for cell in cells)
    if not total:
        return "No request was measured."
    if failed:
        untrue = sum(cell.row["requests"] - cell.row["ok"] for cell in cells if not cell.valid)
        said = f"{count(failed, 'request')} of {total:,} failed; every one stays in its denominator."
        return said + (f" {untrue:,} of them {'is' if untrue == 1 else 'are'} of INVALID trials." if untrue else "")
    return f"None of {count(total, 'request')} failed."


def price(cells: Sequence[Cell]) -> str:
    """The spread of prices on the data set that was asked about."""
    prices = [cell.row[PRICE] for cell in cells if cell.counted and cell.row[PRICE]]
    if not prices:
        return "Down and left is better."
    return f"Down and left is better. Settings that can be counted cost ${usd(min(prices))} to ${usd(max(prices))}."


def misses(view: View) -> str:
    """How many of the cells on the data set asked about miss which criterion."""
    counted = [cell for cell in view.asked if cell.counted]
    if not counted:
        return f"No {view.thing} can be counted."
    fails = {name: sum(_fails(cell, name) for cell in counted) for name in view.limits}
    parts = [f"{number} on {criterion_name(name)}" for name, number in fails.items() if number]
    total = sum(cell.standing == "fail" for cell in counted)
    unsure = sum(cell.standing == "unsure" for cell in counted)
    said = f"Of {view.counted(len(counted))} that can be counted, {total or 'none'} missed a limit"
    said += f": {listed(parts)}." if parts else "."
    return said + (f" {unsure} {'is' if unsure == 1 else 'are'} too close to call." if unsure else "")


def _fails(cell: Cell, criterion: str) -> bool:
    state = cell.state(criterion)
    return state is not None and state.standing == "fail"
