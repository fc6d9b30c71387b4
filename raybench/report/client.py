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
    """Per configuration and load the worst of its data sets: lateness p99 in ms, the busiest process's CPU share."""
    alike: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        alike.setdefault((cell.experiment.label, cell.row["load"]), []).append(cell)
    rows: Rows = []
    for each in alike.values():
        late, busy = (_most(each, name) for name in ("lateness_p99", "cpu_share"))
        if late is not None or busy is not None:
            late_ms = None if late is None else max(late * 1000, 1e-3)
            rows.append(identity(each[0]) | {"late_ms": late_ms, "cpu": busy})
    return rows


def _most(cells: Sequence[Cell], name: str) -> float | None:
    return max((cell.row[name] for cell in cells if cell.row[name] is not None), default=None)
