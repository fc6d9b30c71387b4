"""Which charts a run's data allows, drawn: the spec that lives in the page and the drawing that stands in for it."""

from collections.abc import Callable
from dataclasses import dataclass

from raybench.report import columns, sentences, vega
from raybench.report.cells import Cell
from raybench.report.charts import latency, load, price, style
from raybench.report.view import View

CURVES_PER_CONFIGURATION = 8
PANELS = 8


@dataclass(frozen=True, slots=True)
class Figure:
    """One chart: its compiled spec, and the same as a static SVG."""

    spec: vega.Spec
    drawing: str


def draw(view: View) -> dict[str, Figure]:
    """Name -> figure, for every chart the data allows."""
    figures = {}
    for name, make in _CHARTS.items():
        chart = make(view)
        if chart is not None:
            spec = vega.compiled(style.spec(name, chart))
            figures[name] = Figure(spec, vega.drawing(spec, name))
    return figures


def _price(view: View) -> style.Chart | None:
    rows = columns.price(view.asked, view.latency, view.latency_criterion)
    if not rows:
        return None
    limits = price.Limits(view.latency_limit, view.limits.get("cost_per_10k"))
    said = sentences.criterion_name(view.latency_criterion or "latency_mean")
    return price.price_latency(rows, columns.colours(view.asked), limits, said)


def _saturation(view: View) -> style.Chart | None:
    rows = columns.saturation(view.cells)
    if len({row["level"] for row in rows}) < 2:
        return None
    payloads = sorted({row["payload"] for row in rows}, key=lambda payload: (payload != view.payload, payload))
    shown = [cell for cell in view.cells if cell.valid]
    limit = view.limits.get("latency_mean")
    return load.saturation(rows, columns.colours(shown), list(columns.levels(shown)), payloads, limit)


def _percentiles(view: View) -> style.Chart | None:
    cells = _few_levels(view.asked)
    rows = columns.percentiles(cells, view.findings.curves)
    shown = [cell for cell in cells if cell.valid]
    limit = view.latency_limit
    levels = list(columns.levels(shown).values())
    return latency.percentiles(rows, columns.colours(shown), levels, limit) if rows else None


def _load_latency(view: View) -> style.Chart | None:
    rows = columns.spread(view.asked, view.findings.curves)
    shown = [cell for cell in view.asked if cell.valid]
    levels = list(columns.levels(shown).values())
    return load.load_latency(rows, columns.colours(shown), levels, view.latency_limit) if rows else None


def _tokens_latency(view: View) -> style.Chart | None:
    cells = _few_levels(view.asked)
    rows = columns.tokens(cells, view.findings.tokens)
    shown = [cell for cell in cells if cell.valid]
    levels, shares = list(columns.levels(shown).values()), [text for _, text in columns.SHARES]
    colours = columns.colours(shown)
    return latency.tokens_latency(rows, colours, levels, shares, view.latency_limit) if rows else None


def _error_rates(view: View) -> style.Chart | None:
    rows = columns.error_rates(view.cells)
    levels = list(columns.levels(view.cells).values())
    return load.error_rates(rows, columns.colours(view.cells), levels, columns.reach(rows)) if rows else None


def _few_levels(cells: list[Cell]) -> list[Cell]:
    """The cells of at most so many configurations and loads, the lowest and the highest load among them."""
    levels = list(columns.levels(cells))
    step = max(1.0, (len(levels) - 1) / (CURVES_PER_CONFIGURATION - 1))
    places = {min(len(levels) - 1, round(place * step)) for place in range(CURVES_PER_CONFIGURATION)}
    wanted = {levels[place] for place in places if place >= 0}
    labels = list(columns.colours(cells))[:PANELS]
    return [cell for cell in cells if cell.level in wanted and cell.configuration.label in labels]


_CHARTS: dict[str, Callable[[View], style.Chart | None]] = {
    "price": _price,
    "saturation": _saturation,
    "percentiles": _percentiles,
    "load_latency": _load_latency,
    "tokens_latency": _tokens_latency,
    "error_rates": _error_rates,
}
