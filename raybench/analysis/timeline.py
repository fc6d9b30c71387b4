"""A trial over time: what ended in each stretch of it, and where those latencies fall; bounded whatever the rows."""

from typing import Any

import numpy as np
import pyarrow as pa

from raybench.analysis import stats
from raybench.analysis.metrics import Facts, Requests
from raybench.clock import NS_PER_S

MOST_STRETCHES = 30
BINS_PER_DECADE = 20

OVER_TIME = pa.schema(
    [
        pa.field("trial_id", pa.string()),
        pa.field("from_s", pa.float64(), metadata={"unit": "s since T0"}),
        pa.field("to_s", pa.float64(), metadata={"unit": "s since T0"}),
        pa.field("completed_per_s", pa.float64(), metadata={"unit": "1/s", "means": "ok requests, by their end"}),
        pa.field("failed_per_s", pa.float64(), metadata={"unit": "1/s", "means": "by their end, or when planned"}),
        pa.field("p50_s", pa.float64(), metadata={"unit": "s", "means": "of ok requests; null below its floor"}),
        pa.field("p95_s", pa.float64(), metadata={"unit": "s", "means": "of ok requests; null below its floor"}),
    ]
)

DENSITY = pa.schema(
    [
        pa.field("trial_id", pa.string()),
        pa.field("from_s", pa.float64(), metadata={"unit": "s since T0"}),
        pa.field("to_s", pa.float64(), metadata={"unit": "s since T0"}),
        pa.field("latency_low_s", pa.float64(), metadata={"unit": "s"}),
        pa.field("latency_high_s", pa.float64(), metadata={"unit": "s"}),
        pa.field("requests", pa.int64(), metadata={"unit": "requests"}),
        pa.field("share", pa.float64(), metadata={"unit": "1", "means": "of the ok requests of its stretch"}),
    ]
)


def timeline(rows: Requests, trial: Facts) -> tuple[pa.Table, pa.Table]:
    """OVER_TIME and DENSITY of one trial, warm-up and drain included."""
    ended_s = np.where(np.isnan(rows.end_ns), rows.numbers("planned_ns"), rows.end_ns) / NS_PER_S
    latency_s = rows.durations()["latency"]
    if not len(ended_s):
        return OVER_TIME.empty_table(), DENSITY.empty_table()
    usual_s = float(np.median(latency_s[rows.ok])) if rows.ok.any() else 0.0
    step_s = _step_s(max(float(ended_s.max()) / (MOST_STRETCHES - 1), usual_s))
    stretch = np.floor(ended_s / step_s).astype(np.int64)
    up = np.floor(np.log10(np.maximum(latency_s, 1e-9)) * BINS_PER_DECADE)
    lines: list[dict[str, Any]] = []
    cells: list[dict[str, Any]] = []
    for place in range(int(stretch.max()) + 1):
        here = stretch == place
        ok = here & rows.ok
        span = {"trial_id": trial["trial_id"], "from_s": place * step_s, "to_s": (place + 1) * step_s}
        ordered, number = np.sort(latency_s[ok]), int(ok.sum())
        middle, high = (stats.percentile(ordered, q, number).value for q in (0.5, 0.95))
        rates = {"completed_per_s": number / step_s, "failed_per_s": (int(here.sum()) - number) / step_s}
        lines.append(span | rates | {"p50_s": middle, "p95_s": high})
        for at, count in zip(*(found.tolist() for found in np.unique(up[ok], return_counts=True)), strict=True):
            bounds = {"latency_low_s": 10 ** (at / BINS_PER_DECADE)}
            bounds["latency_high_s"] = 10 ** ((at + 1) / BINS_PER_DECADE)
            cells.append(span | bounds | {"requests": count, "share": count / number})
    return pa.Table.from_pylist(lines, OVER_TIME), pa.Table.from_pylist(cells, DENSITY)


def _step_s(least: float) -> float:
    """The least round length that is not below `least`; a stretch shorter than a request would show its beat."""
    least = max(least, 1e-3)
    if least > 10:
        rounds = (15, 20, 30, 60, 120, 300, 600, 1800, 3600)
        return float(next((step for step in rounds if step >= least), least))
    decade = 10 ** np.floor(np.log10(least))
    return float(next(decade * step for step in (1, 2, 5, 10) if decade * step >= least))
