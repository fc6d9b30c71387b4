"""Rows and manifests made by hand for the analysis tests: what is not said is what an ordinary request has."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from raybench.analysis.columns import TRIALS
from raybench.analysis.metrics import Requests
from raybench.analysis.reduce import Findings, reduce_trial
from raybench.rows import SCHEMA_VERSION, Row, requests_table
from raybench.rundir import NEEDED

S = 1_000_000_000


def told(**said: Any) -> dict[str, Any]:
    """A run.json with what every one says, None where `said` does not say it."""
    return dict.fromkeys(NEEDED) | {"schema": SCHEMA_VERSION} | said


def ns(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * S)


def row(
    seq: int,
    planned: float = 0.0,
    sent: float | None = None,
    end: float | None = None,
    *,
    chunks: Sequence[float] = (),
    **other: Any,
) -> Row:
    """A request by its instants in seconds; sent when planned and ended a second later, if not said otherwise."""
    sent = planned if sent is None else sent
    end = sent + 1.0 if end is None else end
    values: dict[str, Any] = dict.fromkeys(Row._fields)
    values |= {
        "trial_id": "t",
        "repeat": 0,
        "seq": seq,
        "attempt": 0,
        "experiment": "e",
        "payload": "p",
        "load": "closed-1",
        "actor": "a-0",
        "host": "h",
        "phase": "measure",
        "planned_ns": ns(planned),
        "sent_ns": ns(sent),
        "first_byte_ns": ns(chunks[0] if chunks else end),
        "first_token_ns": ns(chunks[0]) if chunks else None,
        "last_token_ns": ns(chunks[-1]) if chunks else None,
        "end_ns": ns(end),
        "chunk_ns": [ns(chunk) for chunk in chunks],
        "chunk_tokens": [1] * len(chunks) if chunks else None,
        "outcome": "ok",
        "connection_reused": True,
        "prompt_id": f"prompt-{seq}",
        "prompt_tokens": 100,
        "completion_tokens": len(chunks) or 10,
        "prompt_tokens_source": "estimate",
        "completion_tokens_source": "server",
        "request_bytes": 0,
        "response_bytes": 0,
    } | other
    return Row(**values)


def failed(seq: int, planned: float = 0.0, outcome: str = "model_error", **other: Any) -> Row:
    """A request that was sent and came to nothing after half a second."""
    return row(seq, planned, planned, planned + 0.5, outcome=outcome, completion_tokens=None, **other)


def unsent(seq: int, planned: float = 0.0) -> Row:
    """A planned request that never left."""
    gone: dict[str, Any] = dict.fromkeys(
        ("sent_ns", "first_byte_ns", "end_ns", "connection_reused", "completion_tokens")
    )
    return row(seq, planned, outcome="not_sent", **gone)


def loop(number: int, seconds: float = 1.0, **other: Any) -> list[Row]:
    """One slot that is never idle: each request starts when the one before it ended."""
    return [row(i, i * seconds, i * seconds, (i + 1) * seconds, **other) for i in range(number)]


def trial(**other: Any) -> dict[str, Any]:
    """A closed trial of one slot, counted for ten seconds from T0."""
    return {
        "trial_id": "t",
        "experiment": "e",
        "payload": "p",
        "load": "closed-1",
        "kind": "closed",
        "concurrency": 1,
        "rate": None,
        "repeat": 0,
        "warmup_s": 0.0,
        "duration_s": 10.0,
        "requests": None,
        "state": "done",
    } | other


OPEN: dict[str, Any] = {"kind": "poisson", "load": "poisson-2.0", "concurrency": None, "rate": 2.0}


def manifest(*trials: dict[str, Any], **other: Any) -> dict[str, Any]:
    """A run.json of one experiment at 36 USD an hour and one payload of 1 to 500 tokens."""
    experiment = {
        "name": "e",
        "instance_type": "ml.g5.48xlarge",
        "instance_count": 1,
        "price_per_hour": 36.0,
        "simulated": True,
    }
    return {
        "experiments": [experiment],
        "payloads": [{"name": "p", "tokens": [1, 501]}],
        "trials": list(trials),
        "criteria": {},
    } | other


def table(rows: Iterable[Row]) -> pa.Table:
    return requests_table(list(rows))


def requests(rows: Iterable[Row]) -> Requests:
    return Requests(table(rows))


def reduced(rows: Iterable[Row], criteria: dict[str, float] | None = None, /, **other: Any) -> Findings:
    """A trial's findings; `other` changes the trial."""
    one = trial(**other)
    return reduce_trial(table(rows), one, manifest(one, criteria=criteria or {}))


def numbers(rows: Iterable[Row], criteria: dict[str, float] | None = None, /, **other: Any) -> dict[str, Any]:
    """A trial's row of TRIALS."""
    found: dict[str, Any] = reduced(rows, criteria, **other).trials.to_pylist()[0]
    return found


def setting(**known: Any) -> dict[str, Any]:
    """A row of TRIALS, VALID and done; what is not said is null."""
    names = {"trial_id": "t", "experiment": "e", "payload": "p", "load": "closed-1", "kind": "closed"}
    row = dict.fromkeys(TRIALS.names) | names | {"state": "done", "valid": "VALID", "requests": 100, "failed": 0}
    row |= known
    row["trial_id"] = known.get("trial_id", f"{row['experiment']}/{row['payload']}/{row['load']}/{row['repeat']}")
    return row
