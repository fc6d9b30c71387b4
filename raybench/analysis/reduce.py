"""Rows to findings: each trial on its own, then all of them as the few tables that a report may speak from.

`reduce_trial` is a pure function of one trial's rows and the manifest. It runs here, one trial after another, or in
Ray Data, one trial a block; the findings are the same.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raybench.analysis import facts, standing, stats, validity
from raybench.analysis.columns import TRIALS
from raybench.analysis.metrics import Facts, Requests
from raybench.analysis.summary import beyond, flat, ranked, summarize
from raybench.analysis.timeline import DENSITY, OVER_TIME, timeline
from raybench.clock import NS_PER_S
from raybench.errors import RaybenchError, StorageError
from raybench.rows import REQUESTS, Outcome, Phase

TOKEN_BINS = 10
"""Into how many columns the prompt lengths of a payload's bucket are sorted."""

BINS_PER_DECADE = 8
"""Into how many rows a tenfold latency is sorted."""

MOST_FAILURES = 20
"""How many kinds of failure a trial lists; the others are summed up."""

RAY_DATA_BYTES = 64 * 2**20
"""From how many bytes of rows on Ray Data is quicker: below, its workers take longer to start than we to end."""

CURVE_QUANTILES = (
    0.05, 0.1, 0.25, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999
)  # fmt: skip

CURVES = pa.schema(
    [
        pa.field("trial_id", pa.string()),
        pa.field("quantile", pa.float64()),
        pa.field("latency_s", pa.float64(), metadata={"unit": "s", "means": "null below the floor or beyond the ok"}),
        pa.field("low_s", pa.float64(), metadata={"unit": "s"}),
        pa.field("high_s", pa.float64(), metadata={"unit": "s"}),
        pa.field("beyond", pa.int64(), metadata={"unit": "requests", "means": "how many lie beyond"}),
    ]
)

TOKENS = pa.schema(
    [
        pa.field("experiment", pa.string()),
        pa.field("payload", pa.string()),
        pa.field("instance_type", pa.string()),
        pa.field("load", pa.string()),
        pa.field("concurrency", pa.int32()),
        pa.field("prompt_tokens_low", pa.float64(), metadata={"unit": "tokens"}),
        pa.field("prompt_tokens_high", pa.float64(), metadata={"unit": "tokens"}),
        pa.field("latency_low_s", pa.float64(), metadata={"unit": "s"}),
        pa.field("latency_high_s", pa.float64(), metadata={"unit": "s"}),
        pa.field("requests", pa.int64(), metadata={"unit": "requests"}),
        pa.field("share", pa.float64(), metadata={"unit": "1", "means": "of the experiment's requests at that load"}),
    ]
)

FAILURES = pa.schema(
    [
        pa.field("trial_id", pa.string()),
        pa.field("experiment", pa.string()),
        pa.field("payload", pa.string()),
        pa.field("load", pa.string()),
        pa.field("outcome", pa.string()),
        pa.field("error_code", pa.string()),
        pa.field("error_message", pa.string()),
        pa.field("requests", pa.int64(), metadata={"unit": "requests"}),
        pa.field("first_s", pa.float64(), metadata={"unit": "s since T0"}),
        pa.field("last_s", pa.float64(), metadata={"unit": "s since T0"}),
    ]
)


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
        "reasons": [reason.code for reason in reasons],
        "reason_texts": [f"{reason.text}; {reason.remedy}" for reason in reasons],
        "criteria_met": standing.met(states),
        "missed": [state.criterion for state in states if state.standing is standing.Standing.FAIL],
        "unsure": [state.criterion for state in states if state.standing is standing.Standing.UNSURE],
    }
    return Findings(
        pa.Table.from_pylist([row], TRIALS),
        _curves(rows, trial),
        _tokens(rows, trial, experiment, payload.get("tokens")),
        _failures(table, trial),
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
        _shares(joined("tokens", TOKENS)),
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


def _curves(rows: Requests, trial: Facts) -> pa.Table:
    latency_s = ranked(rows, rows.durations()["latency"])
    ordered, worth = np.sort(latency_s), stats.effective_size(latency_s)
    lines = []
    for q in CURVE_QUANTILES:
        at = stats.percentile(ordered, q, worth)
        line = {"trial_id": trial["trial_id"], "quantile": q, "beyond": int(len(ordered) * (1 - q) + 1e-6)}
        lines.append(line | {"latency_s": at.value, "low_s": at.low, "high_s": at.high})
    return pa.Table.from_pylist(lines, CURVES)


def _tokens(rows: Requests, trial: Facts, experiment: Facts, bucket: Sequence[int] | None) -> pa.Table:
    """Ok requests by prompt length and latency, on edges that depend on the payload's bucket alone."""
    latency_s, tokens = rows.durations()["latency"], rows.numbers("prompt_tokens")
    known = rows.ok & rows.measured & (tokens > 0) & (latency_s > 0)
    across = _edge_before(tokens[known], bucket)
    up = np.floor(np.log10(latency_s[known]) * BINS_PER_DECADE)
    cells, counts = np.unique(np.stack([across, up], axis=1), axis=0, return_counts=True)
    names = {name: trial.get(name) for name in ("experiment", "payload", "load", "concurrency")}
    return pa.Table.from_pylist(
        [
            names
            | {
                "instance_type": experiment.get("instance_type"),
                "prompt_tokens_low": _edge(x, bucket),
                "prompt_tokens_high": _edge(x + 1, bucket),
                "latency_low_s": 10 ** (y / BINS_PER_DECADE),
                "latency_high_s": 10 ** ((y + 1) / BINS_PER_DECADE),
                "requests": count,
            }
            for (x, y), count in zip(cells.tolist(), counts.tolist(), strict=True)
        ],
        TOKENS,
    )


def _edge(place: float, bucket: Sequence[int] | None) -> float:
    """Edge number `place`: a tenth of the bucket apart, or without one a factor of √2."""
    return bucket[0] + place * (bucket[1] - bucket[0]) / TOKEN_BINS if bucket else 2 ** (place / 2)


def _edge_before(tokens: stats.Values, bucket: Sequence[int] | None) -> stats.Values:
    if bucket is not None:
        return np.asarray(np.floor((tokens - bucket[0]) * TOKEN_BINS / (bucket[1] - bucket[0])))
    return np.asarray(np.floor(np.log2(tokens) * 2))


def _shares(tokens: pa.Table) -> pa.Table:
    keys = [name for name in TOKENS.names if name not in ("requests", "share")]
    merged = tokens.group_by(keys, use_threads=False).aggregate([("requests", "sum")])
    totals: dict[tuple[str, str], int] = {}
    lines = merged.rename_columns([*keys, "requests"]).to_pylist()
    for line in lines:
        panel = (line["experiment"], line["load"])
        totals[panel] = totals.get(panel, 0) + line["requests"]
    shares = [line | {"share": line["requests"] / totals[line["experiment"], line["load"]]} for line in lines]
    return pa.Table.from_pylist(shares, TOKENS)


def _failures(table: pa.Table, trial: Facts) -> pa.Table:
    """What went wrong in the phase `measure`, commonest first."""
    failed = table.filter((pc.field("phase") == Phase.MEASURE.value) & (pc.field("outcome") != Outcome.OK.value))
    kinds = ["outcome", "error_code", "error_message"]
    counted = [("seq", "count"), ("planned_ns", "min"), ("planned_ns", "max")]
    by_count = [("seq_count", "descending"), *((name, "ascending") for name in kinds)]
    lines = failed.group_by(kinds, use_threads=False).aggregate(counted).sort_by(by_count).to_pylist()
    kept, rest = lines[:MOST_FAILURES], lines[MOST_FAILURES:]
    for outcome in sorted({line["outcome"] for line in rest}):
        same = [line for line in rest if line["outcome"] == outcome]
        others = {"outcome": outcome, "error_message": f"({len(same):,} other messages)"}
        others |= {"seq_count": sum(line["seq_count"] for line in same)}
        others |= {"planned_ns_min": min(line["planned_ns_min"] for line in same)}
        others |= {"planned_ns_max": max(line["planned_ns_max"] for line in same)}
        kept.append(others)
    names = {name: trial.get(name) for name in ("trial_id", "experiment", "payload", "load")}
    return pa.Table.from_pylist(
        [
            names
            | {name: line.get(name) for name in kinds}
            | {"requests": line["seq_count"]}
            | {"first_s": line["planned_ns_min"] / NS_PER_S, "last_s": line["planned_ns_max"] / NS_PER_S}
            for line in kept
        ],
        FAILURES,
    )
