"""The metrics of a request: the instants of a trial's rows become seconds.

Here and nowhere else two instants of a row are subtracted; `cluster/calibration.py` alone holds a client's
against a server's. Names, units and meanings stand in `columns.py`; `summary.py` makes a trial's of these seconds.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raybench.analysis.columns import DURATIONS
from raybench.clock import NS_PER_S
from raybench.rows import Outcome, Phase
from raybench.states import TrialState

if TYPE_CHECKING:
    from raybench.analysis.stats import Values  # scipy, which a load actor has no use for

Mask = npt.NDArray[np.bool_]
Facts = Mapping[str, Any]


class Requests:
    """A trial's rows in the order planned, whatever the order of the table, as NumPy columns."""

    def __init__(self, table: pa.Table) -> None:
        keys = [table[name].to_numpy() for name in ("attempt", "seq", "planned_ns")]
        self.order = np.lexsort(keys)
        self.table = table
        self.ok = self.equal("outcome", Outcome.OK)
        self.measured = self.equal("phase", Phase.MEASURE)
        self.end_ns, self.sent_ns = self.numbers("end_ns"), self.numbers("sent_ns")
        self.ok &= ~np.isnan(self.end_ns)

    def numbers(self, name: str) -> "Values":
        """A column as floats (exact up to 2**53), null as NaN."""
        column = self.table[name].cast(pa.float64(), safe=False)
        return np.asarray(column.to_numpy(), np.float64)[self.order]

    def equal(self, name: str, value: str) -> Mask:
        """Where a text column is `value`."""
        return np.asarray(pc.fill_null(pc.equal(self.table[name], value), False).to_numpy(), bool)[self.order]

    def codes(self, name: str) -> npt.NDArray[np.int64]:
        """A text column as numbers that are equal where the texts are; null is -1."""
        codes = self.table[name].combine_chunks().dictionary_encode().indices
        return np.asarray(pc.fill_null(codes, -1).to_numpy(zero_copy_only=False), np.int64)[self.order]

    def durations(self) -> "dict[str, Values]":
        """Every one of DURATIONS in seconds, and `tpot`."""
        seconds = {
            name: (self.numbers(each.later) - self.numbers(each.earlier)) / NS_PER_S
            for name, each in DURATIONS.items()
        }
        steps, decoding = self.numbers("completion_tokens") - 1, seconds["decoding"]
        shown = (steps > 0) & (decoding > 0)
        seconds["tpot"] = np.divide(decoding, steps, out=np.full_like(steps, np.nan), where=shown)
        return seconds


@dataclass(frozen=True, slots=True)
class Window:
    """The measuring window [start, stop] since T0."""

    start_ns: float
    stop_ns: float

    @property
    def seconds(self) -> float:
        return (self.stop_ns - self.start_ns) / NS_PER_S

    def inside_ns(self, from_ns: "Values", to_ns: "Values") -> "Values":
        """How many nanoseconds of each span lie inside the window; none of a span that lacks an end."""
        inside = np.minimum(to_ns, self.stop_ns) - np.maximum(from_ns, self.start_ns)
        return np.where(inside > 0, inside, 0.0)

    def slices(self, number: int) -> Iterator["Window"]:
        """The window cut into equal parts."""
        edges = np.linspace(self.start_ns, self.stop_ns, number + 1).tolist()
        return (Window(start, stop) for start, stop in pairwise(edges))


def offered(trial: Facts) -> tuple[float | None, int | None]:
    """Seconds and requests that a trial offers: as planned, or less of them where its search had seen enough."""
    length: Facts = {**trial, **(trial.get("decided_after") or {})}
    return length.get("duration_s"), length.get("requests")


def window(rows: Requests, trial: Facts) -> Window | None:
    """From the end of warm-up, for the duration; or until the last measured request was back: all hold their load.

    A trial that was stopped early is measured until its first actor stopped: a closed one until a slot of its stayed
    empty, since what then drains is a lighter load.
    """
    start_ns, (lasts_s, _) = trial["warmup_s"] * NS_PER_S, offered(trial)
    until_ns = math.inf if lasts_s is None else start_ns + lasts_s * NS_PER_S
    stopped = trial.get("state", TrialState.DONE) != TrialState.DONE
    if lasts_s is not None and not stopped and len(rows.end_ns):
        return Window(start_ns, until_ns)
    counts = ~np.isnan(rows.end_ns) & (rows.measured | (lasts_s is not None))
    if not counts.any():
        return None
    actors = rows.codes("actor")
    last_ns = np.full(actors.max() + 1, -np.inf)
    if stopped and trial.get("kind") == "closed":
        np.fmax.at(last_ns, actors, rows.sent_ns)
        stop_ns = float(rows.end_ns[counts & (rows.end_ns > last_ns[actors])].min(initial=until_ns))
    else:
        np.maximum.at(last_ns, actors[counts], rows.end_ns[counts])
        ended_ns = last_ns[last_ns > -np.inf]
        stop_ns = min(until_ns, float(ended_ns.min() if stopped else ended_ns.max()))
    return Window(start_ns, stop_ns) if stop_ns > start_ns else None


@dataclass(frozen=True, slots=True)
class Gaps:
    """Seconds between successive token chunks of measured requests, and the place of each gap's request."""

    seconds: "Values"
    request: npt.NDArray[np.int64]

    @classmethod
    def between_chunks(cls, rows: Requests) -> "Gaps":
        """All gaps; chunks that share an instant came in one piece and count as one."""
        chunks = rows.table["chunk_ns"].combine_chunks()
        instants_ns, of = chunks.flatten().to_numpy(), pc.list_parent_indices(chunks).to_numpy()
        if len(instants_ns) == 0:
            return cls(np.empty(0), np.empty(0, np.int64))
        place = np.empty(len(rows.order), np.int64)
        place[rows.order] = np.arange(len(rows.order))
        gap_ns = np.diff(instants_ns)
        kept = (of[1:] == of[:-1]) & (gap_ns > 0)
        request = place[of[1:][kept]]
        measured = rows.measured[request]
        return cls(gap_ns[kept][measured] / NS_PER_S, request[measured])

    def totals(self, requests: int) -> "tuple[Values, Values, Values]":
        """Per request: the sum, the number and the longest of its gaps (NaN where it has none)."""
        total = np.bincount(self.request, self.seconds, requests).astype(np.float64)
        number = np.bincount(self.request, minlength=requests).astype(np.float64)
        longest = np.full(requests, np.nan)
        if len(self.request):
            starts = np.flatnonzero(np.diff(self.request, prepend=-1))
            longest[self.request[starts]] = np.maximum.reduceat(self.seconds, starts)
        return total, number, longest


def little_ratio(rows: Requests, inside: Window | None, trial: Facts) -> float | None:
    """X·R/N of a closed load: the time its slots were filled, thinking included, over the time they were there."""
    slots = trial.get("concurrency")
    if inside is None or trial.get("kind") != "closed" or not slots:
        return None
    think_ns = (trial.get("think_time_s") or 0.0) * NS_PER_S
    planned_ns = rows.numbers("planned_ns")
    filled_ns = inside.inside_ns(rows.sent_ns, rows.end_ns).sum()
    if think_ns:
        filled_ns += inside.inside_ns(planned_ns - think_ns, planned_ns).sum()
    return float(filled_ns / NS_PER_S / (slots * inside.seconds))
