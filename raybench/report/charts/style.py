"""What all charts share: the style, the axes, and the small pieces that several of them draw."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import altair as alt
from altair.utils import schemapi

from raybench.report.palette import FONT, variable
from raybench.report.vega import Spec, bounded

Rows = Sequence[Mapping[str, Any]]
Colours = Mapping[str, str]
"""Configuration label -> colour name, in the order of the config."""

Chart = alt.LayerChart | alt.FacetChart | alt.VConcatChart | alt.HConcatChart

NUMBER = ",.3~r"
LABEL: dict[str, Any] = {"align": "left", "fontWeight": 600, "fontSize": 12}

_AXIS = {
    "labelColor": variable("ink2"),
    "titleColor": variable("ink2"),
    "gridColor": variable("grid"),
    "domainColor": variable("axis"),
    "tickColor": variable("axis"),
    "labelFontSize": 12,
    "titleFontSize": 12,
    "titleFontWeight": 500,
    "labelPadding": 5,
    "titlePadding": 8,
    "tickSize": 4,
}
CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": FONT,
    "padding": 4,
    "view": {"stroke": None},
    "axis": _AXIS,
    "legend": {
        "labelColor": variable("ink"),
        "titleColor": variable("ink2"),
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": 500,
        "symbolStrokeWidth": 2,
        "rowPadding": 3,
    },
    "header": {
        "titleColor": variable("ink2"),
        "labelColor": variable("ink"),
        "labelFontSize": 12,
        "labelFontWeight": 600,
        "labelLimit": 260,
    },
    "title": {
        "anchor": "start",
        "color": variable("ink2"),
        "fontSize": 12,
        "fontWeight": 500,
        "offset": 8,
    },
    "text": {"color": variable("ink")},
}


def simple() -> alt.Chart:
    """The least chart there is, to have the machinery loaded before it is needed."""
    chart: alt.Chart = values([{"x": 1}]).mark_point().encode(x="x:Q")
    return chart


def unchecked() -> AbstractContextManager[None]:
    """Draws what the tests have checked: Altair holds nothing against its schema, which takes it a second."""
    return schemapi.debug_mode(False)


def spec(name: str, chart: Chart | alt.Chart) -> Spec:
    """The chart as Vega-Lite in our style, within the bounds of `vega.bounded`."""
    plain: Spec = chart.to_dict(validate=schemapi.DEBUG_MODE)
    plain["config"] = CONFIG
    plain.pop("$schema", None)
    return bounded(name, plain)


def base(rows: Rows, columns: str) -> alt.Chart:
    """A chart on these rows, of which it carries the columns named, at five figures, and nothing else."""
    names = columns.split()
    return values([{name: _figures(row[name]) for name in names} for row in rows])


def values(rows: list[dict[str, Any]]) -> alt.Chart:
    """A chart on rows as they are."""
    return alt.Chart(alt.InlineData(values=rows))


def _figures(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def has(rows: Rows, *columns: str) -> bool:
    """Whether any row has all of these; a layer without data would leave its scale without an extent."""
    return any(all(row[column] not in (None, False) for column in columns) for row in rows)


def colour(colours: Colours, channel: type[Any] = alt.Color) -> Any:
    """Each configuration in its colour; labelled in the chart, so without a legend."""
    scale = alt.Scale(domain=list(colours), range=[variable(name) for name in colours.values()])
    return channel("config:N", scale=scale, legend=None)


def log(root: int = 10, padding: int = 24) -> alt.Scale:
    """A logarithmic scale from the least to the greatest value, `padding` pixels beyond."""
    return alt.Scale(type="log", base=root, nice=False, zero=False, padding=padding)


def level_axis(levels: Sequence[float], title: str | None) -> alt.X:
    """Loads on a scale of doublings, each with its tick."""
    axis = alt.Axis(values=list(levels), format=NUMBER, grid=False, labelOverlap="greedy")
    return alt.X("level:Q", scale=log(2, 12), title=title, axis=axis)


def tips(**fields: tuple[str, str] | str) -> list[alt.Tooltip]:
    """`column="title"`, or `column=("title", format)` for a number."""
    return [
        alt.Tooltip(f"{column}:N", title=said)
        if isinstance(said, str)
        else alt.Tooltip(f"{column}:Q", title=said[0], format=said[1])
        for column, said in fields.items()
    ]


def limit(chart: alt.Chart, value: float | None, scale: alt.Scale | None = None) -> list[alt.Chart]:
    """A dashed rule at the limit, if there is one; drawn once, not once per row."""
    if not value:
        return []
    y = alt.Y("limit:Q", title=None) if scale is None else alt.Y("limit:Q", title=None, scale=scale)
    once = chart.transform_aggregate(n="count()").transform_calculate(limit=repr(float(value)))
    return [once.mark_rule(color=variable("ink2"), strokeDash=[5, 4]).encode(y)]


def haloed(chart: alt.Chart, text: str, **look: Any) -> list[alt.Chart]:
    """Text over its own halo, legible on any mark."""
    halo: dict[str, Any] = {"stroke": variable("card"), "strokeWidth": 5, "strokeJoin": "round", "aria": False}
    return [chart.mark_text(**look, **halo).encode(text=text), chart.mark_text(**look).encode(text=text)]


def points(live: alt.Chart, colours: Colours, inside: str, tooltip: list[alt.Tooltip]) -> list[alt.Chart]:
    """Points numbered by load: filled where `live` says `inside`, else hollow, and dotted where not counted."""
    filled, dotted = alt.when(f"datum.live == '{inside}'"), alt.when("datum.live == 'not counted'")
    circle = live.mark_circle(size=340, strokeWidth=2, opacity=1).encode(
        stroke=colour(colours, alt.Stroke),
        fill=filled.then(colour(colours, alt.Fill)).otherwise(alt.value(variable("card"))),
        strokeDash=dotted.then(alt.value([2, 2])).otherwise(alt.value([1, 0])),
        tooltip=tooltip,
    )
    number = live.mark_text(fontSize=11, fontWeight=600, aria=False).encode(
        text="level_text:N", color=filled.then(alt.value(variable("card"))).otherwise(alt.value(variable("ink")))
    )
    return [circle, number]


def whiskers(
    chart: alt.Chart, rows: Rows, x: alt.X, y: alt.Y, scale: alt.Scale, low: str, high: str
) -> list[alt.Chart]:
    """The 95 % intervals on logarithmic axes, where known: from `low` to `high` across, the price's upright."""
    marks = []
    if has(rows, low, high):
        known = chart.transform_filter(f"datum.{low} > 0").mark_rule(strokeWidth=2)
        marks.append(known.encode(alt.X(f"{low}:Q", scale=scale), y, x2=f"{high}:Q"))
    if has(rows, "usd_low", "usd_high"):
        known = chart.transform_filter("datum.usd_low > 0").mark_rule(strokeWidth=2)
        marks.append(known.encode(x, alt.Y("usd_low:Q", scale=scale), y2="usd_high:Q"))
    return marks


def names(chart: alt.Chart, colours: Colours, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """Each configuration by its name, at the first of its points."""
    first = chart.transform_filter("datum.first").encode(x, y, colour(colours))
    return haloed(first, "config:N", dx=-10, dy=-22, **LABEL)


def balanced(number: int, most: int) -> int:
    """How many panels to a row, at most so many, for rows as full as can be."""
    rows = -(-number // most)
    return max(1, -(-number // max(1, rows)))


def panels(
    chart: alt.LayerChart | alt.FacetChart,
    colours: Colours,
    height: int,
    columns: int = 3,
    gap: int = 30,
    named: bool = True,
) -> alt.FacetChart:
    """A panel per configuration, `columns` to a row; unnamed where the panels above already say whose they are."""
    across = balanced(len(colours), columns)
    sized = chart.properties(width={1: 640, 2: 460, 3: 305, 4: 235}[across] - gap, height=height)
    order = list(colours)
    if len(colours) > across:
        facet = alt.Facet("config:N", title=None, sort=order)
        return sized.facet(facet=facet, columns=across, spacing=gap, bounds="flush")
    header = alt.Header() if named else alt.Header(labels=False)
    column = alt.Column("config:N", title=None, sort=order, header=header)
    return sized.facet(column=column, spacing=gap, bounds="flush")
