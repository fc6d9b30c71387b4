"""What each section of the page says, gathered for its template; `None` and empty lists leave a part out."""

from collections.abc import Mapping
from typing import Any

from raybench.analysis import spoken
from raybench.analysis.capacity import DEMANDS
from raybench.analysis.columns import criterion_column, criterion_unit
from raybench.report import answer, capacity, maximum, sentences, spent, streaming, table, text, timeline, trust
from raybench.report.banners import banners
from raybench.report.cells import GLYPHS
from raybench.report.figures import Figure
from raybench.report.naming import payload_label
from raybench.report.view import View

FAILURES_SHOWN = 30
REPEATS = (
    "within a trial percentiles are of all its requests, pooled; trials of one setting are put together on the log "
    "scale: times, percentiles among them, and rates by their geometric mean, with the interval between repeats. "
    "Counts are added up. Over time, the first of them is shown"
)
CONTENTS = {
    "answer": "The answer",
    "maximum": "Maximum load",
    "prices": "Price and latency",
    "missed": "What missed",
    "datasets": "By data set",
    "saturates": "Saturation",
    "latency": "Latency",
    "time": "Over time",
    "errors": "Errors",
    "cost": "Capacity and cost",
    "trust": "Trust",
    "method": "Method",
}
_NEEDS: Mapping[str, tuple[str, ...]] = {
    "prices": ("price", "interactivity"),
    "saturates": ("saturation",),
    "latency": ("percentiles", "load_latency", "ttft", "itl", "parts", "tokens_latency"),
    "time": ("over_time",),
}
"""Section -> the charts of which it needs one."""

GLOSSARY = (
    ("trial", "one configuration × data set × load: one row of trials.parquet"),
    ("load", "how requests arrive: a number of users who always wait for an answer (closed), or requests per second"),
    ("latency", "from the instant a request was due to its last byte, so the client's own delay is in it"),
    (
        "service latency",
        "from the instant a request was sent to its last byte: latency without the client's own delay",
    ),
    ("TTFT", "time to first token, from the instant the request was due"),
    ("ITL", "inter-token latency: the time between two chunks of a streamed reply"),
    ("good tokens", "output tokens of requests that meet each criterion on a request's time"),
    ("p95", "95 % of the planned requests were faster; a failed request counts as slower than all that finished"),
    ("knee", "the first load that reaches 90 % of the best throughput"),
    ("95 % interval", "where the true value lies in 19 of 20 such runs, as far as one run can tell"),
    ("INVALID", "the measurement itself is at fault, so its numbers are struck through and cannot win"),
)


def contents(view: View, figures: Mapping[str, Figure]) -> list[tuple[str, str]]:
    """Id and name of each section that the data has."""
    return [(key, said) for key, said in CONTENTS.items() if _present(key, view, figures)]


def _present(section: str, view: View, figures: Mapping[str, Figure]) -> bool:
    if section == "missed":
        return bool(view.limits)
    if section == "maximum":
        return bool(maximum.searches(view))
    return section not in _NEEDS or any(name in figures for name in _NEEDS[section])


def head(view: View) -> dict[str, Any]:
    manifest, cells = view.manifest, view.cells
    requests, trials = sum(cell.row["requests"] or 0 for cell in cells), view.findings.trials.num_rows
    repeats = f" of {text.count(len(cells), 'setting')}" if trials != len(cells) else ""
    model = text.clean(manifest["model"] or manifest["name"])
    return {
        "title": f"{model}: which endpoint, at which load?",
        "meta": [
            f"run {text.clean(manifest['run_id'])}",
            *([f"region {text.clean(manifest['region'])}"] if manifest["region"] else []),
            f"{text.clean(manifest['started_utc'])} – {text.clean(manifest['finished_utc'] or 'unfinished')}",
            f"{text.count(trials, 'trial')}{repeats}, {text.count(requests, 'request')}",
        ],
        "banners": banners(view),
        "version": text.clean(manifest["raybench"]),
        "payload": view.payload,
        "thing": view.thing,
    }


def answered(view: View) -> dict[str, Any]:
    return {
        "limits": sentences.asked(view.limits),
        "answer": answer.sentences_of(view),
        "rule": answer.rule(view),
        "cards": answer.cards(view),
        "ranked": answer.ranked(view),
        "searches": maximum.searches(view),
        "maximum_rule": maximum.RULE,
        "latency_said": spoken.criterion_name(view.latency_criterion or "latency_mean"),
    }


def evidence(view: View) -> dict[str, Any]:
    failures = view.findings.failures.to_pylist()
    failures.sort(key=lambda row: -row["requests"])
    found = trust.checks(view)
    warned = sum(check.state in ("warn", "fail") for check in found)
    return {
        "criteria": [
            {
                "name": name,
                "column": criterion_column(name),
                "head": f"{sentences.short_name(name)} (limit {spoken.plain(limit)})",
                "write": spoken.usd if criterion_unit(name) == "USD" else spoken.seconds,
            }
            for name, limit in view.limits.items()
        ],
        "glyphs": GLYPHS,
        "cells": view.cells,
        "asked": view.asked,
        "place": _places(view),
        "streams": streaming.numbers(view.asked),
        "recommendations": answer.choices(view),
        "failures": [_failure(view, row) for row in failures[:FAILURES_SHOWN]],
        "failures_left": max(0, len(failures) - FAILURES_SHOWN),
        "checks": found,
        "distrusted": [cell for cell in view.cells if not cell.valid],
        "reasons": trust.reasons,
        "leads": {
            "price": sentences.price(view.asked),
            "missed": sentences.misses(view),
            "datasets": sentences.DATASETS,
            "saturation": sentences.saturation(view.asked),
            "latency": sentences.LATENCY,
            "tokens": sentences.TOKENS,
            "errors": sentences.errors(view.cells),
            "interactivity": streaming.interactivity_said(view.asked),
            "parts": streaming.parts_said(streaming.parts(view.asked)),
            "time": timeline.said(view),
            "trust": f"{warned} of {text.count(len(found), 'check')} raised a warning.",
        },
    }


def _failure(view: View, row: Mapping[str, Any]) -> dict[str, Any]:
    said = ": ".join(text.clean(part, 200) for part in (row["error_code"], row["error_message"]) if part)
    counts = {name: row[name] for name in ("requests", "first_s", "last_s")}
    whose = {"experiment": view.experiments[row["experiment"]], "payload": payload_label(row["payload"])}
    return counts | whose | {"load": text.clean(row["load"]), "outcome": text.clean(row["outcome"]), "error": said}


def _places(view: View) -> dict[str, int]:
    """Trial -> its line in the trials table; settings of several trials have none."""
    lines = {name: place for place, name in enumerate(view.findings.trials["trial_id"].to_pylist())}
    return {
        cell.row["trial_id"]: lines[cell.row["trial_id"]] for cell in view.cells if len(cell.setting.trial_ids) == 1
    }


def costs(view: View) -> dict[str, Any]:
    """Capacity, prices of tokens, and the cost of the run."""
    lines, held = capacity.lines(view), spent.lines(view)
    best = [capacity.cheapest(lines, place) for place in range(len(DEMANDS))]
    return {
        "demands": DEMANDS,
        "capacity": [(line, [one is line for one in best]) for line in lines],
        "capacity_rule": capacity.rule(),
        "capacity_said": capacity.said(lines),
        "spent": held,
        "spent_said": spent.said(held, view.manifest["experiments"]),
    }


def method(view: View) -> dict[str, Any]:
    manifest = view.manifest
    versions = ", ".join(f"{text.clean(name)} {text.clean(v)}" for name, v in sorted(manifest["versions"].items()))
    several = max((len(cell.setting.trial_ids) for cell in view.cells), default=1)
    repeats = [("Repeats", REPEATS)] if several > 1 else []
    hosts = ", ".join(f"{text.clean(host['host'])} ({host['cpus']} CPUs)" for host in manifest["hosts"])
    actors = [actor for about in manifest["experiments"] for actor in about.get("actors") or ()]
    senders = {text.clean(actor.get("host")) for actor in actors}
    if others := sorted(senders - {text.clean(host["host"]) for host in manifest["hosts"]}):
        hosts += f"; load actors on {spoken.listed(others)}"
    if bound_ms := max((trial.get("t0_bound_ms") or 0.0 for trial in manifest["trials"]), default=0.0):
        hosts += f"; every load actor knew each T0 within {bound_ms:.1f} ms"
    payloads = "; ".join(
        f"{text.clean(payload['name'])}: {payload['kept']:,} prompts from "
        f"{spoken.listed([text.clean(name) for name in payload['datasets']])}, counted by {payload['tokens_source']}"
        for payload in manifest["payloads"]
    )
    return {
        "method": [
            ("Load", "closed loads refill each slot at once; open loads keep their schedule and show their lateness"),
            ("Latency", "from the instant a request was due to its last byte, measured at the client"),
            ("Intervals", "percentiles: order statistics over all requests of a trial; means and rates: batches in "
             "time order, of a closed load no more than it had rounds; errors: Wilson. One run: differences between "
             "days are not in them unless trials repeat"),
            *repeats,
            ("Price", "hourly price of the instances held, divided by the requests that ended in the window"),
            ("Prompts", payloads),
            ("Software", f"raybench {text.clean(manifest['raybench'])}; {versions}"),
            ("Hosts", hosts),
            ("Seed", text.clean(manifest["seed"])),
        ],
        "config_file": text.clean(manifest["config_file"] or ""),
        "config_text": text.block(manifest["config_text"] or ""),
        "glossary": GLOSSARY,
        "trials": table.as_csv(table.brief(view.findings.trials)),
        "trials_said": "All columns of all trials"
        if view.findings.trials.num_rows <= table.MOST_WITH_INTERVALS
        else "Every trial and column but the ends of intervals, which trials.parquet has",
    }  # fmt: skip
