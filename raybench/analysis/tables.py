"""What a report draws of a trial beside its row of numbers: percentile curves, bins of tokens, kinds of failure."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raybench.analysis import stats
from raybench.analysis.metrics import Facts, Requests
from raybench.analysis.summary import ranked
from raybench.clock import NS_PER_S
from raybench.rows import Outcome, Phase

TOKEN_BINS = 10
"""Into how many columns the prompt lengths of a payload's bucket are sorted."""

BINS_PER_DECADE = 8
"""Into how many rows a tenfold latency is sorted."""

MOST_FAILURES = 20
"""How many kinds of failure a trial lists; the others are summed up."""

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


def curves(rows: Requests, trial: Facts) -> pa.Table:
    latency_s = ranked(rows, rows.durations()["latency"])
    ordered, worth = np.sort(latency_s), stats.effective_size(latency_s)
    if trial.get("kind") != "closed":
        worth = stats.queued(worth)
    lines = []
    for q in CURVE_QUANTILES:
        at = stats.percentile(ordered, q, worth)
        line = {"trial_id": trial["trial_id"], "quantile": q, "beyond": int(len(ordered) * (1 - q) + 1e-6)}
        lines.append(line | {"latency_s": at.value, "low_s": at.low, "high_s": at.high})
    return pa.Table.from_pylist(lines, CURVES)


def tokens(rows: Requests, trial: Facts, experiment: Facts, bucket: Sequence[int] | None) -> pa.Table:
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


def shares(tokens: pa.Table) -> pa.Table:
    keys = [name for name in TOKENS.names if name not in ("requests", "share")]
    merged = tokens.group_by(keys, use_threads=False).aggregate([("requests", "sum")])
    totals: dict[tuple[str, str], int] = {}
    lines = merged.rename_columns([*keys, "requests"]).to_pylist()
    for line in lines:
        panel = (line["experiment"], line["load"])
        totals[panel] = totals.get(panel, 0) + line["requests"]
    shares = [line | {"share": line["requests"] / totals[line["experiment"], line["load"]]} for line in lines]
    return pa.Table.from_pylist(shares, TOKENS)


def failures(table: pa.Table, trial: Facts) -> pa.Table:
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
