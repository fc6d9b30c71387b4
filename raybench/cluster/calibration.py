"""What a load actor's own stamps are worth: it plays a simulator on its own host, whose truth is known.

Processes on one Linux host share CLOCK_MONOTONIC, so an error is the client's stamp minus the server's. The server
stamps before it writes: no error is ever negative, and none is the server's for acting late.
"""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from raybench.analysis.metrics import Requests
from raybench.client.sigv4 import Credentials
from raybench.client.target import Target
from raybench.clock import NS_PER_S
from raybench.cluster.actor import LoadActor, Share
from raybench.cluster.part import Post
from raybench.counting import Source
from raybench.load.arrivals import Constant
from raybench.payloads.synthetic import WORDS
from raybench.plan import Trial
from raybench.rows import Outcome, Phase, Prompt
from raybench.simulator.process import simulated

NAME = "selftest"
CHUNKS, ITL_S = 25, 0.02
LASTS_S = CHUNKS * ITL_S
"""What a stream takes, and the warm-up in which the wanted number of them fills up."""

CHUNKS_PER_S = 1 / ITL_S
"""The chunks of one stream."""

PROFILE: Mapping[str, Any] = {"ttft_s": ITL_S, "itl_s": ITL_S, "tokens": CHUNKS, "jitter": 0.05}
PROMPTS, PROMPT_WORDS = 256, 400
SPARE = 8
LEAD_S = 0.1

ERROR_MS = 5.0
"""How late a stamp may be, p99."""

BUSY, SERVED = 0.9, 0.95
"""The share of a core above which a process is short of CPU, and of the planned chunks that must come at least."""


@dataclass(frozen=True, slots=True)
class Rung:
    """So many streams of one actor at 50 chunks a second each, for some seconds."""

    streams: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Errors:
    """How late an instant was stamped: client minus server; None where nothing was stamped."""

    number: int = 0
    least_ms: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None

    @classmethod
    def of(cls, errors_ns: Sequence[float]) -> "Errors":
        """Of some errors in nanoseconds: plain order statistics, nearest rank."""
        if not errors_ns:
            return cls()
        ordered = [ns / 1e6 for ns in sorted(errors_ns)]
        p50, p99 = (ordered[math.ceil(q * len(ordered)) - 1] for q in (0.5, 0.99))
        return cls(len(ordered), ordered[0], p50, p99, ordered[-1])


@dataclass(frozen=True, slots=True)
class Figures:
    """What one actor measured of itself on one rung."""

    streams: int
    requests: int
    failed: int
    ttft: Errors
    chunk: Errors
    end: Errors
    planned_per_s: float
    sent_per_s: float
    lateness_p99_ms: float | None
    chunks_per_s: float
    cpu_share: float
    lag_p99_ms: float
    simulator_cpu_share: float
    simulator_lag_p99_ms: float

    @property
    def late_ms(self) -> float | None:
        """The error that counts, p99: of first tokens or of all chunks, whichever is larger.

        First tokens alone would not do: a client whose loop stands still sends nothing either, so that few of them
        fall into its pauses.
        """
        late = (self.ttft.p99_ms, self.chunk.p99_ms)
        return None if None in late else max(ms for ms in late if ms is not None)

    @property
    def passes(self) -> bool:
        """Whether the stamps are good, all streams were whole and the load was what it should be."""
        good = self.late_ms is not None and self.late_ms <= ERROR_MS and not self.failed
        return good and self.chunks_per_s >= SERVED * self.streams * CHUNKS_PER_S

    @property
    def simulator_kept_up(self) -> bool:
        """Whether what went wrong, if anything did, was the client's: a slow simulator says nothing about it."""
        return self.simulator_cpu_share <= BUSY and self.simulator_lag_p99_ms <= ERROR_MS


def figures(
    rung: Rung, rows: pa.Table, truth: Mapping[str, Mapping[str, Any]], t0_ns: int, told: Mapping[str, float]
) -> Figures:
    """One actor's figures: its rows, counted from `t0_ns`, held against the server's records by request id.

    `told` has the CPU shares and lags. A request without a record, or with other chunks than the server sent, failed.
    """
    columns = ("request_id", "phase", "outcome", "planned_ns", "sent_ns", "end_ns", "chunk_ns")
    everyone = rows.select(columns).to_pylist()
    played = Requests(rows)
    lateness_s = played.durations()["lateness"][played.measured & ~np.isnan(played.sent_ns)]
    start_ns, lasts_ns = round(LASTS_S * NS_PER_S), round(rung.seconds * NS_PER_S)
    inside = range(start_ns, start_ns + lasts_ns)
    measured = [row for row in everyone if row["phase"] == Phase.MEASURE]
    ttft: list[int] = []
    chunk: list[int] = []
    end: list[int] = []
    for row in measured:
        record = truth.get(row["request_id"] or "")
        if row["outcome"] != Outcome.OK or record is None or len(record["chunks"]) != len(row["chunk_ns"]):
            continue
        late = [t0_ns + ns - sent_ns for ns, (sent_ns, _) in zip(row["chunk_ns"], record["chunks"], strict=True)]
        ttft.append(late[0])
        chunk.extend(late)
        end.append(t0_ns + row["end_ns"] - record["ended_ns"])
    return Figures(
        streams=rung.streams,
        requests=len(measured),
        failed=len(measured) - len(end),
        ttft=Errors.of(ttft),
        chunk=Errors.of(chunk),
        end=Errors.of(end),
        planned_per_s=sum(row["planned_ns"] in inside for row in everyone) / rung.seconds,
        sent_per_s=sum((row["sent_ns"] or 0) in inside for row in everyone) / rung.seconds,
        lateness_p99_ms=Errors.of((lateness_s * NS_PER_S).tolist()).p99_ms,
        chunks_per_s=sum(ns in inside for row in everyone for ns in row["chunk_ns"] or ()) / rung.seconds,
        **told,
    )


class Calibration:
    """A simulator on this host, and an actor of this process that plays it; `close` ends both."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="raybench-selftest-")))
        self._truth = folder / "truth.jsonl"
        endpoints = {NAME: {"profile": "fixed", "overrides": PROFILE}}
        self._simulator = self._stack.enter_context(simulated(endpoints, truth=self._truth))
        keys = Credentials(self._simulator.access_key, self._simulator.secret_key)
        target = Target(self._simulator.url, NAME, self._simulator.region, "stream", "tgi", keys)
        self._actor = LoadActor(Post(NAME, 0, 1, target, {}, folder))
        self._stack.callback(self._actor.close)
        text = " ".join((WORDS * (PROMPT_WORDS // len(WORDS) + 1))[:PROMPT_WORDS])
        self._actor.arm(NAME, [Prompt(f"{n} {text}", PROMPT_WORDS, Source.ESTIMATE) for n in range(PROMPTS)])
        self._read = self._played = 0

    def play(self, rung: Rung) -> Figures:
        """Plays one rung and says how wrong its stamps were."""
        self._played += 1
        trial = _trial(rung, self._played)
        self._actor.connect(trial)
        self._simulator.health()
        began_s = time.monotonic()
        tables = list(self._actor.play(Share(trial, 0, time.time_ns() + round(LEAD_S * NS_PER_S))))
        lasted_s, health = time.monotonic() - began_s, self._simulator.health()
        said = {key.decode(): value.decode() for key, value in tables[-1].schema.metadata.items()}
        told = {
            "cpu_share": float(said["cpu_s"]) / lasted_s,
            "lag_p99_ms": float(said["lag_p99_ms"]),
            "simulator_cpu_share": health["cpu_share"],
            "simulator_lag_p99_ms": health["lag_p99_ms"],
        }
        rows = pa.concat_tables(table.replace_schema_metadata() for table in tables)
        return figures(rung, rows, self._records(), self._actor.t0_ns, told)

    def close(self) -> None:
        """Ends the simulator and leaves nothing on the disk."""
        self._stack.close()

    def _records(self) -> dict[str, dict[str, Any]]:
        """What the server has written since the last time."""
        with self._truth.open("rb") as file:
            file.seek(self._read)
            records = [orjson.loads(line) for line in file]
            self._read = file.tell()
        return {record["request_id"]: record for record in records}


class CalibratedActor(LoadActor):
    """A load actor that first measures its own error, in its own process."""

    _calibration: Calibration | None = None

    def calibrate(self) -> str:
        """Starts a simulator beside this actor; returns the host's name."""
        self._calibration = Calibration()
        return self.host

    def climb(self, rung: Rung) -> Figures:
        """Plays one rung."""
        assert self._calibration is not None
        return self._calibration.play(rung)

    def calibrated(self) -> None:
        """Ends the simulator."""
        if self._calibration is not None:
            self._calibration.close()
            self._calibration = None


def _trial(rung: Rung, number: int) -> Trial:
    """Constant arrivals, as many a second as keep that many streams open; jitter keeps them out of step."""
    return Trial(
        trial_id=f"{NAME}-{number}",
        index=number,
        experiment=NAME,
        payload=NAME,
        load=Constant(rung.streams / LASTS_S, max_in_flight=2 * rung.streams + SPARE),
        repeat=0,
        lot=number,
        warmup_s=LASTS_S,
        duration_s=rung.seconds,
        requests=None,
        seed=0,
        expected_s=None,
    )
