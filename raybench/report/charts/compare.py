"""Two runs: how much each metric of each cell changed, with its interval, beside the zone of no change."""

from collections.abc import Mapping, Sequence

import altair as alt

from raybench.report.charts import style
from raybench.report.charts.style import Chart, Rows
from raybench.report.palette import variable

ROW = 22
_PANEL = 186
_COLUMNS = "metric cell call x low high zone_low zone_high zero said interval"


def changes(rows: Rows, metrics: Sequence[str], cells: Sequence[str], calls: Mapping[str, tuple[str, str]]) -> Chart:
    """A panel per metric, a line per cell; `calls` gives each call its shape and colour name."""
    shown = style.base(rows, _COLUMNS)
    scale = alt.Scale(nice=False, zero=False, padding=12)
    x = alt.X("x:Q", title=None, scale=scale, axis=alt.Axis(format="+~%", tickCount=4, labelOverlap="greedy"))
    y = alt.Y("cell:N", title=None, sort=list(cells), axis=alt.Axis(labelLimit=280, grid=True))
    shapes, colours = zip(*calls.values(), strict=True)
    legend = alt.Legend(title=None, orient="top")
    colour = alt.Color(
        "call:N",
        scale=alt.Scale(domain=list(calls), range=[variable(name) for name in colours]),
        legend=legend,
    )
    shape = alt.Shape("call:N", scale=alt.Scale(domain=list(calls), range=list(shapes)), legend=legend)
    once = shown.transform_aggregate(zone_low="min(zone_low)", zone_high="max(zone_high)", zero="min(zero)")
    ground = once.mark_rect(color=variable("mute"), opacity=0.16, aria=False)
    tips = style.tips(cell="cell", metric="metric", said="change", interval="95 % interval", call="call")
    layered = alt.layer(
        ground.encode(alt.X("zone_low:Q", scale=scale, title=None), x2="zone_high:Q"),
        once.mark_rule(color=variable("axis"), aria=False).encode(alt.X("zero:Q", scale=scale, title=None)),
        shown.mark_rule(strokeWidth=2).encode(
            alt.X("low:Q", scale=scale, title=None), y, colour, x2="high:Q", tooltip=tips
        ),
        shown.mark_point(filled=True, size=85, opacity=1).encode(x, y, colour, shape, tooltip=tips),
    ).properties(width=_PANEL, height=ROW * len(cells))
    facet_of = alt.Facet("metric:N", title=None, sort=list(metrics))
    across = style.balanced(len(metrics), 3)
    found: alt.FacetChart = (
        layered.facet(facet=facet_of, columns=across, spacing={"row": 52, "column": 24}, bounds="flush")
        .resolve_scale(x="independent")
        .properties(
            description="Change of each metric in each cell, candidate against base, with 95 % intervals; "
            "shaded is the zone that counts as no change."
        )
    )
    return found
