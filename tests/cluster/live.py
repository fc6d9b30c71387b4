"""The cluster file we ship, on a head and two workers that are real to Ray: `ray up`, submit, a loss, `ray down`.

Not collected by a plain `pytest`: `make test-cluster` names this file. It skips, and says so, where it may not make
namespaces.
"""

import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from lab import ACCESS_KEY, HOME, HOSTS, REGION, ROOT, SECRET_KEY, lab, listening, why_not
from standing import Cluster, answers_to_strangers, asked, rows_of, serve, told, wait_for_nodes

from raybench.rundir import read_segment

AS_HEAD = {
    "RAY_AUTH_TOKEN_PATH": f"{HOME}/.ray/auth_token",
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_REGION": REGION,
}
"""What a shell on the head knows besides."""


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    if reason := why_not():
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print(f"\nNO CLUSTER TEST: {reason}; nothing was tested on a real cluster")
        pytest.skip(reason)
    with lab() as made:
        truth = serve(made)
        file = shipped(made.folder)
        said = made.call("ctl", "ray", "up", str(file), "-y", "--no-config-cache", timeout_s=180)
        tunnel = made.start("ctl", "ray", "dashboard", str(file), "-p", "8265")
        wait_for_nodes(made, 3)
        yield Cluster(made, file, truth, said)
        assert tunnel.poll() is None
        said = made.call("ctl", "ray", "down", str(file), "-y")
        assert not [port for _, port in listening(made, "head") if port == 6379], said


def shipped(folder: Path) -> Path:
    """configs/cluster-local.yaml with its placeholders set; the nodes find the code that was copied to them."""
    config = yaml.safe_load((ROOT / "configs" / "cluster-local.yaml").read_text())
    config["provider"] |= {"head_ip": HOSTS["head"], "worker_ips": [HOSTS["w1"], HOSTS["w2"]]}
    config["auth"]["ssh_user"] = "root"
    built = [command for command in config["setup_commands"] if "--no-build-isolation" in command]
    assert len(built) == 1
    config["setup_commands"].remove(built[0])
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def test_three_nodes_stand_and_each_has_the_token_at_0600(cluster: Cluster) -> None:
    for name in ("head", "w1", "w2"):
        token = cluster.lab.home(name) / ".ray" / "auth_token"
        assert token.stat().st_mode & 0o777 == 0o600
        assert token.read_text() == cluster.lab.token
    assert cluster.lab.token not in cluster.said


def test_no_port_answers_anybody_without_the_token(cluster: Cluster) -> None:
    for name in ("head", "w1", "w2"):
        assert told(answers_to_strangers(cluster.lab, name)) == []


def test_the_same_questions_are_answered_with_the_token(cluster: Cluster) -> None:
    places = [f"{HOSTS['head']}:6379", "127.0.0.1:8265"]
    answered = {tuple(answer[:3]) for answer in told(asked(cluster.lab, "head", places, cluster.lab.token))}
    assert (6379, "GRPC", "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo") in answered
    assert (8265, "GET", "/api/v0/nodes") in answered
    assert (8265, "POST", "/api/jobs/") in answered


def test_a_submitted_run_measures_from_the_workers_and_opens_nothing(cluster: Cluster, tmp_path: Path) -> None:
    process, run_dir = cluster.begin(tmp_path, "10s")
    cluster.wait_for_requests(100, process)
    ports = {name: len(listening(cluster.lab, name)) for name in ("head", "w1", "w2")}
    answers = {name: told(answers_to_strangers(cluster.lab, name)) for name in ports}
    said, _ = process.communicate(timeout=180)
    print(said, f"ports listening during the run: {ports}")
    assert process.returncode in (0, 3), said
    assert answers == {"head": [], "w1": [], "w2": []}
    rows = rows_of(run_dir)
    assert {row["host"] for row in rows} == {"rb-w1", "rb-w2"}
    assert {row["outcome"] for row in rows} == {"ok"}
    assert {row["request_id"] for row in rows} <= set(cluster.arrived())
    assert (run_dir / "report.html").is_file()
    assert cluster.lab.token not in said


def test_what_a_killed_conductor_had_measured_is_fetched_from_the_workers_by_resume(cluster: Cluster) -> None:
    made, before = cluster.lab, len(cluster.arrived())
    process, _ = cluster.begin(Path("killed"), "15s")
    cluster.wait_for_requests(before + 300, process)
    killed_ns = time.monotonic_ns()
    made.call("head", "pkill", "-KILL", "-f", "^python -m raybench run")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 5, said
    assert "was killed (signal 9)" in said
    told = re.search(r"the run directory is (\S+) on rb-head", said)
    assert told, said

    words = [sys.executable, "-m", "raybench", "resume", told[1], "--address", "auto", "--no-selftest"]
    resuming = made.start("head", *words, environ=AS_HEAD)
    resumed, _ = resuming.communicate(timeout=180)
    print(said, resumed)
    assert resuming.returncode in (0, 3), resumed
    assert "0 of 1 trials done, 1 left" in resumed
    assert "rows of cut trials from other nodes" in resumed
    made.call("head", "cp", "-r", told[1], f"{HOME}/killed")
    run_dir = made.home("head") / "killed"
    segments = sorted((run_dir / "abandoned" / "sitting-0" / "spool").glob("*/*.rows"))
    aside = [row for segment in segments for row in read_segment(segment)]
    assert {row.host for row in aside} == {"rb-w1", "rb-w2"}
    rows = rows_of(run_dir)
    _, *truth = sorted(list(cluster.arrived().values())[before:], key=lambda record: record["arrived_ns"])
    again = {row["request_id"] for row in rows}
    first = [one for one in truth if one["request_id"] not in again][:-1]  # but for the one that checked the endpoint
    assert max(one["arrived_ns"] for one in first) < killed_ns + 10e9, "the load goes on without its conductor"
    gone = [one for one in first if one["request_id"] not in {row.request_id for row in aside}]
    print(f"{len(first)} requests before the actors were gone, {len(aside)} rows aside, {len(gone)} gone")
    assert len(gone) <= 2 * 8, "in flight, or ended in the instant of the kill"
    assert {row["host"] for row in rows} == {"rb-w1", "rb-w2"}
    assert "Resumed." in (run_dir / "report.md").read_text()


@dataclass(frozen=True)
class Loss:
    """A run that lost a worker: what it left, and the truth."""

    code: int
    said: str
    trial: dict[str, Any]
    there: set[str]
    rows: list[dict[str, Any]]
    summary: dict[str, Any]
    report: str
    preflight: dict[str, Any]
    truth: list[dict[str, Any]]
    gone: list[dict[str, Any]]
    vanished_ns: int


@pytest.fixture(scope="module")
def loss(cluster: Cluster) -> Loss:
    before = len(cluster.arrived())
    process, run_dir = cluster.begin(Path("loss"), "30s")
    cluster.wait_for_requests(before + 300, process)
    vanished_ns = time.monotonic_ns()
    cluster.lab.vanish("w1")
    said, _ = process.communicate(timeout=240)
    print(said)
    manifest = json.loads((run_dir / "run.json").read_text())
    (trial,) = manifest["trials"]
    rows = rows_of(run_dir)
    first, *truth = sorted(list(cluster.arrived().values())[before:], key=lambda record: record["arrived_ns"])
    kept = {row["request_id"] for row in rows}
    (summary,) = pq.read_table(run_dir / "trials.parquet").to_pylist()
    return Loss(
        code=process.returncode,
        said=said,
        trial=trial,
        there={one["actor"] for one in manifest["experiments"][0]["actors"] if one["host"] == "rb-w1"},
        rows=rows,
        summary=summary,
        report=(run_dir / "report.md").read_text(),
        preflight=first,
        truth=truth,
        gone=[record for record in truth if record["request_id"] not in kept],
        vanished_ns=vanished_ns,
    )


def test_a_run_that_loses_a_worker_is_reported_and_says_who_went(loss: Loss) -> None:
    assert loss.code == 3, loss.said
    assert len(loss.there) == 2
    assert set(loss.trial["lost"]) == loss.there
    assert loss.trial["state"] == "partial"
    assert loss.trial["rows"] == len(loss.rows)
    assert "2 load actors died" in loss.report
    assert (loss.summary["valid"], loss.summary["lost_actors"]) == ("INVALID", 2)
    assert "lost_rows" in loss.summary["reasons"]


def test_a_vanished_worker_takes_its_last_five_seconds_at_most(loss: Loss) -> None:
    answered = [row for row in loss.rows if row["request_id"]]
    print(f"{len(loss.truth)} requests reached the endpoint, {len(answered)} are rows, {len(loss.gone)} are gone")
    assert {row["actor"] for row in answered} > loss.there, "what the lost actors had sent is kept"
    assert loss.preflight["request_id"] not in {row["request_id"] for row in answered}
    assert len(loss.truth) == len(answered) + len(loss.gone)
    assert min(record["ended_ns"] for record in loss.gone) > loss.vanished_ns - 5e9


def test_what_the_run_says_it_lost_covers_what_went_with_the_worker(loss: Loss) -> None:
    said = loss.trial.get("lost_rows") or {}
    print(f"the run says {said}; {len(loss.gone)} are gone")
    assert sum(said.values()) >= len(loss.gone)
