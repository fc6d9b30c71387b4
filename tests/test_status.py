"""`raybench status`, `open` and `init`: what a shell says of a run, its page, and a config to start from."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from pathlib import Path
from typing import Any

import pytest
from made import told
from test_run import config
from typer.testing import CliRunner
from waiting import until

from raybench.cli import app
from raybench.cluster.live import Live
from raybench.cluster.status import status, text, write
from raybench.config import load_config
from raybench.errors import InputError
from raybench.plan import plan
from raybench.rundir import RunDir
from raybench.starter import TEMPLATE, init


def run_dir(folder: Path, state: str = "running", *trials: str) -> Path:
    noted = [{"trial_id": str(number), "state": each} for number, each in enumerate(trials)]
    manifest = told(name="bench", state=state, started_utc="2026-11-25T01:02:03Z", finished_utc=None, trials=noted)
    RunDir.create(folder).write_manifest(manifest)
    return folder


def snapshot(folder: Path) -> dict[str, Any]:
    return Live(plan(load_config(config(folder))), {}).snapshot()


def verb(*words: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(map(str, words)))
    if isinstance(done.exception, InputError):
        return done.exception.exit_code, str(done.exception)
    return done.exit_code, done.stdout


def test_a_finished_run_is_told_from_run_json_alone(tmp_path: Path) -> None:
    path = run_dir(tmp_path / "run", "done", "done", "done")
    write(path, snapshot(tmp_path))
    found = status(path)
    assert (found["state"], found["trials"], found["live"]) == ("done", {"done": 2}, None)
    assert text(found).plain == "bench: done; trials: 2 done"


def test_a_run_whose_trials_a_search_has_yet_to_choose_has_none(tmp_path: Path) -> None:
    assert text(status(run_dir(tmp_path / "run", "failed"))).plain == "bench: failed; trials: none"


def test_a_run_that_measures_is_told_with_its_live_figures(tmp_path: Path) -> None:
    path = run_dir(tmp_path / "run", "running", "done", "planned")
    write(path, snapshot(tmp_path))
    found = status(path)
    assert found["state"] == "running"
    assert found["live"]["experiments"][0]["experiment"] == "fast"
    said = text(found).plain.splitlines()
    assert said[0] == "bench: running; trials: 1 done, 1 planned"
    assert said[1].startswith("tiny, 0:00 so far")
    assert said[-1] == "  waiting"


def test_a_run_whose_process_is_gone_is_dead_and_its_figures_are_old(tmp_path: Path) -> None:
    path = run_dir(tmp_path / "run", "running", "partial")
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    old = {"written_s": time.time() - 65, "host": socket.gethostname(), "pid": child.pid}
    (path / "live.json").write_text(json.dumps(snapshot(tmp_path) | old))
    found = status(path)
    assert found["state"] == "dead"
    said = text(found).plain
    assert "its process is gone" in said
    assert "these figures are 1:05 old" in said


def test_figures_of_another_host_are_only_called_old(tmp_path: Path) -> None:
    path = run_dir(tmp_path / "run", "running", "partial")
    old = {"written_s": time.time() - 65, "host": "elsewhere", "pid": 1}
    (path / "live.json").write_text(json.dumps(snapshot(tmp_path) | old))
    assert status(path)["state"] == "running"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"experiments": []}'])
def test_a_live_json_that_is_not_ours_is_none(tmp_path: Path, content: str) -> None:
    path = run_dir(tmp_path / "run", "running", "planned")
    (path / "live.json").write_text(content)
    assert status(path)["live"] is None
    assert "not measuring now" in text(status(path)).plain


def test_status_prints_words_or_json(tmp_path: Path) -> None:
    path = run_dir(tmp_path / "run", "interrupted", "done", "partial")
    (path / "report.html").touch()
    told = (0, f"bench: interrupted; trials: 1 done, 1 partial\nreport: {path}/report.html\n")
    assert verb("status", path) == verb("status", f"{path}/") == told
    code, said = verb("status", path, "--json")
    assert code == 0
    assert json.loads(said) == status(path)


def test_what_is_no_run_is_exit_2_for_status_and_open(tmp_path: Path) -> None:
    for name in ("status", "open"):
        assert verb(name, tmp_path) == (2, f"{tmp_path}: no run.json here; the directory of a raybench run")


class Browser(webbrowser.BaseBrowser):
    """Shows nothing, and remembers what."""

    shown: str | None = None

    def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:
        self.shown = url
        return True


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Browser:
    """The default browser of this process."""
    mine = Browser()
    monkeypatch.setattr(webbrowser, "_tryorder", ["mine"])
    monkeypatch.setattr(webbrowser, "_browsers", {"mine": [None, mine]})
    return mine


def test_open_shows_the_page_and_prints_its_path(tmp_path: Path, browser: Browser) -> None:
    path = run_dir(tmp_path / "a run", "done", "done")
    (path / "report.html").touch()
    assert verb("open", path) == (0, f"{path}/report.html\n")
    assert browser.shown == (path / "report.html").as_uri()


def test_open_without_a_report_offers_to_make_one(tmp_path: Path, browser: Browser) -> None:
    path = run_dir(tmp_path / "run", "interrupted", "done")
    code, said = verb("open", path)
    assert (code, browser.shown) == (2, None)
    assert said == f"{path}: no report.html here; `raybench report {path}` makes it from the rows"


def test_open_without_a_browser_still_prints_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webbrowser, "_tryorder", [])
    path = run_dir(tmp_path / "run", "done", "done")
    (path / "report.html").touch()
    assert verb("open", path) == (0, f"{path}/report.html\n")


def test_init_writes_a_config_that_can_be_planned_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    code, said = verb("init", path)
    assert (code, said.split(":")[0]) == (0, str(path))
    planned = plan(load_config(path))
    assert len(planned.trials) == 2
    assert planned.seconds is not None
    assert f"raybench run {path}" in path.read_text()


def test_init_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("mine")
    assert verb("init", path) == (2, f"{path}: is there already; a name that is free")
    assert path.read_text() == "mine"
    with pytest.raises(InputError, match="cannot be written"):
        init(tmp_path / "nowhere" / "mine.yaml")


def test_what_the_starter_config_leaves_out_is_right_too(tmp_path: Path) -> None:
    _, name, rest = TEMPLATE.read_text().partition("name:")
    lines = [line.removeprefix("#") if line.startswith("#  ") else line for line in (name + rest).splitlines()]
    for name in ("prompts.jsonl", "prompt.txt", "tokenizer.json"):
        (tmp_path / name).touch()
    (tmp_path / "all.yaml").write_text("\n".join(lines).replace("simulate: llama2-70b-g5-tgi", "name: my-endpoint"))
    assert [payload.name for payload in load_config(tmp_path / "all.yaml").payloads] == ["short", "questions"]


@pytest.mark.ray
def test_any_shell_sees_a_run_while_it_measures(tmp_path: Path) -> None:
    place = tmp_path / "run"
    words = ("run", config(tmp_path, length="duration: 60s"), "--out", place, "--no-selftest")
    command = [sys.executable, "-m", "raybench", *map(str, words)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True) as run:
        assert run.stderr is not None
        assert any(b"measuring" in line for line in run.stderr)
        found: dict[str, Any] = {}

        def measured() -> bool:
            nonlocal found
            found = status(place)
            return bool(found.get("live") and found["live"]["experiments"][0]["measured"])

        until(measured, lambda: found, within_s=60.0, every_s=0.2)
        os.kill(run.pid, signal.SIGINT)
        run.stderr.read()
    (fast,) = found["live"]["experiments"]
    assert (found["state"], found["live"]["pid"]) == ("running", run.pid)
    assert (fast["trial"], fast["trials"], fast["failed"], list(fast["heard_s_ago"])) == (1, 2, 0, ["fast-0"])
    assert fast["requests"] >= fast["measured"] > 0
    assert fast["spent_usd"] > 0
    assert status(place)["state"] == "interrupted"
    assert not (place / "live.json").exists()
