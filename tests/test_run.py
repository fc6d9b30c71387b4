"""The whole path as a user walks it: `raybench run` as a process, its exit code, its words and its directory."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from waiting import until

from raybench.rundir import RunDir

pytestmark = pytest.mark.ray

CONFIG = """\
name: tiny
experiments:
  - name: fast
    instance_type: ml.g5.xlarge
    endpoint: {endpoint}
    route: stream
    price_per_hour: 1.0
payloads:
  - name: short
    dataset: {{synthetic: {{prompts: 500, tokens: [10, 30]}}}}
    tokens: [1, 500]
loads:
  - {{kind: closed, concurrency: [2, 4], {length}, warmup: 200ms}}
criteria: {{latency_mean: 1s, cost_per_10k: 50, error_rate: 0}}
"""
SIMULATED = "{simulate: fixed, overrides: {ttft_s: 0.03, itl_s: 0.005, tokens: 8}}"


def config(folder: Path, endpoint: str = SIMULATED, length: str = "requests: 100") -> Path:
    path = folder / "tiny.yaml"
    path.write_text(CONFIG.format(endpoint=endpoint, length=length))
    return path


def start(*words: str | Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "raybench", *map(str, words)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=180)
    assert "Traceback" not in err
    return process.returncode, out, err


def lines_until(process: "subprocess.Popen[str]", word: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if word in line:
            return
    raise AssertionError(f"it ended without saying {word!r}")


def contents(run_dir: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run_dir)): path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}


def rows_of(run_dir: Path) -> list[dict[str, Any]]:
    run = RunDir.open(run_dir)
    return [row for trial in run.manifest()["trials"] for row in run.requests(trial).to_pylist()]


def test_a_run_measures_decides_and_can_be_reported_again_byte_for_byte(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    code, out, _ = finish(start("run", config(tmp_path), "--out", run_dir))
    assert code in (0, 3), "a busy machine may make a trial INVALID, and must then say so"
    assert "report:" in out
    manifest = json.loads((run_dir / "run.json").read_text())
    assert manifest["state"] == "done"
    assert manifest["simulated"] is True
    assert [trial["state"] for trial in manifest["trials"]] == ["done", "done"]
    (about,) = manifest["experiments"]
    crew = {"actors": len(about["actors"]), "ceiling": about["ceiling"]}
    assert [trial["crew"] for trial in manifest["trials"]] == [crew, crew]
    trials = pq.read_table(run_dir / "trials.parquet").to_pylist()
    assert [trial["ok"] for trial in trials] == [100, 100]
    truth = [json.loads(line) for line in (run_dir / "truth.jsonl").read_text().splitlines()]
    sent = {row["request_id"] for row in rows_of(run_dir)}
    assert len(truth) == len(sent) + 1, "every request once, and the one that checked the endpoint"
    assert sent < {record["request_id"] for record in truth}
    before = contents(run_dir)
    rebuilt, again, _ = finish(start("report", run_dir))
    assert (rebuilt, again) == (code, out)
    assert contents(run_dir) == before


def test_an_interrupt_drains_and_reports_what_there_is(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start("run", config(tmp_path, length="duration: 60s"), "--out", run_dir)
    lines_until(process, "starting Ray")
    lines_until(process, " s  measuring\n")
    os.kill(process.pid, signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    assert "interrupted" in err
    assert json.loads((run_dir / "run.json").read_text())["state"] == "interrupted"
    assert (run_dir / "report.html").is_file()
    assert {row["outcome"] for row in rows_of(run_dir)} <= {"ok"}


def test_a_signal_when_all_is_measured_costs_no_report(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start("run", config(tmp_path, length="requests: 40"), "--out", run_dir, "--no-selftest")
    lines_until(process, "reducing the rows")
    os.kill(process.pid, signal.SIGTERM)
    code, _, err = finish(process)
    assert code in (0, 3), err
    assert json.loads((run_dir / "run.json").read_text())["state"] == "done"
    assert (run_dir / "report.html").is_file()


def processes_of(driver: int) -> list[str]:
    """Of the Ray that a process started: its session is named after it."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            lines.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in lines if re.search(rf"/session_[-_0-9]+_{driver}\b", line)]


def test_a_termination_before_anything_is_measured_is_one_line_and_leaves_nothing_running(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start("run", config(tmp_path), "--out", run_dir)
    lines_until(process, "selftest")
    assert processes_of(process.pid)
    os.kill(process.pid, signal.SIGTERM)
    code, _, err = finish(process)
    assert code == 130
    assert err.strip().splitlines()[-1].startswith("raybench: stopped at once")
    assert json.loads((run_dir / "run.json").read_text())["state"] == "interrupted"
    until(lambda: not processes_of(process.pid), lambda: processes_of(process.pid))


def test_an_endpoint_that_refuses_connections_is_one_line_and_exit_5(tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        endpoint = f"{{name: nobody, url: '{url}'}}"
        env = {**os.environ, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-west-2"}
        command = [
            sys.executable,
            "-m",
            "raybench",
            "run",
            str(config(tmp_path, endpoint)),
            "--out",
            str(tmp_path / "r"),
        ]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 5
    assert done.stderr.strip().splitlines()[-1].startswith("raybench: endpoint 'nobody'")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("given", "lacking"), [({}, "no AWS region"), ({"AWS_REGION": "eu-west-1"}, "no AWS cred")])
def test_without_a_region_or_credentials_it_is_exit_2_and_nothing_is_made(
    given: dict[str, str], lacking: str, tmp_path: Path
) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    env |= {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path), **given}
    path = config(tmp_path, "{name: mine}")
    command = [sys.executable, "-m", "raybench", "run", str(path), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert lacking in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.fixture
def small_disk(seed: int, tmp_path: Path) -> Iterator[Path]:
    """A disk of some 400 KiB, where this process may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={400 + 36 * seed}k", "tmpfs", str(place)], check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here, so a full one is not tried")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.kill_points(1)
def test_a_full_disk_stops_the_load_with_one_line_and_leaves_whole_rows(tmp_path: Path, small_disk: Path) -> None:
    run_dir = small_disk / "run"
    code, _, err = finish(start("run", config(tmp_path, length="duration: 60s"), "--out", run_dir, "--no-selftest"))
    assert code == 5
    assert err.strip().splitlines()[-1].startswith(f"raybench: {run_dir}")
    rows = rows_of(run_dir)
    assert len({(row["trial_id"], row["seq"]) for row in rows}) == len(rows) > 100
    assert {row["outcome"] for row in rows} == {"ok"}


def test_a_config_named_as_a_file_of_the_run_directory_is_exit_2_and_nothing_is_made(tmp_path: Path) -> None:
    named = config(tmp_path).rename(tmp_path / "run.json")
    code, _, err = finish(start("run", named, "--out", tmp_path / "out"))
    assert code == 2
    assert err.strip() == (
        f"raybench: {named}: a run directory, which gets a copy of the config, has a file of its own by that name; "
        "another name, such as config.yaml"
    )
    assert not (tmp_path / "out").exists()


def test_a_taken_directory_is_exit_2_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("mine")
    code, _, err = finish(start("run", config(tmp_path), "--out", tmp_path / "kept"))
    assert code == 2
    assert "is not empty" in err
    assert contents(tmp_path / "kept") == {"file": b"mine"}
