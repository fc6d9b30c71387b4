"""What a probe of a search shows: its rows, finished or not, become evidence."""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from raybench.analysis import stats
from raybench.analysis.metrics import Requests
from raybench.analysis.stats import Values
from raybench.clock import NS_PER_S
from raybench.load.probe import BLOCKS, Evidence, Probe, Step
from raybench.load.search import Search

GRACE_S = 1.0
"""How long a row may take from its end to here."""


def evidence(search: Search, probe: Probe, table: pa.Table) -> Evidence:
    """The evidence of a probe that is over, from all of its rows."""
    rows = Requests(table)
    if not rows.measured.any():
        return Evidence(0, 0, 0.0, fault="nothing was measured")
    failed = int((~rows.ok & rows.measured).sum())
    values = _values(search, rows)[rows.measured]
    planned_s = rows.numbers("planned_ns")[rows.measured] / NS_PER_S - probe.warmup_s
    seen = of_values(search, probe, values, planned_s, float(np.nanmax(_ends(rows))) / NS_PER_S)
    if failed and probe.step is Step.SANITY:
        return replace(seen, fault=f"{failed} of {len(values)} requests failed")
    return seen


def so_far(search: Search, probe: Probe, table: pa.Table, planned_s: Values, now_s: float) -> Evidence:
    """The evidence of a probe that goes on: its rows up to now, and when each of its requests is planned since T0."""
    rows = Requests(table)
    values = np.full(len(planned_s), np.nan)
    seq = rows.numbers("seq").astype(int)
    inside = seq < len(values)
    values[seq[inside]] = _values(search, rows)[inside]
    return of_open(search, probe, values, planned_s - probe.warmup_s, now_s)


def of_open(search: Search, probe: Probe, values: Values, planned_s: Values, now_s: float) -> Evidence:
    """As `of_values`, where NaN is a request that is not over; `now_s` is since T0.

    Counted are requests that were planned more than the limit ago, so that quick ones are no more likely to count
    than slow ones. A latency that is not over by then is late. A reply that is not over may have begun in time: a
    time to first token is counted up to the first request that is not over.
    """
    due = (planned_s >= 0) & (planned_s < now_s - probe.warmup_s - search.limit_s - GRACE_S)
    values, planned_s = values[due], planned_s[due]
    if search.metric == "latency_p99":
        values = np.where(np.isnan(values), np.inf, values)
    elif np.isnan(values).any():
        first = int(np.argmax(np.isnan(values)))
        values, planned_s = values[:first], planned_s[:first]
    seen = of_values(search, probe, values, planned_s, now_s)
    over = int(max(0.0, planned_s[-1] if len(planned_s) else 0.0) / probe.seconds * BLOCKS)
    return replace(seen, blocks=seen.blocks[:over])


def _values(search: Search, rows: Requests) -> Values:
    """The metric of each request in seconds; +inf where the request failed."""
    values = rows.durations()[search.metric.removesuffix("_p99")]
    return np.where(rows.ok & ~np.isnan(values), values, np.inf)


def _ends(rows: Requests) -> Values:
    """When each request was last heard of, since T0."""
    return np.fmax(rows.end_ns, rows.numbers("planned_ns"))


def of_values(search: Search, probe: Probe, values: Values, planned_s: Values, paid_s: float) -> Evidence:
    """The evidence of requests in the order planned: `values` of the metric, `planned_s` since the warm-up's end."""
    late = values > search.limit_s
    tenth = np.clip((planned_s / probe.seconds * BLOCKS).astype(int), 0, BLOCKS - 1)
    blocks = tuple((int((tenth == i).sum()), int(late[tenth == i].sum())) for i in range(BLOCKS))
    finite = np.where(np.isfinite(values), values, search.limit_s * 2)
    slope = stats.drift(planned_s, finite).low
    return Evidence(
        requests=len(values),
        late=int(late.sum()),
        paid_s=paid_s,
        dependence=stats.correlation_time(late),
        blocks=blocks,
        rising=slope is not None and slope > 0,
    )
