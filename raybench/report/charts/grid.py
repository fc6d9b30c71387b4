"""The grid of settings: every data set, configuration and load as one coloured field."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from raybench.report.charts import style
from raybench.report.charts.style import Chart, Colours, Rows
from raybench.report.palette import variable

_FIELD, _ACROSS = 36, 820


def grid(
    rows: Rows, colours: Colours, levels: Sequence[str], payloads: Sequence[str], classes: Sequence[str], empty: str
) -> Chart:
    """Blue inside the latency budget, orange outside, outlined what meets every criterion, starred what to choose."""
    shown = style.base(
        rows, "config payload level_text latency_s share class text passes best usd standing requests"
    ).properties(width=alt.Step(_FIELD), height=alt.Step(30))
    plain: dict[str, Any] = {"grid": False, "ticks": False, "domain": False}
    x = alt.X(
        "level_text:O",
        sort=list(levels),
        title="load",
        scale=alt.Scale(domain=list(levels), paddingInner=0.07),
        axis=alt.Axis(labelAngle=0, **plain),
    )
    y = alt.Y(
        "payload:N",
        sort=list(payloads),
        title=None,
        scale=alt.Scale(domain=list(payloads), paddingInner=0.07),
        axis=alt.Axis(labelLimit=150, **plain),
    )
    scale = alt.Scale(
        domain=[*classes, empty], range=[*(variable(f"d{n + 1}") for n in range(len(classes))), variable("mutebg")]
    )
    legend = alt.Legend(
        orient="top",
        title="share of the latency limit",
        direction="horizontal",
        symbolType="square",
        symbolSize=160,
        symbolStrokeWidth=0,
        columnPadding=9,
        titleLimit=300,
        values=list(classes),
    )
    tips = style.tips(
        config="configuration",
        payload="data set",
        level_text="load",
        latency_s=("latency (s)", ".4~r"),
        share=("of the limit", ".0%"),
        usd=("$ per 10k", ",.2f"),
        requests=("requests", ",d"),
        standing="against the criteria",
    )
    field = shown.mark_rect(cornerRadius=3, aria=False).encode(
        x, y, alt.Color("class:O", scale=scale, legend=legend), tooltip=tips
    )
    layers = [field]
    if style.has(rows, "passes"):
        outline = shown.transform_filter("datum.passes").mark_rect(
            fillOpacity=0, stroke=variable("ink"), strokeWidth=1.5, cornerRadius=3, aria=False
        )
        layers.append(outline.encode(x, y))
    layers.append(shown.mark_text(fontSize=11.5).encode(x, y, text="text:N"))
    if style.has(rows, "best"):
        star = shown.transform_filter("datum.best").mark_text(text="★", fontSize=11, dx=13, dy=-10, aria=False)
        layers.append(star.encode(x, y))
    fits = style.balanced(len(colours), max(1, _ACROSS // (len(levels) * _FIELD + 18)))
    facet = alt.Facet("config:N", title=None, sort=list(colours))
    return (
        alt.layer(*layers)
        .facet(facet=facet, columns=fits, spacing=18)
        .properties(
            description="Grid of latency by data set, load and configuration: blue is inside the limit, orange "
            "outside; outlined fields meet every criterion, a star marks the one to choose."
        )
    )
