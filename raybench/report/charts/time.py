"""One trial over time: what was served and what it took."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from raybench.report.charts import style
from raybench.report.charts.style import NUMBER, Chart, Rows
from raybench.report.palette import SHARES, variable

_WIDTH = 850


def over_time(stretches: Rows, density: Rows, windows: Rows, names: Sequence[str], shares: Sequence[str]) -> Chart:
    """Requests that ended a second above, latency density with p50 and p95 below; what is not measured is shaded."""
    bind = alt.binding_select(options=list(names), name="Trial", element="#bind-over_time")
    which = alt.param("trial", value=names[0], bind=bind if len(names) > 1 else alt.Undefined)
    lines = style.base(stretches, "trial from_s to_s middle_s completed_per_s failed_per_s p50_s p95_s")
    lines = lines.transform_filter("datum.trial == trial")
    fields = style.base(density, "trial from_s to_s latency_low_s latency_high_s requests share_text")
    fields = fields.transform_filter("datum.trial == trial")
    shade = _shade(windows)
    chart: alt.VConcatChart = (
        alt.vconcat(
            alt.layer(*shade, *_rates(lines)).properties(width=_WIDTH, height=90),
            alt.layer(*_latency(fields, lines, stretches, shares), *shade).properties(width=_WIDTH, height=230),
            spacing=8,
        )
        .add_params(which)
        .resolve_scale(x="shared")
        .properties(
            description="One trial over time: requests that ended per second, and a heat map of their latency with "
            "median and p95; the warm-up is shaded."
        )
    )
    return chart


def _x(column: str, title: str | None = None) -> alt.X:
    return alt.X(f"{column}:Q", title=title, scale=alt.Scale(nice=False, zero=True), axis=alt.Axis(grid=False))


def _rates(lines: alt.Chart) -> list[alt.Chart]:
    """Completions as steps, failures as a broken line in the colour of what is wrong."""
    tips = style.tips(
        from_s=("from (s)", ".4~r"),
        to_s=("to", ".4~r"),
        completed_per_s=("completed per second", ".3~r"),
        failed_per_s=("failed per second", ".3~r"),
        p50_s=("p50 (s)", ".3~r"),
        p95_s=("p95 (s)", ".3~r"),
    )
    y = alt.Y("completed_per_s:Q", title="per second", axis=alt.Axis(tickCount=3), scale=alt.Scale(zero=True))
    failed = alt.Y("failed_per_s:Q", title="per second")
    step: dict[str, Any] = {"interpolate": "step", "strokeWidth": 2}
    last = lines.transform_window(number="row_number()").transform_joinaggregate(most="max(number)")
    end = last.transform_filter("datum.number == datum.most")
    return [
        lines.mark_line(color=variable("c1"), **step).encode(_x("middle_s"), y),
        lines.mark_line(color=variable("bad"), strokeDash=[5, 3], **step).encode(_x("middle_s"), failed),
        lines.mark_bar(opacity=0).encode(_x("from_s"), y=alt.value(0), x2="to_s:Q", y2=alt.value(90), tooltip=tips),
        end.mark_text(text="completed", color=variable("c1"), **style.LABEL).encode(x=alt.value(_WIDTH + 5), y=y),
        end.mark_text(text="failed", color=variable("bad"), **style.LABEL).encode(x=alt.value(_WIDTH + 5), y=failed),
    ]


def _latency(fields: alt.Chart, lines: alt.Chart, stretches: Rows, shares: Sequence[str]) -> list[alt.Chart]:
    """The latencies of each stretch by share, its median, and its p95 where so few bound one."""
    scale = style.log(padding=6)
    legend = alt.Legend(title="share of the stretch's requests", orient="bottom", symbolType="square", titleLimit=300)
    steps = alt.Scale(domain=list(shares), range=[variable(f"h{n + 1}") for n in range(SHARES)])
    low = alt.Y("latency_low_s:Q", scale=scale, title="latency (s, log)", axis=alt.Axis(format=NUMBER, tickCount=5))
    layers = [
        fields.mark_rect(aria=False).encode(
            _x("from_s"),
            low,
            alt.Color("share_text:O", scale=steps, legend=legend),
            x2="to_s:Q",
            y2="latency_high_s:Q",
            tooltip=style.tips(
                from_s=("from (s)", ".4~r"),
                to_s=("to", ".4~r"),
                latency_low_s=("latency from (s)", ".3~r"),
                latency_high_s=("to", ".3~r"),
                requests=("requests", ",d"),
            ),
        )
    ]
    x = _x("middle_s", "seconds since the trial began")
    for column, dash in (("p50_s", [1, 0]), ("p95_s", [4, 3])):
        if style.has(stretches, column):
            known = lines.transform_filter(f"datum.{column} != null")
            y = alt.Y(f"{column}:Q", scale=scale, title="latency (s, log)")
            layers.append(known.mark_line(strokeWidth=2, strokeDash=dash, color=variable("ink")).encode(x, y))
            numbered = known.transform_window(number="row_number()").transform_joinaggregate(most="max(number)")
            end = numbered.transform_filter("datum.number == datum.most")
            name = end.mark_text(text=column.removesuffix("_s"), **style.LABEL)
            layers.append(name.encode(x=alt.value(_WIDTH + 5), y=y))
    return layers


def _shade(windows: Rows) -> list[alt.Chart]:
    """The warm-up, greyed and named."""
    if not windows:
        return []
    shown = style.base(windows, "trial start_s warm_s stop_s").transform_filter("datum.trial == trial")
    grey = shown.mark_rect(color=variable("mute"), opacity=0.16, aria=False).encode(_x("start_s"), x2="warm_s:Q")
    edge = shown.mark_rule(color=variable("axis"), strokeDash=[3, 3], aria=False).encode(_x("stop_s"))
    return [grey, edge]
