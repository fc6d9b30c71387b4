"""The grid of settings: every data set, configuration and load at a glance, by its share of the latency budget."""

import math
from collections.abc import Sequence

from raybench.analysis.columns import PRICE
from raybench.analysis.standing import Standing
from raybench.report.cells import Cell
from raybench.report.columns import Rows, identity
from raybench.report.view import View

CLASSES = (
    (0.25, "< ¼"),
    (0.5, "¼–½"),
    (0.75, "½–¾"),
    (1.0, "¾–1"),
    (1.5, "1–1½"),
    (2.0, "1½–2"),
    (4.0, "2–4"),
    (math.inf, "≥ 4"),
)
"""Shares of the budget: below which, and what such a class is called; the first four are inside."""

NO_NUMBER = "no result"
INVALID = "inv."
"""What stands in the field of an INVALID setting, which has neither a number nor a colour."""


def grid(view: View, cells: Sequence[Cell]) -> Rows:
    """One row per setting: its latency in words, its class, whether it passes and whether it is the one to choose."""
    limit = view.latency_limit
    if not limit:
        return []
    best = {found.trial_id for found in view.decision.recommendations if found.trial_id}
    rows: Rows = []
    for cell in cells:
        value = cell.row[view.latency] if cell.valid else None
        share = None if value is None else value / limit
        rows.append(
            identity(cell)
            | {
                "latency_s": value,
                "share": share,
                "class": NO_NUMBER if share is None else next(said for below, said in CLASSES if share < below),
                "text": _text(cell, value),
                "passes": cell.standing is Standing.PASS,
                "best": cell.row["trial_id"] in best,
                "usd": cell.row[PRICE] if cell.valid else None,
                "standing": cell.standing_text,
            }
        )
    return rows


def _text(cell: Cell, value: float | None) -> str:
    """The latency, and a sign where it is too close to call (≈) or does not count (!)."""
    if value is None:
        return "–" if cell.valid else INVALID
    short = f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.95 else f"{value:.2f}"
    return short + ("!" if not cell.counted else "≈" if cell.standing is Standing.UNSURE else "")
