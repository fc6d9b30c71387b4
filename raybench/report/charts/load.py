"""What load does: throughput and latency, with the knee; the seed's spread of latency; and the seed's error rates."""

from collections.abc import Sequence

import altair as alt

from raybench.report.charts import style
from raybench.report.charts.style import NUMBER, Chart, Colours, Rows
from raybench.report.palette import variable

_SATURATION = (
    "config payload level level_text per_min per_min_low per_min_high ideal_per_min knee mean_s p50_s p95_s requests"
)
_EXTENT = 34
_TICKS = {0: "0", 0.01: "1 %", 0.05: "5 %", 0.1: "10 %", 0.25: "25 %", 0.5: "50 %", 1: "100 %"}


def saturation(
    rows: Rows, colours: Colours, levels: Sequence[float], payloads: Sequence[str], latency_limit_s: float | None
) -> Chart:
    """Requests a minute and latency against load, a panel per configuration, one data set at a time."""
    bind = alt.binding_select(options=list(payloads), name="Data set", element="#bind-saturation")
    which = alt.param("payload", value=payloads[0], bind=bind if len(payloads) > 1 else alt.Undefined)
    shown = style.base(rows, _SATURATION).transform_filter("datum.payload == payload")
    rate = _rate(shown, rows, colours, style.level_axis(levels, None))
    latency = _latency(shown, rows, colours, style.level_axis(levels, "load"), latency_limit_s)
    # Altair cannot join unnamed layered facets and then add a parameter.
    rate.layer[0].name, latency.layer[0].name = "saturation_rate", "saturation_latency"
    above = style.panels(rate, colours, 150, gap=60).resolve_scale(y="independent")
    below = style.panels(latency, colours, 150, gap=60, named=False)
    return (
        alt.vconcat(
            above.properties(title="requests per minute"),
            below.properties(title="latency (s, log): mean, and p50–p95 where p95 is known"),
        )
        .add_params(which)
        .properties(
            description="Small multiples by configuration: throughput against load, linear scaling dotted, the knee "
            "marked; below, mean latency with the band from median to p95."
        )
    )


def _rate(shown: alt.Chart, rows: Rows, colours: Colours, x: alt.X) -> alt.LayerChart:
    """Requests a minute with their intervals, linear scaling, and the knee."""
    axis = alt.Axis(tickCount=4, format=NUMBER, minExtent=_EXTENT, maxExtent=_EXTENT)
    y = alt.Y("per_min:Q", title=None, scale=alt.Scale(zero=True), axis=axis)
    colour, layers = style.colour(colours), []
    if style.has(rows, "knee"):
        knee = shown.transform_filter("datum.knee")
        text = knee.transform_calculate(said="'knee: ' + datum.level_text").mark_text(
            align="right", dx=-5, baseline="bottom", fontWeight=600, fontSize=11.5
        )
        rule = knee.mark_rule(color=variable("axis"))
        layers += [rule.encode(x), text.encode(x, y=alt.value(146), text="said:N")]
    ideal = shown.mark_line(strokeDash=[3, 3], color=variable("mute"))
    layers.append(ideal.encode(x, alt.Y("ideal_per_min:Q", title=None)))
    if style.has(rows, "per_min_low", "per_min_high"):
        whisker = shown.transform_filter("datum.per_min_low != null").mark_rule(strokeWidth=2)
        layers.append(whisker.encode(x, alt.Y("per_min_low:Q", title=None), colour, y2="per_min_high:Q"))
    return alt.LayerChart(layer=[*layers, *_line(shown, x, y, colours)])


def _latency(shown: alt.Chart, rows: Rows, colours: Colours, x: alt.X, limit_s: float | None) -> alt.LayerChart:
    """Mean latency, with the band from median to p95 where the sample gives them."""
    axis = alt.Axis(format=NUMBER, tickCount=5, minExtent=_EXTENT, maxExtent=_EXTENT)
    y = alt.Y("mean_s:Q", title=None, scale=style.log(padding=10), axis=axis)
    layers = style.limit(shown, limit_s)
    if style.has(rows, "p50_s", "p95_s"):
        band = shown.transform_filter("datum.p50_s != null && datum.p95_s != null").mark_area(opacity=0.2)
        layers.append(band.encode(x, alt.Y("p50_s:Q", title=None), style.colour(colours), y2="p95_s:Q"))
    return alt.LayerChart(layer=[*layers, *_line(shown, x, y, colours)])


def _line(shown: alt.Chart, x: alt.X, y: alt.Y, colours: Colours) -> list[alt.Chart]:
    tips = style.tips(
        config="configuration",
        level_text="load",
        per_min=("requests/min", ",.1f"),
        per_min_low=("95 % interval from", ",.1f"),
        per_min_high=("to", ",.1f"),
        mean_s=("mean latency (s)", ".3f"),
        p50_s=("p50 (s)", ".3f"),
        p95_s=("p95 (s)", ".3f"),
        requests=("requests", ",d"),
    )
    colour = style.colour(colours)
    line, point = shown.mark_line(strokeWidth=2), shown.mark_point(filled=True, size=55, opacity=1)
    return [line.encode(x, y, colour), point.encode(x, y, colour, tooltip=tips)]


def load_latency(rows: Rows, colours: Colours, levels: Sequence[str], latency_limit_s: float | None) -> Chart:
    """The seed's latency plot: the spread of latency at each load, p5 to p95 with the middle half boxed."""
    shown = style.base(rows, "config level_text p05_s p25_s p50_s p75_s p95_s requests")
    colour, scale = style.colour(colours), style.log(padding=12)
    x = alt.X("level_text:N", sort=list(levels), title="load", axis=alt.Axis(labelAngle=0))
    tips = style.tips(
        config="configuration",
        level_text="load",
        p05_s=("p5 (s)", ".3f"),
        p25_s=("p25", ".3f"),
        p50_s=("p50", ".3f"),
        p75_s=("p75", ".3f"),
        p95_s=("p95", ".3f"),
        requests=("requests", ",d"),
    )

    def y(column: str) -> alt.Y:
        return alt.Y(f"{column}:Q", scale=scale, title="latency (s, log)", axis=alt.Axis(format=NUMBER))

    layers = style.limit(shown, latency_limit_s, scale)
    if style.has(rows, "p05_s", "p95_s"):
        whisker = shown.transform_filter("datum.p05_s != null && datum.p95_s != null").mark_rule(strokeWidth=1.6)
        layers.append(whisker.encode(x, y("p05_s"), colour, y2="p95_s:Q"))
    if style.has(rows, "p25_s", "p75_s"):
        box = shown.transform_filter("datum.p25_s != null && datum.p75_s != null").mark_bar(size=22, opacity=0.45)
        layers.append(box.encode(x, y("p25_s"), colour, y2="p75_s:Q", tooltip=tips))
    layers.append(shown.mark_tick(size=22, thickness=2.5).encode(x, y("p50_s"), colour, tooltip=tips))
    return style.panels(alt.layer(*layers), colours, 220).properties(
        description="Latency at each load: whiskers from p5 to p95, the middle half as a box, the median as a line."
    )


def error_rates(rows: Rows, colours: Colours, levels: Sequence[str], reach: float) -> Chart:
    """The seed's error plot: the rate up to `reach`, with its interval and the counts, by load."""
    shown = style.base(rows, "config payload level_text error_rate error_rate_low error_rate_high errors any")
    said = " : ".join(f"datum.value == {at} ? '{text}'" for at, text in _TICKS.items()) + " : ''"
    axis = alt.Axis(values=list(_TICKS), labelExpr=said)
    title = "error rate (square-root scale)"
    scale = alt.Scale(type="sqrt", domain=[0, reach], nice=False)
    y = alt.Y("level_text:N", sort=list(levels), title="load")
    some = alt.when("datum.any")
    colour = some.then(alt.value(variable("bad"))).otherwise(alt.value(variable("ok")))
    point = shown.mark_point(filled=True, size=70, opacity=1).encode(
        alt.X("error_rate:Q", scale=scale, title=title, axis=axis),
        y,
        color=colour,
        shape=some.then(alt.value("cross")).otherwise(alt.value("circle")),
        tooltip=style.tips(
            config="configuration",
            payload="data set",
            level_text="load",
            errors="errors / requests",
            error_rate_low=("95 % interval from", ".2%"),
            error_rate_high=("to", ".2%"),
        ),
    )
    bar = shown.mark_rule(strokeWidth=3, opacity=0.45).encode(
        alt.X("error_rate_low:Q", scale=scale), y, x2="error_rate_high:Q", color=colour
    )
    counts = shown.mark_text(align="left", dx=8, fontSize=11, color=variable("ink2")).encode(
        alt.X("error_rate_high:Q", scale=scale), y, text="errors:N"
    )
    across = style.balanced(len(colours), 3)
    return (
        alt.layer(bar, point, counts)
        .properties(width={1: 560, 2: 380, 3: 240}[across], height=alt.Step(22))
        .facet(
            facet=alt.Facet("config:N", title=None, sort=list(colours)), columns=across, spacing=24, bounds="flush"
        )
        .properties(description="Error rate per load with 95 percent intervals and counts, by configuration.")
    )
