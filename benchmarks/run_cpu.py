"""What one more streamed request of 32 events costs a whole `raybench run` in CPU, beside bare boto3 in threads.

Both call the simulator, whose CPU is left out. For raybench: every process of the run (driver, Ray, load actors),
rows and Parquet included, in two runs that differ only in how many requests they measure; the difference is what the
further requests cost. For boto3: this process, calling the same endpoint with as many threads.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from raybench.simulator.process import simulated

SLOTS = 32
FEW, MANY = 4_000, 24_000
BARE = 4_000
OVERRIDES = {"ttft_s": 0.005, "itl_s": 0.001, "tokens": 32}
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

CONFIG = """\
name: run-cpu
experiments:
  - name: e
    instance_type: ml.g5.xlarge
    endpoint: {{simulate: fixed, overrides: {overrides}}}
    route: stream
payloads:
  - name: p
    dataset: {{synthetic: {{prompts: 2000, tokens: [20, 40]}}}}
    tokens: [1, 500]
loads:
  - {{kind: closed, concurrency: {slots}, requests: {requests}, warmup: 500ms}}
"""


def cpu_by_pid(root: int) -> dict[int, float]:
    """CPU seconds of a process and its descendants, the simulator's left out."""
    parents, used = {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(") ")[2].split()
            simulator = b"raybench.simulator" in (entry / "cmdline").read_bytes()
        except OSError:
            continue
        parents[int(entry.name)] = -1 if simulator else int(fields[1])
        used[int(entry.name)] = (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    return {pid: seconds for pid, seconds in used.items() if descends(pid, root, parents)}


def descends(pid: int, root: int, parents: dict[int, int]) -> bool:
    while pid in parents and pid != root:
        pid = parents[pid]
    return pid == root


def whole_run(requests: int, folder: Path) -> float:
    """CPU seconds of a whole `raybench run` that measures so many requests."""
    config = folder / f"{requests}.yaml"
    config.write_text(CONFIG.format(overrides=json.dumps(OVERRIDES), slots=SLOTS, requests=requests))
    words = [sys.executable, "-m", "raybench", "run", str(config), "--out", str(folder / str(requests))]
    used: dict[int, float] = {}
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            used |= cpu_by_pid(process.pid)
            time.sleep(0.2)
    return sum(used.values())


def bare_boto3(url: str, access_key: str, secret_key: str) -> float:
    """CPU seconds per streamed request of boto3 in threads, each event's JSON parsed."""
    client = boto3.client(
        "sagemaker-runtime",
        region_name="us-west-2",
        endpoint_url=url,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=Config(retries={"total_max_attempts": 1, "mode": "standard"}, max_pool_connections=SLOTS),
    )
    body = json.dumps({"inputs": "word " * 30, "parameters": {"max_new_tokens": 32, "details": True}, "stream": True})

    def call(_: int) -> int:
        events: Any = client.invoke_endpoint_with_response_stream(EndpointName="e", Body=body)["Body"]
        return sum(bool(json.loads(event["PayloadPart"]["Bytes"].removeprefix(b"data:"))) for event in events)

    with ThreadPoolExecutor(SLOTS) as threads:
        assert set(threads.map(call, range(SLOTS))) == {32}
        before = time.process_time()
        assert set(threads.map(call, range(BARE))) == {32}
        return (time.process_time() - before) / BARE


def main() -> None:
    assert threading.active_count() == 1
    with simulated({"e": {"profile": "fixed", "overrides": OVERRIDES}}) as simulator:
        bare_s = bare_boto3(simulator.url, simulator.access_key, simulator.secret_key)
    with tempfile.TemporaryDirectory() as folder:
        few_s, many_s = whole_run(FEW, Path(folder)), whole_run(MANY, Path(folder))
    run_s = (many_s - few_s) / (MANY - FEW)
    print(f"whole run, {FEW} requests: {few_s:.1f} s CPU; {MANY} requests: {many_s:.1f} s CPU")
    print(f"one more request of 32 events: raybench run {run_s * 1e6:.0f} us, bare boto3 {bare_s * 1e6:.0f} us")
    print(f"boto3 / raybench run: {bare_s / run_s:.1f} (wanted: at least 8)")


if __name__ == "__main__":
    main()
