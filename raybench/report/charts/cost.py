"""Capacity: what a demand costs, in whole instances."""

import altair as alt

from raybench.report.charts import style
from raybench.report.charts.style import Chart, Colours, Rows
from raybench.report.palette import variable


def capacity(rows: Rows, colours: Colours) -> Chart:
    """USD a month over requests a minute, a line of steps per configuration, broken where it misses a criterion."""
    shown = style.base(rows, "config level_text demand instances usd usd_text passes last said")
    near = alt.selection_point(
        "near", fields=["demand"], nearest=True, on="pointermove", empty=False, clear="pointerout"
    )
    x = alt.X(
        "demand:Q",
        title="demand: requests per minute (log)",
        scale=alt.Scale(type="log", nice=False, domain=[1, 10_000]),
        axis=alt.Axis(values=[1, 10, 100, 1_000, 10_000], format=",d"),
    )
    y = alt.Y("usd:Q", title="USD per month (log)", scale=style.log(padding=18), axis=alt.Axis(format="$,~s"))
    colour, broken = style.colour(colours), alt.when("datum.passes")
    line = shown.mark_line(interpolate="step-before", strokeWidth=2.2).encode(
        x, y, colour, detail="config:N", strokeDash=broken.then(alt.value([1, 0])).otherwise(alt.value([5, 4]))
    )
    points = shown.mark_point(size=60, filled=True, aria=False).encode(
        x,
        y,
        colour,
        opacity=alt.when(near).then(alt.value(1)).otherwise(alt.value(0)),
        tooltip=style.tips(
            config="configuration",
            level_text="load on each copy",
            demand=("requests/min", ",.3~r"),
            instances=("instances", ",d"),
            usd_text="USD per month",
        ),
    )
    rule = shown.transform_filter(near).mark_rule(color=variable("axis"), aria=False).encode(x)
    label = shown.transform_filter("datum.last").encode(x, y, colour)
    return alt.layer(
        rule,
        line,
        points.add_params(near),
        *style.haloed(label, "said:N", **style.LABEL | {"dx": 8}),
    ).properties(
        width=740,
        height=280,
        description="Monthly cost against demand on logarithmic axes, in steps of whole instances, a line per "
        "configuration.",
    )
