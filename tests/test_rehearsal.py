"""The dress rehearsal: what it foretells of endpoints whose timing is known, and of trials that are too short."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from raybench.analysis.stats import certified_floor
from raybench.config import load_config
from raybench.errors import InputError
from raybench.plan import plan
from raybench.playbill import as_dict, text
from raybench.rehearsal import MOST_REQUESTS, Need, Rehearsal, rehearse

FIXED = "{simulate: fixed, overrides: {ttft_s: 0.1, itl_s: 0.025, tokens: 5}}"
SMALL = """\
name: small
experiments:
  - name: a
    instance_type: ml.g5.xlarge
    instance_count: 2
    endpoint: ENDPOINT
    route: stream
    price_per_hour: 36
payloads:
  - {name: p, dataset: {synthetic: {prompts: 200}}, tokens: [10, 20]}
loads:
  - LOAD
"""

LOADS = "\nloads:\n  - "

Rehearsed = Callable[..., Rehearsal]


@pytest.fixture
def rehearsed(tmp_path: Path) -> Rehearsed:
    """The rehearsal of a small config with this load and endpoint, in this process."""

    def rehearsed(
        load: str, endpoint: str = FIXED, more: str = "", payload: str = LOADS, workers: int = 1
    ) -> Rehearsal:
        path = tmp_path / "small.yaml"
        config_text = SMALL.replace("ENDPOINT", endpoint).replace(LOADS, payload).replace("LOAD", load)
        path.write_text(config_text + more)
        config = load_config(path)
        return rehearse(config, plan(config), workers)

    return rehearsed


def test_it_foretells_time_cost_latency_and_throughput_to_the_digit(rehearsed: Rehearsed) -> None:
    told = rehearsed("{kind: closed, concurrency: 1, requests: 100, warmup: 1s}")
    (trial,) = told.trials
    assert trial.row["latency_mean"] == pytest.approx(0.2, abs=1e-12)
    assert trial.row["latency_p95"] == pytest.approx(0.2, abs=1e-12)
    assert trial.row["ttft_mean"] == pytest.approx(0.1, abs=1e-12)
    assert trial.row["requests_per_s"] == pytest.approx(5, abs=1e-9)
    assert trial.row["valid"] == "VALID"
    assert trial.seconds == told.seconds() == told.seconds("a") == 21.0
    assert trial.usd == told.usd() == told.usd("a") == pytest.approx(36 * 2 * 21 / 3600)


def test_a_trial_that_is_long_enough_says_the_least_that_would_have_been(rehearsed: Rehearsed) -> None:
    (trial,) = rehearsed("{kind: closed, concurrency: 1, requests: 700, warmup: 1s}").trials
    assert trial.needs == (Need("latency_p95", True, 130, 26), Need("latency_p99", True, 662, 133))


def test_a_trial_that_is_too_short_says_how_many_requests_and_seconds_would_do(rehearsed: Rehearsed) -> None:
    (trial,) = rehearsed("{kind: closed, concurrency: 1, duration: 10s}").trials
    assert trial.row["requests"] == 50
    assert trial.needs == (Need("latency_p95", False, 130, 26), Need("latency_p99", False, 662, 133))


@pytest.mark.parametrize(("duration", "met"), [("25s", False), ("26s", True)])
def test_the_least_duration_does_and_a_second_less_does_not(rehearsed: Rehearsed, duration: str, met: bool) -> None:
    (trial,) = rehearsed(f"{{kind: closed, concurrency: 1, duration: {duration}}}").trials
    assert trial.needs[0].met is met
    assert (trial.row["latency_p95_certified"] is not None) is met


def test_the_criteria_say_which_percentiles_matter(rehearsed: Rehearsed) -> None:
    load = "{kind: closed, concurrency: 1, duration: 10s}"
    (trial,) = rehearsed(load, more="criteria: {ttft_p90: 1s, latency_mean: 1s}\n").trials
    assert [(need.metric, need.requests) for need in trial.needs] == [("ttft_p90", certified_floor(0.9))]


def test_requests_that_depend_on_each_other_need_more_of_them(rehearsed: Rehearsed) -> None:
    (trial,) = rehearsed("{kind: closed, concurrency: 8, duration: 20s}", "{simulate: llama2-70b-p4d-tgi}").trials
    p95 = trial.needs[0]
    assert not p95.met
    assert p95.requests is not None
    assert p95.requests > 1.5 * certified_floor(0.95)


def test_where_too_many_fail_no_length_does_and_it_says_so(rehearsed: Rehearsed) -> None:
    endpoint = FIXED.replace("overrides", "faults: {model_error: 0.2}, overrides")
    told = rehearsed("{kind: closed, concurrency: 4, duration: 10s}", endpoint)
    assert told.trials[0].needs[0] == Need("latency_p95", False, None, None)
    assert f"not in {MOST_REQUESTS:,} requests (failures)" in text(told)


def test_more_than_the_endpoint_can_take_is_found_out(rehearsed: Rehearsed) -> None:
    endpoint = "{simulate: llama2-70b-g5-tgi}"
    (trial,) = rehearsed("{kind: poisson, rate: 5, duration: 60s, max_in_flight: 4}", endpoint).trials
    assert trial.row["not_sent"] > 0
    assert trial.row["valid"] == "INVALID"
    assert "not_sent" in trial.row["reasons"]


def test_a_slot_that_thinks_is_not_idle(rehearsed: Rehearsed) -> None:
    (trial,) = rehearsed("{kind: closed, concurrency: 2, think_time: 300ms, duration: 20s}").trials
    assert trial.row["little_ratio"] == pytest.approx(1.0, abs=1e-9)
    assert trial.row["requests_per_s"] == pytest.approx(4.0, abs=1e-9)
    assert trial.row["valid"] == "VALID"


def test_all_actors_play_their_parts(rehearsed: Rehearsed) -> None:
    load = "{kind: constant, rate: 20, duration: 20s}"
    one, four = (rehearsed(load, more=f"fleet: {{actors: {actors}}}\n").trials[0].row for actors in (1, 4))
    differing = {name for name in one if one[name] != four[name]}
    assert differing <= {"prompt_token_count_mean", "prompt_token_throughput"} | {
        f"prompt_token_throughput_{end}" for end in ("low", "high")
    }


def test_it_is_the_same_twice_and_however_many_processes_play_it(rehearsed: Rehearsed) -> None:
    load = "{kind: poisson, rate: 1, requests: 80}\n  - {kind: closed, concurrency: 2, requests: 80}"
    payload = "\n  - {name: q, dataset: {synthetic: {prompts: 200}}, tokens: [20, 30]}\nloads:\n  - "
    wanted = {
        "load": f"{load}\nrepeats: 2\ncriteria: {{latency_p50: 5s}}\n",
        "endpoint": "{simulate: llama2-70b-p4d-tgi}",
        "payload": payload,
    }
    alone = rehearsed(**wanted)
    assert [each.trial.index for each in alone.trials] == list(range(8))
    assert rehearsed(**wanted) == alone
    assert rehearsed(**wanted, workers=2) == alone


def test_a_real_endpoint_is_refused_with_its_line(rehearsed: Rehearsed) -> None:
    with pytest.raises(InputError, match=r"small.yaml:6: experiments\[0\].endpoint: 'a' is a real endpoint"):
        rehearsed("{kind: closed, concurrency: 1, duration: 10s}", "{name: real}")


def test_it_prints_a_line_a_trial_and_what_would_do_for_all(rehearsed: Rehearsed) -> None:
    said = text(rehearsed("{kind: closed, concurrency: [1, 2], duration: 10s}"))
    assert said.startswith("small: 2 trials in virtual time; the run: 20 s of load")
    assert "needs 130 requests, 26 s" in said
    assert "latency_p95: 2 of 2 trials are too short to certify it; 2 would at 130 requests, or 26 s, each" in said
    assert "0.40 USD, not billed: simulated" in said


def test_its_values_are_json(rehearsed: Rehearsed) -> None:
    told = json.loads(json.dumps(as_dict(rehearsed("{kind: closed, concurrency: 1, duration: 10s}"))))
    assert told["trials"][0]["needs"][0] == {"metric": "latency_p95", "met": False, "requests": 130, "duration_s": 26}
    assert told["trials"][0]["row"]["latency_mean"] == pytest.approx(0.2)
    assert told["experiments"] == [{"experiment": "a", "seconds": told["seconds"], "usd": told["usd"]}]
