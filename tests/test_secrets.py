"""No secret that a run could see is in what it leaves: logs, rows, reports, job metadata, Ray's own files."""

import base64
import gzip
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted import Planted
from simulated import Keys, simulator
from test_submit import PORTS, UNSET, ended, free_ports, wait_for_jobs

from raybench.cluster.frames import ship

NAMES = (
    *("session_token", "other_secret_key", "other_session_token", "default_secret_key", "netrc", "dotenv"),
    *("bedrock_token", "container_token", "hf_token", "openai_key", "github_token", "vault_token", "job_header"),
    *("database_password", "proxy_password", "url_password", "config_password"),
)


def planted() -> Planted:
    """Twenty secrets, new ones each time."""
    made = {name: f"{name[:2]}{secrets.token_hex(20)}" for name in NAMES}
    used = {"access_key": f"AKIA{secrets.token_hex(8).upper()}", "secret_key": secrets.token_hex(20)}
    return Planted({**used, **made, "ray_token": secrets.token_hex(32)})


CANARIES = planted()
S = CANARIES.secrets

CONFIG = """\
name: secret
experiments:
  - {{name: streams, endpoint: {{name: good, url: {good}}}, route: stream, instance_type: ml.g5.xlarge}}
  - {{name: chat, endpoint: {{name: chat, url: {good}}}, route: openai, dialect: openai, instance_type: ml.g5.xlarge}}
  - {{name: echoes, endpoint: {{name: bad, url: {bad}}}, route: invoke, instance_type: ml.g5.xlarge}}
  - {{name: echoed, endpoint: {{name: bad, url: {bad}}}, route: openai, dialect: openai, instance_type: ml.g5.xlarge}}
payloads:
  - {{name: short, dataset: {{synthetic: {{prompts: 50, tokens: [10, 30]}}}}}}
loads:
  - {{kind: closed, concurrency: 2, requests: 10}}
"""
FAST = {"profile": "fixed", "overrides": {"ttft_s": 0.01, "itl_s": 0.005, "tokens": 4}}


class Echo(BaseHTTPRequestHandler):
    """A server that fails and tells what it was told, as signature errors do; its status is in the path."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        told = sorted(self.headers.items(), key=lambda each: each[0] not in ("Authorization", "X-Amz-Security-Token"))
        said = json.dumps({"Message": " ".join(f"{name}:{value}" for name, value in told)}).encode()
        self.send_response(int(self.path.split("/")[1]))
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing on stderr."""


@contextmanager
def echo() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@dataclass
class Left:
    """What is left behind: folders and files, and what commands said, by name."""

    folder: Path
    places: list[Path] = field(default_factory=list)

    def run(self, name: str, environ: Mapping[str, str], *words: str | Path) -> int:
        """Runs a command, here; keeps what it says."""
        ended = subprocess.run(
            [*map(str, words)], env=environ, capture_output=True, text=True, timeout=240, check=False
        )
        said = self.folder / f"{name}.said"
        said.write_text(f"{ended.stdout}\n{ended.stderr}")
        self.places.append(said)
        return ended.returncode

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.said").read_text()


def home(folder: Path) -> Path:
    """A home with credentials in it, and secrets beside the configs."""
    (folder / ".aws").mkdir(parents=True)
    (folder / ".aws" / "credentials").write_text(
        f"[used]\naws_access_key_id = {S['access_key']}\naws_secret_access_key = {S['secret_key']}\n"
        f"aws_session_token = {S['session_token']}\n"
        f"[other]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = {S['other_secret_key']}\n"
        f"aws_session_token = {S['other_session_token']}\n"
    )
    (folder / ".aws" / "config").write_text(
        f"[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = {S['default_secret_key']}\n"
    )
    (folder / ".netrc").write_text(f"machine example.com login me password {S['netrc']}\n")
    (folder / ".env").write_text(f"API_KEY={S['dotenv']}\n")
    return folder


def surroundings(folder: Path) -> dict[str, str]:
    """The environment of a careless user."""
    return {
        **{key: value for key, value in os.environ.items() if key not in UNSET and not key.startswith("AWS_")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "AWS_PROFILE": "used",
        "AWS_REGION": "us-west-2",
        "AWS_BEARER_TOKEN_BEDROCK": S["bedrock_token"],
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": S["container_token"],
        "HF_TOKEN": S["hf_token"],
        "OPENAI_API_KEY": S["openai_key"],
        "GITHUB_TOKEN": S["github_token"],
        "VAULT_TOKEN": S["vault_token"],
        "DATABASE_URL": f"postgres://me:{S['database_password']}@localhost/db",
        "HTTPS_PROXY": f"http://me:{S['proxy_password']}@127.0.0.1:9",
        "NO_PROXY": "*",
        "RAY_JOB_HEADERS": json.dumps({"X-Proxy-Authorization": f"Bearer {S['job_header']}"}),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": S["ray_token"],
        "RAY_USAGE_STATS_ENABLED": "0",
    }


ABOUT = """\
import json, sys
from ray.job_submission import JobSubmissionClient
print(json.dumps([job.dict() for job in JobSubmissionClient(sys.argv[1]).list_jobs()], default=str))
"""


@contextmanager
def head(environ: Mapping[str, str], folder: Path) -> Iterator[str]:
    """A Ray head with a dashboard of its own; its address."""
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    words = [f"--{name}={port}" for name, port in ports.items()]
    words += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={folder / 'ray'}"]
    words += ["--num-cpus=2", "--object-store-memory=200000000", "--block"]
    ray = str(Path(sys.executable).parent / "ray")
    with (folder / "head.log").open("w") as log:
        command = [ray, "start", "--head", *words]
        started = subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True)
    with ended(started, folder):
        wait_for_jobs(started, ports["dashboard-port"], folder)
        yield f"http://127.0.0.1:{ports['dashboard-port']}"


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Left]:
    """A run here, the same as a job, and runs that are refused; and all that they leave."""
    folder = home(tmp_path_factory.mktemp("home"))
    environ, found = surroundings(folder), Left(tmp_path_factory.mktemp("left"))
    ours, theirs = (Path(tempfile.mkdtemp(prefix="rb-", dir="/tmp")) for _ in range(2))
    run = (sys.executable, "-m", "raybench")
    keys = Keys(S["access_key"], S["secret_key"], "us-west-2")
    try:
        with (
            simulator({"good": FAST, "chat": FAST}, keys=keys, session_token=S["session_token"]) as running,
            echo() as bad,
        ):
            config = folder / "secret.yaml"
            config.write_text(CONFIG.format(good=running.url, bad=f"{bad}/500"))
            code = found.run(
                "run", {**environ, "RAY_TMPDIR": str(ours)}, *run, "run", config, "--out", found.folder / "run"
            )
            assert code in (0, 3), found.said("run")
            with head(environ, theirs) as address:
                words = ("submit", config, "--address", address, "--out", found.folder / "job")
                code = found.run("submit", environ, *run, *words)
                assert code in (0, 3), found.said("submit")
                assert found.run("jobs", environ, sys.executable, "-c", ABOUT, address) == 0
            config.write_text(CONFIG.format(good=f"{bad}/403", bad=f"{bad}/403"))
            assert found.run("refused", environ, *run, "run", config, "--out", found.folder / "refused") == 5
            config.write_text(CONFIG.format(good=f"http://me:{S['config_password']}@127.0.0.1:9", bad=bad))
            assert found.run("config", environ, *run, "run", config, "--out", found.folder / "config") == 2
            config.write_text(CONFIG.format(good=running.url, bad=bad).replace(f", url: {running.url}", ""))
            there = {**environ, "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": f"http://me:{S['url_password']}@127.0.0.1:9"}
            assert found.run("address", there, *run, "run", config, "--out", found.folder / "address") == 2
        found.places += [found.folder, ours, theirs]
        yield found
    finally:
        for made in (ours, theirs):
            shutil.rmtree(made, ignore_errors=True)


@pytest.mark.ray
def test_none_of_twenty_secrets_is_in_anything_that_runs_leave(left: Left) -> None:
    assert len(S) == 20
    kinds = {path.suffix for place in left.places for path in place.rglob("*") if path.is_file()}
    assert {".parquet", ".html", ".md", ".json", ".log", ".out", ".err", ".yaml"} <= kinds
    assert '"entrypoint"' in left.said("jobs")
    assert CANARIES.found(left.places) == []


@pytest.mark.ray
def test_the_secrets_were_used_and_an_endpoint_that_echoes_them_is_still_understood(left: Left) -> None:
    for run_dir in (left.folder / "run", left.folder / "job"):
        manifest = json.loads((run_dir / "run.json").read_text())
        for trial in manifest["trials"]:
            (part,) = run_dir.glob(f"requests/experiment={trial['experiment']}/**/*.parquet")
            rows = pq.read_table(part, partitioning=None).to_pylist()
            if trial["experiment"] in ("streams", "chat"):
                assert {row["outcome"] for row in rows} == {"ok"}
            else:
                assert all(re.search("uthorization", row["error_message"]) for row in rows)
    assert "HTTP 403" in left.said("refused")


def write(kind: str, path: Path, line: bytes) -> None:
    """A file with this line in it, in one way or another."""
    deep = pa.table({"many": [["a", line.decode()], [""]] * 50})
    if kind == "text":
        path.write_bytes(line)
    elif kind == "base64":
        path.write_bytes(b"Bearer " + base64.b64encode(line))
    elif kind == "values":
        pq.write_table(deep, path, compression="zstd")
    elif kind == "metadata":
        pq.write_table(deep.select([]).replace_schema_metadata({"key": line}), path)
    elif kind == "gzip":
        path.write_bytes(gzip.compress(line))
    elif kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("inside", line * 3)


KINDS = ("text", "base64", "values", "metadata", "gzip", "zip")


@pytest.mark.parametrize("kind", KINDS)
def test_the_search_finds_a_secret_in_every_kind_of_file(kind: str, tmp_path: Path) -> None:
    write(kind, tmp_path / "file", f"x {S['hf_token']} y".encode())
    assert {name for name, _ in CANARIES.found([tmp_path])} == {"hf_token"}
    assert planted().found([tmp_path]) == []


@pytest.mark.parametrize("kind", ["text", "values"])
def test_the_search_finds_a_secret_in_the_run_directory_that_a_job_logged(kind: str, tmp_path: Path) -> None:
    made, log = tmp_path / "made", tmp_path / "deep" / "job.log"
    made.mkdir()
    log.parent.mkdir()
    write(kind, made / "file", f"x {S['hf_token']} y".encode())
    log.write_text("\n".join(["a log", *ship(made), "its end"]))
    assert {name for name, _ in CANARIES.found([log.parent])} == {"hf_token"}
    assert planted().found([log.parent]) == []
