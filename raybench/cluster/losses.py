"""What a lost actor leaves behind: its rows, from wherever they are, and a row for all that it planned and never did.

Of an open load the schedule is known, so each request without a result becomes a row with the outcome `lost`. Of a
closed load nobody knows what had no row yet, only that it was at most two requests a slot; and where its disk went
with it, what was not yet shipped is at most what it did in its last five seconds that are known.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raybench.clock import NS_PER_S
from raybench.cluster.part import Part, Post
from raybench.load.arrivals import Closed, share
from raybench.plan import Trial
from raybench.rows import REQUESTS, Outcome, Phase

UNWRITTEN_PER_SLOT = 2
"""One request that is in flight, and one whose reply has ended and is being read."""

UNSHIPPED_S = 5.0
"""The seconds of rows that a node takes along at most when it vanishes."""


@dataclass(frozen=True, slots=True)
class Lost:
    """An actor that is gone: its post, its host, and whether the spool on its disk could still be read."""

    post: Post
    host: str
    spooled: bool


@dataclass(frozen=True, slots=True)
class Loss:
    """The rows of a trial that lost actors: `known` of them have the outcome `lost`.

    `unwritten_at_most` and `unshipped_at_most` more were sent by closed loads and have no row.
    """

    rows: pa.Table
    known: int
    unwritten_at_most: int
    unshipped_at_most: int

    def as_dict(self) -> dict[str, int]:
        """What run.json says of it."""
        return {
            "known": self.known,
            "unwritten_at_most": self.unwritten_at_most,
            "unshipped_at_most": self.unshipped_at_most,
        }


def complete(trial: Trial, lost: Sequence[Lost], sources: Iterable[pa.Table], *, stopped: bool = False) -> Loss:
    """All rows of a trial from several sources, each once, and those that the `lost` actors planned.

    Where the run was `stopped`, nothing counts as planned after the last request that has a row.
    """
    seen = once(sources)
    until_ns = (max(seen["planned_ns"].to_pylist(), default=-1) if stopped else None) if lost else None
    gone = [unanswered(Part(trial, one.post, 0), one.host, seen, until_ns) for one in lost]
    unwritten = unshipped = 0
    if isinstance(trial.load, Closed):
        slots = sum(share(trial.load.concurrency, one.post.index, one.post.actors) for one in lost)
        unwritten = UNWRITTEN_PER_SLOT * slots
        unshipped = sum(_lately(seen, one.post.name) for one in lost if not one.spooled)
    return Loss(pa.concat_tables([seen, *gone]).combine_chunks(), sum(map(len, gone)), unwritten, unshipped)


def _lately(seen: pa.Table, actor: str) -> int:
    """How many requests an actor ended in its last seconds that are known."""
    ended_ns = seen.filter(pc.equal(seen["actor"], actor))["end_ns"].drop_null().to_numpy()
    return int(np.count_nonzero(ended_ns > ended_ns.max(initial=0) - UNSHIPPED_S * NS_PER_S))


def once(sources: Iterable[pa.Table]) -> pa.Table:
    """The rows of several tables in the order of `seq`, one of each."""
    rows = pa.concat_tables([REQUESTS.empty_table(), *sources])
    keys = np.stack([rows[name].to_numpy() for name in ("seq", "attempt")], axis=1)
    _, first = np.unique(keys, axis=0, return_index=True)
    return rows.take(pa.array(first))


def unanswered(part: Part, host: str, seen: pa.Table, until_ns: int | None = None) -> pa.Table:
    """A row with the outcome `lost` for every request of an open load that `part` planned and `seen` has not."""
    if isinstance(part.trial.load, Closed):
        return REQUESTS.empty_table()
    planned_ns, measured = part.planned()
    seq = part.post.index + part.post.actors * np.arange(len(planned_ns))
    absent = ~np.isin(seq, seen["seq"].to_numpy())
    if until_ns is not None:
        absent &= planned_ns <= until_ns
    if not absent.any():
        return REQUESTS.empty_table()
    phases = np.where(measured, Phase.MEASURE.value, Phase.WARMUP.value)
    number, trial = int(np.count_nonzero(absent)), part.trial
    same = {
        "trial_id": trial.trial_id,
        "repeat": trial.repeat,
        "attempt": 0,
        "experiment": trial.experiment,
        "payload": trial.payload,
        "load": trial.load.label,
        "actor": part.post.name,
        "host": host,
        "outcome": Outcome.LOST.value,
        "error_message": "the load actor was lost",
        "chunk_ns": [],
        "request_bytes": 0,
        "response_bytes": 0,
    }
    own = {"seq": seq[absent], "planned_ns": planned_ns[absent], "phase": phases[absent].tolist()}
    columns = [
        pa.array(own[field.name], field.type)
        if field.name in own
        else pa.repeat(pa.scalar(same.get(field.name), field.type), number)
        for field in REQUESTS
    ]
    return pa.Table.from_arrays(columns, schema=REQUESTS)
