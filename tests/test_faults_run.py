"""Whole runs that are killed, stopped and resumed, as a user sees them.

Each point takes seconds: few here, 20 of each in `make faults`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import pytest
from waiting import until

from raybench.rundir import RunDir, read_segment

pytestmark = pytest.mark.ray

CONFIG = """\
name: killed
experiments:
  - name: fast
    instance_type: ml.g5.xlarge
    endpoint: {endpoint}
    route: stream
    price_per_hour: 1.0
payloads:
  - name: short
    dataset: {{jsonl: [prompts/short.jsonl]}}
    tokens: [1, 500]
loads:
  - {{kind: closed, concurrency: [2, 3, 4], {length}, warmup: 200ms}}
timeouts: {{idle: 60s}}
"""
FAST = "{simulate: fixed, overrides: {ttft_s: 0.02, itl_s: 0.005, tokens: 4}}"
HANGS = "{simulate: fixed, overrides: {ttft_s: 0.02, itl_s: 0.005, tokens: 4}, faults: {hang: 1.0}}"


def config(folder: Path, endpoint: str = FAST, length: str = "duration: 2s") -> Path:
    """A config in a folder of its own, whose dataset is found from there only."""
    here = folder / "configs"
    (here / "prompts").mkdir(parents=True)
    lines = [json.dumps({"prompt": f"prompt number {n} says hello"}) for n in range(400)]
    (here / "prompts" / "short.jsonl").write_text("\n".join(lines))
    path = here / "killed.yaml"
    path.write_text(CONFIG.format(endpoint=endpoint, length=length))
    return path


class Command:
    """`raybench` with these words; what it says is in files that can be read while it runs."""

    def __init__(self, folder: Path, *words: str | Path) -> None:
        self.out, self.err = folder / "stdout", folder / "stderr"
        with self.out.open("w") as out, self.err.open("w") as err:
            command = [sys.executable, "-m", "raybench", *map(str, words)]
            self.process = subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True)

    def until(self, run_dir: Path, trials_done: int, rows: int = 1) -> None:
        """Waits until that many trials are done and the next one has that many rows on disk."""

        def so_far() -> bool:
            assert self.process.poll() is None, self.err.read_text()
            written = sum(
                path.read_bytes().count(b"\n")
                for folder in sorted((run_dir / "spool").glob("*"))[trials_done:]
                for path in folder.glob("*.rows")
            )
            return written >= rows

        until(so_far, lambda: f"it came not so far: {self.err.read_text()}", every_s=0.05)

    def waits(self, run_dir: Path, seconds: float) -> None:
        """Returns when it has said that it stops, and that much later still tells how its trial goes."""
        ended, live = self.process.poll, run_dir / "live.json"
        until(lambda: ended() is not None or "stopping: waiting" in self.err.read_text(), self.err.read_text)
        then_ns = self.err.stat().st_mtime_ns + round(seconds * 1e9)

        def tells() -> bool:
            with suppress(FileNotFoundError):  # it is written once a second, from the first trial on
                return live.stat().st_mtime_ns > then_ns
            return False

        until(lambda: ended() is not None or tells(), self.err.read_text)
        assert ended() is None, self.err.read_text()

    def end(self) -> tuple[int, str, str]:
        code, err = self.process.wait(timeout=180), self.err.read_text()
        assert "Traceback" not in err
        return code, self.out.read_text(), err


def manifest_of(run_dir: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((run_dir / "run.json").read_text())
    return manifest


def ids(run_dir: Path) -> Counter[str]:
    """The request ids of every row of a run."""
    run = RunDir(run_dir)
    return Counter(
        request_id
        for trial in run.manifest()["trials"]
        for request_id in run.requests(trial)["request_id"].to_pylist()
    )


def abandoned(run_dir: Path) -> Counter[str]:
    """The request ids of the rows that were kept aside."""
    found: Counter[str] = Counter()
    for place in (run_dir / "abandoned").glob("*"):
        for spool in (place / "spool").glob("*"):
            for segment in spool.glob("*.rows"):
                rows = read_segment(segment)
                found.update(row.request_id for row in rows if row.request_id)  # none without the simulator
        for part in place.rglob("*.parquet"):
            found.update(pq.read_table(part, partitioning=None)["request_id"].to_pylist())
    return found


def contents(run_dir: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run_dir)): path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}


@pytest.mark.kill_points(1)
def test_driver_killed_then_resumed_loses_no_completed_row_and_replays_no_finished_trial(
    seed: int, tmp_path: Path
) -> None:
    run_dir, random, whole = tmp_path / "run", Random(seed), 1 + seed % 2
    first = Command(tmp_path, "run", config(tmp_path), "--out", run_dir, "--no-selftest")
    first.until(run_dir, trials_done=whole, rows=random.randrange(1, 60))
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    begun = manifest_of(run_dir)
    assert begun["state"] == "running"
    actors = [Path("/proc", str(actor["pid"])) for actor in begun["experiments"][0]["actors"]]
    assert actors
    until(lambda: not any(map(Path.exists, actors)), lambda: "a load actor outlives its conductor")
    done = [trial["trial_id"] for trial in begun["trials"] if trial["state"] == "done"]
    assert len(done) == whole
    run = RunDir(run_dir)
    before = {name: run.requests(next(t for t in begun["trials"] if t["trial_id"] == name)) for name in done}

    (tmp_path / "configs" / "killed.yaml").rename(tmp_path / "elsewhere.yaml")
    second = Command(tmp_path, "resume", run_dir, "--no-selftest")
    code, out, err = second.end()
    assert code in (0, 3), err
    assert "report:" in out
    assert f"{whole} of 3 trials done, {3 - whole} left" in err

    manifest = manifest_of(run_dir)
    assert manifest["state"] == "done"
    assert len(manifest["resumed_utc"]) == 1
    assert [trial["state"] for trial in manifest["trials"]] == ["done"] * 3
    for trial in manifest["trials"]:
        if trial["trial_id"] in before:
            assert run.requests(trial).equals(before[trial["trial_id"]])
    kept, aside = ids(run_dir), abandoned(run_dir)
    both = [name for name, times in (kept + aside).items() if times > 1]
    assert not both[:3], "every row once, in the run or aside"
    truth = [json.loads(line) for line in (run_dir / "truth.jsonl").read_text().splitlines()]
    fine = {record["request_id"] for record in truth if record["outcome"] == "ok"}
    assert kept.keys() <= fine
    assert len(fine - kept.keys() - aside.keys()) <= 2 + 2 * 4, "two that checked the endpoint, and those in flight"
    for name in ("report.md", "report.html"):
        assert "Resumed." in (run_dir / name).read_text()

    finished = contents(run_dir)
    for _ in range(1 if seed else 2):
        again = Command(tmp_path, "resume", run_dir)
        assert again.end()[:2] == (code, out)
        assert contents(run_dir) == finished, "resuming a finished run changes nothing"


@pytest.mark.kill_points(1)
def test_stopped_run_is_resumed_and_says_so(seed: int, tmp_path: Path) -> None:
    run_dir, random, whole = tmp_path / "run", Random(seed), (seed + 1) % 3
    first = Command(tmp_path, "run", config(tmp_path), "--out", run_dir, "--no-selftest")
    first.until(run_dir, trials_done=whole, rows=random.randrange(1, 50))
    os.kill(first.process.pid, signal.SIGINT)
    code, _, _ = first.end()
    assert code == 130
    stopped = ids(run_dir)
    states = [trial["state"] for trial in manifest_of(run_dir)["trials"]]
    assert states == ["done"] * whole + ["partial"] + ["planned"] * (2 - whole)
    code, _, err = Command(tmp_path, "resume", run_dir, "--no-selftest").end()
    assert code in (0, 3), err
    assert [trial["state"] for trial in manifest_of(run_dir)["trials"]] == ["done"] * 3
    assert stopped.keys() <= (ids(run_dir) + abandoned(run_dir)).keys()


@pytest.mark.kill_points(1)
def test_second_interrupt_ends_at_once_with_one_line_and_every_written_row(seed: int, tmp_path: Path) -> None:
    run_dir, random = tmp_path / "run", Random(seed)
    whole = random.randrange(1, 60)
    script = ", ".join(["null"] * (1 + whole))  # the first request checks the endpoint
    only = config(tmp_path, HANGS.replace("hang", f"script: [{script}], hang"), "duration: 60s")
    command = Command(tmp_path, "run", only, "--out", run_dir, "--no-selftest")
    command.until(run_dir, trials_done=0, rows=whole)
    os.kill(command.process.pid, signal.SIGINT)
    command.waits(run_dir, random.uniform(0.0, 2.0))
    os.kill(command.process.pid, signal.SIGINT)
    again_s = time.monotonic()
    code, _, err = command.end()
    print(f"ended {time.monotonic() - again_s:.1f} s after the second")
    assert code == 130
    assert "reducing the rows" not in err, "it still waited for requests that hang"
    assert err.strip().splitlines()[-1].startswith("raybench: stopped at once")
    assert manifest_of(run_dir)["state"] == "interrupted"
    truth = [json.loads(line) for line in (run_dir / "truth.jsonl").read_text().splitlines()]
    fine = {record["request_id"] for record in truth if record["outcome"] == "ok"}
    assert len(fine - ids(run_dir).keys()) <= 1 + 4
    code, _, _ = Command(tmp_path, "report", run_dir).end()
    assert code in (0, 3)
    assert "Partial." in (run_dir / "report.md").read_text()
