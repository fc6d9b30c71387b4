"""What a reader of a stream sees: speed against price; first tokens and gaps; where the time goes."""

from collections.abc import Sequence

import altair as alt

from raybench.report.charts import style
from raybench.report.charts.style import NUMBER, Chart, Colours, Rows
from raybench.report.palette import variable

_COLUMNS = (
    "config kind level level_text tokens_per_s tokens_per_s_low tokens_per_s_high usd usd_low usd_high frontier live "
    "errors standing first"
)
_SCALE = style.log(padding=40)
_PART_COLOURS = ("mute", "s3", "c2")


def interactivity(rows: Rows, colours: Colours) -> Chart:
    """Tokens a second for each user against USD per million output tokens, and the frontier as a staircase."""
    x = alt.X(
        "tokens_per_s:Q",
        scale=_SCALE,
        title="output tokens per second, for each user (log) → faster",
        axis=alt.Axis(format=NUMBER),
    )
    title = "USD per million output tokens (log) → dearer"
    y = alt.Y("usd:Q", scale=_SCALE, title=title, axis=alt.Axis(format=f"${NUMBER}"))
    shown, colour = style.base(rows, _COLUMNS), style.colour(colours)
    layers = []
    if style.has(rows, "frontier"):
        stairs = shown.transform_filter("datum.frontier").mark_line(
            interpolate="step-before", strokeWidth=2, strokeDash=[6, 4], color=variable("ink2")
        )
        layers.append(stairs.encode(x, y, order="tokens_per_s:Q"))
    layers.append(shown.mark_line(strokeWidth=2, opacity=0.5).encode(x, y, colour, order="level:Q", detail="kind:N"))
    whiskers = style.whiskers(shown, rows, x, y, _SCALE, "tokens_per_s_low", "tokens_per_s_high")
    tips = style.tips(
        config="configuration",
        level_text="load",
        tokens_per_s=("tokens/s for each user", ",.1f"),
        tokens_per_s_low=("95 % interval from", ",.1f"),
        tokens_per_s_high=("to", ",.1f"),
        usd=("$ per million output tokens", ",.2f"),
        usd_low=("95 % interval of $ from", ",.2f"),
        usd_high=("$ to", ",.2f"),
        errors="errors",
        standing="against the criteria",
    )
    layers += [
        *(mark.encode(color=colour) for mark in whiskers),
        *(mark.encode(x, y) for mark in style.points(shown, colours, "frontier", tips)),
        *style.names(shown, colours, x, y),
    ]
    return alt.layer(*layers).properties(
        width=870,
        height=380,
        description="Scatter plot on two logarithmic axes: output tokens per second for each user against cost per "
        "million output tokens, a line per configuration, points numbered by load; filled ones are on the frontier.",
    )


def by_load(rows: Rows, colours: Colours, levels: Sequence[float], unit: str, what: str) -> Chart:
    """F and G: p50 as a line, p95 as a dotted one where the sample bounds it, the band between."""
    shown, colour = style.base(rows, "config kind level level_text p50 p95 last requests"), style.colour(colours)
    x, scale = style.level_axis(levels, "load"), style.log(padding=14)
    title = f"{what} ({unit}, log)"
    y = alt.Y("p50:Q", title=title, scale=scale, axis=alt.Axis(format=NUMBER, tickCount=5))
    tips = style.tips(
        config="configuration",
        level_text="load",
        p50=(f"p50 ({unit})", ".4~r"),
        p95=(f"p95 ({unit})", ".4~r"),
        requests=("requests", ",d"),
    )
    layers: list[alt.Chart] = []
    if style.has(rows, "p95"):
        known, high = shown.transform_filter("datum.p95 != null"), alt.Y("p95:Q", title=title, scale=scale)
        layers.append(known.mark_area(opacity=0.14).encode(x, y, colour, y2="p95:Q", detail="kind:N"))
        layers.append(known.mark_line(strokeWidth=2, strokeDash=[2, 3]).encode(x, high, colour, detail="kind:N"))
        layers.append(known.mark_point(size=34, filled=True, opacity=1).encode(x, high, colour, tooltip=tips))
    layers += [
        shown.mark_line(strokeWidth=2).encode(x, y, colour, detail="kind:N"),
        shown.mark_point(filled=True, size=55, opacity=1).encode(x, y, colour, tooltip=tips),
        *style.haloed(
            shown.transform_filter("datum.last").encode(x, y, colour), "config:N", **style.LABEL | {"dx": 8, "dy": 0}
        ),
    ]
    return alt.layer(*layers).properties(
        width=300, height=220, description=f"{what} against load: the median as a line, p95 dotted."
    )


def parts(rows: Rows, colours: Colours, levels: Sequence[str]) -> Chart:
    """What share of mean latency the client, queue and prefill, and decoding take, a panel per configuration."""
    names = list(dict.fromkeys(row["part"] for row in sorted(rows, key=lambda row: row["place"])))
    scale = alt.Scale(domain=names, range=[variable(name) for name in _PART_COLOURS[: len(names)]])
    legend = alt.Legend(title=None, orient="top", symbolType="square", labelLimit=240)
    bar = (
        style.base(rows, "config level_text part place mean_s share")
        .mark_bar(height={"band": 0.8})
        .encode(
            alt.X("share:Q", title="share of mean latency", stack="zero", scale=alt.Scale(domain=[0, 1], nice=False))
            .axis(format="%", tickCount=4),
            alt.Y("level_text:N", sort=list(levels), title="load"),
            alt.Color("part:N", scale=scale, legend=legend),
            order="place:Q",
            tooltip=style.tips(
                config="configuration",
                level_text="load",
                part="part",
                mean_s=("mean (s)", ".4~r"),
                share=("share", ".1%"),
            ),
        )
    )  # fmt: skip
    return style.panels(alt.layer(bar), colours, 24 * len(levels), 4, gap=40).properties(
        description="Stacked bars: which share of mean latency goes to the client, to queue and prefill, to decoding."
    )
