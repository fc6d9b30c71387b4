"""Where the requests fall: every percentile on a scale of nines; and the seed's latency by prompt length."""

from collections.abc import Sequence

import altair as alt

from raybench.report.charts import style
from raybench.report.charts.style import NUMBER, Chart, Colours, Rows
from raybench.report.palette import SHARES, STEPS, variable

_NINES = {0.30103: "50 %", 1: "90 %", 1.30103: "95 %", 2: "99 %", 3: "99.9 %"}


def percentiles(rows: Rows, colours: Colours, levels: Sequence[str], latency_limit_s: float | None) -> Chart:
    """Latency at every percentile, a line per load, dotted where the sample is thin."""
    shown = style.base(rows, "config level_text nines percentile latency_s low_s high_s firm last requests said")
    said = " : ".join(f"datum.value < {at + 0.01} ? '{text}'" for at, text in _NINES.items()) + " : ''"
    axis, title = alt.Axis(values=list(_NINES), labelExpr=said), "share of requests faster than this"
    x = alt.X("nines:Q", title=title, axis=axis)
    y = alt.Y("latency_s:Q", title="latency (s, log)", scale=style.log(padding=10), axis=alt.Axis(format=NUMBER))
    colour = alt.Color("level_text:N", scale=alt.Scale(domain=list(levels), range=_steps(len(levels))), legend=None)
    tips = style.tips(
        config="configuration",
        level_text="load",
        percentile=("percentile", ".5~r"),
        latency_s=("latency (s)", ".3f"),
        low_s=("95 % interval from", ".3f"),
        high_s=("to", ".3f"),
        requests=("requests", ",d"),
    )
    layers = style.limit(shown, latency_limit_s)
    if style.has(rows, "low_s", "high_s"):
        band = shown.transform_filter("datum.low_s != null && datum.high_s != null").mark_area(opacity=0.2)
        low = alt.Y("low_s:Q", title="latency (s, log)")
        layers.append(band.encode(x, low, colour, y2="high_s:Q", detail="level_text:N"))
    layers.append(shown.mark_line(strokeWidth=2.2, strokeDash=[2, 3]).encode(x, y, colour))
    if style.has(rows, "firm"):
        layers.append(shown.transform_filter("datum.firm").mark_line(strokeWidth=2.2).encode(x, y, colour))
    layers.append(shown.mark_point(filled=True, size=60, opacity=0, aria=False).encode(x, y, tooltip=tips))
    last = shown.transform_filter("datum.last").encode(x, y)
    layers += style.haloed(last, "said:N", align="left", dx=6, fontSize=11)
    return style.panels(alt.layer(*layers), colours, 260, 2, gap=80).properties(
        description="Latency by percentile on a scale of nines, a line per load; a line ends where the sample is too "
        "small for that percentile and is dotted where fewer than ten requests lie beyond it."
    )


def _steps(number: int) -> list[str]:
    """So many colours of rising strength."""
    return [variable(f"s{1 + place * (STEPS - 1) // max(1, number - 1)}") for place in range(number)]


def tokens_latency(
    rows: Rows, colours: Colours, levels: Sequence[str], shares: Sequence[str], latency_limit_s: float | None
) -> Chart:
    """The seed's token plot: where requests fall by prompt length and latency, binned before they get here."""
    shown = style.base(
        rows,
        "config level_text prompt_tokens_low prompt_tokens_high latency_low_s latency_high_s share_text requests",
    )
    scale = style.log(padding=6)
    axis = alt.Axis(format=".3~s", grid=False, tickCount=3, labelOverlap="greedy", labelFlush=True)
    span = alt.Scale(zero=False, nice=False, padding=4)
    legend = alt.Legend(title="share of the panel's requests", orient="bottom", symbolType="square")
    steps = alt.Scale(domain=list(shares), range=[variable(f"h{n + 1}") for n in range(SHARES)])
    cells = shown.mark_rect(aria=False).encode(
        alt.X("prompt_tokens_low:Q", title="prompt tokens", scale=span, axis=axis),
        alt.Y("latency_low_s:Q", title="latency (s, log)", scale=scale, axis=alt.Axis(format=NUMBER, tickCount=4)),
        alt.Color("share_text:O", scale=steps, legend=legend),
        x2="prompt_tokens_high:Q",
        y2="latency_high_s:Q",
        tooltip=style.tips(
            config="configuration",
            level_text="load",
            prompt_tokens_low=("prompt tokens from", ",.0f"),
            prompt_tokens_high=("to", ",.0f"),
            latency_low_s=("latency from (s)", ".3~r"),
            latency_high_s=("to", ".3~r"),
            requests=("requests", ",d"),
        ),
    )
    header = alt.Header(labelOrient="left", labelLimit=150)
    return (
        alt.layer(cells, *style.limit(shown, latency_limit_s, scale))
        .properties(width=max(90, min(210, 860 // max(1, len(levels)) - 14)), height=130)
        .facet(
            column=alt.Column("level_text:N", title="load", sort=list(levels)),
            row=alt.Row("config:N", title=None, sort=list(colours), header=header),
            spacing=14,
        )
        .properties(description="Latency by prompt length, binned, one panel per configuration and load.")
    )
