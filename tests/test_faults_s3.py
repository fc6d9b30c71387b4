"""Whole runs whose results go to S3, as a user sees them: S3 that refuses, and a head that is gone with its disk."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from buckets import BUCKET, StandIn, bucket
from test_faults_run import abandoned, config, ids
from waiting import until

from raybench import s3
from raybench.rundir import RunDir, read_segment

pytestmark = pytest.mark.ray

HASTE = """\
import sys
from functools import partial
from raybench import fetching
from raybench.cluster import shipping
cap_bytes, alive_s = int(sys.argv.pop(1)), float(sys.argv.pop(1))
shipping.Shipping = partial(shipping.Shipping, every_s=0.3, last_tries=2, cap_bytes=cap_bytes)
fetching.taken_over = partial(fetching.taken_over, alive_s=alive_s)
sys.argv[0] = "raybench"
from raybench.cli import main
main()
"""
"""The command, with less patience."""

ROOM = 2**30


@pytest.fixture
def standin() -> Iterator[StandIn]:
    with bucket() as served:
        yield served


class Command:
    """`raybench` with these words in `folder`; what it says is in a file that can be read while it runs."""

    def __init__(self, folder: Path, *words: str | Path, cap_bytes: int = ROOM, alive_s: float = 60.0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.out, self.err = folder / "stdout", folder / "stderr"
        with self.out.open("w") as out, self.err.open("w") as err:
            command = [sys.executable, "-c", HASTE, str(cap_bytes), str(alive_s), *map(str, words)]
            self.process = subprocess.Popen(command, stdout=out, stderr=err, cwd=folder, start_new_session=True)

    def until(self, store: s3.Store, trials_done: int, rows: int) -> None:
        """Waits until S3 has that many finished trials, and that many rows of the one after them."""

        def so_far() -> bool:
            assert self.process.poll() is None, self.err.read_text()
            keys = [key for key in store.listed() if key.startswith("spool/")]
            trials = list(dict.fromkeys(key.split("/")[1] for key in sorted(keys)))
            if len(trials) <= trials_done:
                return False
            return lines(store, [key for key in keys if trials[trials_done] in key]) >= rows

        until(so_far, lambda: f"it came not so far: {self.err.read_text()}", every_s=0.1)

    def end(self) -> tuple[int, str, str]:
        code, err = self.process.wait(timeout=180), self.err.read_text()
        assert "Traceback" not in err, err
        return code, self.out.read_text(), err


def lines(store: s3.Store, keys: list[str]) -> int:
    return sum(store.get(key).count(b"\n") for key in keys)


def request_ids(store: s3.Store, folder: Path) -> set[str | None]:
    """Every row that S3 holds in pieces of spools, each piece's torn ends left out."""
    found = set[str | None]()
    for key in sorted(key for key in store.listed() if key.startswith("spool/")):
        spool = folder / key.replace("/", "+").rpartition(".")[0]
        with spool.open("ab") as file:
            file.write(store.get(key))
    for spool in folder.glob("spool+*"):
        found |= {row.request_id for row in read_segment(spool)}
    return found


def manifest_of(path: Path) -> dict[str, Any]:
    return RunDir(path).manifest()


@pytest.mark.kill_points(1)
def test_head_death_takes_its_disk_and_the_run_goes_on_elsewhere_from_s3(
    seed: int, standin: StandIn, tmp_path: Path
) -> None:
    url, random, there = f"s3://{BUCKET}/runs/r{seed}", Random(seed), tmp_path / "there"
    whole = (seed + 1) % 2
    store = s3.Store(s3.prefix(url))
    first = Command(there, "run", config(tmp_path), "--out", url, "--no-selftest")
    first.until(store, trials_done=whole, rows=random.randrange(1, 60))
    os.kill(first.process.pid, signal.SIGSTOP)  # it holds still for the impatient, who may be slow
    refused = Command(tmp_path / "impatient", "resume", url, alive_s=3600.0)
    assert refused.end()[0] == 2, "it still goes on"
    assert "a run is going on in it" in refused.err.read_text()
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    shutil.rmtree(there, ignore_errors=True)  # its actors end on their own, and may write a little longer
    (tmp_path / "scratch").mkdir()
    shipped = request_ids(store, tmp_path / "scratch")
    assert len(shipped) > 1
    begun = json.loads(store.get("run.json"))
    done = [trial["trial_id"] for trial in begun["trials"] if trial["state"] == "done"]
    assert len(done) >= whole

    here = tmp_path / "here"
    (tmp_path / "configs").rename(tmp_path / "moved")
    second = Command(here, "resume", url, "--inputs", tmp_path / "moved", "--no-selftest", alive_s=-1.0)
    code, out, err = second.end()
    assert code in (0, 3), err
    assert f"fetched {url} to runs/r{seed}" in err
    assert f"{len(done)} of 3 trials done, {3 - len(done)} left" in err
    path = here / "runs" / f"r{seed}"
    manifest = manifest_of(path)
    assert [trial["state"] for trial in manifest["trials"]] == ["done"] * 3
    assert [trial["sitting"] for trial in manifest["trials"]] == [0] * len(done) + [1] * (3 - len(done))
    kept, aside = ids(path), abandoned(path)
    assert shipped <= (kept + aside).keys(), "0 shipped rows lost"
    assert max((kept + aside).values()) == 1
    for name in ("report.md", "report.html"):
        assert b"Resumed." in store.get(name)

    third = Command(tmp_path / "elsewhere", "resume", url)
    assert third.end()[:2] == (code, out.replace(str(here), str(tmp_path / "elsewhere")))
    assert ids(tmp_path / "elsewhere" / "runs" / f"r{seed}") == kept


def test_a_refusal_in_the_middle_costs_nothing(standin: StandIn, tmp_path: Path) -> None:
    url = f"s3://{BUCKET}/runs/outage"
    store = s3.Store(s3.prefix(url))
    command = Command(tmp_path, "run", config(tmp_path), "--out", url, "--no-selftest")
    command.until(store, trials_done=0, rows=20)
    standin.mood = "503"
    until(lambda: "SLOW_DOWN" in command.err.read_text() or command.process.poll() is not None)
    assert command.process.poll() is None, command.err.read_text()
    standin.mood = None
    code, _, err = command.end()
    assert code in (0, 3), err
    assert "PutObject: SLOW_DOWN" in err
    assert f"{url} takes the files of {socket.gethostname()} again" in err
    assert f"all of it is in {url}" in err
    (path,) = (tmp_path / "runs").iterdir()
    here = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    there = {key: store.get(key) for key in store.listed() if not key.startswith((".", "spool/", "live.json"))}
    del here["truth.jsonl"]
    assert there == here


@pytest.mark.parametrize(
    ("mood", "cap_bytes", "said"),
    [("403", 2000, "more than the 0 that may; stopped"), ("503", ROOM, "not all was copied")],
)
def test_s3_that_refuses_for_good_ends_the_run_with_one_error_and_every_row_here(
    mood: str, cap_bytes: int, said: str, standin: StandIn, tmp_path: Path
) -> None:
    url = f"s3://{BUCKET}/runs/over-{mood}"
    command = Command(
        tmp_path, "run", config(tmp_path, length="duration: 2s"), "--out", url, "--no-selftest", cap_bytes=cap_bytes
    )
    command.until(s3.Store(s3.prefix(url)), trials_done=0, rows=20)
    standin.mood = mood
    code, _, err = command.end()
    (path,) = (tmp_path / "runs").iterdir()
    last = err.splitlines()[-1]
    assert code == 5, err
    assert last.startswith(f"raybench: {url}: PutObject: ")
    assert f"{said}: all rows are in {path} on {socket.gethostname()}" in last
    states = [trial["state"] for trial in manifest_of(path)["trials"]]
    assert states == (["done"] * 3 if cap_bytes == ROOM else ["partial", "planned", "planned"])
    truth = [json.loads(line) for line in (path / "truth.jsonl").read_text().splitlines()]
    fine = {record["request_id"] for record in truth if record["outcome"] == "ok"}
    assert len(fine - ids(path).keys()) <= 1, "only the one that checked the endpoint"
    assert (path / "report.md").is_file()

    standin.mood = None
    code, _, err = Command(tmp_path / "later", "resume", path, "--no-selftest").end()
    assert code in (0, 3), err
    assert f"all of it is in {url}" in err
    assert json.loads(s3.Store(s3.prefix(url)).get("run.json"))["state"] == "done"
