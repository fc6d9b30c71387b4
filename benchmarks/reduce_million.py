"""Reduce and report of 1,000,000 rows with 32 chunks each: wall time and peak memory of a process of its own.

Promise: at most 60 s and 3 GiB on 2 cores. The rows are generated, seeded, into a run directory's Parquet parts.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raybench.analysis import decide, reduce
from raybench.rows import REQUESTS
from raybench.rundir import RunDir

CHUNKS = 32
SLOTS = 64
MOST_S = 60.0
MOST_GIB = 3.0
COLUMNS: dict[str, Any] = {
    "attempt": 0,
    "repeat": 0,
    "host": "bench",
    "outcome": "ok",
    "phase": "measure",
    "http_status": 200,
}
COLUMNS |= {"connection_reused": True, "completion_tokens": CHUNKS, "prompt_tokens_source": "estimate"}
COLUMNS |= {"completion_tokens_source": "server", "finish_reason": "length", "request_bytes": 2000}
COLUMNS |= {"response_bytes": 4000, "variant": "AllTraffic", "max_tokens": CHUNKS, "echoed_prompt": False}


def rows(trial: dict[str, Any], number: int, seed: int) -> pa.Table:
    """A closed trial of 64 slots that are never idle, streamed in 32 chunks, one request in a thousand failed."""
    rng = np.random.default_rng(seed)
    turns = -(-number // SLOTS)
    first = rng.lognormal(-1.5, 0.5, (turns, SLOTS)) * 1e9
    gaps = rng.gamma(4.0, 0.005, (turns, SLOTS, CHUNKS - 1)) * 1e9
    chunks = np.concatenate([first[..., None], gaps], axis=2).cumsum(axis=2).astype(np.int64)
    end = np.cumsum(chunks[..., -1] + 100_000, axis=0)
    planned = end - chunks[..., -1] - 100_000
    planned, end = planned.reshape(-1)[:number], end.reshape(-1)[:number]
    instants = (planned[:, None] + chunks.reshape(-1, CHUNKS)[:number]).astype(np.int64)
    failed = rng.random(number) < 0.001
    known: dict[str, Any] = {
        "seq": np.arange(number),
        "planned_ns": planned,
        "sent_ns": planned + 20_000,
        "first_byte_ns": instants[:, 0],
        "first_token_ns": instants[:, 0],
        "last_token_ns": instants[:, -1],
        "end_ns": end,
        "chunk_ns": pa.ListArray.from_arrays(np.arange(number + 1) * CHUNKS, instants.reshape(-1)),
        "chunk_tokens": pa.ListArray.from_arrays(np.arange(number + 1) * CHUNKS, np.ones(number * CHUNKS, np.int32)),
        "outcome": np.where(failed, "model_error", "ok").tolist(),
        "request_id": [f"{seed:04x}-{i:032x}" for i in range(number)],
        "prompt_id": [f"{i % 20_000:016x}" for i in range(number)],
        "prompt_tokens": rng.integers(1, 500, number),
        "actor": np.full(number, f"{trial['experiment']}-0").tolist(),
    }
    columns = []
    for field in REQUESTS:
        value = known.get(field.name, COLUMNS.get(field.name, trial.get(field.name)))
        whole = isinstance(value, (np.ndarray, list, pa.Array))
        columns.append(pa.array(value, field.type) if whole else pa.repeat(pa.scalar(value, field.type), number))
    return pa.Table.from_arrays(columns, schema=REQUESTS)


def generate(path: Path, total: int, trials: int) -> None:
    """A run directory of two experiments whose trials hold `total` rows in all."""
    rundir = RunDir.create(path)
    about: list[dict[str, Any]] = []
    for index in range(trials):
        experiment, load = f"experiment-{index % 2}", f"closed-{SLOTS + index // 2}"
        trial: dict[str, Any] = {"trial_id": f"{experiment}~{load}", "experiment": experiment}
        trial |= {"payload": "payload_en_1-500"}
        trial |= {"load": load, "kind": "closed", "concurrency": SLOTS, "rate": None, "repeat": 0, "warmup_s": 0.0}
        trial |= {"duration_s": None, "requests": total // trials, "state": "done", "actors": [], "lost": []}
        rundir.write_part(trial, rows(trial, total // trials, index))
        about.append(trial)
    rundir.write_manifest(manifest(about))


def manifest(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """What run.json says of such a run."""
    experiment: dict[str, Any] = {
        "instance_type": "ml.g5.48xlarge",
        "instance_count": 1,
        "price_per_hour": 20.36,
        "simulated": True,
    }
    experiment |= {"price_source": "config", "route": "stream", "dialect": "tgi", "parameters": {}, "actors": [{}]}
    experiment |= {"duration_s": 1000.0, "cost_usd": 5.0}
    payload: dict[str, Any] = {
        "name": "payload_en_1-500",
        "datasets": ["synthetic"],
        "tokens": [1, 500],
        "language": "en",
    }
    payload |= {"kept": 20_000, "dropped": {}, "tokens_source": "estimate", "prompt_tokens_mean": 250.0}
    return {
        "schema": 1,
        "raybench": "bench",
        "name": "million",
        "run_id": "million-20261125T000000Z",
        "region": "us-west-2",
        "started_utc": "2026-11-25T00:00:00Z",
        "finished_utc": "2026-11-25T01:00:00Z",
        "state": "done",
        "simulated": True,
        "seed": 7,
        "config_file": None,
        "config_text": "",
        "model": None,
        "versions": {},
        "hosts": [],
        "experiments": [{"name": f"experiment-{i}"} | experiment for i in range(2)],
        "payloads": [payload],
        "trials": trials,
        "criteria": {"latency_p95": 5.0, "cost_per_10k": 50.0, "error_rate": 0.01},
        "report": {"payload": "payload_en_1-500"},
        "simulator": None,
    }


def measure(path: Path) -> None:
    """Reduces and reports a run directory, and prints what that took."""
    start = time.perf_counter()
    rundir = RunDir.open(path)
    about = rundir.manifest()
    findings = reduce.reduce(rundir.requests, about)
    reduced = time.perf_counter()
    decision = decide.decide(findings.trials, about["criteria"], about["report"]["payload"])
    from raybench.report import build

    build.build(path, findings, decision, about)
    wall_s = time.perf_counter() - start
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    requests = sum(findings.trials["requests"].to_pylist())
    print(f"{requests:,} rows in {findings.trials.num_rows} trials, {CHUNKS} chunks each, {os.cpu_count()} cores")
    print(f"reduce {reduced - start:.1f} s, report {wall_s - (reduced - start):.1f} s, peak {peak_gib:.2f} GiB")
    kept = wall_s <= MOST_S and peak_gib <= MOST_GIB
    print(
        f"{wall_s:.1f} s of {MOST_S:.0f} s, {peak_gib:.2f} GiB of {MOST_GIB:.0f} GiB: {'kept' if kept else 'BROKEN'}"
    )
    raise SystemExit(0 if kept else 1)


def main() -> None:
    """Generates the rows and measures in a fresh process; exits 1 where the promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--measure", type=Path)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        generate(path, options.rows, options.trials)
        command = [sys.executable, "-m", "benchmarks.reduce_million", "--measure", str(path)]
        raise SystemExit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
