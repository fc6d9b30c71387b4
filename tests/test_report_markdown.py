"""The Markdown report: the seed's numbers come out as the seed printed them; only the headline is decided anew."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
import reported

from raybench.analysis.decide import decide
from raybench.report.markdown import markdown
from raybench.report.text import clean, markdown_code, markdown_text

GOLDEN = Path(__file__).parent / "golden" / "seed_lines.md"
SEED = Path(__file__).parents[2] / "shared" / "seed" / "report.md"


def write(run: tuple[Any, dict[str, Any]]) -> str:
    findings, manifest = run
    return markdown(findings, decide(findings.trials, manifest["criteria"], manifest["report"]["payload"]), manifest)


@pytest.fixture(scope="module")
def seed_report() -> str:
    return write(reported.seed_run())


def lines_of_the_seed(text: str) -> list[str]:
    """What must come out byte for byte: every table but the headline's, and every sentence but the headline."""
    lines = text.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("There were a total of"))
    return [line for line in lines[start:] if line and not line.startswith("![")]


def test_every_row_cost_and_recommendation_of_the_seed_comes_out_byte_for_byte(seed_report: str) -> None:
    wanted = GOLDEN.read_text("utf-8").splitlines()
    written = seed_report.splitlines()
    assert [line for line in wanted if line not in written] == []
    order = [written.index(line) for line in dict.fromkeys(wanted) if not line.startswith(("|--", "## "))]
    assert order == sorted(order)


def test_the_golden_lines_are_those_of_the_seed() -> None:
    if not SEED.exists():
        pytest.skip(f"the seed's report is not at {SEED}")
    assert GOLDEN.read_text("utf-8").splitlines() == lines_of_the_seed(SEED.read_text("utf-8"))


def test_the_headline_names_no_winner_where_none_meets_every_criterion_and_says_what_is_nearest(
    seed_report: str,
) -> None:
    headline = next(line for line in seed_report.splitlines() if line.startswith("We did performance benchmarking"))
    assert headline.startswith(
        'We did performance benchmarking for `Llama2-70b` on "`ml.g5.48xlarge`, `ml.p4d.24xlarge`" on multiple '
        "datasets and based on the test results no configuration "
    )
    assert "dataset `en_3000-3840`" in headline
    assert f"{reported.SEED_NAMES[reported.P4D]} at concurrency 2" in headline
    assert "4.2×" in headline
    assert "Rule:" in headline
    assert "| concurrency | 2 |" in seed_report
    assert "| price_per_txn | 0.020938 |" in seed_report


def test_a_winner_is_named_in_the_seeds_words() -> None:
    text = write(reported.small_run())
    assert "the best price performance for dataset `en_500-1000` is provided by the `ml.p4d.24xlarge`." in text
    assert "Rule:" in text


def test_one_dataset_is_not_called_several() -> None:
    findings, manifest = reported.seed_run()
    (only,) = [payload for payload in manifest["payloads"] if payload["name"] == manifest["report"]["payload"]]
    trials = findings.trials.filter(pc.field("payload") == only["name"])
    text = write((replace(findings, trials=trials), manifest | {"payloads": [only]}))
    assert "on one dataset and based on the test results" in text


def test_numbers_that_the_sample_cannot_give_are_dashes(seed_report: str) -> None:
    assert "| latency_p95 | – |" in seed_report


def test_a_limit_on_any_price_is_in_dollars_and_is_not_asked_of_the_recommendations() -> None:
    findings, manifest = reported.small_run()
    manifest["criteria"] = {"latency_mean": 5.0, "price_per_txn": 0.001, "price_per_1m_output_tokens": 12.0}
    text = write((findings, manifest))
    assert (
        "`Latency` < `5s`, `cost per request`: `$0.001`, `cost per million output tokens`: `$12`. See table below."
    ) in text
    assert "| latency_mean_text | price_per_txn_text | price_per_1m_output_tokens_text |" in text
    assert "<span style='color:red'>**0.00" in text
    assert "The best option for staying within a latency budget of `5 seconds` " in text


def test_a_load_without_a_level_has_its_own_name_and_no_rate_of_nothing() -> None:
    findings, manifest = reported.small_run()
    rows = findings.trials.to_pylist()
    for row in rows:
        row |= {"kind": "ramp", "load": f"ramp-1-{row['concurrency']}", "concurrency": None, "rate": None}
    run = (replace(findings, trials=reported.findings(rows).trials), manifest)
    text = write(run)
    assert "| load | ramp-1-" in text
    assert "is a `load of ramp-1-4`. A load of ramp-1-4 achieves" in text
    manifest["criteria"] = {"latency_mean": 0.1}
    text += write(run)
    assert "| llama2-70b-g5.48xlarge-tgi1.1.0 | payload_en_500-1000 | ramp-1-8 |" in text
    assert not re.search(r"rate of 0|\| rate \| 0|\| 0/s \|", text)


def test_a_cost_that_is_not_known_is_a_dash_and_not_nothing() -> None:
    findings, manifest = reported.small_run()
    first, second = manifest["experiments"]
    first["cost_usd"] = None
    total = f"is ${second['cost_usd']:.2f}, 1 experiment without a price left out."
    assert f"The total cost for running all experiments {total}" in write((findings, manifest))
    second["cost_usd"] = None
    assert "The total cost for running all experiments is –." in write((findings, manifest))


def test_what_was_never_played_is_no_experiment_without_a_price() -> None:
    findings, manifest = reported.small_run()
    first, second = manifest["experiments"]
    first |= {"duration_s": None, "cost_usd": None}
    assert f"all experiments is ${second['cost_usd']:.2f}." in write((findings, manifest))


def test_only_what_was_measured_misses_or_satisfies_the_criteria() -> None:
    findings, manifest = reported.small_run(criteria={"latency_mean": 60.0})
    rows = findings.trials.to_pylist()
    satisfied = "satisfied the configured performance criteria: `Latency` < `60s`."
    assert f"All experiments {satisfied}" in write((findings, manifest))
    never = {"latency_mean": None, "requests": 0, "state": "planned", "valid": "INCONCLUSIVE"}
    stopped = [row | (never if row["payload"] == manifest["report"]["payload"] else {}) for row in rows]
    assert "No experiment run can be counted against the configured performance criteria" in write(
        (reported.findings(stopped), manifest)
    )
    text = write((reported.findings([*rows[:-1], rows[-1] | never]), manifest))
    assert f"All 7 experiment run(s) that can be counted {satisfied}" in text


def test_what_never_answered_is_no_option() -> None:
    findings, manifest = reported.small_run(criteria={})
    rows = [row | {"latency_mean": None} for row in findings.trials.to_pylist()]
    text = write((reported.findings(rows), manifest))
    assert "The best option" not in text
    assert text.count("did not find any combination") == 4


def test_p99_stands_there_from_the_plan_and_from_sent_and_it_is_said_which_is_which() -> None:
    findings, manifest = reported.stalled_run()
    rows = [row | {"valid": "VALID"} for row in findings.trials.to_pylist()]
    text = write((reported.findings(rows), manifest))
    assert "| latency_p99 | 1.96 |\n| service_latency_p99 | 0.01 |\n" in text
    assert "`service_latency` counts from when the request was sent." in text


def test_a_simulated_run_says_so_before_anything_else() -> None:
    findings, manifest = reported.small_run()
    for experiment in manifest["experiments"]:
        experiment["simulated"] = True
    text = write((findings, manifest))
    assert text.index("> **Simulated.**") < text.index("## Summary")
    assert "Simulated" not in write(reported.small_run())


def test_what_the_checks_found_is_there_and_the_simulators_share_of_a_core_with_it() -> None:
    findings, about = reported.seed_run()
    about["simulator"] = {"cpu_share_max": 0.95, "lag_p99_ms": 1.25}
    read = write((findings, about))
    assert "| ! | The simulator kept up | 95.0 % of a core at most, lag p99 1.2 ms |" in read
    assert "| Every planned request is accounted for |" in read


def test_prompts_that_a_cache_knew_are_not_called_fresh() -> None:
    findings, manifest = reported.small_run()
    assert "| ✓ | Prompts are fresh | no prompt was sent twice in a trial |" in write((findings, manifest))
    rows = findings.trials.to_pylist()
    rows[0] |= {"valid": "INVALID", "reasons": ["repeated_prompts"], "cached_prompts": 24}
    text = write((replace(findings, trials=reported.findings(rows).trials), manifest))
    said = "no prompt was sent twice in a trial; 24 came from the endpoint's cache"
    assert f"| ! | Prompts are fresh | {said} |" in text


def test_an_invalid_trial_is_struck_through_and_its_reason_given() -> None:
    findings, manifest = reported.seed_run()
    rows = findings.trials.to_pylist()
    for row in rows:
        if row["concurrency"] == 8 and row["payload"].endswith("3000-3840.jsonl"):
            row |= {"valid": "INVALID", "reasons": ["late"], "reason_texts": ["The client sent 12 % late"]}
    text = write((replace(findings, trials=reported.findings(rows).trials), manifest))
    assert "cannot be trusted: out of the comparison, and struck through wherever their numbers stand." in text
    failed = sum("3000-3840" in row["payload"] and row["valid"] == "VALID" for row in rows)
    assert f"There were a total of {failed} experiment run(s) that failed" in text
    assert "See table below. Struck through: 2 experiment run(s) that are INVALID." in text
    assert "~~<span style='color:red'>**55.85**</span>~~" in text
    assert "The client sent 12 % late. |" in text


def test_where_every_trial_is_invalid_nothing_is_said_of_what_an_instance_can_do() -> None:
    findings, manifest = reported.small_run()
    texts = ["108 of 120 were never sent; lower the rate", "12 answers are too few; measure longer"] * 4
    told = {"valid": "INVALID", "reasons": ["not_sent", "too_few"], "reason_texts": texts, "not_sent": 13}
    rows = [row | told for row in findings.trials.to_pylist()]
    text = write((replace(findings, trials=reported.findings(rows).trials), manifest))
    assert "nothing can be said of the price performance for dataset `en_500-1000`. No trial can be decided" in text
    for untrue in ("did not find any", "no configuration provides", "experiment run(s) that failed", "would pass"):
        assert untrue not in text
    assert text.count("for the `payload_en_500-1000` dataset can be counted: see Trust.|") == 2
    assert "\n## Trust\n" in text
    assert "| ! | Every planned request is accounted for | every planned request has its row; 208 not sent |" in text
    assert "No experiment run can be counted against" in text
    assert "Struck through: 7 experiment run(s) that are INVALID." in text
    assert text.count(f"| INVALID | {'. '.join(texts)}. |") == 16, "whole, and each a sentence"


def test_a_run_without_trials_still_has_a_report() -> None:
    manifest = reported.manifest(reported.SEED_NAMES, ["payload_en_1-500"], state="failed")
    text = write((reported.findings([]), manifest))
    assert "> **Partial.**" in text
    assert "## Plots" in text
    assert "can be counted against the configured performance criteria" in text
    assert not re.search(r"\b0 of 0\b", text)
    manifest["report"] = {"payload": None}
    nothing = write((reported.findings([]), manifest))
    assert "nothing can be said of the price performance. Nothing was measured." in nothing


def test_hostile_names_cannot_leave_their_cell() -> None:
    name = "a|b`c`<img src=x onerror=alert(1)>[x](http://evil)\nnext\u2028line\u202egnp"
    assert markdown_text(name) == "a\\|b\\`c\\`&lt;img src=x onerror=alert(1)&gt;\\[x\\](http://evil) next line gnp"
    assert markdown_code(name) == "`a\\|b'c'&lt;img src=x onerror=alert(1)&gt;[x](http://evil) next line gnp`"
    findings, manifest = reported.small_run()
    rows = findings.trials.to_pylist()
    for row in rows:
        if row["experiment"] == manifest["experiments"][0]["name"]:
            row["experiment"] = name
    manifest["experiments"][0]["name"] = name
    text = write((replace(findings, trials=reported.findings(rows).trials), manifest))
    assert "<img" not in text
    assert "\u202e" not in text
    for line in text.splitlines():
        if line.startswith("| ") and "a\\|b" in line:
            assert len(line.replace("\\|", "").split("|")) in (6, 8)


def test_labels_are_one_line_without_hidden_characters_and_bounded() -> None:
    assert clean("a\u2028b\u202ec\x00d\n e") == "a b c d e"
    assert clean("x" * 100) == "x" * 59 + "…"


def test_nothing_that_an_endpoint_or_a_config_can_fill_becomes_markup() -> None:
    for run in (reported.hostile_run, reported.hostile_rows_run):
        text = write(run())
        for mark in ("<script", "<img", "\u2028", "\u202e"):
            assert mark not in text
        tables = [line for line in text.splitlines() if line.startswith("|")]
        assert tables
