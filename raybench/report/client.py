"""The load generator's own health as columns: Little's law for each trial, lateness and CPU by load."""

from collections.abc import Sequence

from raybench.analysis.plausible import LITTLE, little
from raybench.report.cells import Cell
from raybench.report.columns import Rows, identity


def ratios(cells: Sequence[Cell]) -> Rows:
    """One row per setting of a closed load: X·R/N, and whether it is off."""
    rows: Rows = []
    for cell in cells:
        ratio = little(cell.row)
        if ratio is not None:
            off = not LITTLE[0] <= ratio <= LITTLE[1]
            rows.append(identity(cell) | {"ratio": ratio, "off": off, "said": cell.level_text if off else ""})
    return rows


def health(cells: Sequence[Cell]) -> Rows:
    """One row per setting whose client told of itself: lateness p99 in ms, and the busiest process's CPU share."""
    rows: Rows = []
    for cell in cells:
        late, busy = cell.row["lateness_p99"], cell.row["cpu_share"]
        if late is None and busy is None:
            continue
        late_ms = None if late is None else max(late * 1000, 1e-3)
        rows.append(identity(cell) | {"late_ms": late_ms, "cpu": busy})
    return rows
