"""The measurement itself: Little's law for every trial; the load generator's delay and CPU by load."""

from collections.abc import Sequence

import altair as alt

from raybench.report.charts import style
from raybench.report.charts.style import NUMBER, Chart, Colours, Rows
from raybench.report.palette import variable


def little(rows: Rows, colours: Colours, band: tuple[float, float], names: Sequence[str]) -> Chart:
    """Throughput × latency ÷ concurrency, a dot per trial, those outside the band as crosses with their load."""
    shown = style.base(rows, "config payload level level_text ratio off said requests")
    ratios = [row["ratio"] for row in rows]
    ends = [min([*ratios, band[0]]) - 0.03, max([*ratios, band[1]]) + 0.03]
    scale = alt.Scale(domain=ends, nice=False, zero=False)
    title = "throughput × mean latency ÷ concurrency; 1 when every slot is always busy"
    x = alt.X("ratio:Q", title=title, scale=scale, axis=alt.Axis(format=NUMBER))
    y = alt.Y("config:N", sort=list(names), title=None, axis=alt.Axis(labelLimit=240, grid=True))
    once = style.values([{"low": band[0], "high": band[1], "one": 1}])
    mark = alt.when("datum.off").then(alt.value("cross")).otherwise(alt.value("circle"))
    ground = once.mark_rect(color=variable("ok"), opacity=0.12, aria=False)
    dots = shown.mark_point(filled=True, size=75, opacity=0.8).encode(
        x,
        y,
        style.colour(colours),
        shape=mark,
        tooltip=style.tips(
            config="configuration",
            payload="data set",
            level_text="load",
            ratio=("X·R ÷ N", ".3f"),
            requests=("requests", ",d"),
        ),
    )
    layers = [
        ground.encode(alt.X("low:Q", scale=scale, title=title), x2="high:Q"),
        once.mark_rule(color=variable("ok"), aria=False).encode(alt.X("one:Q", scale=scale, title=title)),
        dots,
    ]
    if style.has(rows, "off"):
        layers.append(
            shown.transform_filter("datum.off").mark_text(dy=-12, fontSize=11, color=variable("ink2")).encode(
                x, y, text="said:N"
            )
        )  # fmt: skip
    return alt.layer(*layers).properties(
        width=640,
        height=max(60, 30 * len(names)),
        description="Little's law for every trial; points outside the band are crosses.",
    )


def client(rows: Rows, colours: Colours, levels: Sequence[float], limits: tuple[float, float]) -> Chart:
    """Lateness p99 and the busiest client process's CPU against load, each with the limit it must stay under."""
    shown = style.base(rows, "config level level_text late_ms cpu")
    late_ms, busy = limits
    panels = []
    if style.has(rows, "late_ms"):
        axis = alt.Axis(format=NUMBER, tickCount=5)
        y = alt.Y("late_ms:Q", title="lateness p99 (ms, log)", scale=style.log(padding=10), axis=axis)
        panels.append(_panel(shown.transform_filter("datum.late_ms != null"), colours, levels, y, late_ms))
    if style.has(rows, "cpu"):
        axis = alt.Axis(format="%", tickCount=5)
        y = alt.Y("cpu:Q", title="busiest client process, of a core", scale=alt.Scale(domain=[0, 1]), axis=axis)
        panels.append(_panel(shown.transform_filter("datum.cpu != null"), colours, levels, y, busy))
    return alt.hconcat(*panels, spacing=44).properties(
        description="The load generator's own health: how late requests left, and how busy its processes were."
    )


def _panel(
    shown: alt.Chart, colours: Colours, levels: Sequence[float], y: alt.Y, limit: float
) -> alt.LayerChart | alt.FacetChart:
    dots = shown.mark_point(filled=True, size=55, opacity=0.75).encode(
        style.level_axis(levels, "load"),
        y,
        style.colour(colours),
        tooltip=style.tips(
            config="configuration",
            level_text="load",
            late_ms=("lateness p99 (ms)", ".3~r"),
            cpu=("of a core", ".1%"),
        ),
    )
    once = style.values([{"limit": limit}])
    rule = once.mark_rule(color=variable("warn"), strokeDash=[5, 4], aria=False).encode(alt.Y("limit:Q"))
    said = once.mark_text(align="left", dx=4, dy=-6, fontSize=11, color=variable("warn"), text="limit", aria=False)
    layered: alt.LayerChart | alt.FacetChart = alt.layer(rule, said.encode(alt.Y("limit:Q"), x=alt.value(0)), dots)
    return layered.properties(width=370, height=170)
