"""Trials over time: the few whose course a reader would want to see, stretch by stretch."""

import math

from raybench.analysis.spoken import listed
from raybench.report.cells import Cell
from raybench.report.columns import SEEN, Rows
from raybench.report.view import View

TRIALS = 8
STRETCH_SHARES = (
    (0.05, "< 5 %"),
    (0.15, "5–15 %"),
    (0.3, "15–30 %"),
    (0.5, "30–50 %"),
    (0.75, "50–75 %"),
    (math.inf, "≥ 75 %"),
)
"""Shares of a stretch's requests: below which, and what such a class is called."""


def trials(view: View) -> list[Cell]:
    """At most so many: what the answer rests on, then what is not steady, then each highest load."""
    wanted: list[Cell] = [cell for cell in (view.winner, view.nearest) if cell is not None]
    for experiment in view.experiments:
        wanted += [cell for cell in view.choice(view.payload_name, experiment) if cell is not None]
    wanted += [cell for cell in view.asked if cell.row["steady"] is False]
    highest = {cell.experiment.label: cell for cell in sorted(view.asked, key=lambda cell: cell.level)}
    wanted += [*highest.values(), *view.asked]
    there = set(view.findings.over_time["trial_id"].to_pylist())
    found: list[Cell] = []
    for cell in wanted:
        if cell.row["trial_id"] in there and cell not in found:
            found.append(cell)
    return found[:TRIALS]


def name(cell: Cell) -> str:
    """How the menu calls a trial, and whether it is INVALID; of repeats the first is shown."""
    several = len(cell.setting.trial_ids)
    repeat = f", repeat 1 of {several}" if several > 1 else ""
    invalid = "" if cell.valid else " (INVALID)"
    return f"{cell.experiment.label}, {cell.load_text}{repeat}{invalid}"


def stretches(view: View) -> Rows:
    """What ended in each stretch of these trials, a second, and the latency of it."""
    names = {cell.row["trial_id"]: name(cell) for cell in trials(view)}
    columns = ("from_s", "to_s", "completed_per_s", "failed_per_s", "p50_s", "p95_s")
    return [
        {"trial": names[line["trial_id"]]}
        | {column: line[column] for column in columns}
        | {"middle_s": (line["from_s"] + line["to_s"]) / 2}
        for line in view.findings.over_time.to_pylist()
        if line["trial_id"] in names
    ]


def density(view: View) -> Rows:
    """Where the latencies of each stretch fall, by share of its requests."""
    names = {cell.row["trial_id"]: name(cell) for cell in trials(view)}
    columns = ("from_s", "to_s", "latency_low_s", "latency_high_s", "requests")
    return [
        {"trial": names[line["trial_id"]]}
        | {column: line[column] for column in columns}
        | {"share_text": next(text for below, text in STRETCH_SHARES if line["share"] < below)}
        for line in view.findings.density.to_pylist()
        if line["trial_id"] in names and line["share"] >= SEEN
    ]


def warm_ups(view: View) -> Rows:
    """Where each trial's measuring window starts and ends, in seconds since T0."""
    windows = {row["trial_id"]: row for row in view.findings.trials.to_pylist()}
    rows: Rows = []
    for cell in trials(view):
        start, lasts = (windows[cell.row["trial_id"]][column] for column in ("window_start_s", "window_s"))
        if start is not None and lasts is not None:
            rows.append({"trial": name(cell), "start_s": 0.0, "warm_s": start, "stop_s": start + lasts})
    return rows


def said(view: View) -> str:
    """Which trials drift, of those long enough to tell."""
    told = [cell for cell in view.cells if cell.row["steady"] is not None]
    off = [cell for cell in told if not cell.row["steady"]]
    head = "A trial is only worth a number if it is steady: look for drift, steps and bursts after the warm-up."
    if not told:
        return f"{head} No trial was long enough to test for drift."
    if not off:
        return f"{head} None of {view.counted(len(told))} long enough to tell drifts."
    names = [f"{cell.experiment.label}, {cell.payload}, {cell.load_text}" for cell in off[:3]]
    more = f" and {len(off) - 3} more" if len(off) > 3 else ""
    return f"{head} {len(off)} of {view.counted(len(told))} long enough to tell: {listed(names)}{more}."
