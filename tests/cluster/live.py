"""The cluster file we ship, on a head and two workers that are real to Ray: `ray up`, submit, a loss, `ray down`.

Not collected by a plain `pytest`: `make test-cluster` names this file. It skips, and says so, where it may not make
namespaces.
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from endpoint import PORT
from lab import HOSTS, ROOT, Lab, lab, listening, why_not

from raybench.rundir import RunDir

HERE = Path(__file__).parent
JOBS = "http://127.0.0.1:8265"
CONFIG = f"""\
name: namespaces
region: us-west-2
experiments:
  - name: fast
    instance_type: ml.g5.xlarge
    endpoint: {{name: fast, url: "http://{HOSTS["ctl"]}:{PORT}"}}
    route: stream
    price_per_hour: 1.0
payloads:
  - {{name: short, dataset: {{synthetic: {{prompts: 5000, tokens: [10, 30]}}}}, tokens: [1, 500]}}
loads:
  - {{kind: closed, concurrency: 8, duration: DURATION, warmup: 1s}}
fleet: {{actors: 4}}
"""

PUBLIC = {
    ("GET", "/"): "the page that asks for the token",
    ("GET", "/api/authentication_mode"): "whether it asks for one",
    ("GET", "/api/healthz"): "alive or not",
    ("GET", "/api/gcs_healthz"): "alive or not",
    ("GET", "/api/local_raylet_healthz"): "alive or not",
}
"""What a Ray that asks for a token tells anybody, and what there is in it."""


@dataclass(frozen=True)
class Cluster:
    """A running cluster, and what its making said."""

    lab: Lab
    file: Path
    truth: Path
    said: str

    def submit(self, folder: Path, duration: str) -> tuple[int, str, Path]:
        """Submits a run of such a duration to its end: exit code, what was said, where its run directory is."""
        process, out = self.begin(folder, duration)
        said, _ = process.communicate(timeout=180)
        return process.returncode, said, out

    def begin(self, folder: Path, duration: str) -> tuple[Any, Path]:
        folder = self.lab.folder / folder.name
        folder.mkdir()
        config = folder / "namespaces.yaml"
        config.write_text(CONFIG.replace("DURATION", duration))
        words = [sys.executable, "-m", "raybench", "submit", str(config), "--out", str(folder / "run")]
        return self.lab.start("ctl", *words), folder / "run"


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    if reason := why_not():
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print(f"\nNO CLUSTER TEST: {reason}; nothing was tested on a real cluster")
        pytest.skip(reason)
    with lab() as made:
        truth = made.folder / "truth.jsonl"
        served = made.start("ctl", sys.executable, str(HERE / "endpoint.py"), str(truth))
        assert served.stdout is not None
        assert served.stdout.readline() == "ready\n"
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


NODES = f"""
import json, os, urllib.request
request = urllib.request.Request("{JOBS}/api/v0/nodes")
request.add_header("Authorization", "Bearer " + open(os.environ["RAY_AUTH_TOKEN_PATH"]).read().strip())
nodes = json.load(urllib.request.urlopen(request, timeout=5))["data"]["result"]["result"]
print(json.dumps([node["node_ip"] for node in nodes if node["state"] == "ALIVE"]))
"""


def wait_for_nodes(made: Lab, many: int) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        process = made.start("ctl", sys.executable, "-c", NODES)
        out, _ = process.communicate(timeout=30)
        if process.returncode == 0 and len(json.loads(out)) >= many:
            return
        time.sleep(1)
    raise AssertionError(out)


def rows_of(run_dir: Path) -> list[dict[str, Any]]:
    run = RunDir.open(run_dir)
    return [row for trial in run.manifest()["trials"] for row in run.requests(trial).to_pylist()]


def truth_of(cluster: Cluster) -> dict[str, dict[str, Any]]:
    whole, _, _ = cluster.truth.read_text().rpartition("\n")
    records = (json.loads(line) for line in whole.splitlines())
    return {record["request_id"]: record for record in records}


def test_three_nodes_stand_and_each_has_the_token_at_0600(cluster: Cluster) -> None:
    for name in ("head", "w1", "w2"):
        token = cluster.lab.home(name) / ".ray" / "auth_token"
        assert token.stat().st_mode & 0o777 == 0o600
        assert token.read_text() == cluster.lab.token
    assert cluster.lab.token not in cluster.said


def test_no_port_answers_anybody_without_the_token(cluster: Cluster) -> None:
    for name in ("head", "w1", "w2"):
        open_ports = listening(cluster.lab, name)
        assert len(open_ports) > 5
        places = [
            f"{'127.0.0.1' if address in ('0.0.0.0', '::') else address}:{port}" for address, port in open_ports
        ]
        answers = json.loads(cluster.lab.call(name, sys.executable, str(HERE / "probe.py"), *places))
        assert any(status in (401, 403) for *_, status in answers), f"{name} was not asked for a token: {answers}"
        answered = [answer for answer in answers if 200 <= answer[3] < 300 and tuple(answer[1:3]) not in PUBLIC]
        assert answered == []


def test_a_submitted_run_measures_from_the_workers(cluster: Cluster, tmp_path: Path) -> None:
    code, said, run_dir = cluster.submit(tmp_path, "8s")
    print(said)
    assert code in (0, 3), said
    rows = rows_of(run_dir)
    assert {row["host"] for row in rows} == {"rb-w1", "rb-w2"}
    assert {row["outcome"] for row in rows} == {"ok"}
    assert {row["request_id"] for row in rows} <= set(truth_of(cluster))
    assert (run_dir / "report.html").is_file()
    assert cluster.lab.token not in said


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
    before = len(truth_of(cluster))
    process, run_dir = cluster.begin(Path("loss"), "30s")
    while len(truth_of(cluster)) < before + 300:
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    vanished_ns = time.monotonic_ns()
    cluster.lab.vanish("w1")
    said, _ = process.communicate(timeout=240)
    print(said)
    manifest = json.loads((run_dir / "run.json").read_text())
    (trial,) = manifest["trials"]
    rows = rows_of(run_dir)
    first, *truth = sorted(list(truth_of(cluster).values())[before:], key=lambda record: record["arrived_ns"])
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
