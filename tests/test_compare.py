"""Two runs compared: what is called, what is refused, what is said, and that nothing of it runs."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from made import row, setting, table, trial
from typer.testing import CliRunner

from raybench import comparing, comparing_text
from raybench.analysis import reduce
from raybench.analysis.change import Call, Change
from raybench.analysis.columns import TRIALS
from raybench.analysis.compare import Comparison, Run, compare
from raybench.cli import app
from raybench.errors import CriteriaMissedError, InputError
from raybench.load.arrivals import Closed, Replay
from raybench.manifest import entry, prompts_hash
from raybench.payloads.pool import Pool
from raybench.payloads.tokens import counter
from raybench.plan import Trial
from raybench.report import comparison as pages
from raybench.rows import Prompt
from raybench.rundir import RunDir

CHROMIUM = Path("/usr/bin/chromium")
NUMBERS = ("latency_mean", "requests_per_s", "price_per_10k_txn")


def manifest(trials: Sequence[Mapping[str, Any]], run_id: str = "base", **other: Any) -> dict[str, Any]:
    """A run.json of the experiments and payloads that the trials name."""
    about = {
        "instance_type": "ml.g5.48xlarge",
        "instance_count": 1,
        "price_per_hour": 36.0,
        "simulated": False,
        "route": "stream",
        "dialect": "tgi",
        "parameters": {"max_new_tokens": 100},
    }
    experiments = dict.fromkeys(each["experiment"] for each in trials)
    payloads = dict.fromkeys(each["payload"] for each in trials)
    hashed = {"payload_hash": "5eed", "tokens": [1, 501], "datasets": ["a.jsonl"], "kept": 10}
    return {
        "schema": 1,
        "raybench": "0.1.0",
        "name": "n",
        "run_id": run_id,
        "region": "us-west-2",
        "started_utc": "2026-11-25T01:02:03Z",
        "state": "done",
        "simulated": False,
        "seed": 7,
        "model": None,
        "config_file": "c.yaml",
        "experiments": [about | {"name": name} for name in experiments],
        "payloads": [hashed | {"name": name} for name in payloads],
        "trials": [dict(each) for each in trials],
        "criteria": {"latency_mean": 5.0},
    } | other


def run(*rows: Mapping[str, Any], **other: Any) -> Run:
    """A run of rows of TRIALS."""
    trials = [
        {key: each[key] for key in ("experiment", "payload", "load", "kind", "concurrency", "rate")} for each in rows
    ]
    return Run(manifest(trials, **other), pa.Table.from_pylist([dict(each) for each in rows], TRIALS))


def near(value: float, reach: float = 0.01, **other: Any) -> dict[str, Any]:
    """A trial of 1,000 requests whose mean latency has an interval of ± reach of itself."""
    latency = {
        "latency_mean": value,
        "latency_mean_low": value * (1 - reach),
        "latency_mean_high": value * (1 + reach),
    }
    return setting(**{"requests": 1000, "repeat": 0, **latency, **other})


def change(found: Comparison, metric: str = "latency_mean") -> Change:
    """The one change of a metric."""
    (only,) = [change for _, change in found.called() if change.metric == metric]
    return only


def played(mean_s: float, seed: int, number: int = 400, **other: Any) -> tuple[dict[str, Any], pa.Table]:
    """A closed trial of one slot: requests of `mean_s` each, give or take a tenth, streamed in five chunks."""
    took = mean_s * np.random.default_rng(seed).normal(1, 0.1, number).clip(0.5, 1.5)
    starts = np.concatenate([[0.0], np.cumsum(took)])
    about = trial(duration_s=float(starts[-1]), **other)
    keys = {key: about[key] for key in ("trial_id", "experiment", "payload", "load", "repeat")}
    rows = []
    for n in range(number):
        chunks = [float(starts[n] + took[n] * part) for part in (0.2, 0.4, 0.6, 0.8, 0.99)]
        rows.append(row(n, float(starts[n]), end=float(starts[n + 1]), chunks=chunks, **keys))
    return about, table(rows)


def on_disk(path: Path, *trials: tuple[dict[str, Any], pa.Table], **other: Any) -> Path:
    """A run directory with the rows of these trials."""
    rundir = RunDir(path)
    rundir.write_manifest(manifest([about for about, _ in trials], path.name, **other))
    for about, rows in trials:
        rundir.write_part(about, rows)
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base, again (the same with other noise), later (12 % more latency) and slower (30 % more)."""
    folder = tmp_path_factory.mktemp("runs")
    for name, mean_s, seed in (("base", 1.0, 1), ("again", 1.0, 2), ("later", 1.12, 4), ("slower", 1.3, 3)):
        on_disk(folder / name, played(mean_s, seed))
    return folder


def test_thirty_per_cent_more_latency_is_worse_in_latency_rate_and_cost(runs: Path, tmp_path: Path) -> None:
    found = comparing.compare(runs / "base", runs / "slower", tmp_path)
    calls = {change.metric: change.call for _, change in found.called()}
    assert [calls[metric] for metric in (*NUMBERS, "latency_p95", "ttft_p95")] == [Call.WORSE] * 5
    assert change(found).ratio.value == pytest.approx(1.3, rel=0.02)
    assert comparing_text.text(found).startswith("Worse in 5 of 6 comparisons: most of all the p95 ")


def test_the_other_way_round_it_is_better(runs: Path, tmp_path: Path) -> None:
    found = comparing.compare(runs / "slower", runs / "base", tmp_path)
    assert [change(found, metric).call for metric in NUMBERS] == [Call.BETTER] * 3
    assert not found.called(Call.WORSE)


def test_the_same_endpoint_twice_cannot_be_told_from_single_trials_but_for_its_errors(
    runs: Path, tmp_path: Path
) -> None:
    found = comparing.compare(runs / "base", runs / "again", tmp_path)
    calls = {change.metric: change.call for _, change in found.called()}
    assert {metric for metric, call in calls.items() if call is Call.SAME} == {"error_rate"}
    assert set(calls.values()) == {Call.SAME, Call.UNSURE}
    assert found.once


@pytest.mark.parametrize(("one", "other", "reach"), [(0.003, 0.004, 0.1387), (0.03, 0.04, 0.1474)])
def test_single_trials_combine_their_intervals_and_a_spread_of_five_per_cent_as_the_delta_method_says(
    one: float, other: float, reach: float
) -> None:
    found = change(compare(run(near(2.0, one)), run(near(2.2, other))))
    assert found.ratio.value == pytest.approx(1.1)
    assert math.log(found.ratio.high or 0) - math.log(1.1) == pytest.approx(reach, rel=0.01)
    assert not found.welch


@pytest.mark.parametrize(
    ("ratio", "reach", "call"),
    [
        (1.07, 0.001, Call.WORSE),
        (0.93, 0.001, Call.BETTER),
        (1.02, 0.001, Call.SAME),
        (1.05, 0.001, Call.UNSURE),
        (1.2, 0.2, Call.UNSURE),
        (1.0, 0.1, Call.UNSURE),
    ],
)
def test_a_call_needs_the_whole_interval_on_one_side_of_five_per_cent(ratio: float, reach: float, call: Call) -> None:
    sides = [[near(x * part, repeat=n) for n, part in enumerate((1 - reach, 1, 1 + reach))] for x in (1.0, ratio)]
    found = change(compare(run(*sides[0]), run(*sides[1])))
    assert (found.welch, found.call) == (True, call)


@pytest.mark.parametrize(
    ("ratio", "call"),
    [(1.22, Call.WORSE), (1.20, Call.UNSURE), (1.0, Call.UNSURE), (0.84, Call.UNSURE), (0.82, Call.BETTER)],
)
def test_single_trials_however_sure_are_called_only_beyond_what_runs_may_differ_by(ratio: float, call: Call) -> None:
    found = change(compare(run(near(1.0, 0.001)), run(near(ratio, 0.001))))
    assert found.call is call
    assert found.needed is None
    assert found.why == ("within the 5 % between runs: only repeats tell" if call is Call.UNSURE else "")


def test_as_many_requests_as_it_says_would_tell() -> None:
    unsure = change(compare(run(near(1.0, 0.15)), run(near(1.3, 0.15))))
    assert unsure.call is Call.UNSURE
    assert unsure.needed is not None
    narrower = 0.15 * math.sqrt(1000 / unsure.needed) * 0.95
    assert change(compare(run(near(1.0, narrower)), run(near(1.3, narrower)))).call is Call.WORSE


def test_single_trials_of_nothing_new_cry_wolf_in_few_pairs() -> None:
    rng, wolf = np.random.default_rng(7), 0
    for _ in range(300):
        one, other = (run(near(float(v))) for v in rng.lognormal(0.0, 0.05, 2))
        wolf += change(compare(one, other)).call in (Call.WORSE, Call.BETTER)
    assert wolf <= 9


def test_repeats_on_both_sides_are_compared_as_whole_trials() -> None:
    base = run(*(near(value, 0.001, repeat=n) for n, value in enumerate((0.9, 1.0, 1.1))))
    candidate = run(*(near(value, 0.001, repeat=n) for n, value in enumerate((0.95, 1.05, 1.2))))
    found = change(compare(base, candidate))
    assert found.welch
    assert found.call is Call.UNSURE, "each trial alone is sure of itself, but days differ by more"
    assert found.needed is not None
    assert found.needed > 3


def test_repeats_on_one_side_only_do_not_cover_day_to_day_variation() -> None:
    base = run(*(near(value, repeat=n) for n, value in enumerate((0.99, 1.0, 1.01))))
    found = compare(base, run(near(1.5)))
    assert not change(found).welch
    assert found.once


def test_repeats_of_nothing_new_cry_wolf_in_few_pairs() -> None:
    rng, wolf = np.random.default_rng(5), 0
    for _ in range(300):
        sides = [
            [near(float(v), 0.001, repeat=n) for n, v in enumerate(np.exp(rng.normal(0, 0.05, 5)))] for _ in "ab"
        ]
        wolf += change(compare(run(*sides[0]), run(*sides[1]))).call in (Call.WORSE, Call.BETTER)
    assert wolf <= 9


def errors(failed: int, requests: int, **other: Any) -> dict[str, Any]:
    return setting(failed=failed, requests=requests, **other)


@pytest.mark.parametrize(
    ("base", "candidate", "call"),
    [
        ((0, 1000), (0, 1000), Call.SAME),
        ((0, 1000), (50, 1000), Call.WORSE),
        ((50, 1000), (0, 1000), Call.BETTER),
        ((0, 30), (0, 30), Call.UNSURE),
        ((0, 1000), (1, 1000), Call.SAME),
        ((20, 1000), (30, 1000), Call.UNSURE),
    ],
)
def test_error_rates_are_called_by_counts(base: tuple[int, int], candidate: tuple[int, int], call: Call) -> None:
    found = change(compare(run(errors(*base)), run(errors(*candidate))), "error_rate")
    assert found.call is call
    if call is Call.UNSURE:
        assert found.needed is not None
        scale = found.needed / candidate[1]
        more = [errors(round(failed * scale), found.needed) for failed, _ in (base, candidate)]
        assert change(compare(run(more[0]), run(more[1])), "error_rate").call is not Call.UNSURE


@pytest.mark.parametrize(
    ("candidate", "repeats", "call"), [(11_500, 1, Call.UNSURE), (11_500, 2, Call.WORSE), (12_500, 1, Call.WORSE)]
)
def test_error_rates_of_many_requests_are_as_far_apart_as_runs_may_be(
    candidate: int, repeats: int, call: Call
) -> None:
    sides = [[errors(failed, 100_000, repeat=n) for n in range(repeats)] for failed in (10_000, candidate)]
    found = change(compare(run(*sides[0]), run(*sides[1])), "error_rate")
    assert found.call is call
    assert found.why == ("within the 5 % between runs: only repeats tell" if call is Call.UNSURE else "")


def test_one_error_in_each_of_two_repeats_is_not_worse_than_none() -> None:
    sides = [[errors(failed, 100, repeat=n) for n in range(2)] for failed in (0, 1)]
    assert change(compare(run(*sides[0]), run(*sides[1])), "error_rate").call is Call.UNSURE


def test_a_percentile_that_one_run_is_too_small_for_says_how_many_it_takes() -> None:
    base = near(1.0, latency_p95=2.0, latency_p95_low=1.9, latency_p95_high=2.1)
    found = change(compare(run(base), run(near(1.0, requests=50))), "latency_p95")
    assert (found.call, found.needed, found.why) == (Call.UNSURE, 72, "50 requests in the candidate")


def test_a_run_that_served_nothing_has_a_number_and_it_is_said_which() -> None:
    rate = {"requests_per_s_low": 0.0, "requests_per_s_high": 0.0}
    base = near(1.0, requests_per_s=5.0, requests_per_s_low=4.9, requests_per_s_high=5.1)
    found = compare(run(base), run(near(1.0, requests_per_s=0.0, **rate)))
    assert change(found, "requests_per_s").why == "nothing was served in the candidate"


def test_metrics_that_neither_run_has_are_not_compared() -> None:
    found = compare(run(near(1.0)), run(near(1.0)))
    assert [change.metric for _, change in found.called()] == ["latency_mean", "error_rate"]


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"valid": "INVALID", "reasons": ["client_lag"]}, "INVALID in the candidate (client_lag)"),
        ({"state": "partial"}, "not finished in the candidate"),
        ({"state": "planned", "requests": 0}, "not played in the candidate"),
    ],
)
def test_what_cannot_be_trusted_is_never_called(known: dict[str, Any], said: str) -> None:
    found = compare(run(near(1.0)), run(near(9.0, **known)))
    assert found.called() == []
    assert found.pairs[0].uncalled == said
    assert said in comparing_text.text(found)


def test_one_invalid_repeat_keeps_its_cell_from_being_called() -> None:
    bad = near(9.0, repeat=1, valid="INVALID", reasons=["client_lag"])
    assert compare(run(near(1.0), near(1.0, repeat=1)), run(near(9.0), bad)).called() == []


def test_cells_of_one_run_only_are_listed_not_compared() -> None:
    base = run(near(1.0), near(1.0, load="closed-2"))
    candidate = run(near(1.0), near(1.0, experiment="other"))
    found = compare(base, candidate)
    assert len(found.pairs) == 1
    assert found.only_base == (("e", "p", "closed-2"),)
    assert found.only_candidate == (("other", "p", "closed-1"),)
    assert "e, p, closed-2 | only in the base" in pages.markdown(found)


def test_runs_without_a_common_cell_are_refused_even_so() -> None:
    with pytest.raises(InputError, match="nothing in common"):
        compare(run(near(1.0)), run(near(1.0, experiment="other")), anyway=True)


Change_ = Callable[[dict[str, Any]], object]

INCOMPARABLE: dict[str, Change_] = {
    "payload_hash": lambda m: m["payloads"][0].update(payload_hash="0ther"),
    "criteria": lambda m: m.update(criteria={"latency_mean": 4.0}),
    "container": lambda m: m["experiments"][0].update(container="tgi:2"),
    "parameters": lambda m: m["experiments"][0].update(parameters={"max_new_tokens": 200}),
    "dialect": lambda m: m["experiments"][0].update(dialect="lmi"),
    "route": lambda m: m["experiments"][0].update(route="invoke"),
    "instance_type": lambda m: m["experiments"][0].update(instance_type="ml.p4d.24xlarge"),
    "instance_count": lambda m: m["experiments"][0].update(instance_count=2),
    "simulated": lambda m: m["experiments"][0].update(simulated=True),
    "region": lambda m: m.update(region="eu-west-1"),
    "kind": lambda m: m["trials"][0].update(kind="constant"),
    "concurrency": lambda m: m["trials"][0].update(concurrency=2),
}


@pytest.mark.parametrize("what", INCOMPARABLE)
def test_what_is_not_comparable_is_refused_or_compared_under_protest(what: str) -> None:
    base, candidate = run(near(1.0)), run(near(1.5))
    INCOMPARABLE[what](candidate.manifest)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=rf"not comparable.*{what}|not comparable.*load {what}") as refused:
        compare(base, candidate)
    assert refused.value.exit_code == 2
    found = compare(base, candidate, anyway=True)
    assert what in [each.what for each in found.differences]
    assert change(found).call is Call.WORSE
    assert "These runs are not comparable." in pages.markdown(found)
    assert "These runs are not comparable." in pages.page(found)
    assert "These runs are not comparable." in comparing_text.text(found)
    assert f"Differences:\n  {found.differences[0].text}" in comparing_text.text(found)


def test_an_open_and_a_closed_trial_are_not_compared() -> None:
    closed, opened = near(1.0), near(1.0, kind="poisson", load="poisson-2.0", rate=2.0)
    with pytest.raises(InputError, match=r'load kind is \["closed"\] in the base, \["poisson"\] in the candidate'):
        compare(run(closed), run(opened))


def test_without_a_hash_prompts_are_compared_by_their_description() -> None:
    base, candidate = run(near(1.0)), run(near(1.0))
    del base.manifest["payloads"][0]["payload_hash"]
    assert compare(base, candidate).unhashed == ("p",)
    candidate.manifest["payloads"][0]["kept"] = 11
    with pytest.raises(InputError, match="kept is 10 in the base, 11 in the candidate"):
        compare(base, candidate)


def test_a_price_or_a_seed_that_changed_is_remarked() -> None:
    base, candidate = run(near(1.0)), run(near(1.0), seed=8)
    candidate.manifest["experiments"][0]["price_per_hour"] = 20.0
    found = compare(base, candidate)
    assert [each.what for each in found.remarks] == ["seed", "price_per_hour"]
    assert not found.differences


def test_timeouts_or_load_actors_that_changed_are_remarked_where_both_runs_say_them() -> None:
    base, candidate = run(near(1.0)), run(near(1.0), config={"timeouts": {"stream": 100.0}, "fleet": {"actors": 4}})
    assert compare(base, candidate).remarks == ()
    assert isinstance(base.manifest, dict)
    base.manifest["config"] = {"timeouts": {"stream": 10.0}, "fleet": {"actors": 1}}
    found = compare(base, candidate)
    assert [each.text for each in found.remarks] == [
        'the config: timeouts is {"stream": 10.0} in the base, {"stream": 100.0} in the candidate',
        'the config: fleet is {"actors": 1} in the base, {"actors": 4} in the candidate',
    ]


def a_replay(folder: Path, every_ms: int, **other: Any) -> Trial:
    """A trial that replays `folder`/t.jsonl: forty requests, one every so often."""
    folder.mkdir(exist_ok=True)
    arrivals = (f'{{"timestamp": {n * every_ms}, "input_length": 9, "output_length": 5}}\n' for n in range(40))
    (folder / "t.jsonl").write_text("".join(arrivals))
    load = Replay(folder / "t.jsonl", **other)
    return Trial("e~p~l~0", 0, "e", "p", load, 0, 0, 0.0, 20.0, None, 7, None)


def test_replays_of_traces_that_differ_under_one_name_are_refused(tmp_path: Path) -> None:
    slow, quick, same = (
        entry(a_replay(tmp_path / name, every_ms)) for name, every_ms in (("a", 1000), ("b", 20), ("c", 1000))
    )
    assert slow["load"] == quick["load"] == "replay-t-x1.0"
    rows = run(near(1.0, load="replay-t-x1.0", kind="replay", concurrency=None)).trials
    base, other, again = (Run(manifest([each]), rows) for each in (slow, quick, same))
    with pytest.raises(InputError, match=r'trial "e~p~replay-t-x1\.0": load_hash is "[0-9a-f]{32}" in the base'):
        compare(base, other)
    assert [each.what for each in compare(base, other, anyway=True).differences] == ["load_hash"]
    assert compare(base, again).differences == ()
    del slow["load_hash"]
    assert compare(Run(manifest([slow]), rows), other).differences == ()


def test_the_hash_of_a_replay_is_of_what_it_plays(tmp_path: Path) -> None:
    """Every 20 ms at the tenth of the speed is every 200 ms; a slice is another load."""
    whole, slowed, part = (
        entry(a_replay(tmp_path, every_ms, **other))["load_hash"]
        for every_ms, other in ((200, {}), (20, {"speed": 0.1}), (200, {"slice_s": (0.0, 4.0)}))
    )
    assert whole == slowed != part
    closed = replace(a_replay(tmp_path, 200), load=Closed(2))
    assert entry(closed)["load_hash"] is None


def test_the_hash_tells_prompts_apart_and_nothing_else() -> None:
    def pool(*prompts: str) -> Pool:
        return Pool("p", tuple(Prompt(text, 1, "estimate") for text in prompts), {}, counter(None), ("a",))

    assert prompts_hash(pool("ab", "c")) == prompts_hash(pool("ab", "c"))
    assert (
        len({prompts_hash(pool(*each)) for each in (("ab", "c"), ("a", "bc"), ("abc",), ("c", "ab"), ("ab", "d"))})
        == 5
    )


def test_a_run_without_rows_is_compared_by_its_trials(runs: Path, tmp_path: Path) -> None:
    kept = RunDir(tmp_path / "kept")
    about = RunDir(runs / "base").manifest()
    kept.write_manifest(about)
    kept.write_table("trials.parquet", reduce.reduce(RunDir(runs / "base").requests, about).trials)
    found = comparing.compare(kept.path, runs / "slower", tmp_path / "out")
    assert change(found) == change(comparing.compare(runs / "base", runs / "slower", tmp_path / "out"))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1}', '{"schema": 99}', "\x00"])
def test_a_run_json_that_is_none_is_refused(runs: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError):
        comparing.compare(tmp_path, runs / "slower", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_that_are_no_text_and_a_run_against_itself_are_refused(runs: Path, tmp_path: Path) -> None:
    about = RunDir(runs / "base").manifest()
    about["experiments"][0]["name"] = {"a": 1}
    RunDir(tmp_path / "odd").write_manifest(about)
    for base, candidate in ((tmp_path / "odd", runs / "base"), (runs / "base", runs / "base")):
        with pytest.raises(InputError):
            comparing.compare(base, candidate, tmp_path / "out")


def test_a_run_id_does_not_lead_out_of_the_candidate(tmp_path: Path) -> None:
    one = played(1.0, 1, 20)
    base = on_disk(tmp_path / "a" / "base", one)
    RunDir(base).write_manifest(manifest([one[0]], "../../../elsewhere"))
    candidate = on_disk(tmp_path / "a" / "candidate", one)
    comparing.compare(base, candidate)
    assert [path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("compare.html")] == [("a", "candidate")]


def test_the_same_runs_give_the_same_bytes(runs: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        comparing.compare(runs / "base", runs / "slower", tmp_path / name)
    assert '<svg role="img"' in (tmp_path / "one" / "compare.html").read_text("utf-8")
    for file in ("compare.html", "compare.md"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_only_worse_fails_the_gate(runs: Path, tmp_path: Path) -> None:
    def invoke(base: str, candidate: str, *options: str) -> Any:
        return CliRunner().invoke(
            app, ["compare", str(runs / base), str(runs / candidate), "--out", str(tmp_path), *options]
        )

    assert isinstance(invoke("base", "slower", "--enforce").exception, CriteriaMissedError)
    calm_ones = [(*pair, "--enforce") for pair in (("slower", "base"), ("base", "again"), ("base", "later"))]
    for calm in (*calm_ones, ("base", "slower")):
        found = invoke(*calm)
        assert (found.exit_code, found.exception) == (0, None)
    said = json.loads(invoke("base", "slower", "--json").stdout)
    assert said["calls"]["worse"] == 5
    assert said["cells"][0]["changes"][0]["ratio"]["value"] == pytest.approx(1.3, rel=0.02)
    assert (said["spread_between_runs"], said["spread_allowed"]) == ("allowed for", 0.05)


def test_what_single_trials_cannot_tell_is_said_to_programs_and_people(runs: Path, tmp_path: Path) -> None:
    found = comparing.compare(runs / "base", runs / "later", tmp_path)
    first = comparing_text.as_dict(found)["cells"][0]["changes"][0]
    assert (first["call"], first["needed"], first["why"]) == (
        "can't tell",
        None,
        "within the 5 % between runs: only repeats tell",
    )
    for said in (comparing_text.text(found), pages.markdown(found), pages.page(found)):
        assert "a spread of 5 % between runs is allowed for" in said
        assert "rose by less than 21 % or fell by less than 17 %" in said
        assert "with a spread of no more than 5 % between single runs, chance alone would call at most 1" in said


def test_where_all_was_repeated_no_spread_is_assumed() -> None:
    found = compare(*(run(*(near(x, repeat=n) for n, x in enumerate((0.99, 1.0, 1.01)))) for _ in "ab"))
    assert comparing_text.as_dict(found)["spread_between_runs"] == "measured"
    assert "5 % between runs" not in comparing_text.text(found)


SCRIPT = "</script><script>window.pwned=1</script>"
IMAGE = "\"><img src=x onerror='window.pwned=1'>"
SEPARATOR = "\u2028'+(window.pwned=1)+'\u202e\x1b[31m|`x`"


def hostile() -> Comparison:
    """Markup, script, separators, bidi and terminal marks in every name that a run brings along."""
    names: dict[str, Any] = {"experiment": SCRIPT, "payload": IMAGE, "load": SEPARATOR}
    also = near(1.4, **(names | {"experiment": SEPARATOR, "payload": SEPARATOR}))
    bad = near(1.0, **(names | {"load": IMAGE}), valid="INVALID", reasons=[SCRIPT])
    alone = near(1.0, **(names | {"load": SCRIPT}))
    base, candidate = run(near(1.0, **names), also, bad), run(near(1.2, **names), also, bad, alone)
    for side, text in ((base, IMAGE), (candidate, SCRIPT)):
        assert isinstance(side.manifest, dict)
        side.manifest.update({key: text for key in ("run_id", "name", "region", "model", "config_file", "raybench")})
        side.manifest["experiments"][0]["parameters"] = {text: text}
        side.manifest["state"] = text
    return compare(base, candidate, anyway=True)


def test_hostile_names_are_text_in_every_form() -> None:
    found = hostile()
    said, marked = comparing_text.text(found), pages.markdown(found)
    for text in (said, marked, comparing_text.as_json(found)):
        assert not re.search("[\x00-\x09\x0b-\x1f\u2028\u2029\u202e]", text)
    assert "<script" not in marked
    assert "<img" not in marked
    assert all(line.count("|") - line.count("\\|") in (0, 3, 4, 5, 6) for line in marked.splitlines())
    assert json.loads(comparing_text.as_json(found))["cells"][0]["experiment"] == SCRIPT


def test_a_refusal_shows_names_harmlessly() -> None:
    base, candidate = run(near(1.0, experiment=SEPARATOR)), run(near(1.0, experiment=SEPARATOR))
    candidate.manifest["experiments"][0]["route"] = SEPARATOR
    with pytest.raises(InputError) as refused:
        compare(base, candidate)
    assert str(refused.value).isprintable()


def test_many_cells_stay_within_the_bounds_of_a_chart() -> None:
    rows = [near(1.0 + n % 7 / 10, load=f"closed-{n}") for n in range(500)]
    slower = [each | {"latency_mean": each["latency_mean"] * (1.5 if n == 499 else 1)} for n, each in enumerate(rows)]
    slower[499] |= {"latency_mean_low": 2.0, "latency_mean_high": 2.1}
    html = pages.page(compare(run(*rows), run(*slower)))
    assert "460 cells without a worse call left out" in html
    assert "closed-499" in html
    assert len(html) < 4_000_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"NOT TESTED: no Chromium at {CHROMIUM}; apt install chromium")
@pytest.mark.parametrize("name", ["plain", "hostile", "hostile, without its policy"])
def test_the_page_opens_without_a_complaint_a_request_or_a_foreign_script(
    browser: Any, runs: Path, tmp_path: Path, name: str
) -> None:
    if name == "plain":
        comparing.compare(runs / "base", runs / "slower", tmp_path)
    else:
        html = pages.page(hostile())
        bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html, count=1)
        (tmp_path / "compare.html").write_text(bare if "without" in name else html, "utf-8")
    asked: list[str] = []
    complaints: list[str] = []
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda said: complaints.append(said.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((tmp_path / "compare.html").as_uri())
    page.evaluate("raybenchEnlivenAll()")
    assert page.locator("#changed > div svg").count() == 1
    for mark in page.locator(".chart [aria-roledescription]").all()[:40]:
        mark.dispatch_event("pointerover")
        mark.dispatch_event("pointermove")
    assert page.evaluate("typeof window.pwned") == "undefined"
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 3
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert (complaints, asked) == ([], [(tmp_path / "compare.html").as_uri()])
    page.close()
