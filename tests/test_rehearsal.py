"""The dress rehearsal: what it foretells of endpoints whose timing is known, and of trials that are too short."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from raybench import rehearsal, targets
from raybench.analysis.stats import certified_floor
from raybench.client.bodies import request
from raybench.config import load_config
from raybench.errors import InputError
from raybench.load.probe import Step
from raybench.plan import plan
from raybench.rehearsal import MOST_SEARCHED, Need, Rehearsal, rehearse
from raybench.rehearsal_text import as_dict, text
from raybench.rows import Prompt

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
        load: str,
        endpoint: str = FIXED,
        more: str = "",
        payload: str = LOADS,
        workers: int = 1,
        route: str = "route: stream",
        most_searched: int = MOST_SEARCHED,
    ) -> Rehearsal:
        path = tmp_path / "small.yaml"
        config_text = SMALL.replace("ENDPOINT", endpoint).replace(LOADS, payload).replace("LOAD", load)
        config_text = config_text.replace("route: stream", route)
        path.write_text(config_text + more)
        config = load_config(path)
        return rehearse(config, plan(config), workers, most_searched=most_searched)

    return rehearsed


def test_it_foretells_time_cost_latency_and_throughput(rehearsed: Rehearsed) -> None:
    told = rehearsed("{kind: closed, concurrency: 2, requests: 100, warmup: 1s}")
    (trial,) = told.trials
    assert trial.row["latency_mean"] == pytest.approx(0.2, rel=0.01)
    assert trial.row["latency_p95"] == pytest.approx(0.2, rel=0.01)
    assert trial.row["ttft_mean"] == pytest.approx(0.1, rel=0.01)
    assert trial.row["requests_per_s"] == pytest.approx(10, rel=0.03)
    assert trial.row["valid"] == "VALID"
    assert trial.seconds == told.seconds() == told.seconds("a") == pytest.approx(11, abs=0.3)
    assert trial.usd == told.usd() == told.usd("a") == pytest.approx(36 * 2 * trial.seconds / 3600)


def test_a_trial_lasts_for_its_duration_however_early_its_last_reply(rehearsed: Rehearsed) -> None:
    """One request arrives at 0 s and the next at 100 s."""
    (trial,) = rehearsed("{kind: constant, rate: 0.01, duration: 60s, warmup: 5s}").trials
    assert trial.seconds == 65
    assert trial.usd == pytest.approx(36 * 2 * 65 / 3600)


def test_no_fewer_requests_than_the_floor_ever_do(rehearsed: Rehearsed) -> None:
    (trial,) = rehearsed("{kind: closed, concurrency: 1, requests: 129}").trials
    p95, p99 = trial.needs
    assert (p95.metric, p95.met) == ("latency_p95", False)
    assert (p99.metric, p99.met) == ("latency_p99", False)
    assert p95.requests is not None
    assert p99.requests is not None
    assert p95.requests >= certified_floor(0.95) == 130
    assert p99.requests >= certified_floor(0.99) == 662
    assert p95.duration_s == pytest.approx(0.2 * p95.requests, abs=1.5)


def test_the_length_that_it_names_does(rehearsed: Rehearsed) -> None:
    (short,) = rehearsed("{kind: closed, concurrency: 2, duration: 10s, warmup: 2s}").trials
    for need in short.needs:
        assert not need.met
        assert need.duration_s is not None
        (longer,) = rehearsed(f"{{kind: closed, concurrency: 2, duration: {need.duration_s}s, warmup: 2s}}").trials
        assert next(each for each in longer.needs if each.metric == need.metric).met
        assert longer.row[f"{need.metric}_certified"] is not None


def test_a_trial_that_is_long_enough_says_the_least_that_would_have_been(rehearsed: Rehearsed) -> None:
    (trial,) = rehearsed("{kind: closed, concurrency: 1, requests: 1500}").trials
    for need in trial.needs:
        assert need.met
        assert need.requests is not None
        assert need.requests < 1500


def test_the_criteria_say_which_percentiles_matter(rehearsed: Rehearsed) -> None:
    load = "{kind: closed, concurrency: 1, duration: 10s}"
    (trial,) = rehearsed(load, more="criteria: {ttft_p90: 1s, latency_mean: 1s}\n").trials
    (need,) = trial.needs
    assert need.metric == "ttft_p90"
    assert need.requests is not None
    assert need.requests >= certified_floor(0.9)


def test_requests_that_depend_on_each_other_need_more_of_them(rehearsed: Rehearsed) -> None:
    (trial,) = rehearsed("{kind: closed, concurrency: 8, duration: 20s}", "{simulate: llama2-70b-p4d-tgi}").trials
    p95 = trial.needs[0]
    assert not p95.met
    assert p95.requests is not None
    assert p95.requests > 1.5 * certified_floor(0.95)


def test_where_too_many_fail_no_length_does_and_it_says_so(rehearsed: Rehearsed) -> None:
    endpoint = FIXED.replace("overrides", "faults: {model_error: 0.2}, overrides")
    told = rehearsed("{kind: closed, concurrency: 4, duration: 10s}", endpoint)
    (trial,) = told.trials
    assert trial.needs[0] == Need("latency_p95", False, None, None, trial.row["requests"])
    assert f"not in {trial.row['requests']:,} requests (failures)" in text(told)


def test_more_than_the_endpoint_can_take_is_found_out(rehearsed: Rehearsed) -> None:
    endpoint = "{simulate: llama2-70b-g5-tgi}"
    (trial,) = rehearsed("{kind: poisson, rate: 5, duration: 60s, max_in_flight: 4}", endpoint).trials
    assert trial.row["not_sent"] > 0
    assert trial.row["valid"] == "INVALID"
    assert "not_sent" in trial.row["reasons"]


def test_a_slot_that_thinks_is_not_idle(rehearsed: Rehearsed) -> None:
    (trial,) = rehearsed("{kind: closed, concurrency: 2, think_time: 300ms, duration: 20s}").trials
    assert trial.row["little_ratio"] == pytest.approx(1.0, abs=1e-6)
    assert trial.row["requests_per_s"] == pytest.approx(4.0, rel=0.03)
    assert trial.row["valid"] == "VALID"


def test_all_actors_play_their_parts(rehearsed: Rehearsed) -> None:
    load = "{kind: constant, rate: 20, duration: 20s}"
    one, four = (rehearsed(load, more=f"fleet: {{actors: {actors}}}\n").trials[0].row for actors in (1, 4))
    assert one["requests"] == four["requests"] == 400
    assert four["missing_rows"] == 0
    assert one["latency_mean"] == pytest.approx(four["latency_mean"], rel=0.01)
    assert four["prompt_repeats_max"] == one["prompt_repeats_max"]


@pytest.mark.parametrize(
    "load",
    [
        "{kind: closed, concurrency: 3, requests: 10, think_time: 1s}",
        "{kind: poisson, rate: 10, max_in_flight: 3, requests: 100}",
    ],
)
def test_actors_without_a_place_lose_no_rows(load: str, rehearsed: Rehearsed) -> None:
    (trial,) = rehearsed(load, more="fleet: {actors: 5}\n").trials
    assert trial.row["missing_rows"] == 0
    assert "lost_rows" not in trial.row["reasons"]


def test_it_is_the_same_twice_and_however_many_processes_play_it(rehearsed: Rehearsed) -> None:
    load = "{kind: poisson, rate: 1, requests: 368}\n  - {kind: closed, concurrency: 2, requests: 80}"
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
    told = rehearsed("{kind: closed, concurrency: [1, 2], duration: 10s}")
    said = text(told)
    assert said.startswith("small: 2 trials in virtual time; the run: 20 s of load")
    for need in (trial.needs[0] for trial in told.trials):
        assert f"needs {need.requests} requests, {need.duration_s} s" in said
    assert "latency_p95: 2 of 2 trials are too short to certify it; 2 would at" in said
    assert "0.40 USD, not billed: simulated" in said


@pytest.mark.parametrize(("planned", "enough"), [(250, True), (210, False)])
def test_a_trial_planned_long_is_played_on_to_three_times_that_and_the_text_says_how_far(
    planned: int, enough: bool, rehearsed: Rehearsed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """p99 needs 662 requests; both trials are planned longer than any is otherwise tried."""
    monkeypatch.setattr(rehearsal, "MOST_REQUESTS", 200)
    told = rehearsed(f"{{kind: closed, concurrency: 1, requests: {planned}}}")
    _, need = told.trials[0].needs
    assert not need.met
    assert need.tried == 3 * planned
    assert (need.requests is not None) == enough
    assert ("not in 630 requests" in text(told)) == (not enough)
    assert ("; 1 would not even at 630 requests" in text(told)) == (not enough)


def test_a_trace_is_played_to_its_last_request_and_the_text_says_that_it_has_no_more(
    rehearsed: Rehearsed, tmp_path: Path
) -> None:
    """Sixty requests, one a second, of which the first five are warm-up."""
    arrivals = (f'{{"timestamp": {n * 1000}, "input_length": 9, "output_length": 5}}\n' for n in range(60))
    (tmp_path / "t.jsonl").write_text("".join(arrivals))
    told = rehearsed("{kind: replay, trace: t.jsonl, warmup: 5s, requests: 20}")
    p95, p99 = told.trials[0].needs
    assert p95 == Need("latency_p95", False, None, None, 55, whole=True)
    assert p99 == Need("latency_p99", False, None, None, 55, whole=True)
    assert "not in 55 requests, all there are" in text(told)


def test_a_trial_that_mostly_waits_is_played_on_for_a_bounded_time(
    rehearsed: Rehearsed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request every 100 s, the first at once; four slots that may wait for a quarter of the time each."""
    monkeypatch.setattr(rehearsal, "MOST_WAITED_S", 7200)
    told = rehearsed(
        "{kind: constant, rate: 0.01, duration: 30s}\n"
        "  - {kind: closed, concurrency: 4, think_time: 200s, requests: 4}"
    )
    seldom, thinking = told.trials
    assert seldom.needs[0] == Need("latency_p95", False, None, None, 72, tried_s=7200)
    assert thinking.needs[0] == Need("latency_p95", False, None, None, 4 * 8, tried_s=1800)
    assert "not in 72 requests, 2.0 h" in text(told)
    assert "not in 32 requests, 30 min" in text(told)


def test_a_trial_planned_for_longer_than_that_is_played_on_to_three_times_its_time(
    rehearsed: Rehearsed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "MOST_WAITED_S", 60)
    (trial,) = rehearsed("{kind: constant, rate: 0.01, duration: 1000s}").trials
    assert trial.needs[0] == Need("latency_p95", False, None, None, 30, tried_s=3000)


def test_one_trial_that_no_length_would_do_for_reads_as_a_sentence(rehearsed: Rehearsed) -> None:
    (trial,) = (told := rehearsed("{kind: closed, concurrency: 1, duration: 10s}")).trials
    hopeless = tuple(replace(need, requests=None, duration_s=None, tried=2000) for need in trial.needs)
    said = text(replace(told, trials=(one := replace(trial, needs=hopeless),)))
    assert "1 of 1 trial is too short to certify it; 1 would not even at 2,000 requests" in said
    longest = replace(trial, needs=tuple(replace(need, tried=18000) for need in hopeless))
    said = text(replace(told, trials=(one, longest)))
    assert "2 of 2 trials are too short to certify it; 2 would not even at 2,000 to 18,000 requests" in said


def test_its_values_are_json(rehearsed: Rehearsed) -> None:
    played = rehearsed("{kind: closed, concurrency: 1, duration: 10s}")
    told = json.loads(json.dumps(as_dict(played)))
    need = played.trials[0].needs[0]
    shown = {"metric": "latency_p95", "met": False, "requests": need.requests, "duration_s": need.duration_s}
    assert told["trials"][0]["needs"][0] == shown | {"tried": need.tried, "tried_s": None, "whole": False}
    assert told["trials"][0]["row"]["latency_mean"] == played.trials[0].row["latency_mean"]
    assert told["experiments"] == [{"experiment": "a", "seconds": told["seconds"], "usd": told["usd"]}]


SERIAL = """\
{simulate: llama2-70b-p4d-tgi, overrides: {prefill_ms: 0, prefill_ms2: 0, step_ms: 10, sequence_ms: 40, tokens: 2,
 steps_before_prefill: 1}}"""
"""A server that takes 50 ms for each request, one after another: never more than 20 a second."""

SEARCH = "{kind: search, metric: latency_p99, limit: 500ms, start: 10, certify: 60s, warmup: 5s, max_minutes: 30}"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    """A search on the serial server, and a trial beside it."""
    path = tmp_path_factory.mktemp("search") / "small.yaml"
    load = f"{SEARCH}\n  - {{kind: closed, concurrency: 1, duration: 10s}}"
    path.write_text(SMALL.replace("ENDPOINT", SERIAL).replace("LOAD", load))
    config = load_config(path)
    return rehearse(config, plan(config), 1)


def test_a_search_is_played_to_its_verdict_and_tells_the_rate_the_time_and_the_cost(found: Rehearsal) -> None:
    (search,) = found.searches
    verdict = search.searched.verdict
    assert verdict is not None
    assert verdict.rate is not None
    assert 8 < verdict.rate < 20
    assert verdict.failing is not None
    assert verdict.failing > verdict.rate
    assert search.searched.probes[0].probe.step is Step.SANITY
    assert search.seconds == verdict.seconds < 1800
    assert search.usd == verdict.usd == pytest.approx(72 * search.seconds / 3600)
    (trial,) = found.trials
    assert found.seconds() == pytest.approx(search.seconds + trial.seconds)
    assert found.usd() == pytest.approx((search.usd or 0) + (trial.usd or 0))
    assert len(found.of("a")) == 2


def test_an_overload_is_stopped_early_in_a_rehearsal_too(found: Rehearsal) -> None:
    failed = [each for each in found.searches[0].searched.probes if not each.passed]
    assert failed
    over = next(each for each in failed if each.probe.rate >= 20)
    assert over.seen.requests < over.probe.rate * over.probe.seconds / 2


def test_a_search_has_a_line_a_sentence_and_its_probes_as_json(found: Rehearsal) -> None:
    said = text(found)
    assert said.startswith("small: 1 trial and 1 search in virtual time; the run: ")
    (search,) = found.searches
    verdict = search.searched.verdict
    assert verdict is not None
    assert f"{verdict.rate:g} requests/s certified for latency_p99 <= 0.5 s" in said
    assert f"({verdict.probes} probes, {verdict.seconds / 60:.1f} of at most 30 min" in said
    (told,) = json.loads(json.dumps(as_dict(found), allow_nan=False))["searches"]
    assert told["verdict"]["rate"] == verdict.rate
    assert (told["seconds"], told["usd"]) == (search.seconds, search.usd)
    assert len(told["probes"]) == verdict.probes


def test_a_search_with_more_actors_than_its_first_look_has_places_certifies(rehearsed: Rehearsed) -> None:
    search = SEARCH.replace("certify: 60s", "certify: 20s")
    (found,) = rehearsed(search, SERIAL, more="fleet: {actors: 2}\n").searches
    assert [probe.seen.fault for probe in found.searched.probes if probe.probe.step is Step.SANITY] == [None]
    assert found.searched.verdict is not None
    assert found.searched.verdict.rate is not None
    assert 8 < found.searched.verdict.rate < 20


def test_a_search_that_would_end_at_its_caps_says_which(rehearsed: Rehearsed) -> None:
    search = SEARCH.replace("max_minutes: 30", "max_minutes: 1")
    (found,) = rehearsed(search, SERIAL).searches
    assert found.searched.verdict is not None
    assert found.searched.verdict.rate is None
    assert found.seconds <= 65
    capped = rehearsed(search.replace("max_minutes: 1", "max_minutes: 30, max_usd: 1"), SERIAL)
    said = text(capped)
    assert "no rate certified for latency_p99 <= 0.5 s: the budget has no room for a certifying trial" in said
    assert "of at most 1.00 USD" in said
    assert "of load with endpoints in parallel, " in said.splitlines()[0]


def test_a_search_that_nothing_overloads_is_left_off_and_says_so(rehearsed: Rehearsed) -> None:
    told = rehearsed(SEARCH, most_searched=5_000)
    (found,) = told.searches
    assert found.searched.verdict is None
    assert sum(each.seen.requests for each in found.searched.probes) <= 5_000
    assert 0 < found.seconds < 1800
    said = text(told)
    assert "the run: at least " in said
    assert "requests with no rate certified; more than" in said


def test_a_search_is_the_same_twice_and_in_a_process_of_its_own(rehearsed: Rehearsed) -> None:
    load = "{kind: search, metric: latency_p99, limit: 500ms, start: 40, certify: 10s, warmup: 0s, max_minutes: 1}"
    load += "\n  - {kind: closed, concurrency: 1, requests: 40}"
    alone = rehearsed(load, SERIAL, more="criteria: {latency_p50: 5s}\n")
    assert rehearsed(load, SERIAL, more="criteria: {latency_p50: 5s}\n", workers=2) == alone


def test_a_first_look_that_is_stopped_as_too_slow_is_no_lost_row(rehearsed: Rehearsed) -> None:
    slow = "{simulate: fixed, overrides: {ttft_s: 20, itl_s: 0.01, tokens: 2}}"
    told = rehearsed(
        "{kind: search, metric: ttft_p99, limit: 1s, start: 1, certify: 10s, warmup: 0s, max_minutes: 5}", slow
    )
    (found,) = told.searches
    verdict = found.searched.verdict
    assert verdict is not None
    assert [probe.probe.step for probe in found.searched.probes] == [Step.SANITY]
    assert found.searched.probes[0].seen.fault is None
    assert verdict.rate is None


@pytest.mark.parametrize(("parameters", "streams"), [("{}", True), ("{stream: false}", False)])
def test_the_openai_route_streams_unless_it_is_told_not_to(
    parameters: str, streams: bool, rehearsed: Rehearsed, tmp_path: Path
) -> None:
    openai = f"route: openai\n    parameters: {parameters}"
    (trial,) = rehearsed("{kind: closed, concurrency: 1, requests: 20}", route=openai).trials
    assert trial.row["ok"] == 20
    assert (trial.row["ttft_p50"] is not None) == streams

    there = "{name: there, url: 'http://127.0.0.1:9'}"
    path = tmp_path / "there.yaml"
    written = SMALL.replace("ENDPOINT", there).replace("LOAD", "{kind: closed, concurrency: 1, requests: 20}")
    path.write_text("region: us-west-2\n" + written.replace("route: stream", openai))
    config = load_config(path)
    aim = targets.target(config, config.experiments[0], None)
    assert aim.streams == streams
    assert (
        orjson.loads(request(aim, config.experiments[0].parameters, Prompt("Hi", 1, "estimate")).body)["stream"]
        == streams
    )
