"""A search as a user runs it: `raybench run` on the config of the repository, as a process, on a busy machine too."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from test_run import contents, finish, lines_until, start

from raybench.rundir import RunDir

pytestmark = pytest.mark.ray

CONFIG = Path(__file__).parents[1] / "configs" / "search.yaml"


def search_of(run_dir: Path) -> dict[str, Any]:
    (search,) = json.loads((run_dir / "run.json").read_text())["searches"]
    assert isinstance(search, dict)
    return search


def test_an_interrupted_search_goes_on_says_what_it_found_and_spent_and_keeps_every_probe(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start("run", CONFIG, "--out", run_dir, "--no-selftest")
    lines_until(process, "probe-00-sanity: ")
    os.kill(process.pid, signal.SIGINT)
    code, out, _ = finish(process)
    assert code == 130
    assert "was interrupted" in out
    begun = search_of(run_dir)
    assert begun["verdict"] is None
    states = [trial["state"] for trial in RunDir.open(run_dir).manifest()["trials"]]
    assert states[0] == "done"
    assert len(begun["probes"]) == states.count("done")
    assert "was interrupted" in (run_dir / "report.md").read_text()

    code, out, err = finish(start("resume", run_dir, "--no-selftest"))
    assert code in (0, 3), "a busy machine may spoil a measurement, and must then say so"
    search = search_of(run_dir)
    assert search["probes"][: len(begun["probes"])] == begun["probes"], "its rows tell it the same"
    assert " s  probe-00-sanity" in err
    assert "probe-00-sanity-closed-1: 30 requests" not in err, "it is not played again"
    verdict = search["verdict"]
    assert out.startswith(f"{search['sentence']}\n")
    assert "of at most 6 min" in out
    assert "of at most 0.50 USD" in out
    assert (verdict["rate"] is None) == ("no rate certified" in out)
    assert verdict["rate"] is None or verdict["rate"] < 100, "four tokens take at least 12 ms of the server's time"
    assert verdict["seconds"] <= 360
    run = RunDir.open(run_dir)
    for trial, probe in zip(run.manifest()["trials"], search["probes"], strict=True):
        assert trial["trial_id"] == probe["trial_id"]
        assert (trial["state"], trial["search"]) == ("done", search["trial_id"])
        assert run.part(trial).is_file()
        assert run.requests(trial).num_rows == trial["rows"]
        assert probe["step"] in err
    assert "## Maximum load" in (run_dir / "report.md").read_text()
    assert 'id="maximum"' in (run_dir / "report.html").read_text()
    before = contents(run_dir)
    assert finish(start("report", run_dir))[:2] == (code, out)
    assert contents(run_dir) == before
