"""What a chart with a panel each has room for, and the sentence that says what it leaves out."""

from collections.abc import Iterable, Sequence

from raybench.report import columns
from raybench.report.cells import Cell
from raybench.report.view import View

LOADS, PANELS = 8, 32
"""At most so many loads, and so many pairs of configuration and load; but no fewer than three loads."""


def few(view: View, cells: Sequence[Cell], panels: int = PANELS) -> list[Cell]:
    """The cells of the configurations that are coloured and of some loads, the lowest and highest among them."""
    inside = coloured(view, cells)
    levels = columns.levels(inside)
    loads = min(LOADS, max(3, panels // max(1, len(_labels(inside)))))
    if len(levels) <= loads:
        return inside
    step = (len(levels) - 1) / (loads - 1)
    wanted = {levels[round(place * step)] for place in range(loads)}
    return [cell for cell in inside if cell.level_text in wanted]


def coloured(view: View, cells: Sequence[Cell]) -> list[Cell]:
    """The cells of the configurations that are coloured, at every load."""
    return [cell for cell in cells if cell.experiment.label in view.shown]


def left_out(whole: Sequence[Cell], shown: Sequence[Cell], loads: bool = True) -> str:
    """`Shown: 8 of 10 configurations and 8 of 50 loads.`, or nothing where all are."""
    parts = []
    if _labels(shown) < _labels(whole):
        parts.append(f"{len(_labels(shown))} of {len(_labels(whole))} configurations, those nearest to the answer")
    all_levels, levels = columns.levels(whole), columns.levels(shown)
    if loads and len(levels) < len(all_levels):
        parts.append(f"{len(levels)} of {len(all_levels)} loads")
    return f"Shown: {' and '.join(parts)}; the tables hold them all." if parts else ""


def _labels(cells: Iterable[Cell]) -> set[str]:
    return {cell.experiment.label for cell in cells}
