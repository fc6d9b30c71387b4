"""What `raybench resume` does before it plays anything, and where nothing is left to play."""

import json
from pathlib import Path
from typing import Any

import pytest
from made import row

from raybench import manifest as manifests
from raybench.cluster.monitor import Screen
from raybench.config import Config, load_config
from raybench.datasets import load_pools
from raybench.errors import CriteriaMissedError, InputError, RaybenchError
from raybench.plan import plan
from raybench.publish import report
from raybench.resume import left, resume
from raybench.rundir import RunDir

CONFIG = """\
name: stopped
experiments:
  - {name: e, instance_type: ml.g5.xlarge, endpoint: {simulate: fixed}, price_per_hour: 1.0}
payloads:
  - {name: p, dataset: {jsonl: [prompts.jsonl]}, tokens: [1, 500]}
loads:
  - {kind: closed, concurrency: [1, 2], requests: 100}
"""


@pytest.fixture
def stopped(tmp_path: Path) -> RunDir:
    """A run that was killed when all was played and nothing reduced."""
    lines = [json.dumps({"prompt": f"prompt number {n} says hello"}) for n in range(9)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    file = tmp_path / "stopped.yaml"
    file.write_text(CONFIG)
    config = load_config(file)
    run = RunDir.create(tmp_path / "run")
    run.write(file.name, config.text.encode())
    run.write_manifest(begun(config, tmp_path))
    for trial in run.manifest()["trials"]:
        segment = run.segment(trial["trial_id"], "e-0")
        same = {key: trial[key] for key in ("trial_id", "experiment", "payload", "load")}
        for n in range(100):
            segment.append(row(n, planned=float(n), **same))
        segment.close()
    return run


def begun(config: Config, folder: Path) -> dict[str, Any]:
    manifest = manifests.begin(config, plan(config), load_pools(config.payloads, config.seed, folder), "run")
    for trial in manifest["trials"]:
        trial |= {"state": "done", "rows": 100}
    return manifest | {"config_folder": str(folder)}


def changed(run: RunDir, **values: Any) -> None:
    """The same run with a trial that is left, and some of its manifest otherwise."""
    manifest = run.manifest() | values
    manifest["trials"][1]["state"] = "partial"
    run.write_manifest(manifest)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def ends(run: RunDir) -> str:
    """How resuming ends: the error's name and text, or nothing."""
    try:
        resume(run.path, "local", Screen())
    except RaybenchError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def test_a_run_killed_after_its_last_trial_is_reported_from_its_spools(stopped: RunDir) -> None:
    rows = [stopped.requests(trial) for trial in stopped.manifest()["trials"]]
    first = ends(stopped)
    manifest = stopped.manifest()
    assert manifest["state"] == "done"
    assert len(manifest["resumed_utc"]) == 1
    assert [stopped.requests(trial) for trial in manifest["trials"]] == rows
    assert all(stopped.part(trial).is_file() for trial in manifest["trials"])
    assert not (stopped.path / "spool").exists()
    for name in ("report.md", "report.html"):
        assert "Resumed." in (stopped.path / name).read_text()
    before = contents(stopped.path)
    assert ends(stopped) == first
    assert contents(stopped.path) == before


def test_a_run_that_goes_on_is_not_resumed(stopped: RunDir) -> None:
    before = contents(stopped.path)
    with stopped.hold(), pytest.raises(InputError, match="a run is going on in it"):
        resume(stopped.path, "local", Screen())
    assert contents(stopped.path) == before


def test_a_run_that_goes_on_is_not_reported_over(stopped: RunDir) -> None:
    before = contents(stopped.path)
    with stopped.hold(), pytest.raises(InputError, match="a run is going on in it"):
        report(stopped.path)
    assert contents(stopped.path) == before


@pytest.mark.parametrize(
    ("state", "said"),
    [("partial", "no trial can be decided by"), ("done", "no setting meets every criterion")],
)
def test_a_gate_says_whether_a_criterion_was_missed_or_nothing_was_whole(
    stopped: RunDir, state: str, said: str
) -> None:
    manifest = stopped.manifest() | {"enforce": True, "criteria": {"latency_mean": 1e-6} if state == "done" else {}}
    manifest["trials"] = [manifest["trials"][0] | {"state": state}]
    stopped.write_manifest(manifest)
    with pytest.raises(CriteriaMissedError, match=f"^{said}$"):
        report(stopped.path)


def test_a_directory_that_is_let_go_can_be_held_again(stopped: RunDir) -> None:
    for _ in range(2):
        with stopped.hold():
            pass


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": 0}, r"its rows are of schema 0, ours of 1; use raybench"),
        ({"config_text": "name: other"}, "the config changed since the run began"),
        ({"config_file": None}, "does not say what its config was"),
        ({"seed": 0, "searches": [{"trial_id": "x", "verdict": None}]}, "its plan would be another now"),
    ],
)
def test_a_run_that_would_be_another_now_is_refused(stopped: RunDir, changes: dict[str, Any], said: str) -> None:
    changed(stopped, **changes)
    before = contents(stopped.path)
    with pytest.raises(InputError, match=said):
        resume(stopped.path, "local", Screen())
    assert contents(stopped.path) == before


def test_a_dataset_that_changed_is_refused(stopped: RunDir) -> None:
    changed(stopped)
    (stopped.path.parent / "prompts.jsonl").write_text(json.dumps({"prompt": "something else"}))
    with pytest.raises(InputError, match="a dataset changed"):
        resume(stopped.path, "local", Screen())


def test_a_trace_that_changed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": "prompt number 1 says hello"}))
    line = '{{"timestamp": {}, "input_length": 5, "output_length": 3}}\n'
    (tmp_path / "trace.jsonl").write_text("".join(line.format(100 * k) for k in range(100)))
    file = tmp_path / "stopped.yaml"
    file.write_text(CONFIG.replace("kind: closed, concurrency: [1, 2]", "kind: replay, trace: trace.jsonl"))
    config = load_config(file)
    run = RunDir.create(tmp_path / "run")
    run.write(file.name, config.text.encode())
    manifest = begun(config, tmp_path)
    manifest["trials"][0]["state"] = "partial"
    run.write_manifest(manifest)
    (tmp_path / "trace.jsonl").write_text("".join(line.format(50 * k) for k in range(100)))
    with pytest.raises(InputError, match="its arrivals would be others now: a trace changed"):
        resume(run.path, "local", Screen())


def test_a_dataset_that_is_gone_is_named(stopped: RunDir) -> None:
    changed(stopped)
    (stopped.path.parent / "prompts.jsonl").unlink()
    with pytest.raises(InputError, match=r"prompts\.jsonl"):
        resume(stopped.path, "local", Screen())


def test_what_is_set_aside_stands_as_it_stood(stopped: RunDir) -> None:
    first, second = stopped.manifest()["trials"]
    rows = stopped.requests(second)
    stopped.write_part(first, stopped.requests(first))
    for trial in (first, second):
        stopped.set_aside(trial, "now")
    assert len(stopped.requests(first)) == len(stopped.requests(second)) == 0
    aside = RunDir(stopped.path / "abandoned" / "now")
    assert aside.requests(second).equals(rows)
    assert len(aside.requests(first)) == 100


def test_a_search_is_left_until_it_has_a_verdict_and_its_probes_are_its_own() -> None:
    trials = [
        {"trial_id": "done", "state": "done"},
        {"trial_id": "cut", "state": "partial"},
        {"trial_id": "a~probe", "state": "partial", "search": "a"},
    ]
    searches = [{"trial_id": "a", "verdict": None}, {"trial_id": "b", "verdict": {"state": "certified"}}]
    assert left({"trials": trials, "searches": searches}) == {"cut", "a"}
