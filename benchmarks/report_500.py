"""The page of 500 trials: its size and the time to build it; and by how much ten times the requests make it grow.

Promise: at most 4 MB, 20 s on 2 cores, and 5 % more for ten times the requests. The rows are generated, seeded. What
is judged is CPU time, which a neighbour cannot lengthen; on an idle machine it is not less than wall time.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.reduce_million import COLUMNS
from benchmarks.reduce_million import manifest as manifest_of
from raybench.analysis import decide, reduce
from raybench.rows import REQUESTS

MOST_BYTES, MOST_S, MOST_GROWTH = 4_000_000, 20.0, 0.05
LOADS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 64)
BUCKETS = ((1, 500), (500, 1000), (1000, 2000), (2000, 3000), (3000, 3840))
INSTANCES = {"ml.g5.12xlarge": 7.09, "ml.g5.48xlarge": 20.36, "ml.g6e.12xlarge": 13.12, "ml.p4d.24xlarge": 37.688}
INSTANCES |= {"ml.p5.48xlarge": 113.07, "ml.inf2.48xlarge": 15.58, "ml.g6.48xlarge": 16.69, "ml.g6e.48xlarge": 37.68}
INSTANCES |= {"ml.p4de.24xlarge": 47.11, "ml.trn1.32xlarge": 24.78}
CHUNKS = 12


def rows(trial: dict[str, Any], speed: float, bucket: tuple[int, int], number: int, seed: int) -> pa.Table:
    """A closed trial whose prompts take longer the longer they are and the more of them there are at once."""
    rng, slots = np.random.default_rng(seed), trial["concurrency"]
    turns = -(-number // slots)
    tokens = rng.integers(*bucket, (turns, slots))
    crowd = 1 + slots / (6 * speed)
    first = (0.05 + tokens / 4000) / speed * crowd * rng.lognormal(0, 0.12, (turns, slots))
    gaps = rng.gamma(9.0, 0.03 / 9 / speed * crowd, (turns, slots, CHUNKS - 1))
    chunks = (np.concatenate([first[..., None], gaps], axis=2).cumsum(axis=2) * 1e9).astype(np.int64)
    end = np.cumsum(chunks[..., -1] + 100_000, axis=0)
    planned = end - chunks[..., -1] - 100_000
    planned, end, tokens = (each.reshape(-1)[:number] for each in (planned, end, tokens))
    instants = planned[:, None] + chunks.reshape(-1, CHUNKS)[:number]
    failed = rng.random(number) < (0.02 if slots == LOADS[-1] else 0.0)
    known: dict[str, Any] = {
        "seq": np.arange(number),
        "phase": np.where(planned < trial["duration_s"] * 1e9, "measure", "drain").tolist(),
        "planned_ns": planned,
        "sent_ns": planned + rng.integers(20_000, 900_000, number),
        "first_byte_ns": instants[:, 0],
        "first_token_ns": instants[:, 0],
        "last_token_ns": instants[:, -1],
        "end_ns": end,
        "chunk_ns": pa.ListArray.from_arrays(np.arange(number + 1) * CHUNKS, instants.reshape(-1)),
        "chunk_tokens": pa.ListArray.from_arrays(np.arange(number + 1) * CHUNKS, np.ones(number * CHUNKS, np.int32)),
        "outcome": np.where(failed, "throttled", "ok").tolist(),
        "error_code": [("ThrottlingException" if one else None) for one in failed],
        "prompt_id": [f"{seed:04x}{i:012x}" for i in range(number)],
        "prompt_tokens": tokens,
        "actor": np.full(number, f"{trial['experiment']}-0").tolist(),
        "completion_tokens": CHUNKS,
        "max_tokens": CHUNKS,
    }
    columns = []
    for field in REQUESTS:
        value = known.get(field.name, COLUMNS.get(field.name, trial.get(field.name)))
        whole = isinstance(value, (np.ndarray, list, pa.Array))
        columns.append(pa.array(value, field.type) if whole else pa.repeat(pa.scalar(value, field.type), number))
    return pa.Table.from_arrays(columns, schema=REQUESTS)


def sweep(configurations: int, buckets: int, loads: int, repeats: int = 1) -> dict[str, Any]:
    """The manifest of a run of so many of each."""
    about = manifest_of([])
    instances = list(INSTANCES.items())[:configurations]
    like, payload = about["experiments"][0], about["payloads"][0]
    about["experiments"] = [
        like | {"name": f"llama2-70b-{kind.removeprefix('ml.')}-tgi", "instance_type": kind, "price_per_hour": price}
        for kind, price in instances
    ]
    about["payloads"] = [
        payload | {"name": f"payload_en_{low}-{high}", "tokens": [low, high]} for low, high in BUCKETS[:buckets]
    ]
    about |= {
        "name": "sweep",
        "run_id": "sweep-20261125T000000Z",
        "model": "llama2-70b",
        "report": {"payload": about["payloads"][-1]["name"]},
    }
    about |= {"criteria": {"latency_mean": 5.0, "cost_per_10k": 50.0, "error_rate": 0.0}}
    about["trials"] = list(_trials(about, loads, repeats))
    return about


def _trials(about: dict[str, Any], loads: int, repeats: int) -> Iterator[dict[str, Any]]:
    for experiment in about["experiments"]:
        for payload in about["payloads"]:
            for slots in LOADS[len(LOADS) - loads :] if loads < 4 else LOADS[:: max(1, len(LOADS) // loads)][:loads]:
                for repeat in range(repeats):
                    trial: dict[str, Any] = {
                        "experiment": experiment["name"],
                        "payload": payload["name"],
                        "load": f"closed-{slots}",
                    }
                    trial |= {"kind": "closed", "concurrency": slots, "rate": None, "repeat": repeat, "warmup_s": 0.0}
                    trial |= {"duration_s": None, "requests": None, "state": "done", "lost": []}
                    trial |= {"actors": [{"actor": "a-0", "cpu_s": 0.5, "lag_p99_ms": 1.0, "lag_max_ms": 3.0}]}
                    name = f"{trial['experiment']}~{trial['payload']}~{trial['load']}~{repeat}"
                    yield trial | {"trial_id": name}


def _lasts_s(speed: float, bucket: tuple[int, int], slots: int, number: int) -> float:
    """How long every slot of such a trial is busy, near enough."""
    crowd = 1 + slots / (6 * speed)
    one = ((0.05 + sum(bucket) / 2 / 4000) + (CHUNKS - 1) * 0.03) / speed * crowd
    return 0.85 * one * (number // slots)


def found(about: dict[str, Any], requests: int) -> reduce.Findings:
    """The findings of such a run, with so many requests in each trial."""
    speeds = {experiment["name"]: 0.3 + 0.3 * place for place, experiment in enumerate(about["experiments"])}
    buckets = {payload["name"]: tuple(payload["tokens"]) for payload in about["payloads"]}
    seeds = {trial["trial_id"]: place for place, trial in enumerate(about["trials"])}
    for trial in about["trials"]:
        speed, bucket = speeds[trial["experiment"]], buckets[trial["payload"]]
        trial["duration_s"] = _lasts_s(speed, bucket, trial["concurrency"], requests)
    return reduce.reduce(
        lambda t: rows(dict(t), speeds[t["experiment"]], buckets[t["payload"]], requests, seeds[t["trial_id"]]), about
    )


def build(path: Path, about: dict[str, Any], findings: reduce.Findings) -> tuple[int, float]:
    """Bytes of the page and CPU seconds to build it, the decision included."""
    from raybench.report import build as report

    started = time.process_time()
    decision = decide.decide(findings.trials, about["criteria"], about["report"]["payload"])
    path.mkdir(parents=True, exist_ok=True)
    report.build(path, findings, decision, about)
    return (path / "report.html").stat().st_size, time.process_time() - started


def main() -> None:
    """Builds the page of 500 trials, and of 100 with ten times the requests; exits 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(10, 5, 10), help="configurations, data sets, loads")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path, help="keep the page there, and leave the growth out")
    options = parser.parse_args()
    configurations, buckets, loads = options.shape
    about = sweep(configurations, buckets, loads, options.repeats)
    with tempfile.TemporaryDirectory() as folder:
        size, cpu_s = build(options.out or Path(folder), about, found(about, options.requests))
        print(f"{len(about['trials'])} trials of {options.requests:,} requests, {os.cpu_count()} cores")
        print(
            f"page {size / 1e6:.2f} MB of {MOST_BYTES / 1e6:.0f} MB, built in {cpu_s:.1f} s of CPU of {MOST_S:.0f} s"
        )
        kept = size <= MOST_BYTES and cpu_s <= MOST_S
        if options.out is None:
            about = sweep(4, 5, 5)
            (size, _), (tenfold, _) = (build(Path(folder), about, found(about, n)) for n in (1_000, 10_000))
            growth = tenfold / size - 1
            print(
                f"{len(about['trials'])} trials of 1,000 and of 10,000 requests: {growth:+.1%} of {MOST_GROWTH:.0%}"
            )
            kept &= growth <= MOST_GROWTH
    print("kept" if kept else "BROKEN")
    raise SystemExit(0 if kept else 1)


if __name__ == "__main__":
    main()
