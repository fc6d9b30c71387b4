"""`raybench submit`: what it packs, what it takes back, and a whole job on a head of its own with a token."""

import base64
import io
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow.parquet as pq
import pytest
from aiohttp import ServerDisconnectedError
from buckets import BUCKET, StandIn, bucket
from typer.testing import CliRunner
from waiting import until

from raybench import __version__
from raybench.cli import app
from raybench.cluster import environment, jobs
from raybench.cluster import submit as submitting
from raybench.cluster.frames import FRAME, ship, unpack
from raybench.cluster.jobs import is_open
from raybench.cluster.monitor import Screen
from raybench.cluster.submit import _submit, pack
from raybench.config import load_config
from raybench.errors import ClusterError, InfrastructureError, InputError, InterruptedRunError, RaybenchError
from raybench.rundir import RunDir
from raybench.s3 import Prefix, prefix

CONFIG = """\
name: tiny
experiments:
  - {{name: fast, instance_type: ml.g5.xlarge, endpoint: {endpoint}, route: stream, price_per_hour: 1.0}}
payloads:
  - {{name: short, dataset: {dataset}, tokens: [1, 500]{template}}}
loads:
  - {{kind: closed, concurrency: 2, {length}, warmup: 200ms}}
"""
SIMULATED = "{simulate: fixed, overrides: {ttft_s: 0.03, itl_s: 0.005, tokens: 8}}"
SYNTHETIC = "{synthetic: {prompts: 500, tokens: [10, 30]}}"


def config(
    folder: Path,
    *,
    endpoint: str = SIMULATED,
    dataset: str = SYNTHETIC,
    template: str = "",
    length: str = "requests: 60",
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.yaml"
    path.write_text(CONFIG.format(endpoint=endpoint, dataset=dataset, template=template, length=length))
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def prompts(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"prompt": "Say something about the sea."}\n')
    return path


def test_the_package_is_the_config_and_the_files_it_names_and_nothing_else(tmp_path: Path) -> None:
    home = tmp_path / "home"
    prompts(home / "data" / "prompts.jsonl")
    for secret in (".env", ".aws/credentials", "configs/.netrc", "data/other.jsonl", ".ray/auth_token"):
        (home / secret).parent.mkdir(parents=True, exist_ok=True)
        (home / secret).write_text("CANARY")
    written = config(home / "configs", dataset="{jsonl: ../data/prompts.jsonl}")
    entry = pack(load_config(written), tmp_path / "package")
    assert entry == Path("configs/tiny.yaml")
    packed = files(tmp_path / "package")
    assert sorted(packed) == ["configs/tiny.yaml", "data/prompts.jsonl"]
    assert packed["configs/tiny.yaml"] == written.read_bytes()


def test_the_package_stands_on_its_own(tmp_path: Path) -> None:
    prompts(tmp_path / "home" / "data" / "prompts.jsonl")
    written = config(tmp_path / "home" / "configs", dataset="{jsonl: ../data/prompts.jsonl}")
    entry = pack(load_config(written), tmp_path / "package")
    shutil.rmtree(tmp_path / "home")
    assert load_config(tmp_path / "package" / entry).name == "tiny"


def test_a_path_that_only_this_machine_has_is_refused(tmp_path: Path) -> None:
    path = prompts(tmp_path / "elsewhere" / "prompts.jsonl")
    written = config(tmp_path / "home", dataset=f"{{jsonl: {path}}}")
    with pytest.raises(InputError, match=r"prompts\.jsonl: is a path of this machine; a path relative to the config"):
        pack(load_config(written), tmp_path / "package")


def test_a_link_is_packed_as_the_file_it_leads_to(tmp_path: Path) -> None:
    path = prompts(tmp_path / "store" / "v1" / "prompts.jsonl")
    home = tmp_path / "home"
    home.mkdir()
    (home / "prompts.jsonl").symlink_to(path)
    pack(load_config(config(home, dataset="{jsonl: prompts.jsonl}")), tmp_path / "package")
    copy = tmp_path / "package" / "prompts.jsonl"
    assert not copy.is_symlink()
    assert copy.read_bytes() == path.read_bytes()


def test_what_is_shipped_comes_back_whole_and_the_simulators_truth_stays(tmp_path: Path) -> None:
    made = tmp_path / "made"
    (made / "requests" / "experiment=a%2Fb").mkdir(parents=True)
    (made / "run.json").write_text("{}")
    (made / "requests" / "experiment=a%2Fb" / "part-0000.parquet").write_bytes(os.urandom(100_000))
    (made / "truth.jsonl").write_text("what the server did")
    lines = list(ship(made))
    assert all(line.startswith(FRAME) and len(line) < 5000 for line in lines)
    unpack(lines, tmp_path / "out")
    expected = files(made)
    del expected["truth.jsonl"]
    assert files(tmp_path / "out") == expected
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def framed(*members: tarfile.TarInfo) -> list[str]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return [FRAME + base64.b64encode(buffer.getvalue()).decode()]


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, 1 if kind == tarfile.REGTYPE else 0
    return made


@pytest.mark.parametrize(
    "hostile",
    [
        member("../escaped"),
        member("a/../../escaped"),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("link", tarfile.SYMTYPE, "../escaped"),
        member("link", tarfile.LNKTYPE, "good"),
        member("fifo", tarfile.FIFOTYPE),
        member("device", tarfile.CHRTYPE),
    ],
    ids=lambda hostile: f"{hostile.name}-{hostile.type.decode()}",
)
def test_a_member_that_is_not_a_file_below_the_run_directory_is_refused(
    tmp_path: Path, hostile: tarfile.TarInfo
) -> None:
    with pytest.raises(InfrastructureError, match="did not come back whole"):
        unpack(framed(member("good"), hostile), tmp_path / "inside" / "out")
    assert files(tmp_path) == {}, "nothing is left, inside or out"


def test_an_absolute_path_is_taken_below_the_run_directory(tmp_path: Path) -> None:
    unpack(framed(member("/etc/raybench-hostile")), tmp_path / "out")
    assert list(files(tmp_path)) == ["out/etc/raybench-hostile"]


@pytest.mark.parametrize("cut", [0, 1, 10])
def test_lines_that_are_cut_short_leave_nothing(tmp_path: Path, cut: int) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / "rows").write_bytes(os.urandom(50_000))
    lines = list(ship(made))
    with pytest.raises(InfrastructureError, match="did not come back whole"):
        unpack(lines[:cut], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@dataclass
class Jobs:
    """Takes jobs as Ray's client does, and keeps their entry points and the last one's environment."""

    entries: list[list[str]] = field(default_factory=list, kw_only=True)
    environ: Mapping[str, str] = field(default_factory=dict, kw_only=True)

    def submit_job(self, entrypoint: str, runtime_env: Mapping[str, Any], **_: object) -> str:
        self.entries.append(shlex.split(entrypoint))
        self.environ = runtime_env["env_vars"]
        return f"job-{len(self.entries)}"

    def get_address(self) -> str:
        return "http://head:8265"


def test_the_same_config_submitted_twice_runs_in_two_directories() -> None:
    taking: Any = Jobs()
    for _ in range(2):
        _submit(taking, "package", Path("tiny.yaml"), None)
    first, second = (words[words.index("--out") + 1] for words in taking.entries)
    assert first != second


@dataclass
class Followed(Jobs):
    """Shows the log of its job and then no more, since it is `broken` or because the other side ended it.

    The job is in its `state` once it was looked at `late` times.
    """

    state: str = "RUNNING"
    code: int | None = None
    broken: BaseException | None = None
    log: str = "measuring\n"
    late: int = 0

    async def tail_job_logs(self, _: str) -> AsyncIterator[str]:
        yield self.log
        if self.broken:
            raise self.broken

    def get_job_info(self, _: str) -> Any:
        from ray.job_submission import JobDetails, JobStatus, JobType

        self.late -= 1
        state = JobStatus(self.state if self.late < 0 else "RUNNING")
        return JobDetails(
            type=JobType.SUBMISSION,
            entrypoint="",
            status=state,
            driver_exit_code=self.code if state.is_terminal() else None,
            runtime_env={"env_vars": self.environ},
        )

    def stop_job(self, _: str) -> bool:
        return self.state == "RUNNING"


def frames(folder: Path) -> list[str]:
    """The log lines of a run directory, more than one of them."""
    made = folder / "made"
    made.mkdir()
    (made / "run.json").write_text(secrets.token_hex(20_000))
    return [f"{line}\n" for line in ship(made)]


@pytest.fixture
def followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`submit` of a job that is given."""

    def follow(job: Followed, address: str = jobs.JOBS, to: Prefix | None = None) -> int:
        monkeypatch.setattr(jobs, "client", lambda _: job)
        return submitting.submit(load_config(config(tmp_path)), address, tmp_path / "run", Screen(), to)

    monkeypatch.setattr(jobs, "is_open", lambda _: False)
    monkeypatch.setattr(submitting, "LOOK_S", 0.0)
    return follow


LOST_SIGHT = "lost sight of job-1, which `raybench attach job-1` follows again"
KILLED = "job-1 was killed (signal 9): what it measured is in its run directory"


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (Followed(broken=ConnectionResetError("reset by peer")), f"{LOST_SIGHT}: reset by peer"),
        (Followed(broken=ServerDisconnectedError()), f"{LOST_SIGHT}: Server disconnected"),
        (Followed(), LOST_SIGHT),
        (Followed("FAILED"), "job-1 failed: no reason given"),
        (Followed("FAILED", -9), KILLED),
        (Followed("FAILED", 137), KILLED),
    ],
    ids=["reset", "disconnected", "closed", "failed", "killed", "killed below a shell"],
)
@pytest.mark.parametrize("framed", [False, True])
def test_a_job_that_is_out_of_sight_or_dead_is_one_line_that_says_what_can_be_done(
    job: Followed,
    said: str,
    framed: bool,
    followed: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = job.log + framed * "".join(frames(tmp_path))[:-5000]  # in the middle of a line
    with pytest.raises(ClusterError) as ended:
        followed(replace(job, log=log, entries=[]))
    assert str(ended.value).startswith(said)
    assert not (tmp_path / "run").exists()
    assert FRAME not in capsys.readouterr().err


@pytest.mark.parametrize(("state", "code"), [("RUNNING", None), ("FAILED", -9), ("STOPPED", None), ("SUCCEEDED", 0)])
def test_the_run_directory_comes_from_s3_only_when_the_run_is_over(
    state: str, code: int | None, followed: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitting, "Store", lambda to: to)
    monkeypatch.setattr(submitting, "fetch", lambda _, out: out.mkdir())
    with suppress(RaybenchError):
        followed(Followed(state, code), to=prefix("s3://bucket/monday"))
    assert (tmp_path / "run").exists() is (state != "RUNNING")


def test_a_job_that_ends_a_moment_after_its_log_is_not_lost_from_sight(
    followed: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitting, "LOOK_S", 60.0)
    monkeypatch.setattr(submitting, "LOOK_EVERY_S", 0.0)
    assert followed(Followed("FAILED", 3, late=2, log="".join(frames(tmp_path)))) == 3
    assert files(tmp_path / "run") == files(tmp_path / "made")


def test_a_run_directory_that_comes_in_part_is_an_error_of_a_job_that_returned(
    followed: Callable[..., int], tmp_path: Path
) -> None:
    with pytest.raises(InfrastructureError, match="did not come back whole"):
        followed(Followed("SUCCEEDED", 0, log="".join(frames(tmp_path)[:-1])))


@pytest.mark.parametrize("code", [193, 255])
def test_an_exit_code_beyond_every_signal_is_passed_on(code: int, followed: Callable[..., int]) -> None:
    assert followed(Followed("FAILED", code)) == code


@pytest.mark.parametrize("address", [jobs.JOBS, "http://head:8265"])
def test_what_can_be_typed_next_leads_to_the_same_cluster(address: str, followed: Callable[..., int]) -> None:
    there = "" if address == jobs.JOBS else " --address http://head:8265"
    with pytest.raises(ClusterError) as lost:
        followed(Followed(), address)
    assert str(lost.value) == f"lost sight of job-1, which `raybench attach job-1{there}` follows again"
    with pytest.raises(InterruptedRunError) as left:
        followed(Followed(broken=KeyboardInterrupt()), address)
    attach, stop = f"`raybench attach job-1{there}`", f"`raybench stop job-1{there}`"
    assert str(left.value) == f"job-1 goes on without us: {attach} follows it again, {stop} ends it"


def test_ctrl_c_at_any_time_after_the_job_was_taken_names_it(
    followed: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: str) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "is_open", interrupted)
    with pytest.raises(InterruptedRunError, match="job-1 goes on without us: `raybench attach job-1`"):
        followed(Followed())
    assert capsys.readouterr().err.endswith(f"s  submitted job-1 to {jobs.JOBS}\n")


WAITS = {"RAY_JOB_STOP_WAIT_TIME_S": "600"}


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (Followed(environ=WAITS), []),
        (
            Followed(),
            [
                "Ray by default kills job-1 in 3 s, drained or not; `ray job submit --runtime-env-json "
                """'{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "600"}}' …` leaves it the time"""
            ],
        ),
        (Followed("SUCCEEDED", environ=WAITS), ["job-1 was not running; its state is SUCCEEDED"]),
        (Followed("FAILED"), ["job-1 was not running; its state is FAILED"]),
    ],
    ids=["drains", "is killed", "succeeded", "failed"],
)
def test_stop_says_when_a_job_will_not_drain_or_has_ended(
    job: Followed, said: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jobs, "client", lambda _: job)
    stopped = CliRunner().invoke(app, ["stop", "job-1"])
    assert stopped.exit_code == 0
    assert [line.split(" s  ", 1)[1] for line in stopped.stderr.splitlines()] == said


def test_a_job_of_ours_is_submitted_with_time_to_drain() -> None:
    taking: Any = Jobs()
    _submit(taking, "package", Path("tiny.yaml"), None)
    assert taking.environ.items() >= WAITS.items()


class Asked(BaseHTTPRequestHandler):
    """Answers as Ray's Jobs API does, with the status and page of its class."""

    status, page = 200, b'{"version": "4", "ray_version": "2.60.0"}'

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/api/version" else 404)
        self.end_headers()
        self.wfile.write(self.page)

    def log_message(self, *_: object) -> None:
        pass


class Refusing(Asked):
    status = 401


class Fronted(Asked):
    page = b"<html>log in first</html>"


@pytest.mark.parametrize(("kind", "answers"), [(Asked, True), (Refusing, False), (Fronted, False)])
def test_a_jobs_api_that_answers_without_a_token_is_known(kind: type[Asked], answers: bool) -> None:
    with HTTPServer(("127.0.0.1", 0), kind) as server:
        Thread(target=server.handle_request, daemon=True).start()
        assert is_open(f"http://127.0.0.1:{server.server_port}") is answers
    assert not is_open(f"http://127.0.0.1:{server.server_port}"), "nobody is there any more"


class Stopping(Asked):
    """Stops every job, and keeps which it was asked to."""

    def do_POST(self) -> None:
        assert isinstance(self.server, Cluster)
        self.server.stopped.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"stopped": true}')


class Cluster(ThreadingHTTPServer):
    """A stand-in for the Jobs API of a cluster."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Stopping)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.stopped: list[str] = []


@contextmanager
def served() -> Iterator[Cluster]:
    with Cluster() as made:
        Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield made
        finally:
            made.shutdown()


def test_the_address_that_is_given_decides_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    with served() as given, served() as other:
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
            monkeypatch.setenv(name, other.address)
        assert jobs.client(given.address).stop_job("job-1")
    assert (given.stopped, other.stopped) == (["/api/jobs/job-1/stop"], [])


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("127.0.0.1:8265", "write http://127.0.0.1:8265"),
        ("head:8265", "write http://head:8265"),
        ("auto", "write http://HOST:PORT"),
        ("ray://head:10001", "write http://HOST:PORT"),
        ("http://", "write http://HOST:PORT"),
    ],
)
@pytest.mark.parametrize("verb", ["submit", "attach", "stop"])
def test_an_address_that_leads_to_no_jobs_api_is_refused_at_once(
    verb: str, address: str, allowed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    subject = str(config(tmp_path)) if verb == "submit" else "job-1"
    refused = CliRunner().invoke(app, [verb, subject, "--address", address])
    assert isinstance(refused.exception, InputError)
    assert str(refused.exception) == f"--address: {address}: is no Ray Jobs API; {allowed}"


def test_an_error_of_rays_own_is_one_line() -> None:
    from ray.exceptions import RayError

    with pytest.raises(ClusterError) as refused, jobs.failures("no Ray jobs at http://head:8265"):
        raise RayError("Timed out\nwhile waiting for the GCS")
    assert str(refused.value) == "no Ray jobs at http://head:8265: Timed out"


@pytest.mark.parametrize("answers", [True, False])
def test_submit_warns_in_one_line_where_no_token_is_asked_for(
    answers: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jobs, "client", lambda _: Jobs())
    monkeypatch.setattr(jobs, "is_open", lambda _: answers)
    monkeypatch.setattr(submitting, "_fetch", lambda *_: 0)
    submitting.submit(load_config(config(tmp_path)), "http://head:8265", tmp_path / "run", Screen())
    first, *warned = capsys.readouterr().err.splitlines()
    assert first.endswith("s  submitted job-1 to http://head:8265")
    assert len(warned) == answers
    assert all("http://head:8265 asks for no token: whoever reaches it runs code there" in line for line in warned)


def test_a_run_that_was_refused_ships_nothing_of_the_one_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    words = ["run", str(config(tmp_path)), "--out", str(tmp_path / "run"), "--ship"]
    refused = CliRunner().invoke(app, words)
    assert isinstance(refused.exception, InputError)
    assert FRAME not in refused.output


def test_an_address_where_nobody_answers_is_refused_at_once() -> None:
    environment.prepare(local=True)
    from raybench.cluster.fleet import cluster  # Ray, which must not be there before

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and never listening
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ClusterError, match=f"no Ray cluster at '{address}': .*refused"), cluster(address):
            pass


@pytest.mark.parametrize("port", ["-1", "99999"])
def test_a_port_that_is_none_is_refused_and_not_another_one_served(port: str) -> None:
    refused = CliRunner().invoke(app, ["simulate", "--port", port])
    assert refused.exit_code == 2
    assert "--port" in refused.output


@pytest.mark.parametrize("words", [["version"], ["--version"]])
def test_the_version_is_asked_for_in_either_way(words: list[str]) -> None:
    assert CliRunner().invoke(app, words).stdout == f"{__version__}\n"


@pytest.mark.parametrize(("inside", "default"), [(False, "local"), (True, "auto")])
@pytest.mark.parametrize("verb", ["run", "selftest"])
def test_the_address_that_is_not_given_is_the_jobs_own_cluster_inside_a_ray_job(
    verb: str, inside: bool, default: str
) -> None:
    environ = {key: value for key, value in os.environ.items() if key != environment.JOB}
    command = [sys.executable, "-m", "raybench", verb, "--help"]
    told = subprocess.run(
        command,
        env=environ | ({environment.JOB: "{}"} if inside else {}) | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=True,
    )
    (said,) = re.findall(r"Ray cluster:.*?\[default: (\w+)\]", " ".join(told.stdout.split()))
    assert said == default


@dataclass(frozen=True)
class Head:
    """A Ray head of this test alone."""

    address: str
    folder: Path
    environ: Mapping[str, str]

    def start(
        self, *words: str | Path, environ: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "raybench", *map(str, words), "--address", self.address]
        return subprocess.Popen(
            command,
            env={**self.environ, **(environ or {})},
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def call(self, code: str, *words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", code, self.address, *words]
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=120, check=False)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


PORTS = (
    "port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "node-manager-port",
    "object-manager-port",
    "ray-client-server-port",
)
UNSET = ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH", "RAY_API_SERVER_ADDRESS", "RAY_JOB_HEADERS")


@pytest.fixture(scope="module")
def results() -> Iterator[StandIn]:
    with bucket() as standin:
        yield standin


@pytest.fixture(scope="module")
def head(results: StandIn) -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="rb-", dir="/tmp"))
    environ = {
        **{key: value for key, value in os.environ.items() if key not in UNSET},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_enable_metrics_collection": "0",
        "DASHBOARD_METRIC_PORT": "-1",
        "AUTOSCALER_METRIC_PORT": "-1",
        "AWS_ACCESS_KEY_ID": "AKIDTEST",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-west-2",
    }
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    words = [f"--{name}={port}" for name, port in ports.items()]
    words += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={folder / 'ray'}"]
    words += ["--num-cpus=2", "--object-store-memory=200000000", "--block"]
    log = (folder / "head.log").open("w")
    ray = str(Path(sys.executable).parent / "ray")
    started = subprocess.Popen(
        [ray, "start", "--head", *words], env=environ, stdout=log, stderr=log, start_new_session=True
    )
    address = f"http://127.0.0.1:{ports['dashboard-port']}"
    try:
        with ended(started, folder):
            wait_for_jobs(started, ports["dashboard-port"], folder)
            yield Head(address, folder, environ)
    finally:
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_jobs(started: "subprocess.Popen[bytes]", port: int, folder: Path) -> None:
    """Until the dashboard takes connections; it is the last thing a head starts."""
    log = folder / "head.log"

    def taken() -> bool:
        assert started.poll() is None, log.read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    until(taken, log.read_text, within_s=60.0, every_s=0.2)


@contextmanager
def ended(started: "subprocess.Popen[bytes]", folder: Path) -> Iterator[None]:
    """Ends the head with the block, and by their pids the processes that still name its folder."""
    try:
        yield
    finally:
        started.terminate()
        with suppress(subprocess.TimeoutExpired):
            started.wait(5)
        for pid in of_folder(folder):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        started.kill()
        started.wait()


def of_folder(folder: Path) -> list[int]:
    """The processes whose command line names `folder`, but for this one."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if str(folder).encode() in (entry / "cmdline").read_bytes():
                    pids.append(int(entry.name))
    return pids


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=180)
    return process.returncode, out, err


STATUS = """\
import sys
from ray.job_submission import JobSubmissionClient
info = JobSubmissionClient(sys.argv[1]).get_job_info(sys.argv[2])
print(info.driver_exit_code, info.runtime_env, info.metadata)
"""


LOGS = """\
import sys
from ray.job_submission import JobSubmissionClient
print(JobSubmissionClient(sys.argv[1]).get_job_logs(sys.argv[2]))
"""
STOP = """\
import sys
from raybench.cluster.monitor import Screen
from raybench.cluster.submit import stop
stop(sys.argv[2], sys.argv[1], Screen())
"""
ATTACH = """\
import sys
from pathlib import Path
from raybench.cluster.monitor import Screen
from raybench.cluster.submit import attach
sys.exit(attach(sys.argv[2], sys.argv[1], Path(sys.argv[3]), Screen()))
"""


def job_of(err: str) -> str:
    return next(word for line in err.splitlines() if "submitted" in line for word in line.split() if "ray" in word)


@pytest.mark.ray
def test_a_job_is_followed_and_its_run_directory_and_exit_code_come_back(head: Head, tmp_path: Path) -> None:
    prompts(tmp_path / "data" / "prompts.jsonl")
    written = config(tmp_path / "configs", dataset="{jsonl: ../data/prompts.jsonl}")
    code, out, err = finish(head.start("submit", written, "--out", tmp_path / "run"))
    assert code in (0, 3), err
    assert "1/1] fast short closed-2: 60 requests measured, 0 failed" in err
    assert FRAME not in err
    assert "asks for no token" not in err
    assert "Traceback" not in err
    assert out == f"report: {tmp_path / 'run' / 'report.html'}\n"

    (made,) = (path.parent for path in head.folder.glob("ray/session_2*/runtime_resources/**/run-*/run.json"))
    expected = files(made)
    truth = expected.pop("truth.jsonl").splitlines()
    assert files(tmp_path / "run") == expected
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    rows = RunDir(tmp_path / "run").requests(manifest["trials"][0]).to_pylist()
    assert {row["request_id"] for row in rows} < {json.loads(line)["request_id"] for line in truth}
    assert sum(row["phase"] == "measure" for row in rows) == 60
    assert pq.read_table(tmp_path / "run" / "trials.parquet")["ok"].to_pylist() == [60]

    told = head.call(STATUS, job_of(err)).stdout
    assert told.startswith(f"{code} ")
    assert head.environ["RAY_AUTH_TOKEN"] not in told + err + out


@pytest.mark.ray
def test_a_job_that_writes_to_s3_comes_back_from_there_and_later_too(
    head: Head, results: StandIn, tmp_path: Path
) -> None:
    url = f"s3://{BUCKET}/runs/job"
    code, out, err = finish(head.start("submit", config(tmp_path), "--out", url, cwd=tmp_path))
    assert code in (0, 3), err
    assert FRAME not in head.call(LOGS, job_of(err)).stdout, "nothing of it is in the log"
    (path,) = (tmp_path / "runs").iterdir()
    assert f"copying to {url} from" in err
    assert out == f"report: {path.relative_to(tmp_path) / 'report.html'}\n"
    (made,) = (path.parent for path in head.folder.glob("ray/session_2*/runtime_resources/**/runs/tiny-*/run.json"))
    fetched, expected = files(path), files(made)
    del expected["truth.jsonl"]
    assert fetched == expected
    attached = head.call(ATTACH, job_of(err), str(tmp_path / "later"))
    assert attached.returncode == code
    assert files(tmp_path / "later") == fetched
    taken, _, said = finish(head.start("submit", config(tmp_path), "--out", url, cwd=tmp_path))
    assert taken == 2
    assert f"{url}: is not empty" in said
    assert "fetched" not in said, "what is there is another run"
    assert list((tmp_path / "runs").iterdir()) == [path]
    results.mood = "403"
    try:
        denied = head.call(ATTACH, job_of(err), str(tmp_path / "denied"))
    finally:
        results.mood = None
    assert denied.returncode == code, "the job's own, whatever comes of its files"
    assert f"the run directory is in {url} and does not come from here: {url}: ListObjectsV2" in denied.stderr


ACTORS = """\
import sys
from ray.util.state import list_actors
print(*(each.name for each in list_actors(address=sys.argv[1])))
"""


@pytest.mark.ray
def test_a_run_that_ray_itself_is_given_as_a_job_is_played_by_that_jobs_cluster(head: Head, tmp_path: Path) -> None:
    written = config(tmp_path / "configs")
    written.write_text(written.read_text().replace("name: fast", "name: alone"))
    words = ["job", "submit", f"--address={head.address}", f"--working-dir={written.parent}"]
    command = [str(Path(sys.executable).parent / "ray"), *words, "--", "raybench", "run", "tiny.yaml"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "run")],
        env=head.environ,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert "joining Ray at auto" in done.stdout, done.stdout + done.stderr
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    rows = RunDir(tmp_path / "run").requests(manifest["trials"][0]).to_pylist()
    assert sum(row["phase"] == "measure" for row in rows) == 60
    assert {row["actor"] for row in rows} == {"alone-0"}
    assert "/alone-0/" in head.call(ACTORS).stdout


@pytest.mark.ray
def test_the_exit_code_of_a_job_that_fails_is_passed_on(head: Head, tmp_path: Path) -> None:
    written = config(tmp_path, endpoint="{name: nobody, url: 'http://127.0.0.1:9'}")
    code, _, err = finish(head.start("submit", written, "--out", tmp_path / "run"))
    assert code == 5
    assert "raybench: endpoint 'nobody'" in err
    assert " INFO dashboard" not in err.replace("\t", " "), "Ray's own chatter stays away"
    assert "Traceback" not in err


@pytest.mark.ray
def test_a_wrong_token_is_one_line_that_says_what_to_set(head: Head, tmp_path: Path) -> None:
    process = head.start("submit", config(tmp_path), environ={"RAY_AUTH_TOKEN": "0" * 64})
    code, _, err = finish(process)
    assert code == 5
    assert err.splitlines()[-1].startswith(f"raybench: no Ray jobs at {head.address}: it wants another token")
    assert "Traceback" not in err


@pytest.mark.ray
def test_a_job_outlives_who_submitted_it_and_can_be_attached_to_and_stopped(head: Head, tmp_path: Path) -> None:
    written = config(tmp_path, length="duration: 120s")
    process = head.start("submit", written, "--out", tmp_path / "run")
    assert process.stderr is not None
    err = ""
    for line in process.stderr:
        err += line
        if line.endswith("s  measuring\n"):
            break
    os.kill(process.pid, signal.SIGINT)
    code, _, rest = finish(process)
    job = job_of(err)
    assert code == 130
    assert f"raybench attach {job}" in rest
    assert head.call(STOP, job).returncode == 0
    attached = head.call(ATTACH, job, str(tmp_path / "later"))
    assert "InterruptedRunError: " + job in attached.stderr
    assert re.search(r"closed-2: \d+ requests measured, 0 failed", attached.stderr), (
        "the endpoint stays until the end"
    )
    assert "measuring" in attached.stderr, "the log from its first line"
    assert attached.stdout == f"report: {tmp_path / 'later' / 'report.html'}\n"
    assert json.loads((tmp_path / "later" / "run.json").read_text())["state"] == "interrupted"
