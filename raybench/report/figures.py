"""Which charts a run's data allows, drawn: the spec that lives in the page and the drawing that stands in for it."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from raybench.analysis import validity
from raybench.analysis.plausible import LITTLE
from raybench.analysis.spoken import criterion_name
from raybench.report import capacity, client, columns, grid, streaming, timeline, vega
from raybench.report.charts import cost, latency, load, price, style, time
from raybench.report.charts import grid as grid_chart
from raybench.report.charts import streaming as stream
from raybench.report.charts import trust as health
from raybench.report.few import LOADS, coloured, few, left_out
from raybench.report.view import View

WIDE = 560


@dataclass(frozen=True, slots=True)
class Figure:
    """One chart: its compiled spec, the same as a static SVG, and what it leaves out, in words."""

    spec: vega.Spec
    drawing: str
    left_out: str = ""

    @property
    def wide(self) -> bool:
        """Whether a phone should scroll it rather than shrink it."""
        width = re.search(r' width="(\d+)', self.drawing)
        return width is not None and int(width[1]) > WIDE


Drawn = tuple[style.Chart, str] | None
"""A chart and what it leaves out; None where there is nothing to draw."""


def draw(view: View) -> dict[str, Figure]:
    """Name -> figure, for every chart the data allows."""
    figures = {}
    for name, make in CHARTS.items():
        drawn = make(view)
        if drawn is not None:
            chart, left = drawn
            spec = vega.bounded(name, vega.compiled(style.spec(name, chart)))
            figures[name] = Figure(spec, vega.drawing(spec, name), left)
    return figures


def _price(view: View) -> Drawn:
    rows = columns.price(view.asked, view.latency)
    if not rows:
        return None
    limits = price.Limits(view.latency_limit, view.price_limit)
    said = criterion_name(view.latency_criterion or "latency_mean")
    chart = price.price_latency(rows, columns.colours(view.asked), limits, said)
    return chart, _greyed(view)


def _greyed(view: View) -> str:
    grey = len(view.experiments) - len(view.shown)
    return f"{grey} further configurations are drawn in grey." if grey else ""


def _interactivity(view: View) -> Drawn:
    rows = streaming.interactivity(view.asked)
    return (stream.interactivity(rows, columns.colours(view.asked)), _greyed(view)) if rows else None


def _grid(view: View) -> Drawn:
    cells = few(view, view.cells, panels=LOADS * len(view.shown))
    rows = grid.grid(view, cells)
    if not rows:
        return None
    payloads = [payload for payload in view.payloads if any(row["payload"] == payload for row in rows)]
    classes = [said for _, said in grid.CLASSES]
    levels = columns.levels(cells)
    chart = grid_chart.grid(rows, columns.colours(cells), levels, payloads, classes, grid.NO_NUMBER)
    return chart, left_out(view.cells, cells)


def _saturation(view: View) -> Drawn:
    cells = coloured(view, view.cells)
    rows = columns.saturation(cells)
    if len({row["level"] for row in rows}) < 2:
        return None
    payloads = sorted({row["payload"] for row in rows}, key=lambda payload: (payload != view.payload, payload))
    shown = [cell for cell in cells if cell.valid]
    limit = view.limits.get("latency_mean")
    chart = load.saturation(rows, columns.colours(shown), sorted({cell.level for cell in shown}), payloads, limit)
    return chart, left_out(view.cells, cells)


def _percentiles(view: View) -> Drawn:
    cells = few(view, view.asked)
    rows = columns.percentiles(cells, view.findings.curves)
    shown = [cell for cell in cells if cell.valid]
    levels = columns.levels(shown)
    if not rows:
        return None
    chart = latency.percentiles(rows, columns.colours(shown), levels, view.latency_line)
    return chart, left_out(view.asked, cells)


def _load_latency(view: View) -> Drawn:
    cells = few(view, view.asked)
    rows = columns.spread(cells, view.findings.curves)
    shown = [cell for cell in cells if cell.valid]
    levels = columns.levels(shown)
    if not rows:
        return None
    chart = load.load_latency(rows, columns.colours(shown), levels, view.latency_line)
    return chart, left_out(view.asked, cells)


def _by_load(metric: str, unit: str, what: str) -> Callable[[View], Drawn]:
    def make(view: View) -> Drawn:
        cells = coloured(view, view.asked)
        rows = streaming.first_tokens(cells) if metric == "ttft" else streaming.gaps(cells)
        if not rows:
            return None
        levels = sorted({row["level"] for row in rows})
        return stream.by_load(rows, columns.colours(cells), levels, unit, what), left_out(view.asked, cells)

    return make


def _parts(view: View) -> Drawn:
    cells = few(view, view.asked)
    rows = streaming.parts(cells)
    if not rows:
        return None
    levels = columns.levels(cells)
    return stream.parts(rows, columns.colours(cells), levels), left_out(view.asked, cells)


def _tokens_latency(view: View) -> Drawn:
    cells = few(view, view.asked)
    rows = columns.tokens(cells, view.findings.tokens)
    shown = [cell for cell in cells if cell.valid]
    levels, shares = columns.levels(shown), [text for _, text in columns.SHARES]
    if not rows:
        return None
    chart = latency.tokens_latency(rows, columns.colours(shown), levels, shares, view.latency_line)
    return chart, left_out(view.asked, cells)


def _over_time(view: View) -> Drawn:
    stretches, density = timeline.stretches(view), timeline.density(view)
    if not stretches or not density:
        return None
    shown = timeline.trials(view)
    names, shares = [timeline.name(cell) for cell in shown], [text for _, text in timeline.STRETCH_SHARES]
    chart = time.over_time(stretches, density, timeline.warm_ups(view), names, shares)
    left = len(view.cells) - len(shown)
    whole = view.counted(len(view.cells))
    return chart, f"Of {whole} these {len(shown)}: those the answer rests on first." if left else ""


def _error_rates(view: View) -> Drawn:
    cells = few(view, view.asked)
    rows = columns.error_rates(cells)
    shown = [cell for cell in cells if cell.valid]
    levels = columns.levels(shown)
    if not rows:
        return None
    chart = load.error_rates(rows, columns.colours(shown), levels, columns.reach(rows))
    return chart, left_out(view.asked, cells)


def _capacity(view: View) -> Drawn:
    lines = [line for line in capacity.lines(view) if line.cell.experiment.colour != "mute"]
    rows = capacity.steps(lines)
    chart = cost.capacity(rows, columns.colours(line.cell for line in lines)) if rows else None
    return None if chart is None else (chart, left_out(view.asked, [line.cell for line in lines], loads=False))


def _little(view: View) -> Drawn:
    rows = client.ratios(view.cells)
    if not rows:
        return None
    names = list(dict.fromkeys(row["config"] for row in rows))
    return health.little(rows, columns.colours(view.cells), LITTLE, names), ""


def _client(view: View) -> Drawn:
    cells = coloured(view, [cell for cell in view.cells if cell.level])
    rows = client.health(cells)
    if not rows:
        return None
    levels, limits = sorted({row["level"] for row in rows}), (validity.LATE_S * 1000, validity.BUSY)
    return health.client(rows, columns.colours(cells), levels, limits), left_out(view.cells, cells)


CHARTS: dict[str, Callable[[View], Drawn]] = {
    "price": _price,
    "interactivity": _interactivity,
    "grid": _grid,
    "saturation": _saturation,
    "percentiles": _percentiles,
    "load_latency": _load_latency,
    "ttft": _by_load("ttft", "s", "time to first token"),
    "itl": _by_load("itl", "ms", "inter-token latency"),
    "parts": _parts,
    "tokens_latency": _tokens_latency,
    "over_time": _over_time,
    "error_rates": _error_rates,
    "capacity": _capacity,
    "little": _little,
    "client": _client,
}
