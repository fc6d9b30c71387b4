"""Rows to findings: each trial on its own, then all of them as the few tables that a report may speak from.

`reduce_trial` is a pure function of one trial's rows and the manifest. It runs here, one trial after another, or in
Ray Data, one trial a block; the findings are the same.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raybench.analysis import facts, standing, validity
from raybench.analysis.columns import TRIALS
from raybench.analysis.metrics import Facts, Requests
from raybench.analysis.summary import beyond, flat, summarize
from raybench.analysis.tables import CURVES, FAILURES, TOKENS, curves, failures, shares, tokens
from raybench.analysis.timeline import DENSITY, OVER_TIME, timeline
from raybench.errors import RaybenchError, StorageError
from raybench.rows import REQUESTS

RAY_DATA_BYTES = 64 * 2**20
"""From how many bytes of rows on Ray Data is quicker: below, its workers take longer to start than we to end."""


@dataclass(frozen=True, slots=True)
class Findings:
    """All that a report may say of a run, or of one trial of it, as tables; charts do no arithmetic."""

    trials: pa.Table
    curves: pa.Table
    tokens: pa.Table
    failures: pa.Table
    over_time: pa.Table
    density: pa.Table


def reduce(rows_of: Callable[[Mapping[str, Any]], pa.Table], manifest: Mapping[str, Any]) -> Findings:
    """The findings of a run, trials in the manifest's order; `rows_of` gives a trial's rows, or an empty table."""
    return together(reduce_trial(rows_of(trial), trial, manifest) for trial in manifest["trials"])


Keep = Callable[[Mapping[str, Any], pa.Table], object]
"""Called with each trial and its table beside the reduction, where its rows are: it writes the trial's part."""


def reduced(tables: Sequence[pa.Table], manifest: Mapping[str, Any], keep: Keep) -> Findings:
    """The findings of a run from the whole table of each trial that was played; the others have no rows.

    In Ray Data where there is much to reduce, else here. What `keep` raises of ours comes as StorageError.
    """
    if sum(table.nbytes for table in tables) >= RAY_DATA_BYTES:
        return reduce_with_ray(tables, manifest, keep)
    played = {table["trial_id"][0].as_py(): table for table in tables if len(table)}

    def rows_of(trial: Mapping[str, Any]) -> pa.Table:
        table = played.get(trial["trial_id"], REQUESTS.empty_table())
        if len(table):
            keep(trial, table)
        return table

    return reduce(rows_of, manifest)


def reduce_with_ray(tables: Sequence[pa.Table], manifest: Mapping[str, Any], keep: Keep) -> Findings:
    """The same in Ray Data, a trial a block."""
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    trials = {trial["trial_id"]: trial for trial in manifest["trials"]}

    def block(table: pa.Table) -> pa.Table:
        if not len(table):
            return pa.Table.from_pylist([], _PACKED)
        trial_id = table["trial_id"][0].as_py()
        try:
            keep(trials[trial_id], table)
        except RaybenchError as error:  # as data: Ray would wrap it, traceback and all
            return pa.Table.from_pylist([{"trial_id": trial_id, "failure": str(error)}], _PACKED)
        findings = reduce_trial(table, trials[trial_id], manifest)
        packed = {name: _pack(getattr(findings, name)) for name in Findings.__slots__}
        return pa.Table.from_pylist([{"trial_id": trial_id, **packed}], _PACKED)

    played = {}
    if tables:
        mapped = ray.data.from_blocks(list(tables)).map_batches(block, batch_format="pyarrow", batch_size=None)
        for row in mapped.take_all():
            if row["failure"]:
                raise StorageError(row["failure"])
            played[row["trial_id"]] = Findings(**{name: _unpack(row[name]) for name in Findings.__slots__})
    nothing = REQUESTS.empty_table()
    return together(played.get(name) or reduce_trial(nothing, trial, manifest) for name, trial in trials.items())


def reduce_trial(table: pa.Table, trial: Mapping[str, Any], manifest: Mapping[str, Any]) -> Findings:
    """The findings of one trial's rows (REQUESTS, in any order); `share` is left to `together`."""
    experiment = _named(manifest["experiments"], trial["experiment"])
    payload = _named(manifest.get("payloads", ()), trial["payload"])
    criteria: Mapping[str, float] = manifest.get("criteria") or {}
    rows = Requests(table)
    summary = summarize(rows, trial, experiment, criteria)
    row = flat(summary) | {"beyond": beyond(summary)}
    row |= facts.facts(rows, row, trial, experiment)
    valid, reasons = validity.verdict(row, criteria)
    states = standing.states(row, criteria)
    row |= {
        "valid": valid.value,
        "reasons": list(dict.fromkeys(reason.code for reason in reasons)),
        "reason_texts": [f"{reason.text}; {reason.remedy}" for reason in reasons],
        "criteria_met": standing.met(states),
        "missed": [state.criterion for state in states if state.standing is standing.Standing.FAIL],
        "unsure": [state.criterion for state in states if state.standing is standing.Standing.UNSURE],
    }
    return Findings(
        pa.Table.from_pylist([row], TRIALS),
        curves(rows, trial),
        tokens(rows, trial, experiment, payload.get("tokens")),
        failures(table, trial),
        *timeline(rows, trial),
    )


def together(findings: Iterable[Findings]) -> Findings:
    """The findings of all trials put together, repeats of a cell sharing their bins of tokens."""
    each = list(findings)

    def joined(name: str, schema: pa.Schema) -> pa.Table:
        return pa.concat_tables([schema.empty_table(), *(getattr(one, name) for one in each)]).combine_chunks()

    return Findings(
        joined("trials", TRIALS),
        joined("curves", CURVES),
        shares(joined("tokens", TOKENS)),
        joined("failures", FAILURES),
        joined("over_time", OVER_TIME),
        joined("density", DENSITY),
    )


_PACKED = pa.schema(
    [("trial_id", pa.string()), ("failure", pa.string()), *((name, pa.binary()) for name in Findings.__slots__)]
)


def _pack(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def _unpack(packed: bytes) -> pa.Table:
    with pa.ipc.open_stream(packed) as stream:
        return stream.read_all()


def _named(things: Iterable[Facts], name: str) -> Facts:
    return next((thing for thing in things if thing["name"] == name), {})
