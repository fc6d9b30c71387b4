"""The trials table as CSV, every number as it stands in trials.parquet."""

import csv
import io
import math
from typing import Any

import pyarrow as pa

from raybench.report.text import clean

CELL_CHARS = 300
MOST_WITH_INTERVALS = 200
_ENDS = ("_low", "_high", "_certified")
_FORMULA = ("=", "+", "-", "@")


def brief(trials: pa.Table) -> pa.Table:
    """The table as it stands; of very many trials without the ends of intervals, which would be most of the page."""
    if trials.num_rows <= MOST_WITH_INTERVALS:
        return trials
    return trials.select([name for name in trials.column_names if not name.endswith(_ENDS)])


def as_csv(trials: pa.Table) -> str:
    """One line per trial under the names of the columns; floats with all their digits, null as nothing.

    A spreadsheet would run a text that starts with = + - @ as a formula: such a text gets an apostrophe before it.
    """
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(trials.column_names)
    writer.writerows([[_cell(value) for value in row.values()] for row in trials.to_pylist()])
    return sink.getvalue()


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    told = clean("; ".join(value) if isinstance(value, list) else value, CELL_CHARS)
    return f"'{told}" if told.startswith(_FORMULA) else told
