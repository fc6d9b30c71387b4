"""The plan: which trials, in which order, how long, how dear; and what is refused before anything starts."""

import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from raybench import plan_text
from raybench.analysis.stats import interval_floor
from raybench.config import load_config
from raybench.errors import InputError
from raybench.load.arrivals import Closed, Poisson
from raybench.plan import Plan, plan

CONFIGS = Path(__file__).parents[1] / "configs"

TWO_BY_TWO = """\
name: small
experiments:
  - {name: a, instance_type: ml.g5.xlarge, instance_count: 2, endpoint: {name: a}, price_per_hour: 36}
  - {name: b, instance_type: ml.g5.xlarge, endpoint: {simulate: fixed}, price_per_hour: 3.6}
payloads:
  - {name: p, dataset: {synthetic: {prompts: 9}}, tokens: [10, 20]}
  - {name: q, dataset: {synthetic: {prompts: 9}}, tokens: [20, 30]}
loads:
  - {kind: closed, concurrency: [1, 2], duration: 60s, warmup: 10s}
repeats: 2
"""
LOAD = "{kind: closed, concurrency: [1, 2], duration: 60s, warmup: 10s}"

Planned = Callable[[str], Plan]


@pytest.fixture
def planned(tmp_path: Path) -> Planned:
    """The plan of a config's text."""

    def planned(text: str) -> Plan:
        path = tmp_path / "small.yaml"
        path.write_text(text)
        return plan(load_config(path))

    return planned


def test_trials_are_payloads_by_loads_by_repeats_for_each_experiment_in_turn(planned: Planned) -> None:
    trials = planned(TWO_BY_TWO).trials
    assert [trial.trial_id for trial in trials[:8]] == [
        "a~p~closed-1~0", "a~p~closed-1~1", "a~p~closed-2~0", "a~p~closed-2~1",
        "a~q~closed-1~0", "a~q~closed-1~1", "a~q~closed-2~0", "a~q~closed-2~1",
    ]  # fmt: skip
    assert [trial.index for trial in trials] == list(range(16))
    assert {trial.experiment for trial in trials[8:]} == {"b"}
    assert trials[2].load == Closed(2)
    assert (trials[2].warmup_s, trials[2].duration_s, trials[2].requests) == (10.0, 60.0, None)


def test_endpoints_get_equal_work_and_cells_different_work(planned: Planned) -> None:
    both = planned(TWO_BY_TWO)
    a, b = both.of("a"), both.of("b")
    assert [(trial.lot, trial.seed) for trial in a] == [(trial.lot, trial.seed) for trial in b]
    assert len({trial.seed for trial in a}) == len({trial.lot for trial in a}) == len(a)


def test_a_trial_keeps_its_seed_when_others_come_and_go_but_not_when_the_config_s_seed_changes(
    planned: Planned,
) -> None:
    before = {trial.trial_id: trial.seed for trial in planned(TWO_BY_TWO).trials}
    fewer = {trial.trial_id: trial.seed for trial in planned(TWO_BY_TWO.replace("[1, 2]", "2")).trials}
    assert fewer.items() < before.items()
    other = {trial.trial_id: trial.seed for trial in planned(TWO_BY_TWO + "seed: 1\n").trials}
    assert all(other[trial] != seed for trial, seed in before.items())


def test_a_load_may_be_for_some_payloads_and_experiments_only(planned: Planned) -> None:
    text = TWO_BY_TWO.replace("10s}", "10s, payloads: q}\n  - {kind: poisson, rate: 2, requests: 9, experiments: b}")
    trials = planned(text.replace("repeats: 2\n", "")).trials
    assert [trial.trial_id for trial in trials] == [
        "a~q~closed-1~0", "a~q~closed-2~0",
        "b~p~poisson-2.0~0", "b~q~closed-1~0", "b~q~closed-2~0", "b~q~poisson-2.0~0",
    ]  # fmt: skip
    assert trials[2].load == Poisson(2.0)
    assert trials[1].lot == trials[4].lot


def test_time_is_that_of_the_slowest_experiment_and_money_that_of_all(planned: Planned) -> None:
    both = planned(TWO_BY_TWO)
    assert both.seconds == 8 * 70
    assert [each.usd for each in both.forecasts] == pytest.approx([8 * 70 / 3600 * 72, 8 * 70 / 3600 * 3.6])
    assert both.usd == pytest.approx(8 * 70 / 3600 * 75.6)


def test_a_count_is_estimated_where_rate_or_profile_tell_and_unknown_elsewhere(planned: Planned) -> None:
    counted = planned(TWO_BY_TWO.replace(LOAD, "{kind: closed, concurrency: 2, requests: 10}"))
    round_s = 0.1 + 31 * 0.02
    assert [trial.expected_s for trial in counted.of("b")] == pytest.approx([5 * round_s] * 4)
    assert [trial.expected_s for trial in counted.of("a")] == [None] * 4
    assert (counted.seconds, counted.usd) == (None, None)
    assert "unknown" in plan_text.text(counted)
    open_load = planned(TWO_BY_TWO.replace(LOAD, "{kind: poisson, rate: 4, requests: 10, warmup: 1s}"))
    assert {trial.expected_s for trial in open_load.trials} == {3.5}


def test_the_same_trial_twice_is_refused_at_the_second_load(planned: Planned) -> None:
    text = TWO_BY_TWO.replace(LOAD, f"{LOAD}\n  - {{kind: closed, concurrency: 2, requests: 9}}")
    with pytest.raises(InputError, match=r"small.yaml:10: loads\[1\]: closed-2 of p is planned twice"):
        planned(text)


def test_an_experiment_without_a_load_is_refused(planned: Planned) -> None:
    with pytest.raises(InputError, match=r"small.yaml:8: loads: no load is for 'b'; a load for each"):
        planned(TWO_BY_TWO.replace("10s}", "10s, experiments: a}"))


def test_more_trials_than_anyone_waits_for_are_refused(planned: Planned) -> None:
    with pytest.raises(InputError, match=r"small.yaml:8: loads: too many trials; at most 10000"):
        planned(TWO_BY_TWO.replace("[1, 2]", str(list(range(1, 1000)))).replace("repeats: 2", "repeats: 1000"))


def test_a_trial_whose_name_no_file_system_takes_is_refused(planned: Planned, tmp_path: Path) -> None:
    trace = tmp_path / f"{'t' * 200}.jsonl"
    trace.write_text('{"timestamp": 0, "input_length": 1, "output_length": 1}\n' * 9)
    text = TWO_BY_TWO.replace(LOAD, f"{{kind: replay, trace: {trace.name}, requests: 9}}").replace(
        "a,", "a" * 80 + ","
    )
    with pytest.raises(InputError, match=r"small.yaml:9: loads\[0\]: the names of this trial are too long; "):
        planned(text)


@pytest.mark.parametrize(
    ("length", "problem"),
    [
        ("requests: 301", "requests: 301 requests of a trace that has 300; at most 300"),
        (
            "warmup: 10s, requests: 201",
            "requests: 201 requests of a trace that has 200 after its warm-up; at most 200",
        ),
        (
            "slice: [20s, 3600s], duration: 3000s",
            "duration: lasts longer than the trace, whose last arrival is at 9.9 s",
        ),
        (
            "duration: 60s",
            "duration: lasts longer than the trace, whose last arrival is at 29.9 s; warmup and duration",
        ),
        (
            "speed: 2, warmup: 5s, duration: 12s",
            "duration: lasts longer than the trace, whose last arrival is at 14.9",
        ),
        (
            "slice: [10s, 20s], duration: 11s",
            "duration: lasts longer .* at 9.9 s; warmup and duration of at most 10.0",
        ),
    ],
)
def test_a_trial_that_outlasts_its_trace_is_refused(
    planned: Planned, tmp_path: Path, length: str, problem: str
) -> None:
    lines = (f'{{"timestamp": {100 * k}, "input_length": 5, "output_length": 3}}\n' for k in range(300))
    (tmp_path / "trace.jsonl").write_text("".join(lines))
    with pytest.raises(InputError, match=rf"small.yaml:9: loads\[0\]\.{problem}"):
        planned(TWO_BY_TWO.replace(LOAD, f"{{kind: replay, trace: trace.jsonl, {length}}}"))
    for fits in (
        "requests: 300",
        "duration: 30s",
        "speed: 2, duration: 15s",
        "slice: [10s, 20s], duration: 10s",
        "warmup: 10s, requests: 200",
    ):
        assert planned(TWO_BY_TWO.replace(LOAD, f"{{kind: replay, trace: trace.jsonl, {fits}}}")).trials


def test_a_percentile_that_so_few_requests_cannot_give_is_refused(planned: Planned) -> None:
    text = TWO_BY_TWO.replace("duration: 60s", "requests: 100") + "criteria: {latency_p99: 5s}\n"
    with pytest.raises(
        InputError, match=r"yaml:11: criteria.latency_p99: .* 100 requests.*; needs >= 368 requests, 662 to"
    ) as caught:
        planned(text)
    assert caught.value.exit_code == 2
    assert planned(text.replace("requests: 100", "requests: 368")).trials
    assert planned(text.replace("p99", "p95").replace("requests: 100", "requests: 72")).trials
    assert planned(text.replace("p99", "mean").replace("requests: 100", "requests: 4")).trials


def test_names_are_safe_for_every_file_system_and_unique() -> None:
    for path in set(CONFIGS.glob("*.yaml")) - set(CONFIGS.glob("cluster-*")):
        ids = [trial.trial_id for trial in plan(load_config(path)).trials]
        assert len(set(ids)) == len(ids)
        assert all(len(name) <= 240 and set(name).isdisjoint('/\\:*?"<>| \0') for name in ids)


def test_the_plan_prints_as_aligned_columns_and_as_json(planned: Planned) -> None:
    both = planned(TWO_BY_TWO.replace("repeats: 2\n", ""))
    head, _, *lines = plan_text.text(both).splitlines()
    assert head == "small: 8 trials, 5 min of load with endpoints in parallel, 5.88 USD"
    assert lines[0] == "experiment  payload  load      repeat  warm-up  measured  about"
    assert lines[1] == "a           p        closed-1  0       10 s     60 s      70 s"
    assert lines[-2:] == [
        "a           2 x ml.g5.xlarge  4       5 min  5.60 USD",
        "b           1 x ml.g5.xlarge  4       5 min  0.28 USD, not billed",
    ]
    told = json.loads(json.dumps(plan_text.as_dict(both)))
    assert (told["expected_s"], len(told["trials"]), told["trials"][0]["load"]) == (280.0, 8, "closed-1")


def test_the_demo_fits_into_a_minute_and_a_half_and_its_last_trials_hold_a_p95() -> None:
    demo = plan(load_config(CONFIGS / "quickstart.yaml"))
    assert demo.seconds is not None
    assert demo.seconds <= 85
    assert len(demo.forecasts) == 2
    assert {trial.load.label for trial in demo.trials} == {"closed-1", "closed-2", "closed-4", "closed-8"}
    for trial in demo.trials:
        if trial.load in (Closed(4), Closed(8)):
            assert trial.requests is not None
            assert trial.requests >= interval_floor(0.95)


def test_the_benchmark_has_the_seed_s_five_buckets_at_five_levels_on_two_endpoints() -> None:
    seed = load_config(CONFIGS / "llama2-70b-g5-p4d-tgi.yaml")
    assert len(plan(seed).trials) == 5 * 5 * 2
    buckets = [payload.tokens for payload in seed.payloads]
    assert all(left and right and left[1] == right[0] for left, right in pairwise(buckets))
    assert seed.criteria.limits == {"latency_mean": 5.0, "cost_per_10k": 50.0, "error_rate": 0.0}
    assert math.isclose(sum(each.price_per_hour or math.nan for each in seed.experiments), 20.36 + 37.688)


def test_a_percentile_needs_more_requests_where_they_may_queue(planned: Planned) -> None:
    closed = TWO_BY_TWO.replace("duration: 60s", "requests: 72") + "criteria: {latency_p95: 5s}\n"
    assert planned(closed).trials
    few = closed.replace(LOAD.replace("duration: 60s", "requests: 72"), "{kind: poisson, rate: 5, requests: 367}")
    with pytest.raises(InputError, match=r"too few for a p95; needs >= 368 requests where they may queue"):
        planned(few)
    assert planned(few.replace("367", "368")).trials


def test_a_mean_of_so_few_requests_is_refused_and_of_more_where_they_may_queue(planned: Planned) -> None:
    closed = TWO_BY_TWO.replace("duration: 60s", "requests: 100") + "criteria: {latency_mean: 5s}\n"
    assert planned(closed).trials
    few = closed.replace(LOAD.replace("duration: 60s", "requests: 100"), "{kind: poisson, rate: 5, requests: 367}")
    with pytest.raises(
        InputError, match=r"criteria.latency_mean: .* 367 requests, too few for a mean; needs >= 368 r"
    ):
        planned(few)
    assert planned(few.replace("367", "368")).trials
    with pytest.raises(InputError, match=r"closed-2 plans 3 requests, too few for a mean; needs >= 4 requests"):
        planned(closed.replace("requests: 100", "requests: 3"))
    assert planned(closed.replace("requests: 100", "requests: 4")).trials
