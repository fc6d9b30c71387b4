"""What `raybench run` adds to its load: the wall time before the first request, between trials, and after the last.

Promise: at most 12 s on 2 cores. The load is what the rows say: for the experiment that sends longest, from each
trial's first planned request to its last end. And `raybench --help`: at most 0.4 s of CPU.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.compute as pc

from raybench.clock import NS_PER_S
from raybench.rundir import RunDir

MOST_S, MOST_HELP_S = 12.0, 0.4
RUNS = 3

CONFIG = """\
name: overhead
experiments:
  - {name: a, instance_type: ml.g5.xlarge, endpoint: {simulate: fixed}, route: stream, price_per_hour: 1}
  - {name: b, instance_type: ml.p4d.24xlarge, endpoint: {simulate: fixed}, route: stream, price_per_hour: 10}
payloads:
  - {name: p, dataset: {synthetic: {prompts: 400, tokens: [10, 500]}}, tokens: [1, 500]}
  - {name: q, dataset: {synthetic: {prompts: 400, tokens: [500, 1000]}}, tokens: [500, 1000]}
loads:
  - {kind: closed, concurrency: [1, 2, 4, 8], duration: 2s, warmup: 500ms}
criteria: {latency_mean: 5s, cost_per_10k: 50, error_rate: 0}
"""


def load_s(path: Path) -> float:
    """How long a run's requests took together: of its experiments the longest."""
    rundir = RunDir.open(path)
    by_experiment: dict[str, float] = {}
    for trial in rundir.manifest()["trials"]:
        rows = rundir.requests(trial)
        lasted_s = (pc.max(rows["end_ns"]).as_py() - pc.min(rows["planned_ns"]).as_py()) / NS_PER_S
        by_experiment[trial["experiment"]] = by_experiment.get(trial["experiment"], 0.0) + lasted_s
    return max(by_experiment.values())


def added_s(folder: Path) -> float:
    """The wall time of one run without that of its load."""
    config, out = folder / "overhead.yaml", folder / "run"
    config.write_text(CONFIG)
    began_s = time.monotonic()
    words = [sys.executable, "-m", "raybench", "run", str(config), "--out", str(out)]
    subprocess.run(words, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - began_s - load_s(out)


def help_s() -> float:
    """CPU seconds of `raybench --help`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "raybench", "--help"], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    print(f"raybench --help: {help_s():.2f} s CPU (wanted: at most {MOST_HELP_S:g})")
    runs = []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(added_s(Path(folder)))
    said = ", ".join(f"{added:.1f}" for added in runs)
    print(f"a run of 16 trials adds {said} s to its load (wanted: at most {MOST_S:g})")


if __name__ == "__main__":
    main()
