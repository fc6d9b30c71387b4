"""The report in Markdown, in the form that people know from FMBench: sections, tables, colours and sentences."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from raybench.analysis import decide
from raybench.analysis.columns import PRICE, Valid, criterion_column, criterion_unit
from raybench.analysis.reduce import Findings
from raybench.analysis.spoken import NO_NUMBER, criterion_name, plain, usd
from raybench.analysis.standing import Standing, State
from raybench.report import maximum, trust
from raybench.report.answer import rule
from raybench.report.banners import banners
from raybench.report.cells import Cell
from raybench.report.text import clean, count, markdown_code, markdown_text, short
from raybench.report.view import View, look
from raybench.rundir import MANIFEST

PLOTS = {
    "business_summary": "Price performance comparison",
    "error_rates": "Error rates for different concurrency levels and instance types",
    "tokens_vs_latency": "Tokens vs latency for different concurrency levels and instance types",
    "concurrency_vs_inference_latency": "Concurrency Vs latency for different instance type for selected dataset",
}
"""File name -> what it shows."""

_INFORMATION: Mapping[str, int | None] = {
    "error_rate": 2,
    "prompt_token_count_mean": None,
    "prompt_token_throughput": None,
    "completion_token_count_mean": None,
    "completion_token_throughput": None,
    "latency_mean": 2,
    "latency_p50": 2,
    "latency_p95": 2,
    "latency_p99": 2,
    "service_latency_p99": 2,
    "transactions_per_minute": None,
    "price_per_txn": 6,
}
"""The summary's rows and their decimals; None is a whole number."""


def markdown(findings: Findings, decision: decide.Decision, manifest: Mapping[str, Any]) -> str:
    """The report of one run as Markdown; numbers are rounded here and nowhere before."""
    return write(look(findings, decision, manifest))


def write(view: View, charts: Sequence[str] = tuple(PLOTS)) -> str:
    """The Markdown of a view; `charts` are the files in charts/ that there are."""
    manifest = view.manifest
    missed = [cell for cell in view.asked if cell.setting.played and not cell.met]
    return document(
        "report.md.j2",
        banners=_banners(view),
        modified=markdown_text(manifest["finished_utc"] or manifest["started_utc"]),
        summary=_summary(view),
        information=_information(view),
        plots={name: _plot(name, said, charts) for name, said in PLOTS.items()},
        criteria_said=_criteria_said(view, missed),
        criteria_columns=[f"{criterion_column(name)}_text" for name in _criteria(view)],
        level="concurrency" if all(cell.kind == "closed" for cell in view.asked) else "load",
        missed=[_missed(view, cell) for cell in missed],
        config_file=_link(manifest["config_file"] or MANIFEST),
        total_cost=_total(manifest["experiments"]),
        costs=[_cost(experiment) for experiment in manifest["experiments"]],
        datasets=", ".join(markdown_code(name) for name in _datasets(manifest)),
        recommendations=_recommendations(view),
        searches=maximum.in_markdown(view),
        maximum_rule=maximum.RULE,
        checks=[(one.glyph, one.name, markdown_text(one.found)) for one in trust.checks(view)],
        distrusted=[_distrusted(cell) for cell in view.cells if cell.row["valid"] != Valid.VALID],
    )


def document(template: str, **said: Any) -> str:
    """A Markdown file of ours: its template and what it says, every outside word already escaped."""
    environment = jinja2.Environment(  # noqa: S701 - this is not HTML
        loader=jinja2.PackageLoader("raybench.report"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**said)


def _plot(name: str, said: str, charts: Sequence[str]) -> str:
    return f"![{said}](charts/{name}.svg)" if name in charts else f"{said}: this run has nothing to draw for it."


def _banners(view: View) -> list[str]:
    return [f"**{banner.head}** {markdown_text(banner.said)}" for banner in banners(view)]


def _summary(view: View) -> str:
    """The headline: who wins by the rule, or that nobody does and who comes nearest."""
    manifest = view.manifest
    types = dict.fromkeys(experiment["instance_type"] for experiment in manifest["experiments"])
    model = markdown_code(manifest["model"] or manifest["name"])
    instances = ", ".join(markdown_code(kind) for kind in types)
    many = "one dataset" if len(manifest["payloads"]) == 1 else "multiple datasets"
    head = f'We did performance benchmarking for {model} on "{instances}" on {many} and based on the test results '
    dataset = f" for dataset {markdown_code(view.payload)}" if view.payload else ""
    reasons = " ".join(decide.plain(sentence) for sentence in view.decision.sentences)
    reasons = markdown_text(reasons, 2000)
    winner = view.winner
    if winner is not None:
        instance = markdown_code(winner.row["instance_type"])
        said = f"the best price performance{dataset} is provided by the {instance}."
        return f"{head}{said} {reasons} {rule(view)}"
    none = f"no configuration provides a price performance inside every configured criteria{dataset}."
    if not any(cell.counted for cell in view.asked):
        none = f"nothing can be said of the price performance{dataset}."
    return f"{head}{none} {reasons} {rule(view)}"


def _information(view: View) -> list[tuple[str, str]]:
    """The winner's row, or the nearest miss's; an empty table where there is neither."""
    cell = view.winner or view.nearest
    if cell is None:
        return []
    level = "concurrency" if cell.row["concurrency"] is not None else "rate" if cell.level else "load"
    named = [
        ("experiment_name", markdown_text(cell.row["experiment"])),
        ("payload_file", markdown_text(cell.row["payload"])),
        ("instance_type", markdown_text(cell.row["instance_type"])),
        (level, plain(cell.level) if cell.level else markdown_text(cell.level_text)),
    ]
    return named + [(name, _number(cell.row[name], places)) for name, places in _INFORMATION.items()]


def _criteria(view: View) -> list[str]:
    """The criteria in the order of the seed's columns: errors, latencies, cost."""
    return sorted(view.limits, key=lambda name: ("1", "s", "USD").index(criterion_unit(name)))


_FORMS = {"s": "`{}` < `{}s`", "USD": "`{}`: `${}`", "1": "`{}`: `{}`"}
"""Unit -> how the seed says a criterion, in the order in which it says them."""

_SEED_NAMES = {"latency_mean": "Latency", PRICE: "cost per 10k transactions"}


def _criteria_said(view: View, missed: Sequence[Cell]) -> str:
    """`Latency` < `5s`, … as the seed says it."""
    parts = [
        form.format(_SEED_NAMES.get(criterion_column(name), criterion_name(name)), plain(limit))
        for unit, form in _FORMS.items()
        for name, limit in view.limits.items()
        if criterion_unit(name) == unit
    ]
    if not parts:
        return "No performance criteria were configured."
    counted = sum(cell.counted for cell in view.asked)
    failed = sum(cell.valid for cell in missed)
    struck = len(missed) - failed
    untrue = f" Struck through: {struck} experiment run(s) that are INVALID." if struck else ""
    if not failed:
        said = f"All {counted} experiment run(s) that can be counted satisfied"
        said = "All experiments satisfied" if counted == len(view.asked) else said
        said = said if counted else "No experiment run can be counted against"
        return f"{said} the configured performance criteria: {', '.join(parts)}.{untrue}"
    return (
        f"There were a total of {failed} experiment run(s) that failed at least one configured performance criteria: "
        f"{', '.join(parts)}. See table below.{untrue}"
    )


def _missed(view: View, cell: Cell) -> list[str]:
    states = [cell.state(name) for name in _criteria(view)]
    marks = [_mark(state) for state in states if state is not None]
    level = markdown_text(cell.level_text)
    name = markdown_text(cell.row["experiment"])
    if not cell.valid:
        name, marks = f"{name} (INVALID)", [f"~~{mark}~~" for mark in marks]
    return [name, markdown_text(cell.row["payload"]), level, *marks]


def _mark(state: State) -> str:
    """A value in the seed's colours; an interval that straddles the limit is neither green nor red."""
    if state.value is None:
        return NO_NUMBER
    cents = criterion_unit(state.criterion) != "USD" or state.value >= 1
    value = f"{state.value:.2f}" if cents else usd(state.value)
    if state.standing is Standing.FAIL:
        return f"<span style='color:red'>**{value}**</span>"
    return f"<span style='color:green'>{value}</span>" if state.standing is Standing.PASS else f"{value} ≈"


def _cost(experiment: Mapping[str, Any]) -> list[str]:
    cost = experiment["cost_usd"]
    return [
        markdown_text(experiment["name"]),
        markdown_text(experiment["instance_type"]),
        short(experiment["duration_s"], 2),
        NO_NUMBER if cost is None else f"{cost:.6f}",
    ]


def _total(experiments: Sequence[Mapping[str, Any]]) -> str:
    """What all experiments that were played cost together; a dash where no price is known."""
    played = [experiment["cost_usd"] for experiment in experiments if experiment["duration_s"] is not None]
    known = [cost for cost in played if cost is not None]
    without = len(played) - len(known)
    left_out = f", {count(without, 'experiment')} without a price left out" if without else ""
    return f"${sum(known):.2f}{left_out}" if known else NO_NUMBER


def _recommendations(view: View) -> list[tuple[str, str, str]]:
    """One line per instance and data set: experiments in the order of the config, data sets by name."""
    places = {experiment: place for place, experiment in enumerate(view.experiments)}
    return [
        _recommendation(view, *pair) for pair in sorted(view.pairs(), key=lambda pair: (places[pair[1]], pair[0]))
    ]


def _recommendation(view: View, payload: str, experiment: str) -> tuple[str, str, str]:
    """The cheapest setting inside every limit but that on cost, which the sentence does not speak of."""
    here = (payload, experiment)
    counted = [c for c in view.cells if (c.row["payload"], c.row["experiment"]) == here and c.counted]
    cell = min((c for c in counted if c.setting.answered and c.within), key=_cheapness, default=None)
    dataset = markdown_code(payload)
    instance = markdown_code(view.experiments[experiment].instance_type)
    limit = view.latency_limit
    within = f"within a latency budget of `{plain(limit)} seconds` " if limit is not None else ""
    if not counted:
        said = f"No trial on a {instance} for the {dataset} dataset can be counted: see Trust."
        return dataset, instance, said
    if cell is None:
        said = (
            "This experiment did not find any combination of concurrency level and other configuration settings that "
            f"could provide a response {within}on a {instance} for the {dataset} dataset."
        )
        return dataset, instance, said
    row, level = cell.row, _level_said(cell)
    said = (
        f"The best option for staying {within}on a {instance} for the {dataset} dataset is a {markdown_code(level)}. "
        f"A {markdown_text(level)} achieves an `average latency of {short(row['latency_mean'], 2)} seconds`, for an "
        f"`average prompt size of {_number(row['prompt_token_count_mean'], None)} tokens` and "
        f"`completion size of {_number(row['completion_token_count_mean'], None)} tokens` with "
        f"`{_number(row['transactions_per_minute'], None)} transactions/minute`."
    )
    return dataset, instance, said


def _cheapness(cell: Cell) -> tuple[float, float]:
    price, rate = cell.row[PRICE], cell.row["transactions_per_minute"]
    return (math.inf if price is None else price, -(rate or 0.0))


def _level_said(cell: Cell) -> str:
    if cell.row["concurrency"] is not None:
        return f"concurrency level of {plain(cell.level)}"
    return f"rate of {plain(cell.level)} requests per second" if cell.level else f"load of {cell.level_text}"


def _distrusted(cell: Cell) -> list[str]:
    trial = f"{cell.experiment.name}, {cell.payload}, {cell.load_text}"
    return [markdown_text(trial), markdown_text(cell.row["valid"]), markdown_text(trust.reasons(cell), 2000)]


def _datasets(manifest: Mapping[str, Any]) -> Sequence[str]:
    return list(dict.fromkeys(name for payload in manifest["payloads"] for name in payload["datasets"]))


def _number(value: float | None, places: int | None) -> str:
    if places is None:
        return NO_NUMBER if value is None else f"{value:.0f}"
    return short(value, places)


def _link(name: str) -> str:
    """A file beside the report as a link's target: nothing that could end it or lead elsewhere."""
    last = clean(name, 200).replace("\\", "/").rpartition("/")[2]
    return "".join(char if char.isalnum() or char in "-_." else "_" for char in last)
