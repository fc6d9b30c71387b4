"""A cluster that stands in the lab, whoever made it: runs submitted to it, and what it tells strangers."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endpoint import PORT
from lab import HOSTS, Lab, listening
from waiting import until

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

PUBLIC = ("GRPC", "/grpc.health.v1.Health/Check")
"""The one thing a Ray that asks for a token tells anybody: that a process is alive, which gRPC itself answers."""


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

    def arrived(self) -> dict[str, dict[str, Any]]:
        """The truth log of the endpoint, by request id."""
        whole, _, _ = self.truth.read_text().rpartition("\n")
        records = (json.loads(line) for line in whole.splitlines())
        return {record["request_id"]: record for record in records}

    def wait_for_requests(self, many: int, process: Any) -> None:
        """Waits until the endpoint has had as many requests; the run that sends them may not end before."""

        def arrived() -> bool:
            enough = len(self.arrived()) >= many
            assert enough or process.poll() is None, process.communicate()
            return enough

        until(arrived, lambda: f"{len(self.arrived())} of {many} requests", within_s=240.0, every_s=0.2)


def serve(made: Lab) -> Path:
    """Starts the endpoint of the lab; where its truth log is."""
    truth = made.folder / "truth.jsonl"
    served = made.start("ctl", sys.executable, str(HERE / "endpoint.py"), str(truth))
    assert served.stdout is not None
    assert served.stdout.readline() == "ready\n"
    return truth


NODES = f"""
import json, os, urllib.request
request = urllib.request.Request("{JOBS}/api/v0/nodes")
request.add_header("Authorization", "Bearer " + open(os.environ["RAY_AUTH_TOKEN_PATH"]).read().strip())
nodes = json.load(urllib.request.urlopen(request, timeout=5))["data"]["result"]["result"]
print(json.dumps([node["node_ip"] for node in nodes if node["state"] == "ALIVE"]))
"""


def wait_for_nodes(made: Lab, many: int, wait_s: float = 120) -> None:
    """Waits until as many nodes are alive as the head knows them."""
    out = ""

    def alive() -> bool:
        nonlocal out
        process = made.start("ctl", sys.executable, "-c", NODES)
        out, _ = process.communicate(timeout=30)
        return process.returncode == 0 and len(json.loads(out)) >= many

    until(alive, lambda: out, wait_s, every_s=1.0)


def rows_of(run_dir: Path) -> list[dict[str, Any]]:
    """Every row of a run."""
    run = RunDir.open(run_dir)
    return [row for trial in run.manifest()["trials"] for row in run.requests(trial).to_pylist()]


def answers_to_strangers(made: Lab, name: str) -> list[Any]:
    """What any port of a node answers without the token; [port, method, path, status] each."""
    open_ports = listening(made, name)
    assert len(open_ports) > 5
    places = [f"{'127.0.0.1' if address in ('0.0.0.0', '::') else address}:{port}" for address, port in open_ports]
    answers = asked(made, name, places)
    assert {answer[3] for answer in answers if answer[1] != "GRPC"} == {401}, f"{name}: {answers}"
    assert 401 in {answer[3] for answer in answers if answer[1] == "GRPC"}, (
        f"{name} asked nobody for a token: {answers}"
    )
    return answers


def asked(made: Lab, name: str, places: list[str], token: str = "") -> list[Any]:
    """What these ports of a node answer to everything there is to ask."""
    words = [sys.executable, str(HERE / "probe.py"), *places]
    answers: list[Any] = json.loads(made.call(name, *words, environ={"PROBE_TOKEN": token}))
    return answers


def told(answers: list[Any]) -> list[Any]:
    """The answers to what was asked, but for `PUBLIC`."""
    return [answer for answer in answers if 200 <= answer[3] < 300 and tuple(answer[1:3]) != PUBLIC]
