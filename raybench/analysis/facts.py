"""What a trial's rows, its actors and the manifest give away about the measurement itself."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raybench.analysis import resent
from raybench.analysis.metrics import Facts, Mask, Requests, Window, offered
from raybench.clock import NS_PER_S
from raybench.counting import Source
from raybench.rows import Outcome
from raybench.states import TrialState

DRIFT = 0.1
"""How much latency may change within the window, as a share of its mean."""

TENTHS = 10
"""What an actor carried is that of the busiest of so many parts of the window: a mean would hide a ramp's end."""

SETTLED, SHIFT = 0.5, 0.05
"""MSER-5 may cut that share of the requests, or the cut may change the mean by so much."""


def facts(rows: Requests, summary: Facts, trial: Facts, experiment: Facts) -> dict[str, Any]:
    """The columns of TRIALS that `validity.py` judges by; `summary` is the trial's row as far as it is known."""
    measured = rows.measured
    noted = {"actors": len(experiment.get("actors") or ()), "ceiling": experiment.get("ceiling")}
    crew: Facts = trial.get("crew") or noted  # the experiment's are those of its last sitting
    told: dict[str, Any] = {
        "echoed": int((_true(rows, "echoed_prompt") & measured).sum()),
        "over_max": int((measured & (rows.numbers("completion_tokens") > rows.numbers("max_tokens"))).sum()),
        "token_mismatches": int((_mismatched(rows) & measured).sum()),
        "stamp_disorders": int(_disordered(rows).sum()),
        "new_connections": int((_false(rows, "connection_reused") & measured).sum()),
        "missing_rows": _missing(rows, trial, crew["actors"]),
        "lost_actors": len(trial.get("lost") or ()),
    }
    ceiling = _ceiling(crew["ceiling"] or {})
    carried = _carried(rows, summary, crew["actors"], ceiling)
    return told | resent.prompts(rows) | _clients(summary, trial) | ceiling | carried | {"steady": _steady(summary)}


def _true(rows: Requests, name: str) -> Mask:
    return np.asarray(pc.fill_null(rows.table[name], False).to_numpy(), bool)[rows.order]


def _false(rows: Requests, name: str) -> Mask:
    return ~np.asarray(pc.fill_null(rows.table[name], True).to_numpy(), bool)[rows.order]


def _mismatched(rows: Requests) -> Mask:
    """Where the server's count of a finished reply is not what its chunks said, chunk by chunk, they held."""
    lists = rows.table["chunk_tokens"].combine_chunks()
    counts, of = lists.flatten(), pc.list_parent_indices(lists).to_numpy()
    tokens = pc.fill_null(counts, 0).to_numpy(zero_copy_only=False)
    total = np.bincount(of, tokens, len(lists))
    unknown = np.bincount(of, pc.is_null(counts).to_numpy(zero_copy_only=False), len(lists))
    told = (np.bincount(of, minlength=len(lists)) > 0) & (unknown == 0)
    served = rows.equal("completion_tokens_source", Source.SERVER) & rows.ok
    differs = rows.numbers("completion_tokens") != total[rows.order]
    return np.asarray(served & told[rows.order] & differs, bool)


def _disordered(rows: Requests) -> Mask:
    """Where planned, sent, first byte, first token, last token, end or the chunks between are out of order."""
    names = ("planned_ns", "sent_ns", "first_byte_ns", "first_token_ns", "last_token_ns", "end_ns")
    wrong = np.zeros(len(rows.order), bool)
    latest = rows.numbers(names[0])
    for name in names[1:]:
        instant = rows.numbers(name)
        wrong |= instant < latest
        latest = np.fmax(latest, instant)
    wrong |= rows.equal("outcome", Outcome.OK) & np.isnan(rows.end_ns)
    chunks = rows.table["chunk_ns"].combine_chunks()
    instants, of = chunks.flatten().to_numpy(), pc.list_parent_indices(chunks).to_numpy()
    back = (of[1:] == of[:-1]) & (instants[1:] < instants[:-1])
    first, last = (
        rows.table[name].cast(pa.float64(), safe=False).to_numpy() for name in ("first_token_ns", "end_ns")
    )
    astray = (instants < first[of]) | (instants > last[of])
    unsorted = np.zeros(len(chunks), bool)
    unsorted[of[1:][back]] = True
    unsorted[of[astray]] = True
    return wrong | unsorted[rows.order]


def _missing(rows: Requests, trial: Facts, stood: int) -> int:
    """Gaps in `seq`, which actor i of n counts i, i + n, ...; rows taken but not here; requests never planned."""
    noted, (_, asked) = trial.get("rows"), offered(trial)
    absent = 0 if noted is None else max(0, noted - len(rows.order))
    if asked and trial.get("state", TrialState.DONE) == TrialState.DONE:
        absent = max(absent, asked - int(rows.measured.sum()))
    if not len(rows.order):
        return absent
    seq, actor = rows.numbers("seq").astype(np.int64), rows.codes("actor")
    actors = stood or int(actor.max()) + 1
    last = np.full(actor.max() + 1, -1)
    np.maximum.at(last, actor, seq)
    planned = int((last // actors + 1).sum())
    return max(absent, planned - len(np.unique(seq)))


def _clients(summary: Facts, trial: Facts) -> dict[str, Any]:
    """What the load actors said of themselves: the worst event-loop lag, the busiest process."""
    actors: Sequence[Facts] = trial.get("actors") or ()

    def worst(name: str, scale: float) -> float | None:
        return max((float(actor[name]) / scale for actor in actors if name in actor), default=None)

    spent_s = worst("cpu_s", 1)
    start_s, lasts_s = summary.get("window_start_s"), summary.get("window_s")
    share = spent_s / (start_s + lasts_s) if spent_s is not None and start_s is not None and lasts_s else None
    lags = {f"lag_{which}_s": worst(f"lag_{which}_ms", 1000) for which in ("p90", "p95", "p99", "max")}
    return lags | {"cpu_share": share}


def _carried(rows: Requests, summary: Facts, actors: int, ceiling: Facts) -> dict[str, float]:
    """What a load actor carried in the busiest tenth of the window: requests in flight, chunks a second.

    Both make it busy, each as a share of its ceiling: many streams of few chunks are little work.
    """
    start_s, lasts_s = summary.get("window_start_s"), summary.get("window_s")
    if start_s is None or not lasts_s:
        return {}
    inside = Window(start_s * NS_PER_S, (start_s + lasts_s) * NS_PER_S)
    shared_s = lasts_s / TENTHS * max(1, actors)
    instants_ns = rows.table["chunk_ns"].combine_chunks().flatten().to_numpy()
    carried = []
    for part in inside.slices(TENTHS):
        flown_s = float(part.inside_ns(rows.sent_ns, rows.end_ns).sum()) / NS_PER_S
        came = int(((instants_ns > part.start_ns) & (instants_ns <= part.stop_ns)).sum())
        carried.append((flown_s / shared_s, came / shared_s))
    most, most_chunks = ceiling.get("ceiling_streams") or 0, ceiling.get("ceiling_chunks_per_s") or 0.0
    streams, chunks_per_s = max(carried, key=lambda each: (min(each[0] * most_chunks, each[1] * most), *each))
    return {"streams": streams, "chunks_per_s": chunks_per_s}


def _ceiling(ceiling: Facts) -> dict[str, Any]:
    """What selftest found the weakest actor to carry; nothing where a slow simulator hid it."""
    if not ceiling or ceiling["limit"] == "simulator":
        return {}
    error_ms = ceiling["error_ms"]
    return {
        "ceiling_streams": ceiling["streams"],
        "ceiling_chunks_per_s": ceiling["chunks_per_s"],
        "ceiling_error_s": None if error_ms is None else error_ms / 1000,
    }


def _steady(summary: Facts) -> bool | None:
    drift, cut, shift = summary.get("drift"), summary.get("warmup_cut"), summary.get("warmup_shift")
    if drift is None:
        return None
    moving = abs(drift) > DRIFT and not summary["drift_low"] <= 0 <= summary["drift_high"]
    settling = cut is not None and shift is not None and cut > SETTLED and abs(shift) > SHIFT
    return not moving and not settling
