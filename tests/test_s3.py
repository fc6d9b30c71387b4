"""S3 over a real wire, to moto on 127.0.0.1: objects there and back, and every refusal one line."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from buckets import BUCKET, StandIn, bucket
from made import told
from waiting import until

from raybench import fetching, s3
from raybench.cluster import shipping
from raybench.cluster.monitor import Screen
from raybench.cluster.shipping import Shipping
from raybench.errors import EndpointError, InputError, InterruptedRunError, StorageError
from raybench.resume import resume
from raybench.rundir import RunDir

SECRET = "a-secret-of-the-test"


@pytest.fixture(scope="module")
def served() -> Iterator[StandIn]:
    with bucket() as standin:
        yield standin


@pytest.fixture
def standin(served: StandIn) -> Iterator[StandIn]:
    yield served
    served.mood = None


@pytest.fixture
def place(request: pytest.FixtureRequest, standin: StandIn) -> s3.Prefix:
    """A prefix of the test's own."""
    return s3.prefix(f"s3://{BUCKET}/runs/{request.node.name}")


def test_objects_come_back_as_they_were_put_whatever_their_names(place: s3.Prefix) -> None:
    store = s3.Store(place)
    objects = {
        "run.json": b"{}",
        "empty": b"",
        "requests/experiment=a%2Fb%20%3D%C3%A9/payload=p +é/part-0000.parquet": os.urandom(1000),
        "spool/e~p~x/e-0.rows.0.000000000000": os.urandom(12 * 2**20),
    }
    for key, data in objects.items():
        store.put(key, data)
    assert store.listed().keys() == objects.keys()
    assert {key: store.get(key) for key in objects} == objects


def test_a_place_is_read_from_its_url_and_the_aws_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*s3.ENDPOINTS, *s3.REGIONS):
        monkeypatch.delenv(name, raising=False)
    assert s3.prefix("s3://some.bucket-1/a/b c/") == s3.Prefix("some.bucket-1", "a/b c")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://all")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert s3.prefix("s3://bkt/a") == s3.Prefix("bkt", "a", "http://all", "eu-west-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3")
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    assert s3.prefix("s3://bkt/a") == s3.Prefix("bkt", "a", "http://s3", "us-west-2")


@pytest.mark.parametrize(
    "url",
    [
        *("s3://", "s3://b", "s3://bkt", "s3://bkt/", "s3:///a", "s3://UPPER/a", "s3://bkt//a", "s3://bkt/a//b"),
        *("s3://bkt/../a", "s3://bkt/a/.", "s3://b@kt/a", "s3://bkt/a\nb", "bkt/a"),
    ],
)
def test_a_url_that_means_no_place_is_wrong_input(url: str) -> None:
    with pytest.raises(InputError, match=r"is no place in S3; s3://bucket/prefix"):
        s3.prefix(url)


@pytest.mark.parametrize(("mood", "said"), [("503", "SLOW_DOWN"), ("403", "ACCESS_DENIED")])
def test_a_refusal_is_one_line_that_says_what_was_refused_and_why(
    mood: str, said: str, standin: StandIn, place: s3.Prefix
) -> None:
    standin.mood = mood
    store = s3.Store(place)
    for ask, operation in ((lambda: store.put("x", b"1"), "PutObject"), (store.listed, "ListObjectsV2")):
        with pytest.raises(StorageError) as raised:
            ask()
        assert str(raised.value) == f"{place}: {operation}: {said}: {said_by(mood)}, says the test"


def said_by(mood: str) -> str:
    return {"503": "SlowDown", "403": "AccessDenied"}[mood]


def test_a_prefix_that_has_something_below_it_is_refused(place: s3.Prefix) -> None:
    s3.free(place)
    s3.free(place, claim_s=-1.0)
    s3.Store(place).put("run.json", b"{}")
    with pytest.raises(InputError, match=r"is not empty; name a new or empty prefix with --out"):
        s3.free(place)


def test_of_two_runs_that_find_a_prefix_free_one_at_most_begins(place: s3.Prefix) -> None:
    s3.free(place)
    with pytest.raises(InputError, match=r"another run is about to begin in it; name another prefix with --out"):
        s3.free(place)


def test_a_server_that_says_nothing_is_not_waited_for() -> None:
    answer = threading.Event()

    def ask() -> None:
        answer.wait(30)

    with pytest.raises(StorageError, match=r"s3://bkt/a: no answer within 0 s"):
        s3.in_time(ask, s3.Prefix("bkt", "a"), 0.2)
    answer.set()


def ended(words: list[str], folder: Path) -> tuple[int, str]:
    command = [sys.executable, "-m", "raybench", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


CONFIG = """\
name: tiny
experiments: [{name: e, instance_type: ml.g5.xlarge, endpoint: {simulate: fixed}, price_per_hour: 1.0}]
payloads: [{name: p, dataset: {synthetic: {prompts: 9, tokens: [10, 30]}}, tokens: [1, 500]}]
loads: [{kind: closed, concurrency: 1, requests: 2}]
"""


@pytest.mark.parametrize(
    ("mood", "url", "code", "said"),
    [
        (None, "s3://missing-bucket/a", 5, "s3://missing-bucket/a: PutObject: NO_SUCH_BUCKET: The specified bucket"),
        ("403", f"s3://{BUCKET}/denied", 5, f"s3://{BUCKET}/denied: ListObjectsV2: ACCESS_DENIED: AccessDenied"),
        ("503", f"s3://{BUCKET}/busy", 5, f"s3://{BUCKET}/busy: ListObjectsV2: SLOW_DOWN: SlowDown"),
        (None, "s3://Wrong/a", 2, "s3://Wrong/a: is no place in S3; s3://bucket/prefix"),
    ],
)
def test_a_place_that_takes_nothing_is_one_line_before_anything_starts(
    mood: str | None, url: str, code: int, said: str, standin: StandIn, tmp_path: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    standin.mood = mood
    got, err = ended(["run", "tiny.yaml", "--out", url], tmp_path)
    assert got == code
    assert err.startswith(f"raybench: {said}")
    assert err.count("\n") == 1
    assert SECRET not in err
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"], "no run directory either"


def a_run(folder: Path) -> RunDir:
    run = RunDir.create(folder)
    run.write_manifest(told(name="n", state="running", started_utc="", finished_utc=None, trials=[]))
    return run


def test_a_run_is_whole_in_s3_when_shipping_ends(place: s3.Prefix, tmp_path: Path) -> None:
    run, said = a_run(tmp_path / "run"), list[str]()
    with Shipping(run.path, place, said.append):
        run.write("report.md", b"the end")
    assert s3.Store(place).get("report.md") == b"the end"
    assert said == [f"all of it is in {place}"]


def test_s3_that_refuses_at_the_end_is_one_error_that_says_where_the_rows_are(
    standin: StandIn, place: s3.Prefix, tmp_path: Path
) -> None:
    run = a_run(tmp_path / "run")

    def broken_by(error: Exception | None) -> None:
        with Shipping(run.path, place, said.append, every_s=0.01):
            standin.mood = "403"
            run.write("report.md", b"the end")
            if error:
                raise error

    where = rf"not all was copied: all rows are in {run.path} on {socket.gethostname()}"
    for error, tries in ((None, shipping.LAST_TRIES), (InterruptedRunError("enough"), 1)):
        standin.mood, standin.refused, said = None, 0, list[str]()
        with pytest.raises(StorageError, match=rf"PutObject: ACCESS_DENIED.*; {where}"):
            broken_by(error)
        assert standin.refused >= tries
    standin.mood, said = None, []
    with pytest.raises(EndpointError, match="gone"):
        broken_by(EndpointError("gone"))
    assert "not all was copied" in said[-1]


def test_more_than_may_wait_stops_the_run_and_less_does_not(
    standin: StandIn, place: s3.Prefix, tmp_path: Path
) -> None:
    run, said, spool = a_run(tmp_path / "run"), list[str](), "spool/t/a.rows"
    with Shipping(run.path, place, said.append, every_s=0.01, cap_bytes=2 * 2**20) as ships:
        standin.mood = "503"
        run.write(spool, bytes(2**20))
        until(lambda: said)
        assert said[0].endswith(f"SlowDown, says the test; the files wait on {socket.gethostname()}")
        refused = standin.refused
        until(lambda: standin.refused >= refused + 6)  # a whole round, of three tries each
        assert ships.failure is None
        run.write(spool, bytes(3 * 2**20))
        until(lambda: ships.failure)
        assert len(said) == 1, "said once"
        assert "; 3 MiB wait on" in str(ships.failure)
        assert f"more than the 2 that may; stopped: all rows are in {run.path} on" in str(ships.failure)
        standin.mood = None
        until(lambda: len(said) > 1)
        assert said[1:] == [f"{place} takes the files of {socket.gethostname()} again"]
    assert s3.Store(place).get("spool/t/a.rows.0.000000000000") == bytes(3 * 2**20)


def test_a_bug_in_the_copying_stops_the_run_and_is_told(place: s3.Prefix, tmp_path: Path) -> None:
    run, said = a_run(tmp_path / "run"), list[str]()
    manifest = run.manifest()
    with Shipping(run.path, place, said.append, every_s=0.01) as ships:
        run.write("run.json", b"{")
        until(lambda: ships.failure)
        run.write_manifest(manifest)
    assert f"copying to {place} broke off: JSONDecodeError" in str(ships.failure)
    assert f"stopped: all rows are in {run.path}" in str(ships.failure)
    assert said[0] == str(ships.failure)


def test_a_run_that_goes_on_is_not_taken_over_and_a_silent_one_is(
    place: s3.Prefix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run, said = a_run(tmp_path / "run"), list[str]()
    going_on = pytest.raises(InputError, match=r"a run is going on in it; stop it, or wait")
    with Shipping(run.path, place, said.append), going_on:
        fetching.taken_over(place, said.append)
    path = fetching.taken_over(place, said.append, alive_s=-1.0)
    assert RunDir(path).manifest() == run.manifest()
    assert path == Path("runs", place.name)


def test_a_run_json_in_s3_that_is_torn_is_one_line(place: s3.Prefix) -> None:
    s3.Store(place).put("run.json", b'{"state": "ru')
    with pytest.raises(InputError, match=r"its run\.json cannot be read: "):
        fetching.taken_over(place, print)


def test_a_run_that_ended_is_fetched_at_once_and_never_over_another(
    place: s3.Prefix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run, said = a_run(tmp_path / "run"), list[str]()
    run.write_manifest(run.manifest() | {"state": "done"})
    with Shipping(run.path, place, said.append):
        pass
    first, second = fetching.taken_over(place, said.append), fetching.at_hand(str(place), said.append)
    assert first != second
    assert RunDir(first).manifest() == RunDir(second).manifest() == run.manifest()
    assert said[1:] == [f"fetched {place} to {first}", f"fetched {place} to {second}"]
    assert fetching.at_hand("some/where", said.append) == Path("some/where")


def sat(*resumed_utc: str, state: str = "running", done: int = 0) -> dict[str, Any]:
    """A run.json of two trials."""
    trials = [{"trial_id": str(n), "state": "done" if n < done else "planned"} for n in range(2)]
    return told(name="n", run_id="r", state=state, resumed_utc=list(resumed_utc), trials=trials)


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (sat(), sat("B")),
        (sat("A"), sat("B", state="done", done=2)),
        (sat(), sat(state="done")),
        (sat(done=1), sat(done=2)),
        (sat(state="interrupted", done=1), sat(state="interrupted", done=2)),
    ],
    ids=["resumed", "resumed-from-both", "ended", "went-on", "ended-later"],
)
def test_a_directory_that_is_behind_its_copy_in_s3_is_not_resumed(
    here: dict[str, Any], there: dict[str, Any], place: s3.Prefix, tmp_path: Path
) -> None:
    run, store = RunDir.create(tmp_path / "run"), s3.Store(place)
    run.write_manifest(here | {"s3": str(place)})
    before = (run.path / "run.json").read_bytes()
    store.put("run.json", json.dumps(there).encode())
    with pytest.raises(InputError, match=r"has more of the run than its directory here; `raybench resume s3://"):
        resume(run.path, "local", Screen())
    assert (run.path / "run.json").read_bytes() == before
    assert json.loads(store.get("run.json")) == there


def test_a_directory_that_is_ahead_of_its_copy_is_resumed_unless_that_still_changes(place: s3.Prefix) -> None:
    fetching.ahead(sat(), place)
    s3.Store(place).put("run.json", json.dumps(sat(done=1)).encode())
    for here in (sat("A", done=1), sat(state="failed", done=1), sat("A", state="done", done=2)):
        fetching.ahead(here, place)
    with pytest.raises(InputError, match="a run is going on in it; stop it, or wait"):
        fetching.ahead(sat(done=1), place)
    fetching.ahead(sat(done=1), place, alive_s=-1.0)


def test_status_asks_s3_how_far_a_run_is(place: s3.Prefix, tmp_path: Path) -> None:
    with Shipping(a_run(tmp_path / "run").path, place, lambda text: None):
        pass
    done = subprocess.run(
        [sys.executable, "-m", "raybench", "status", str(place), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert f'"run_dir": "{place}"' in done.stdout
    assert '"state": "running"' in done.stdout
