"""Price against latency: what a configuration costs, how long it takes, and which of them are inside the limits."""

from dataclasses import dataclass
from typing import Any

import altair as alt

from raybench.report.charts import style
from raybench.report.charts.style import NUMBER, Chart, Colours, Rows
from raybench.report.palette import variable

WIDTH = 870
HEIGHT = 420
_COLUMNS = (
    "config level level_text latency_s latency_low_s latency_high_s usd usd_low usd_high per_min errors counted "
    "others_met standing first kind said"
)
_SCALE = style.log(padding=46)
_RULE: dict[str, Any] = {"color": variable("ink2"), "strokeDash": [5, 4]}
_SAID: dict[str, Any] = {"color": variable("ink2"), "fontWeight": 600, "fontSize": 12}


@dataclass(frozen=True, slots=True)
class Limits:
    """What is allowed, in seconds and USD per 10,000 requests; None is not limited."""

    latency_s: float | None
    usd: float | None

    @property
    def inside(self) -> str:
        """The expression that says whether a row is inside, whatever the sliders say now."""
        tests = ["datum.others_met"]
        tests += ["datum.latency_s <= latency_limit"] if self.latency_s else []
        tests += ["datum.usd <= usd_limit"] if self.usd else []
        return " && ".join(tests)

    @property
    def sliders(self) -> list[alt.Parameter]:
        """The limits as parameters that a reader may move."""
        found = (
            [_slider("latency_limit", self.latency_s, "What if the latency limit were (s)")] if self.latency_s else []
        )
        return found + (
            [_slider("usd_limit", self.usd, "What if the cost limit were ($ per 10k)")] if self.usd else []
        )


def price_latency(rows: Rows, colours: Colours, limits: Limits, latency: str) -> Chart:
    """A line per configuration, points numbered by load, the corner inside the limits shaded, the cheapest ringed.

    Two sliders re-evaluate what is inside; they start at the configured limits.
    """
    x = alt.X("latency_s:Q", scale=_SCALE, title=f"{latency} (s, log) → slower", axis=alt.Axis(format=NUMBER))
    y = alt.Y(
        "usd:Q",
        scale=_SCALE,
        title="USD per 10,000 requests (log) → dearer",
        axis=alt.Axis(format=f"${NUMBER}"),
    )
    live = style.base(rows, _COLUMNS).transform_calculate(
        live=f"!datum.counted ? 'not counted' : {limits.inside} ? 'inside' : 'outside'"
    )
    hover = alt.selection_point("hover", fields=["config"], on="pointerover", clear="pointerout")
    dim, colour = alt.when(hover).then(alt.value(1)).otherwise(alt.value(0.15)), style.colour(colours)
    line = live.mark_line(strokeWidth=2, opacity=0.5)
    whiskers = style.whiskers(live, rows, x, y, _SCALE, "latency_low_s", "latency_high_s")
    tips = style.tips(
        config="configuration",
        level_text="load",
        latency_s=(latency + " (s)", ".3f"),
        latency_low_s=("95 % interval from", ".3f"),
        latency_high_s=("to", ".3f"),
        usd=("$ per 10k", ",.2f"),
        usd_low=("95 % interval of $ from", ",.2f"),
        usd_high=("$ to", ",.2f"),
        per_min=("requests/min", ",.1f"),
        errors="errors",
        standing="against the criteria",
    )
    layers = [
        *_corner(limits),
        line.encode(x, y, colour, order="level:Q", opacity=dim, detail="kind:N"),
        *(mark.encode(color=colour, opacity=dim) for mark in whiskers),
        *_winner(live, x, y),
        *(mark.encode(x, y, opacity=dim) for mark in style.points(live, colours, "inside", tips)),
        *style.names(live, colours, x, y),
    ]
    return (
        alt.layer(*layers)
        .add_params(hover, *limits.sliders)
        .properties(
            width=WIDTH,
            height=HEIGHT,
            description="Scatter plot on two logarithmic axes: latency against cost per 10,000 requests, a line per "
            "configuration, points numbered by load; filled points meet every criterion.",
        )
    )


def _winner(live: alt.Chart, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """A ring and a text at the cheapest inside; the others stay, unseen, so that no scale is without data."""
    ranked = (
        live.transform_calculate(outside="datum.live == 'inside' ? 0 : 1")
        .transform_window(rank="row_number()", sort=[alt.SortField("outside"), alt.SortField("usd")])
        .transform_calculate(wins="datum.rank == 1 && datum.outside == 0")
        .transform_calculate(said="datum.wins ? 'cheapest inside: ' + datum.said : ''")
    )
    ring = ranked.mark_point(size=760, filled=False, stroke=variable("ink"), strokeWidth=2, aria=False)
    seen = alt.when("datum.wins").then(alt.value(1)).otherwise(alt.value(0))
    return [
        ring.encode(x, y, opacity=seen),
        *style.haloed(ranked.encode(x, y), "said:N", dx=-10, dy=28, **style.LABEL),
    ]


def _corner(limits: Limits) -> list[alt.Chart]:
    """The limits as dashed rules with their values, and the corner inside both."""
    once = style.values([{}]).transform_calculate(
        x="latency_limit" if limits.latency_s else "null", y="usd_limit" if limits.usd else "null"
    )
    x, y = alt.X("x:Q", scale=_SCALE), alt.Y("y:Q", scale=_SCALE)
    marks = []
    if limits.latency_s and limits.usd:
        box = once.mark_rect(color=variable("ok"), opacity=0.1)
        marks.append(box.encode(x, y, x2=alt.value(0), y2=alt.value("height")))
    if limits.latency_s:
        at = once.transform_calculate(said="'latency ≤ ' + format(latency_limit, '.3~r') + ' s'")
        text = at.mark_text(align="center", baseline="bottom", dy=-4, **_SAID)
        marks += [once.mark_rule(**_RULE).encode(x), text.encode(x, y=alt.value(0), text="said:N")]
    if limits.usd:
        at = once.transform_calculate(said="'cost ≤ $' + format(usd_limit, ',.3~r')")
        text = at.mark_text(align="left", baseline="middle", dx=4, **_SAID)
        marks += [once.mark_rule(**_RULE).encode(y), text.encode(y, x=alt.value("width"), text="said:N")]
    return marks


def _slider(name: str, start: float, said: str) -> alt.Parameter:
    reach = float(f"{start:.2g}")
    bind = alt.binding_range(min=reach / 10, max=reach * 10, step=reach / 50, name=said, element="#bind-price")
    return alt.param(name, value=start, bind=bind)
