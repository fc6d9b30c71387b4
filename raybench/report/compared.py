"""The comparison of two runs as its table and its chart show it, cell by cell."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from raybench.analysis.change import METRICS, POINTS, ZONE, Call, Change
from raybench.analysis.columns import PRICE, Valid, criterion_unit
from raybench.analysis.comparable import Key
from raybench.analysis.compare import Comparison, Pair
from raybench.analysis.spoken import NO_NUMBER, percent, seconds, usd
from raybench.report.naming import named_experiments, payload_label
from raybench.report.text import clean, count, fixed

GLYPHS = {Call.WORSE: "▸", Call.BETTER: "◂", Call.SAME: "●", Call.UNSURE: "◆"}
STATES = {Call.WORSE: "fail", Call.BETTER: "pass", Call.SAME: "same", Call.UNSURE: "unsure"}
SHAPES = {
    Call.WORSE: ("triangle-right", "bad"),
    Call.BETTER: ("triangle-left", "ok"),
    Call.SAME: ("circle", "ink2"),
    Call.UNSURE: ("diamond", "warn"),
}
MOST_DRAWN = 40
MOST_LISTED = 30

Write = Callable[[float | None], str]
NAMES: Mapping[str, tuple[str, str]] = {
    "latency_mean": ("mean latency", "Mean latency, s"),
    "latency_p95": ("p95 latency", "p95 latency, s"),
    "ttft_p95": ("p95 TTFT", "p95 TTFT, s"),
    "requests_per_s": ("requests per second", "Requests/s"),
    PRICE: ("cost", "$ per 10k"),
    "error_rate": ("error rate", "Error rate"),
}
"""Metric of `change.METRICS` -> in a sentence, and at the head of a column."""

WRITTEN: Mapping[str, Write] = {"s": seconds, "1/s": lambda value: fixed(value, 2), "USD": usd, "1": percent}
"""Unit -> how its numbers are written."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One comparison as the page and the Markdown show it; `notes` are its interval and what it needs."""

    call: Call
    change: str
    interval: str
    before: str
    after: str
    wanting: str

    @property
    def glyph(self) -> str:
        return GLYPHS[self.call]

    @property
    def state(self) -> str:
        return STATES[self.call]


@dataclass(frozen=True, slots=True)
class CellLine:
    """One cell: its name, how often it was played in each run, a remark on it, and what is shown of each metric."""

    name: str
    played: str
    remark: str
    shown: tuple[Shown | None, ...]


def signed(change: float | None) -> str:
    """A change as signed per cent: `+20.1 %`, `−3.0 %`, `0.0 %`; from a fivefold on as `×5.2`."""
    if change is None or not math.isfinite(change):
        return NO_NUMBER
    if change >= 4:
        return f"×{change + 1:,.1f}"
    said = f"{change * 100:+.1f} %".replace("-", "−")
    return "0.0 %" if said[1:] == "0.0 %" else said


def labels(comparison: Comparison) -> dict[Key, str]:
    """A name for each cell that both runs have, each its own."""
    named = {e: c.label for e, c in named_experiments(comparison.candidate, ()).items()}
    found: dict[Key, str] = {}
    twins: Counter[str] = Counter()
    for pair in comparison.pairs:
        experiment, payload, _ = pair.key
        parts = (named.get(experiment) or clean(experiment, 28), payload_label(payload), clean(pair.candidate.load))
        name = ", ".join(parts)
        twins[name] += 1
        found[pair.key] = f"{name} ({twins[name]})" if twins[name] > 1 else name
    return found


def metrics(comparison: Comparison) -> list[str]:
    """The metrics that any cell has."""
    present = {change.metric for _, change in comparison.called()}
    return [metric for metric in METRICS if metric in present]


def lines(comparison: Comparison) -> list[CellLine]:
    """A line for each cell that was compared."""
    heads, named = metrics(comparison), labels(comparison)
    found = []
    for pair in comparison.pairs:
        if not pair.uncalled:
            shown = {change.metric: shown_of(change) for change in pair.changes}
            cells = tuple(shown.get(metric) for metric in heads)
            found.append(CellLine(named[pair.key], _played(pair), _remark(pair), cells))
    return found


def _played(pair: Pair) -> str:
    base, candidate = (len(setting.trial_ids) for setting in (pair.base, pair.candidate))
    if base == candidate == 1:
        return "once each"
    return f"{base} × each" if base == candidate else f"{base} × and {candidate} ×"


def _remark(pair: Pair) -> str:
    """What of a cell is INCONCLUSIVE, and why."""
    said = []
    for setting, side in ((pair.base, "base"), (pair.candidate, "candidate")):
        if setting.row["valid"] == Valid.INCONCLUSIVE:
            why = clean(", ".join(setting.row.get("reasons") or ()))
            said.append(f"INCONCLUSIVE in the {side}" + (f" ({why})" if why else ""))
    return "; ".join(said)


def shown_of(change: Change) -> Shown:
    write = WRITTEN[criterion_unit(change.metric)]
    x, low, high = _scale(change)
    error = change.difference is not None
    interval = "" if low is None or high is None else f"({signed(low).removesuffix(' %')} to {signed(high)})"
    before, after = write(change.base.value), write(change.candidate.value)
    said = f"{_points(x)} points" if error else signed(x)
    if error and interval:
        interval = f"({_points(low)} to {_points(high)})"
    return Shown(change.call, said, interval, before, after, _wanting(change))


def _points(difference: float | None) -> str:
    """A difference of rates in percentage points."""
    if difference is None:
        return NO_NUMBER
    said = f"{difference * 100:+.2f}".replace("-", "−")
    return "0.00" if said[1:] == "0.00" else said


def _wanting(change: Change) -> str:
    """What would settle a change that cannot be called."""
    if change.call is not Call.UNSURE:
        return ""
    unit = "repeat" if change.welch and change.difference is None else "request"
    if change.needed is not None:
        needs = f"needs {count(_rounded(change.needed), unit)} each"
        return f"{change.why}; {needs}" if change.why else needs
    return change.why or "at the zone's edge: no number would tell"


def _rounded(number: int) -> int:
    """Up to two figures: nothing is known better."""
    step = int("1".ljust(max(1, len(str(number)) - 1), "0"))
    return -(-number // step) * step


def _scale(change: Change) -> tuple[float | None, float | None, float | None]:
    """Where a change stands on its axis: ratio - 1, or the difference of error rates."""
    if change.difference is not None:
        return change.difference.value, change.difference.low, change.difference.high
    value, low, high = (
        None if end is None else end - 1 for end in (change.ratio.value, change.ratio.low, change.ratio.high)
    )
    return value, low, high


def drawn(comparison: Comparison) -> tuple[list[dict[str, Any]], list[str], list[str], int]:
    """Rows of the chart, its metrics and its cells, worse ones before others, and how many cells are left out."""
    named = labels(comparison)
    pairs = [pair for pair in comparison.pairs if pair.changes]
    chosen = sorted(pairs, key=lambda pair: min(list(Call).index(change.call) for change in pair.changes))[
        :MOST_DRAWN
    ]
    keys = {pair.key for pair in chosen}
    kept = [pair for pair in pairs if pair.key in keys]
    rows = [row for pair in kept for change in pair.changes if (row := _row(named[pair.key], change)) is not None]
    reach: dict[str, float] = {}
    for row in rows:
        reach[row["metric"]] = max(reach.get(row["metric"], 1.0), 1.5 * abs(row["x"]))
    for row in rows:
        row["high"] = min(row["high"], reach[row["metric"]])
    titles = [_title(metric) for metric in METRICS if _title(metric) in reach]
    return rows, titles, [named[pair.key] for pair in kept], len(pairs) - len(kept)


def _title(metric: str) -> str:
    return "error rate, percentage points" if metric == "error_rate" else NAMES[metric][0]


def _row(cell: str, change: Change) -> dict[str, Any] | None:
    x, low, high = _scale(change)
    if x is None:
        return None
    shown, zone = shown_of(change), POINTS if change.difference is not None else ZONE
    return {
        "metric": _title(change.metric),
        "cell": cell,
        "call": str(change.call),
        "x": x,
        "low": x if low is None else low,
        "high": x if high is None else high,
        "zone_low": -zone,
        "zone_high": zone,
        "zero": 0.0,
        "said": f"{shown.change}: {shown.before} → {shown.after}",
        "interval": shown.interval or "not known",
    }


def left_out(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """Cells that were not compared, and why."""
    named = labels(comparison)
    for pair in comparison.pairs:
        if pair.uncalled:
            yield named[pair.key], clean(pair.uncalled, 120)
    for keys, said in (
        (comparison.only_base, "only in the base"),
        (comparison.only_candidate, "only in the candidate"),
    ):
        for key in keys:
            yield ", ".join(clean(part) for part in key), said


def about(comparison: Comparison) -> list[tuple[str, str, str]]:
    """The two runs side by side."""
    pairs = [
        ("run", "run_id"),
        ("started (UTC)", "started_utc"),
        ("region", "region"),
        ("model", "model"),
        ("seed", "seed"),
        ("raybench", "raybench"),
        ("config", "config_file"),
    ]
    both = (comparison.base, comparison.candidate)
    found = [(said, *(clean(NO_NUMBER if run.get(key) is None else run[key]) for run in both)) for said, key in pairs]
    return [(said, base, candidate) for said, base, candidate in found]
