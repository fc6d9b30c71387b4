"""What load actors tell Ray's metrics, and that the Grafana dashboard asks for just that."""

import json
import re
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import failed, row
from simulated import simulator
from waiting import until

from raybench.client.sigv4 import Credentials
from raybench.client.target import Target
from raybench.cluster import environment
from raybench.cluster.grafana import dashboard
from raybench.cluster.metrics import INSTRUMENTS, WHOSE, Instruments, Meter, Totals, ended
from raybench.cluster.part import Post
from raybench.load.arrivals import Closed
from raybench.plan import Trial
from raybench.rows import Prompt, requests_table

GRAFANA = Path(__file__).parents[1] / "docs" / "raybench_grafana.json"


class Told:
    """Remembers the last number under each set of tags, and how often it was called."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[str, ...], float] = {}
        self.calls = 0

    def set(self, number: float, tags: Mapping[str, str]) -> None:
        self.calls += 1
        self.numbers[tuple(sorted(tags.values()))] = number

    def inc(self, number: float, tags: Mapping[str, str]) -> None:
        self.set(self.numbers.get(tuple(sorted(tags.values())), 0) + number, tags)


def meter() -> tuple[Meter, dict[str, Told]]:
    told = {each.name: Told() for each in INSTRUMENTS}

    def instruments() -> Instruments:
        return told

    made = Meter("a-0", instruments)
    made.begin("e", "p", "closed-1")
    return made, told


def number(told: Told, *tags: str) -> float:
    return told.numbers[tuple(sorted(("a-0", "e", "p", "closed-1", *tags)))]


def test_totals_count_each_value_under_every_bound_that_it_does_not_pass() -> None:
    totals = Totals((1.0, 2.0))
    totals.add(np.array([0.5, 1.0, 1.5, np.nan, 9.0]))
    totals.add(np.array([2.0]))
    assert totals.by_bound() == {"1": 2, "2": 4, "+Inf": 5}
    assert totals.sum == 14.0


def test_rows_are_counted_by_outcome_and_phase() -> None:
    rows = [row(0), row(1), failed(2), row(3, phase="warmup")]
    assert ended(requests_table(rows)) == {("ok", "measure"): 2, ("model_error", "measure"): 1, ("ok", "warmup"): 1}


def test_a_meter_tells_once_a_second_and_at_the_end() -> None:
    tells, told = meter()
    in_flight = told["raybench_in_flight"]
    for tenth in range(20, 50):
        tells.seen(requests_table([]), tenth, tenth / 10)
    assert in_flight.calls == 3
    assert number(in_flight) == 40
    tells.seen(requests_table([]), 0, 4.95, last=True)
    assert number(in_flight) == 0


def test_a_meter_tells_what_the_rows_say() -> None:
    tells, told = meter()
    tells.seen(requests_table([row(0, 0.0, 0.002, 1.2, chunks=(0.4, 1.1)), failed(1)]), 3, 1.0)
    tells.seen(requests_table([row(2, 0.0, 0.0, 9.0)]), 3, 2.0)
    assert number(told["raybench_requests"], "ok", "measure") == 2
    assert number(told["raybench_requests"], "model_error", "measure") == 1
    assert number(told["raybench_completion_tokens"]) == 12
    latency = told["raybench_latency_seconds_bucket"]
    assert [number(latency, le) for le in ("1", "1.5", "7.5", "10", "+Inf")] == [0, 1, 1, 2, 2]
    assert number(told["raybench_latency_seconds_sum"]) == pytest.approx(10.2)
    assert number(told["raybench_ttft_seconds_count"]) == 1
    assert number(told["raybench_lateness_seconds_bucket"], "0.001") == 2
    assert number(told["raybench_lateness_seconds_bucket"], "0.002") == 3


def test_a_meter_that_is_prepared_makes_its_instruments_then_and_no_more() -> None:
    made: list[Instruments] = []

    def instruments() -> Instruments:
        made.append({each.name: Told() for each in INSTRUMENTS})
        return made[-1]

    prepared = Meter("a-0", instruments)
    assert not made, "it is made in the driver"
    prepared.prepare()
    assert len(made) == 1
    prepared.begin("e", "p", "closed-1")
    prepared.seen(requests_table([row(0)]), 1, 1.0)
    assert len(made) == 1


def test_a_thousand_requests_are_told_in_as_many_calls_as_one() -> None:
    calls = []
    for requests in (1, 1000):
        tells, told = meter()
        tells.seen(requests_table([row(seq) for seq in range(requests)]), 1, 1.0)
        calls.append(sum(each.calls for each in told.values()))
    assert calls[0] == calls[1] < 100


def test_the_dashboard_asks_only_for_metrics_and_labels_that_exist() -> None:
    exported = {each.exported: {*each.tags} for each in INSTRUMENTS}
    queries = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    asked = set()
    for query in queries:
        names = re.findall(r"\bray_\w+", query)
        labels = {*re.findall(r"(\w+)(?:=~|!=|=)\"", query)}
        labels |= {label for by in re.findall(r"by \(([^)]*)\)", query) for label in by.split(", ")}
        assert names, query
        for name in names:
            assert labels <= exported[name] | {"le"}, query
        asked |= set(names)
    assert asked == {name for name in exported if not name.endswith(("_sum", "_count"))}, "and leaves none out"
    for variable in dashboard()["templating"]["list"][1:]:
        assert variable["name"] in WHOSE
        assert variable["definition"].split("(")[1].split(",")[0] in exported


def test_the_dashboard_in_docs_is_the_one_that_is_made() -> None:
    assert json.loads(GRAFANA.read_text()) == dashboard(), (
        "python -m raybench.cluster.grafana > docs/raybench_grafana.json"
    )


@pytest.fixture
def ray_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "1000")
    environment.prepare(local=True)
    from raybench.cluster.fleet import cluster

    with cluster("local", cpus=2):
        yield


def exposed() -> str:
    import ray

    (node,) = ray.nodes()  # type: ignore[no-untyped-call]
    url = f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            text: str = reply.read().decode()
    except OSError:
        return ""
    return text


def wait_for(wanted: str, seconds: float = 60.0) -> str:
    """The node's metrics once a line of them matches; they come when Ray's agent gets round to it."""
    text = ""

    def told() -> bool:
        nonlocal text
        text = exposed()
        return bool(re.search(wanted, text))

    def ours() -> str:
        return f"no {wanted!r} in:\n" + "\n".join(line for line in text.splitlines() if "raybench" in line)

    until(told, ours, seconds, every_s=0.2)
    return text


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_nodes_metrics_endpoint_has_the_runs_metrics_and_the_actors_have_telling_names(tmp_path: Path) -> None:
    import ray

    from raybench.cluster.fleet import NAMESPACE, Crew

    endpoints: dict[str, dict[str, Any]] = {
        "steady": {"profile": "fixed", "overrides": {"ttft_s": 0.03, "itl_s": 0.005, "tokens": 4}}
    }
    with simulator(endpoints) as running:
        keys = Credentials(running.credentials.access_key, running.credentials.secret_key)
        to = Target(running.url, "steady", "us-west-2", route="stream", dialect="tgi", credentials=keys)
        crew = Crew([Post("exp", 0, 1, to, {}, tmp_path / "run-1")])
        crew.gather()
        crew.arm({"p": [Prompt(f"{n} hello", 4, "estimate") for n in range(500)]})
        played = crew.play(trial(), 7, lambda batch: None)
        names = [each["name"] for each in ray.util.list_named_actors(True) if each["namespace"] == NAMESPACE]
        assert [name.rpartition("/")[0] for name in names] == ["run-1/exp-0"]
        whose = r'[^}]*actor="exp-0"[^}]*experiment="exp"[^}]*'
        total = len(played.rows)
        text = wait_for(rf'ray_raybench_latency_seconds_bucket\{{{whose}le="\+Inf"[^}}]*\}} {total}\.0')
        crew.close()
    for each in INSTRUMENTS:
        assert re.search(rf"^{each.exported}\{{{whose}", text, re.MULTILINE), each.exported
    ok = re.findall(rf'ray_raybench_requests_total\{{{whose}outcome="ok"[^}}]*\}} (\d+)', text)
    assert sum(map(int, ok)) == total


def trial() -> Trial:
    return Trial(
        trial_id="t~closed-2",
        index=0,
        experiment="exp",
        payload="p",
        load=Closed(2),
        repeat=0,
        lot=0,
        warmup_s=0.1,
        duration_s=1.5,
        requests=None,
        seed=7,
        expected_s=None,
    )
