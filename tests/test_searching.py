"""A search from the config to the report: what is planned, what run.json keeps of it, what counts as an answer."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from test_cluster_search import SEARCH, Queue, trial
from world import retold

from raybench import manifest as manifests
from raybench import plan_text, searching
from raybench.analysis import searched
from raybench.analysis.decide import Decision
from raybench.analysis.reduce import Findings, reduce, reduce_trial
from raybench.analysis.tables import TOKENS
from raybench.cluster.search import Seen
from raybench.config import Config, load_config
from raybench.errors import InputError
from raybench.load.search import Search
from raybench.plan import Trial, plan
from raybench.report.markdown import markdown
from raybench.report.page import page
from raybench.rows import REQUESTS

CONFIG = """\
name: small
experiments:
  - name: e
    instance_type: ml.g5.xlarge
    instance_count: 2
    endpoint: {simulate: fixed, overrides: {ttft_s: 0.1, itl_s: 0.025, tokens: 5}}
    route: stream
    price_per_hour: 36
payloads:
  - {name: p, dataset: {synthetic: {prompts: 200}}, tokens: [10, 20]}
loads:
  - {kind: search, metric: latency_p99, limit: 1s, max_minutes: 30, max_usd: 12}
"""
CLOSED = "  - {kind: closed, concurrency: 2, requests: 6}\n"

Read = Callable[[str], Config]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """The config of a text."""

    def read(text: str) -> Config:
        path = tmp_path / "small.yaml"
        path.write_text(text)
        return load_config(path)

    return read


def test_a_search_is_one_trial_that_lasts_at_most_as_long_as_both_budgets_allow(read: Read) -> None:
    planned = plan(read(CONFIG))
    (one,) = planned.trials
    assert one.load == Search("latency_p99", 1.0, max_s=1800.0, max_usd=12.0)
    assert one.expected_s == 600.0, "12 USD of two instances at 36 USD an hour"
    assert "until certified" in plan_text.text(planned)
    assert plan_text.text(planned).startswith("small: 1 trial, at most 10 min of load")
    assert plan_text.text(planned).splitlines()[3].endswith("until certified  at most 10 min")
    assert json.loads(json.dumps(plan_text.as_dict(planned)))["trials"][0]["load"] == "search-latency_p99-1.0"
    (longer,) = plan(read(CONFIG.replace(", max_usd: 12", ""))).trials
    assert longer.expected_s == 1800.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("    price_per_hour: 36\n", ""), "small.yaml:11: loads[0].max_usd: 'e' has no price_per_hour"),
        (("metric: latency_p99", "metric: latency_p95"), "loads[0].metric"),
        (("limit: 1s, ", ""), "loads[0].limit"),
        (("max_minutes: 30", "max_minutes: 0"), "loads[0].max_minutes"),
        (("max_minutes: 30", "duration: 60s"), "loads[0].duration: unknown key"),
    ],
)
def test_a_search_that_could_not_end_or_be_judged_is_refused(read: Read, change: tuple[str, str], said: str) -> None:
    with pytest.raises(InputError) as refused:
        read(CONFIG.replace(*change))
    assert said in str(refused.value)


def test_a_time_to_first_token_is_not_searched_where_nothing_streams(read: Read) -> None:
    with pytest.raises(InputError, match=r"loads\[0\].metric: 'e' answers in one piece"):
        read(CONFIG.replace("latency_p99", "ttft_p99").replace("route: stream", "route: invoke"))


class Run:
    """A run of one search on a queue: what a conductor would hold, and the stage it gives."""

    def __init__(self, queue: Queue, manifest: dict[str, Any] | None = None) -> None:
        self.queue, self.said, self.recorded = queue, list[str](), list[str]()
        self.manifest = manifest or {
            "experiments": [
                {"name": "e", "price_per_hour": 3.6, "instance_count": 1, "instance_type": "ml.g5.xlarge"}
            ],
            "trials": [],
            "searches": [manifests.planned(trial(SEARCH), SEARCH)],
            "criteria": {},
            "report": {"payload": None},
        }
        self.trials = {each["trial_id"]: each for each in self.manifest["trials"]}

    def play(self, one: Trial, seen: Seen) -> pa.Table | None:
        assert json.loads(self.recorded[-1])["trials"][-1]["trial_id"] == one.trial_id, "known before it is played"
        rows = self.queue.play(one, seen)
        if rows is not None:
            self.trials[one.trial_id] |= {"state": "done", "rows": len(rows)}
        return rows

    def rows_of(self, noted: Mapping[str, Any]) -> pa.Table:
        return self.queue.played.get(noted["trial_id"], REQUESTS.empty_table())

    def record(self) -> None:
        self.recorded.append(json.dumps(self.manifest, allow_nan=False))

    def search(self) -> dict[str, Any]:
        """Plays the search; its entry in run.json."""
        stage = searching.Stage(
            self.manifest, self.trials, self.play, self.queue.stop, self.rows_of, self.record, self.said.append
        )
        searching.search(trial(SEARCH), SEARCH, stage, 3.6, self.queue.clock)
        assert self.manifest == json.loads(self.recorded[-1])
        (entry,) = self.manifest["searches"]
        assert isinstance(entry, dict)
        return entry

    def findings(self) -> Findings:
        return reduce(self.rows_of, self.manifest)


def test_run_json_has_each_probe_as_a_trial_and_the_search_with_its_verdict() -> None:
    run = Run(Queue(0.4, servers=4))
    entry = run.search()
    assert entry["verdict"]["state"] == "certified"
    assert entry["verdict"]["usd"] == pytest.approx(3.6 * entry["verdict"]["seconds"] / 3600)
    assert [each["trial_id"] for each in entry["probes"]] == [each["trial_id"] for each in run.manifest["trials"]]
    assert {each["search"] for each in run.manifest["trials"]} == {entry["trial_id"]}
    assert len(run.said) == len(entry["probes"])
    assert "of at most 60 min" in entry["sentence"]


class Whole(list[dict[str, Any]]):
    """Entries of run.json, which another experiment may write at any time."""

    def append(self, entry: dict[str, Any]) -> None:
        assert entry["state"] == "planned"
        assert entry["search"]
        super().append(entry)


def test_a_probe_is_whole_when_it_enters_run_json() -> None:
    run = Run(Queue(0.4, servers=4))
    run.manifest["trials"] = Whole()
    run.search()
    assert run.manifest["trials"]


def test_a_probe_that_was_stopped_early_keeps_its_plan_and_says_what_of_it_was_offered() -> None:
    run = Run(Queue(0.4, servers=4))
    entry = run.search()
    early = next(each for each in run.manifest["trials"] if each["rate"] == 8.0)
    offered = run.rows_of(early)
    lasted_s = early["decided_after"]["duration_s"]
    assert lasted_s < early["duration_s"] == 150.0
    assert len(offered) / lasted_s == pytest.approx(8.0, rel=0.2)
    row = reduce_trial(offered, early, run.manifest).trials.to_pylist()[0]
    assert row["window_s"] == pytest.approx(lasted_s)
    assert not row["missing_rows"]
    whole = next(each for each in entry["probes"] if each["step"] == "certify" and each["passed"])
    certified = run.trials[whole["trial_id"]]
    assert (certified["duration_s"], certified["decided_after"]) == (whole["seconds"], None)


def test_a_search_that_was_interrupted_goes_on_without_playing_a_probe_again() -> None:
    queue = Queue(0.4, servers=4, interrupted_at=4)
    first = Run(queue)
    entry = first.search()
    assert entry["verdict"] is None
    assert "interrupted" in entry["sentence"]
    assert [each["state"] for each in first.manifest["trials"]] == ["done"] * 4 + ["planned"]
    queue.interrupted_at = None
    whole = Run(Queue(0.4, servers=4)).search()
    second = Run(queue, json.loads(first.recorded[-1]))
    assert second.search() == whole
    ids = [each["trial_id"] for each in second.manifest["trials"]]
    assert len(ids) == len(set(ids)), "the probe that was cut short has one entry still"


def test_only_the_trial_that_certified_takes_part_in_the_decision() -> None:
    run = Run(Queue(0.4, servers=4))
    entry = run.search()
    findings = searched.counted(run.findings(), run.manifest)
    certified = [each["trial_id"] for each in entry["probes"] if each["step"] == "certify" and each["passed"]]
    assert findings.trials["trial_id"].to_pylist() == certified
    assert set(findings.curves["trial_id"].to_pylist()) == set(certified)
    assert findings.tokens.num_rows <= run.findings().tokens.num_rows
    assert searched.decided(findings, run.manifest).settings.keys() == set(certified)
    assert searched.faults(run.manifest) == []


@pytest.mark.parametrize("rate", [None, 1.5])
def test_a_certificate_that_a_later_probe_refuted_is_told_as_such(read: Read, rate: float | None) -> None:
    run = Run(Queue(0.4, servers=4))
    entry = run.search()
    assert "certified, then refuted" not in markdown(*report_inputs(read, run))
    entry["verdict"]["rate"] = rate
    inputs = report_inputs(read, run)
    for said in (markdown(*inputs), page(*inputs)):
        assert said.count("certified, then refuted") == 1


def test_a_search_alone_that_certified_nothing_is_the_answer_itself() -> None:
    run = Run(Queue(1.2, servers=4))
    entry = run.search()
    assert entry["verdict"]["reason"] == "one stream alone is over the limit"
    findings = searched.counted(run.findings(), run.manifest)
    assert findings.trials.num_rows == 0
    decision = searched.decided(findings, run.manifest)
    assert [phrase.text for sentence in decision.sentences for phrase in sentence] == [entry["sentence"]]


class LateRun(Run):
    """One whose actor's loop wakes far too late."""

    def play(self, one: Trial, seen: Seen) -> pa.Table | None:
        rows = super().play(one, seen)
        late = {"sender": "a", "lag_p99_ms": "900.0", "cpu_s": "1.0", "lag_max_ms": "900.0"}
        self.trials[one.trial_id]["actors"] = [late]
        return rows


def test_a_measurement_that_cannot_be_trusted_ends_the_search_and_is_told(read: Read) -> None:
    run = LateRun(Queue(0.4, servers=4))
    entry = run.search()
    assert [each["fault"] for each in entry["probes"]] == ["client_lag"] * 3
    assert searched.faults(run.manifest) == ["client_lag"]
    inputs = report_inputs(read, run)
    for said in (markdown(*inputs), page(*inputs)):
        assert "A search ended for what cannot be trusted (client_lag)" in said
        assert "all valid" not in said


class RetoldRun(Run):
    """One whose certifying trials, and they alone, have some columns of their rows otherwise."""

    def __init__(self, queue: Queue, columns: dict[str, Any]) -> None:
        super().__init__(queue)
        self.columns = columns

    def play(self, one: Trial, seen: Seen) -> pa.Table | None:
        rows = super().play(one, seen)
        if rows is not None and "certify" in one.trial_id:
            rows = retold(rows, **{name: [value] * len(rows) for name, value in self.columns.items()})
            self.queue.played[one.trial_id] = rows
        return rows


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ({"prompt_id": "p", "prompt_tokens": 100, "cached_tokens": 90}, "repeated_prompts"),
        ({"echoed_prompt": True}, "echoed_prompt"),
    ],
)
def test_no_rate_is_certified_by_a_trial_that_is_invalid(columns: dict[str, Any], code: str) -> None:
    run = RetoldRun(Queue(0.4, servers=4), columns)
    entry = run.search()
    certifying = entry["probes"][-1]
    assert (certifying["step"], certifying["fault"], certifying["passed"]) == ("certify", code, False)
    about = run.trials[certifying["trial_id"]]
    row = reduce_trial(run.rows_of(certifying), about, run.manifest).trials.to_pylist()[0]
    assert row["valid"] == "INVALID"
    assert code in row["reasons"]
    assert entry["verdict"]["state"] == "uncertified"
    assert searched.faults(run.manifest) == [code]


def report_inputs(read: Read, run: Run) -> tuple[Findings, Decision, dict[str, Any]]:
    """What the reports of a run are made from."""
    config = read(CONFIG.replace("limit: 1s", "limit: 1s, start: 4, certify: 120s"))
    begun = manifests.begin(config, plan(config), {}, "run")
    payload = {"name": "p", "datasets": ["synthetic"], "tokens": None, "kept": 9, "tokens_source": "estimate"}
    manifest = begun | run.manifest | {"experiments": begun["experiments"], "payloads": [payload]}
    findings = searched.counted(reduce(run.rows_of, manifest), manifest)
    return findings, searched.decided(findings, manifest), manifest


@pytest.mark.parametrize("service_s", [0.4, 1.2])
def test_both_reports_say_how_much_load_is_the_most_and_show_every_probe(read: Read, service_s: float) -> None:
    run = Run(Queue(service_s, servers=4))
    entry = run.search()
    inputs = report_inputs(read, run)
    written, shown = markdown(*inputs), page(*inputs)
    assert "## Maximum load" in written
    assert '<section id="maximum"><h2>Maximum load</h2>' in shown
    assert '<a href="#maximum">' in shown
    lines = written.partition("## Maximum load")[2].partition("Short probes")[0].splitlines()
    assert sum(line.startswith("| ") for line in lines) == 1 + len(entry["probes"])
    verdict = entry["sentence"].partition(": ")[2].replace("<=", "&lt;=")
    assert verdict in written
    assert verdict in shown
    assert "INVALID.</b>" not in shown


def test_a_rate_that_was_certified_and_then_refuted_takes_no_part() -> None:
    run = Run(Queue(0.4, servers=4))
    entry = run.search()
    run.manifest["searches"][0]["verdict"] |= {"rate": entry["verdict"]["rate"] / 2}
    assert searched.counted(run.findings(), run.manifest).trials.num_rows == 0


def test_a_probe_of_the_same_name_elsewhere_takes_no_row_from_the_heat_map() -> None:
    run = Run(Queue(0.4, servers=4))
    entry = run.search()
    whole = next(each for each in entry["probes"] if each["step"] == "certify" and each["passed"])
    names = {"experiment": "e", "payload": "p", "load": run.trials[whole["trial_id"]]["load"]}
    line = names | {"prompt_tokens_low": 1.0, "prompt_tokens_high": 2.0, "requests": 9, "share": 1.0}
    findings = replace(run.findings(), tokens=pa.Table.from_pylist([line], TOKENS))
    assert {name: run.trials[whole["trial_id"]][name] for name in names} == names
    like = run.trials[whole["trial_id"]] | {"trial_id": "another", "experiment": "another"}
    run.manifest["trials"].append(like)
    assert searched.counted(findings, run.manifest).tokens.num_rows == 1
