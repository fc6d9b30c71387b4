"""One run as one self-contained HTML file: no network, no scripts but the two it names by hash."""

import math
from collections.abc import Mapping
from typing import Any

import jinja2
from markupsafe import Markup

from raybench.report import answer, columns, palette, sentences, text, trust, vega
from raybench.report.banners import banners
from raybench.report.cells import GLYPHS, payload_label
from raybench.report.figures import Figure, draw
from raybench.report.inputs import Decision, Findings
from raybench.report.view import View, look

FAILURES_SHOWN = 30
CONTENTS = {
    "answer": "The answer",
    "prices": "Price and latency",
    "missed": "What missed",
    "datasets": "By data set",
    "saturates": "Saturation",
    "latency": "Latency",
    "tokens": "Prompt length",
    "errors": "Errors",
    "cost": "Cost of the run",
    "trust": "Trust",
    "method": "Method",
}
GLOSSARY = (
    ("trial", "one configuration × data set × load: one row of trials.parquet"),
    ("load", "how requests arrive: a number of users who always wait for an answer (closed), or requests per second"),
    ("latency", "from the instant a request was due to its last byte, so the client's own delay is in it"),
    ("TTFT", "time to first token, from the instant the request was due"),
    ("p95", "95 % of the planned requests were faster; a failed request counts as slower than all that finished"),
    ("knee", "the first load that reaches 90 % of the best throughput"),
    ("95 % interval", "where the true value lies in 19 of 20 such runs, as far as one run can tell"),
    ("INVALID", "the measurement itself is at fault, so its numbers are struck through and cannot win"),
)


def page(findings: Findings, decision: Decision, manifest: Mapping[str, Any]) -> str:
    """The report of one run; the same inputs give the same bytes."""
    view = look(findings, decision, manifest)
    return render(view, draw(view))


def render(view: View, figures: Mapping[str, Figure]) -> str:
    """The page of a view and its charts, already drawn."""
    environment = _environment()
    script, bundle = _source(environment, "report.js"), vega.bundle()
    hashes = f"{vega.sha256_source(bundle)} {vega.sha256_source(script)}"
    return environment.get_template("report.html.j2").render(
        csp=f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'",
        style=trusted(_source(environment, "report.css")),
        light=trusted(_variables(palette.LIGHT)),
        dark=trusted(_variables(palette.DARK)),
        font=trusted(palette.FONT),
        bundle=trusted(bundle),
        script=trusted(script),
        charts={name: {"spec": f.spec, "drawing": trusted(f.drawing)} for name, f in figures.items()},
        **_head(view),
        **_answer(view),
        **_evidence(view),
        **_method(view),
        contents=[(key, said) for key, said in CONTENTS.items() if _present(key, view, figures)],
    )


def trusted(ours: str) -> Markup:
    """Text of our own making, to stand in the page as it is."""
    return Markup(ours)  # noqa: S704


def _environment() -> jinja2.Environment:
    """Autoescape is on whatever the template's name; `select_autoescape` would leave `.j2` files bare."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("raybench.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":"), "sort_keys": False}
    environment.filters |= {
        "fixed": text.fixed,
        "span": text.span,
        "times": text.times,
        "known": text.known,
        "usd": text.usd,
        "percent": text.percent,
        "ms": lambda value: text.fixed(None if value is None else value * 1000, 1),
        "errors": columns.errors,
    }
    return environment


def _source(environment: jinja2.Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _variables(colours: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())


def _present(section: str, view: View, figures: Mapping[str, Figure]) -> bool:
    needs: dict[str, tuple[str, ...]] = {
        "prices": ("price",),
        "saturates": ("saturation",),
        "latency": ("percentiles", "load_latency"),
        "tokens": ("tokens_latency",),
    }
    if section == "missed":
        return bool(view.limits)
    return section not in needs or any(name in figures for name in needs[section])


def _head(view: View) -> dict[str, Any]:
    manifest, cells = view.manifest, view.cells
    requests = sum(cell.row["requests"] or 0 for cell in cells)
    model = text.clean(manifest["model"] or manifest["name"])
    return {
        "title": f"{model}: which endpoint, at which load?",
        "meta": [
            f"run {text.clean(manifest['run_id'])}",
            f"region {text.clean(manifest['region'])}",
            f"{text.clean(manifest['started_utc'])} – {text.clean(manifest['finished_utc'] or 'unfinished')}",
            f"{text.count(len(cells), 'trial')}, {text.count(requests, 'request')}",
        ],
        "banners": banners(view),
        "version": text.clean(manifest["raybench"]),
        "payload": view.payload,
    }


def _answer(view: View) -> dict[str, Any]:
    return {
        "limits": sentences.asked(view.limits),
        "verdict": answer.verdict(view),
        "rule": answer.rule(view),
        "cards": answer.cards(view),
        "ranked": answer.ranked(view),
        "latency_said": sentences.criterion_name(view.latency_criterion or "latency_mean"),
    }


def _evidence(view: View) -> dict[str, Any]:
    failures = view.findings.failures.to_pylist()
    failures.sort(key=lambda row: -row["requests"])
    found = trust.checks(view)
    warned = sum(check.state in ("warn", "fail") for check in found)
    return {
        "criteria": [
            {
                "name": name,
                "head": f"{sentences.short_name(name)} (limit {text.plain(limit)})",
                "places": 4 if name == "error_rate" else 2,
            }
            for name, limit in view.limits.items()
        ],
        "glyphs": GLYPHS,
        "cells": view.cells,
        "asked": view.asked,
        "recommendations": answer.recommendations(view),
        "failures": [_failure(view, row) for row in failures[:FAILURES_SHOWN]],
        "failures_left": max(0, len(failures) - FAILURES_SHOWN),
        "costs": [_cost(view, experiment) for experiment in view.manifest["experiments"]],
        "checks": found,
        "distrusted": [cell for cell in view.cells if not cell.valid],
        "reasons": trust.reasons,
        "leads": {
            "price": sentences.price(view.asked),
            "missed": sentences.misses(view.asked, view.limits),
            "datasets": sentences.DATASETS,
            "saturation": sentences.saturation(view.asked),
            "latency": sentences.LATENCY,
            "tokens": sentences.TOKENS,
            "errors": sentences.errors(view.cells),
            "cost": sentences.cost(view.manifest["experiments"]),
            "trust": f"{warned} of {text.count(len(found), 'check')} raised a warning.",
        },
    }


def _failure(view: View, row: Mapping[str, Any]) -> dict[str, Any]:
    said = ": ".join(text.clean(part, 200) for part in (row["error_code"], row["error_message"]) if part)
    counts = {name: row[name] for name in ("requests", "first_s", "last_s")}
    whose = {"configuration": view.configurations[row["experiment"]], "payload": payload_label(row["payload"])}
    return counts | whose | {"load": text.clean(row["load"]), "outcome": text.clean(row["outcome"]), "error": said}


def _cost(view: View, experiment: Mapping[str, Any]) -> dict[str, Any]:
    instance = text.clean(experiment["instance_type"])
    number = experiment["instance_count"]
    return {
        "configuration": view.configurations[experiment["name"]],
        "instance": instance if number == 1 else f"{number} × {instance}",
        "price": experiment["price_per_hour"],
        "duration_s": experiment["duration_s"],
        "usd": experiment["cost_usd"],
    }


def _method(view: View) -> dict[str, Any]:
    manifest = view.manifest
    versions = ", ".join(f"{text.clean(name)} {text.clean(v)}" for name, v in sorted(manifest["versions"].items()))
    hosts = ", ".join(f"{text.clean(host['host'])} ({host['cpus']} CPUs)" for host in manifest["hosts"])
    payloads = "; ".join(
        f"{text.clean(payload['name'])}: {payload['kept']:,} prompts from "
        f"{text.listed([text.clean(name) for name in payload['datasets']])}, counted by {payload['tokens_source']}"
        for payload in manifest["payloads"]
    )
    return {
        "method": [
            ("Load", "closed loads refill each slot at once; open loads keep their schedule and show their lateness"),
            ("Latency", "from the instant a request was due to its last byte, measured at the client"),
            ("Intervals", "percentiles: order statistics over all requests of a trial; means and rates: batches in "
             "time order; errors: Wilson. One run: differences between days are not in them unless trials repeat"),
            ("Price", "hourly price of the instances held, divided by the requests that ended in the window"),
            ("Prompts", payloads),
            ("Software", f"raybench {text.clean(manifest['raybench'])}; {versions}"),
            ("Hosts", hosts),
            ("Seed", text.clean(manifest["seed"])),
        ],
        "config_file": text.clean(manifest["config_file"] or ""),
        "config_text": text.block(manifest["config_text"] or ""),
        "glossary": GLOSSARY,
        "trials": [_plain(row) for row in view.findings.trials.to_pylist()],
    }  # fmt: skip


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's row as JSON can hold it."""
    return {name: _json(value) for name, value in row.items()}


def _json(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return text.clean(value, 300)
    return " ".join(text.clean(part, 300) for part in value) if isinstance(value, list) else value
