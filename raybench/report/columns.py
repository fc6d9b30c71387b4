"""The columns that charts draw: chosen, labelled and bounded here, so that a chart only lays them out."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raybench.analysis.columns import PRICE, criterion_column
from raybench.analysis.spoken import seconds, usd
from raybench.report.cells import Cell
from raybench.report.vega import MAX_ROWS

KNEE = 0.9
FIRM_BEYOND = 10
SHARES = ((0.01, "< 1 %"), (0.02, "1–2 %"), (0.05, "2–5 %"), (0.1, "5–10 %"), (0.2, "10–20 %"), (math.inf, "≥ 20 %"))
SEEN = 0.002
"""The share of a panel below which a bin is not drawn: the rarest would make a page grow with its run."""

_REACHES = (0.05, 0.1, 0.25, 0.5, 1.0)

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Knee:
    """Where a line stops scaling: the first load with 90 % of the best throughput; and the last load tried."""

    cell: Cell
    best: Cell
    last: Cell

    @property
    def reached(self) -> bool:
        """Whether more load than the knee was tried at all."""
        return self.cell.level < self.last.level


def colours(cells: Iterable[Cell]) -> dict[str, str]:
    """Configuration label -> colour name, of the configurations that are there."""
    return {cell.experiment.label: cell.experiment.colour for cell in cells}


def levels(cells: Iterable[Cell]) -> list[str]:
    """The labels of the loads, rising; concurrency 2 and 2 a second are two, and so are two traces."""
    return [text for _, text in sorted({(cell.level, cell.level_text) for cell in cells})]


def lines(cells: Iterable[Cell]) -> dict[tuple[str, str, str], list[Cell]]:
    """(configuration label, data set, kind of load) -> its cells by rising load."""
    found: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in sorted((cell for cell in cells if cell.level), key=lambda cell: cell.level):
        found.setdefault((cell.experiment.label, cell.payload, cell.kind), []).append(cell)
    return found


def knee(line: Sequence[Cell]) -> Knee | None:
    """The knee of one line of at least three loads that can be read, if anything was served at any."""
    rates = [(cell.row["transactions_per_minute"] or 0.0, cell) for cell in line if cell.valid]
    if len({cell.level for _, cell in rates}) < 3:
        return None
    best_rate, best = max(rates, key=lambda pair: pair[0])
    if not best_rate:
        return None
    return Knee(next(cell for rate, cell in rates if rate >= KNEE * best_rate), best, rates[-1][1])


def price(cells: Sequence[Cell], latency: str) -> Rows:
    """One row per setting that can be read and has a price and a latency.

    `others_met` speaks for the criteria that the sliders don't move.
    """
    rows: Rows = []
    named: set[str] = set()
    for cell in sorted(cells, key=lambda cell: (cell.experiment.label, cell.level)):
        row = cell.row
        if not cell.valid or row[latency] is None or row[PRICE] is None or not row[PRICE] > 0:
            continue
        others = (state for state in cell.setting.states if criterion_column(state.criterion) not in (latency, PRICE))
        rows.append(
            identity(cell)
            | {
                "latency_s": row[latency],
                "latency_low_s": row.get(f"{latency}_low"),
                "latency_high_s": row.get(f"{latency}_high"),
                "usd": row[PRICE],
                "usd_low": row.get(f"{PRICE}_low"),
                "usd_high": row.get(f"{PRICE}_high"),
                "per_min": row["transactions_per_minute"],
                "errors": errors(cell),
                "counted": cell.counted,
                "others_met": all(state.met for state in others),
                "standing": cell.standing_text,
                "first": cell.experiment.label not in named and cell.experiment.colour != "mute",
                "said": f"${usd(row[PRICE])} · {seconds(row[latency])} s",
            }
        )
        named.add(cell.experiment.label)
    return rows


def saturation(cells: Sequence[Cell]) -> Rows:
    """One row per setting that can be read, with what linear scaling from the first load would have given."""
    rows: Rows = []
    for line in lines(cell for cell in cells if cell.valid and cell.row["transactions_per_minute"]).values():
        found, first = knee(line), line[0]
        per_level = (first.row["transactions_per_minute"] or 0.0) / first.level
        top = max(cell.row["transactions_per_minute"] or 0.0 for cell in line)
        for cell in line:
            row, ideal = cell.row, per_level * cell.level
            rows.append(
                identity(cell)
                | {
                    "per_min": row["transactions_per_minute"],
                    "per_min_low": row.get("transactions_per_minute_low"),
                    "per_min_high": row.get("transactions_per_minute_high"),
                    "ideal_per_min": ideal if ideal <= top * 1.35 else None,
                    "knee": found is not None and found.reached and cell is found.cell,
                    "mean_s": row["latency_mean"],
                    "p50_s": row["latency_p50"],
                    "p95_s": row["latency_p95"],
                }
            )
    return rows[:MAX_ROWS]


def percentiles(cells: Sequence[Cell], curves: pa.Table) -> Rows:
    """The percentile curves of these trials; a quantile below its floor of samples is left out."""
    wanted = {cell.row["trial_id"]: cell for cell in cells if cell.valid}
    rows: Rows = []
    for point in curves.to_pylist():
        cell = wanted.get(point["trial_id"])
        if cell is None or point["latency_s"] is None or not math.isfinite(point["latency_s"]):
            continue
        rows.append(
            identity(cell)
            | {
                "trial_id": cell.row["trial_id"],
                "nines": -math.log10(1 - point["quantile"]),
                "percentile": point["quantile"] * 100,
                "latency_s": point["latency_s"],
                "low_s": _finite(point["low_s"]),
                "high_s": _finite(point["high_s"]),
                "firm": point["beyond"] >= FIRM_BEYOND,
                "last": False,
                "said": f"{cell.level_text} (n={cell.row['requests']:,})",
            }
        )
    points = Counter(row["trial_id"] for row in rows)
    rows = [row for row in rows if points[row["trial_id"]] > 1]
    rows.sort(key=lambda row: (row["config"], row["level"], row["trial_id"], row["nines"]))
    for last in {row["trial_id"]: row for row in rows}.values():
        last["last"] = True
    return rows


def error_rates(cells: Sequence[Cell]) -> Rows:
    """One row per setting that can be read: its error rate, the interval, and the counts; a grid without gaps."""
    rows = [
        identity(cell)
        | {
            "error_rate": cell.row["error_rate"],
            "error_rate_low": cell.row.get("error_rate_low"),
            "error_rate_high": cell.row.get("error_rate_high"),
            "errors": errors(cell),
            "any": bool(cell.row["error_rate"]),
        }
        for cell in cells
        if cell.valid and cell.row["error_rate"] is not None
    ]
    return crossed(rows, "config", "payload")


def reach(rows: Rows) -> float:
    """How far an axis of error rates must go."""
    top = max((row["error_rate_high"] or row["error_rate"] or 0.0 for row in rows), default=0.0)
    return next((end for end in _REACHES if top * 1.25 <= end), 1.0)


def tokens(cells: Sequence[Cell], bins: pa.Table) -> Rows:
    """The bins of prompt length against latency of these trials' configurations and loads, a grid without gaps."""
    wanted = {(cell.row["experiment"], cell.row["payload"], cell.row["load"]): cell for cell in cells if cell.valid}
    rows: Rows = []
    for found in bins.to_pylist():
        cell = wanted.get((found["experiment"], found["payload"], found["load"]))
        if cell is None or found["share"] < SEEN:
            continue
        bounds = ("prompt_tokens_low", "prompt_tokens_high", "latency_low_s", "latency_high_s")
        rows.append(
            identity(cell)
            | {name: found[name] for name in bounds}
            | {
                "requests": found["requests"],
                "share_text": next(text for below, text in SHARES if found["share"] < below),
            }
        )
    return crossed(rows, "level_text", "config")


def spread(cells: Sequence[Cell], curves: pa.Table) -> Rows:
    """The five quantiles of a box for each trial, from its percentile curve."""
    boxes = {0.05: "p05_s", 0.25: "p25_s", 0.5: "p50_s", 0.75: "p75_s", 0.95: "p95_s"}
    rows = {cell.row["trial_id"]: identity(cell) | dict.fromkeys(boxes.values()) for cell in cells if cell.valid}
    for point in curves.to_pylist():
        name = boxes.get(round(point["quantile"], 6))
        if name is not None and point["trial_id"] in rows:
            rows[point["trial_id"]][name] = _finite(point["latency_s"])
    return [row for row in rows.values() if row["p50_s"] is not None]


def crossed(rows: Rows, across: str, down: str) -> Rows:
    """The rows, with an empty one for each pair of `across` and `down` that has none.

    A grid of panels with a custom order puts its cells in the wrong places where a pair is missing.
    """
    there = {(row[across], row[down]) for row in rows}
    blank = (
        {name: None if isinstance(value, float | int) else value for name, value in rows[0].items()} if rows else {}
    )
    columns, lines = ({row[name]: None for row in rows} for name in (across, down))
    missing = [(column, line) for column in columns for line in lines if (column, line) not in there]
    return rows + [blank | {across: column, down: line} for column, line in missing]


def errors(cell: Cell) -> str:
    """`3 / 1,204`: how many of the planned requests did not end well."""
    return f"{cell.row['requests'] - cell.row['ok']:,} / {cell.row['requests']:,}"


def identity(cell: Cell) -> dict[str, Any]:
    return {
        "config": cell.experiment.label,
        "payload": cell.payload,
        "level": cell.level,
        "level_text": cell.level_text,
        "kind": cell.kind,
        "requests": cell.row["requests"],
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
