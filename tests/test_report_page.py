"""The page: it answers first, tells the truth about what it does not know, and carries no outside word as markup."""

import base64
import csv
import hashlib
import io
import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import reported

from raybench.analysis import spoken
from raybench.analysis.decide import decide
from raybench.analysis.reduce import Findings
from raybench.analysis.standing import Standing, State
from raybench.errors import StorageError
from raybench.report import answer, capacity, cells, columns, figures, grid, palette, streaming, text, timeline, vega
from raybench.report.build import build, pictures, warm_up
from raybench.report.page import page
from raybench.report.sentences import missed
from raybench.report.table import as_csv, brief
from raybench.report.view import look

NO_DRAWING = re.compile(r"<svg.*?</svg>|<script.*?</script>|<style.*?</style>", re.S)


def write(run: tuple[Any, dict[str, Any]]) -> str:
    findings, manifest = run
    return page(findings, decide(findings.trials, manifest["criteria"], manifest["report"]["payload"]), manifest)


def words(html: str) -> str:
    """What a reader without scripts, styles and drawings reads, spaces made one."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", NO_DRAWING.sub(" ", html))).split())


def changed(**other: Any) -> tuple[Any, dict[str, Any]]:
    """The small run with these columns in the trials of p4d at concurrency 4 on the data set asked about."""
    findings, manifest = reported.small_run()
    rows = findings.trials.to_pylist()
    for row in rows:
        if (row["instance_type"], row["concurrency"]) == (reported.P4D, 4) and row["payload"].endswith("500-1000"):
            row |= other
    return replace(findings, trials=reported.findings(rows).trials), manifest


@pytest.fixture(scope="module")
def small() -> str:
    return write(reported.small_run())


def test_the_verdict_stands_before_everything_else_with_its_rule_and_interval(small: str) -> None:
    read = words(small)
    place = read.index("ml.p4d.24xlarge at concurrency 4")
    assert place < read.index("Price against latency")
    assert "95 % interval" in read[place : place + 200]
    assert "Rule: of the trials that are VALID" in read
    assert not re.search(r"\bbest\b(?! estimate| throughput)", read.lower())


def test_a_run_without_a_region_names_none(small: str) -> None:
    findings, manifest = reported.small_run()
    assert "region us-west-2" in words(small)
    assert "region" not in words(write((findings, manifest | {"region": None})))[:300]


def test_a_winner_whose_interval_straddles_a_limit_is_called_too_close(small: str) -> None:
    assert "It passes by its best estimate only:" in words(small)
    assert "too close to call" in words(small)


def test_without_a_winner_the_nearest_miss_is_named_with_its_multiple() -> None:
    read = words(write(reported.seed_run()))
    assert "No configuration meets every criterion." in read
    assert "cost per 10,000 requests is 4.2× the limit" in read
    assert "nearest miss: cost per 10,000 requests is 4.2× the limit ($209.38 against $50)" in read


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("price_per_txn", "$ per request"),
        ("price_per_10k_txn", "$ per 10,000 requests"),
        ("price_per_1m_output_tokens", "$ per million output tokens"),
        ("price_per_1m_good_tokens", "$ per million good tokens"),
    ],
)
def test_no_price_is_written_in_seconds(name: str, head: str) -> None:
    findings, manifest = reported.small_run()
    manifest["criteria"] = {name: 0.0001}
    read = words(write((findings, manifest)))
    assert f"{head} (limit 0.0001)" in read
    assert f"cost per {head[6:]} ≤ $0.0001" in read
    assert re.search(r"the limit \(\$[\d.,]+ against \$0\.0001\)", read)
    assert "against 0.0001 s" not in read


def test_the_chart_of_prices_draws_a_limit_on_the_price_by_either_name_and_moves_it_with_its_slider() -> None:
    specs = []
    for name in ("cost_per_10k", "price_per_10k_txn"):
        findings, manifest = reported.small_run()
        manifest["criteria"] = {"latency_mean": 1.0, name: 0.5}
        view = look(findings, decide(findings.trials, manifest["criteria"]), manifest)
        assert {row["others_met"] for row in columns.price(view.asked, view.latency)} == {True}
        specs.append(figures.draw(view)["price"].spec)
    assert "usd_limit" in json.dumps(specs[0])
    assert specs[0] == specs[1]


def test_charts_of_latency_draw_a_limit_on_latency_and_none_on_service_latency() -> None:
    drawn = {}
    for name in ("latency_p95", "service_latency_p95"):
        findings, manifest = reported.small_run()
        manifest["criteria"] = {name: 1.2345}
        view = look(findings, decide(findings.trials, manifest["criteria"]), manifest)
        figures_of = figures.draw(view)
        drawn[name] = {"1.2345" in json.dumps(figures_of[chart].spec) for chart in ("percentiles", "load_latency")}
    assert drawn == {"latency_p95": {True}, "service_latency_p95": {False}}


def test_an_invalid_trial_is_struck_through_and_does_not_win() -> None:
    html = write(changed(valid="INVALID", reasons=["late"], reason_texts=["The client was late"]))
    assert "INVALID. 1 of 16 trials cannot be trusted: out of the comparison, and struck through" in words(html)
    assert '<tr class="invalid"' in html
    assert "The client was late" in words(html)
    assert "not counted: INVALID" in words(html)
    verdict = re.search(r'<p class="verdict \w+">(.*?)</p>', html, re.S)
    assert verdict is not None
    assert "p4d.24xlarge</b> at <b>concurrency 4" not in verdict[1]


def test_no_number_of_an_invalid_trial_stands_outside_a_struck_row() -> None:
    spread = {"mean": 0.1231, "p50": 0.1232, "p95": 0.1233, "p99": 0.1234}
    timed = ("latency", "service_latency", "ttft")
    known = {f"{name}_{part}": value for name in timed for part, value in spread.items()}
    known |= dict.fromkeys(("client_mean", "prefill_mean", "decode_mean"), 0.123)
    known |= {"itl_p50": 0.0054321, "itl_p95": 0.0054321, "transactions_per_minute": 98765.4}
    known |= {"price_per_10k_txn": 7.654, "error_rate": 0.0}
    findings, manifest = changed(valid="INVALID", reasons=["late"], **known)
    html = write((findings, manifest))
    assert "ml.p4d.24xlarge at concurrency 4 is not counted: its trial is INVALID (late)." in words(html)
    page = re.sub(r'<pre id="trials">.*?</pre>', "", html, flags=re.S)
    unstruck = re.sub(r'<tr class="[^"]*invalid".*?</tr>', "", page, flags=re.S)
    for number in ("0.123", "5.43", "98,765.4", "7.65"):
        assert number in words(page)
        assert number not in words(unstruck)
    decision = decide(findings.trials, manifest["criteria"], manifest["report"]["payload"])
    drawn = figures.draw(look(findings, decision, manifest))
    for name in ("grid", "price", "interactivity"):
        assert not re.search(r"0\.123|7\.65", json.dumps(drawn[name].spec["data"]) + drawn[name].drawing), name


def test_charts_leave_an_invalid_trial_out_or_call_it_so() -> None:
    findings, manifest = changed(valid="INVALID", reasons=["late"])
    view = look(findings, decide(findings.trials, manifest["criteria"], manifest["report"]["payload"]), manifest)
    drawn = {(row["config"], row["level_text"]) for row in columns.error_rates(view.asked)}
    assert (reported.P4D, "2") in drawn
    assert (reported.P4D, "4") not in drawn
    for rows in (columns.price(view.asked, view.latency), streaming.interactivity(view.asked)):
        assert (reported.P4D, "4") not in {(row["config"], row["level_text"]) for row in rows}
    fields = grid.grid(view, view.asked)
    assert [row["text"] for row in fields if row["config"] == reported.P4D] == ["1.0", "1.2", "inv.", "3.8≈"]
    names = [timeline.name(cell) for cell in view.asked]
    assert [name for name in names if "INVALID" in name] == [f"{reported.P4D}, concurrency 4 (INVALID)"]
    assert f"{reported.P4D}, concurrency 2" in names


def test_what_failed_in_an_invalid_trial_is_said_to_be_of_one() -> None:
    read = words(write(changed(valid="INVALID", reasons=["not_sent"], ok=90, failed=6)))
    assert "10 requests of 1,440 failed; every one stays in its denominator. 6 of them are of INVALID trials." in read
    assert "of INVALID trials" not in words(write(changed(ok=90, failed=6)))


def test_each_reason_is_a_sentence_of_its_own() -> None:
    texts = ["108 of 120 were never sent; lower the rate", "12 answers are too few; measure longer"]
    read = words(write(changed(valid="INVALID", reasons=["not_sent", "too_few"], reason_texts=texts)))
    assert f"{texts[0]}. {texts[1]}. " in read


def test_percentiles_below_their_floor_are_dashes(small: str) -> None:
    table = small[small.index("Every trial (16)") :]
    row = table[table.index("<tbody>") : table.index("</tr>", table.index("<tbody>"))]
    assert re.findall(r"<td>([^<]*)</td>", row)[6:8] == ["–", "–"]


def test_banners_tell_of_simulated_and_partial_runs() -> None:
    findings, manifest = changed(state="partial")
    for experiment in manifest["experiments"]:
        experiment["simulated"] = True
    manifest["state"] = "interrupted"
    read = words(write((findings, manifest)))
    assert "Simulated. No model was measured (every endpoint is simulated)" in read
    assert "Partial. The run's state is “interrupted”; 1 of 16 trials did not run to the end." in read


def test_a_run_that_was_stopped_before_its_question_came_up_has_a_page_and_no_knee() -> None:
    """Ctrl-C in the first half of the demo: nothing is measured on the data set that the report is asked about."""
    findings, manifest = reported.small_run()
    never = dict.fromkeys(("latency_mean", "latency_p95", "price_per_10k_txn", "transactions_per_minute"))
    rows = [
        row | (never | {"requests": 0, "ok": 0, "state": "planned", "valid": "INCONCLUSIVE"} if asked else {})
        for row in findings.trials.to_pylist()
        for asked in [row["payload"] == manifest["report"]["payload"]]
    ]
    read = words(write((reported.findings(rows), manifest | {"state": "interrupted"})))
    assert "8 of 16 trials did not run to the end" in read
    assert "saturates near" not in read


def test_where_load_actors_send_from_other_hosts_the_page_names_them() -> None:
    findings, manifest = reported.small_run()
    manifest["experiments"][0]["actors"] = [{"host": "bench-2"}, {"host": "bench-1"}, {"host": "bench-2"}]
    assert "bench-1 (2 CPUs); load actors on bench-2" in words(write((findings, manifest)))
    manifest["trials"] = [{"t0_bound_ms": bound_ms} for bound_ms in (0.38, None, 0.21)]
    assert "load actors on bench-2; every load actor knew each T0 within 0.4 ms" in words(write((findings, manifest)))


def test_a_run_without_trials_still_has_a_page_that_counts_none_of_them() -> None:
    manifest = reported.manifest(reported.SEED_NAMES, ["payload_en_1-500"], state="failed", region=None)
    read = words(write((reported.findings([]), manifest)))
    assert "Nothing was measured." in read
    assert "Partial. The run's state is “failed”." in read
    assert "No request was measured." in read
    assert "No trial can be counted." in read
    assert not re.search(r"\b0 of 0\b|\bof 0\b|region None", read)


def test_what_never_answered_is_not_the_choice_of_a_page_without_criteria() -> None:
    findings, manifest = reported.small_run(criteria={})
    never = {name: None for name in findings.trials.column_names if name.startswith(("latency_", "price_per_1"))}
    rows = [row | never | {"ok": 0, "failed": row["requests"]} for row in findings.trials.to_pylist()]
    read = words(write((reported.findings(rows), manifest)))
    assert "every setting that is whole and VALID has a trial in which no request succeeded." in read
    assert "No trial that answered can be counted." in read
    assert not re.search("– s mean|No price is known; fastest|Cheapest that meets", read)


def test_a_price_of_what_was_never_played_is_no_unknown_price() -> None:
    findings, manifest = reported.small_run()
    first, second = manifest["experiments"]
    second |= {"duration_s": None, "cost_usd": None}
    assert "without a price" not in words(write((findings, manifest)))
    first |= {"duration_s": None, "cost_usd": None}
    assert "Nothing that has a price was played, so no cost is given." in words(write((findings, manifest)))


def test_without_prices_or_criteria_the_page_says_what_it_can() -> None:
    findings, manifest = reported.small_run()
    rows = findings.trials.to_pylist()
    for row in rows:
        row |= {name: None for name in row if name.startswith("price_")}
        row |= {"missed": [], "criteria_met": None}
    for experiment in manifest["experiments"]:
        experiment |= {"price_per_hour": None, "cost_usd": None}
    manifest |= {"criteria": {}, "report": {"payload": None}}
    read = words(write((replace(findings, trials=reported.findings(rows).trials), manifest)))
    assert "no criterion was set" in read
    assert "No price is known" in read
    assert "Price against latency" not in read


def test_what_has_no_price_stands_behind_what_has_one() -> None:
    findings, manifest = reported.small_run()
    manifest |= {"criteria": {"latency_mean": 10.0}}
    rows = findings.trials.to_pylist()
    for row in rows:
        if row["instance_type"] == reported.G5:
            row |= {name: None for name in row if name.startswith("price_")}
    findings = replace(findings, trials=reported.findings(rows).trials)
    view = look(findings, decide(findings.trials, manifest["criteria"], manifest["report"]["payload"]), manifest)
    ranked = [(cell.row["instance_type"], cell.standing) for cell, _ in answer.ranked(view)]
    assert ranked == [(reported.P4D, "pass"), (reported.G5, "pass")]
    choices = [(choice.cell.row["instance_type"], choice.passes) for choice in capacity.lines(view)]
    assert choices == [(reported.P4D, True), (reported.G5, True)]


def test_open_loads_and_loads_without_a_level_have_their_names() -> None:
    findings, manifest = reported.small_run()
    rows = findings.trials.to_pylist()
    for row in rows:
        kind = "poisson" if row["concurrency"] < 8 else "replay"
        rate = row["concurrency"] / 2 if kind == "poisson" else None
        row |= {"kind": kind, "rate": rate, "load": f"{kind}-{rate}", "concurrency": None}
    read = words(write((replace(findings, trials=reported.findings(rows).trials), manifest)))
    assert "0.5/s" in read
    assert "replay-None" in read


WRITERS: dict[str, Any] = {
    "requests": lambda value: text.fixed(value, 0),
    "failed": lambda value: text.fixed(value, 0),
    "transactions_per_minute": lambda value: text.fixed(value, 1),
    "little_ratio": lambda value: text.fixed(value, 3),
}


def written(column: str, value: Any) -> str:
    """How the page writes a number of this column."""
    usual = spoken.usd if column.startswith("price_") else spoken.seconds
    return str(WRITERS.get(column, usual)(value))


def test_every_number_in_the_download_is_the_one_in_the_trials_table(small: str) -> None:
    findings, _ = reported.small_run()
    block = re.search(r'<pre id="trials">(.*?)</pre>', small, re.S)
    assert block is not None
    lines = list(csv.DictReader(io.StringIO(unescape(block[1]))))
    assert list(lines[0]) == findings.trials.column_names
    compared = 0
    for row, line in zip(findings.trials.to_pylist(), lines, strict=True):
        for name, value in row.items():
            if isinstance(value, float | int) and not isinstance(value, bool):
                assert float(line[name]) == value, name
                compared += 1
            elif value is None:
                assert line[name] == ""
    assert compared > 500


def test_every_number_in_the_tables_is_the_one_in_the_trials_table_as_the_page_writes_it(small: str) -> None:
    findings, _ = reported.small_run()
    rows, compared = findings.trials.to_pylist(), 0
    for table in re.findall(r"<table.*?</table>", small, re.S):
        heads = re.findall(r"<th [^>]*>", table)
        named = {place: m[1] for place, head in enumerate(heads) if (m := re.search(r'data-column="(\w+)"', head))}
        for number, line in re.findall(r'<tr[^>]*data-line="(\d+)"[^>]*>(.*?)</tr>', table, re.S):
            cells = re.findall(r"<td[^>]*>(.*?)</td>", line, re.S)
            assert len(cells) == len(heads)
            for place, column in named.items():
                shown = re.search(r'<span class="v">(.*?)</span>', cells[place])
                assert (shown[1] if shown else cells[place]) == written(column, rows[int(number)][column]), column
                compared += 1
    assert compared > 150


def test_every_number_in_the_hero_chart_is_the_one_in_the_trials_table() -> None:
    findings, manifest = reported.small_run()
    view = look(findings, decide(findings.trials, manifest["criteria"], manifest["report"]["payload"]), manifest)
    spec = figures.draw(view)["price"].spec
    rows = {(row["instance_type"], str(row["concurrency"])): row for row in findings.trials.to_pylist()
            if row["payload"].endswith("500-1000")}  # fmt: skip
    (points,) = [data["values"] for data in spec["data"] if any("usd" in row for row in data.get("values", ()))]
    assert len(points) == len(rows) == 8
    for point in points:
        row = rows[point["config"], point["level_text"]]
        assert (point["latency_s"], point["usd"]) == pytest.approx(
            (row["latency_mean"], row["price_per_10k_txn"]), rel=5e-5
        )


def test_a_stall_shows_in_p99_and_not_in_p99_from_sent_which_stands_beside_it() -> None:
    html = write(reported.stalled_run())
    (table,) = re.findall(r'<table class="nums">.*?</table>', html, re.S)
    heads = re.findall(r"<th [^>]*>(.*?)</th>", table)
    (line,) = re.findall(r"<tr[^>]*data-line.*?</tr>", table, re.S)
    shown = dict(zip(heads, re.findall(r"<td[^>]*>(.*?)</td>", line), strict=True))
    assert shown["p99, s"] == "1.96"
    assert shown["p99 from sent, s"] == "0.0100"
    assert "p99 from sent counts from when it was sent" in words(table)
    assert "service latency from the instant a request was sent" in words(html)


def test_a_cell_that_a_spreadsheet_would_run_is_text() -> None:
    (row,) = reported.findings([reported.small_run()[0].trials.to_pylist()[0]]).trials.to_pylist()
    for start in "=+-@\t\r":
        line = as_csv(reported.findings([row | {"experiment": f"{start}cmd|' /c calc'!A1", "drift": -0.5}]).trials)
        (read,) = csv.DictReader(io.StringIO(line))
        assert read["experiment"][0] in "'c"
        assert read["drift"] == "-0.5"


def test_of_very_many_trials_the_download_leaves_out_the_ends_of_intervals_and_says_so() -> None:
    rows = reported.small_run()[0].trials.to_pylist()
    many = reported.findings([row | {"trial_id": f"{n}"} for n, row in enumerate(rows * 13)]).trials
    assert "latency_mean_low" not in brief(many).column_names
    assert "latency_mean" in brief(many).column_names
    assert brief(many.slice(0, 200)).column_names == many.column_names


def test_sections_without_data_are_left_out() -> None:
    read = words(write(reported.seed_run()))
    for absent in ("Time to first token", "For streaming", "Over time", "Where the time goes"):
        assert absent not in read
    for present in ("Price against latency", "What missed", "By data set", "Capacity and cost", "Can these numbers"):
        assert present in read


def test_the_seed_is_found_out_by_rule() -> None:
    read = words(write(reported.seed_run()))
    trust = read[read.index("Can these numbers be trusted?") :]
    assert "11 of 18 outside" in trust
    assert "25 requests a minute at concurrency 1, where a latency of 2.60 s allows 23.1." in trust
    assert "Mean, p50, p95 and p99 are all 2.60 s" in trust
    assert "Completions are 24–36 tokens longer than their prompts, whatever the prompt" in trust
    assert "between 5 ($678.67) and 6 ($565.56) requests a minute the price jumps by 20.0 %" in trust


def test_a_sound_run_raises_none_of_these_doubts(small: str) -> None:
    read = words(small)
    for doubt in ("No more requests than latency allows", "Percentiles are of requests", "Completions are not"):
        assert doubt not in read


def test_capacity_is_in_whole_instances_with_headroom_and_the_cheapest_is_starred(small: str) -> None:
    read = words(small)
    assert "with 20% headroom" in read
    assert re.search(r"1 × \$27,512 ★", read)
    assert "$ per 1M good tokens" in read
    assert "The run itself: $35.76 under load" in read


def test_deployment_and_idle_time_stand_apart_where_the_manifest_has_them() -> None:
    findings, manifest = reported.small_run()
    for experiment in manifest["experiments"]:
        experiment |= {"deploy_s": 600.0, "idle_s": 60.0}
    read = words(write((findings, manifest)))
    assert "$35.76 under load, $9.67 deploying and $0.967 idle" in read


def test_what_the_second_repeat_echoed_is_found() -> None:
    findings, manifest = reported.repeated_run(2)
    rows = [row | ({"echoed": row["requests"]} if row["repeat"] else {}) for row in findings.trials.to_pylist()]
    read = words(write((replace(findings, trials=reported.findings(rows).trials), manifest)))
    assert "Echoed prompts, overlong replies or counts that disagree in ml.g5.48xlarge" in read


def test_repeats_are_drawn_as_the_tables_say_them() -> None:
    findings, manifest = reported.repeated_run()
    view = look(findings, decide(findings.trials, manifest["criteria"], manifest["report"]["payload"]), manifest)
    cell = next(cell for cell in view.asked if cell.row["concurrency"] == 8)
    single, _ = reported.small_run()
    one = next(r for r in single.curves.to_pylist() if cell.row["trial_id"].startswith(r["trial_id"] + "/")
               and r["quantile"] == 0.5)  # fmt: skip
    drawn = next(r for r in view.findings.curves.to_pylist()
                 if r["trial_id"] == cell.row["trial_id"] and r["quantile"] == 0.5)  # fmt: skip
    assert drawn["latency_s"] == pytest.approx(one["latency_s"] * 1.1)
    read = words(write((findings, manifest)))
    assert "48 trials of 16 settings" in read
    assert "16 of 16 settings ran to the end" in read
    assert "all valid 16 settings; the checks are under Trust" in read
    assert "Every setting (16)" in read
    assert "within a trial percentiles are of all its requests, pooled" in read
    assert "trials of one setting are put together on the log scale" in read
    assert "data-line" not in write((findings, manifest))


def test_above_eight_configurations_those_nearest_the_answer_are_drawn_and_it_is_said() -> None:
    names = {f"ml.x{n}": f"x{n}" for n in range(10)}
    rows = [
        reported.trial(kind, name, "payload_a", level, latency_mean=1.0, transactions_per_minute=60.0 * (n + 1))
        for n, (kind, name) in enumerate(names.items())
        for level in (1, 2, 4)
    ]
    findings, manifest = reported.findings(rows), reported.manifest(names, ["payload_a"])
    view = look(findings, decide(findings.trials, manifest["criteria"], None), manifest)
    assert len(view.shown) == 8
    read = words(write((findings, manifest)))
    assert "2 further configurations are drawn in grey." in read
    assert "8 of 10 configurations, those nearest to the answer" in read


def test_the_policy_names_exactly_the_two_scripts_and_no_network(small: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', small)
    assert policy is not None
    scripts = re.findall(r"<script>(.*?)</script>", small, re.S)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert unescape(policy[1]).startswith(
        f"default-src 'none'; script-src 'sha256-{hashes[0]}' 'sha256-{hashes[1]}'; style-src 'unsafe-inline'; "
    )
    assert not re.search(r"""(?:src|href)=["']?(?:https?:|//)""", NO_DRAWING.sub("", small))


def test_outside_words_are_text_wherever_they_stand() -> None:
    html, harmless = (write(run()).replace(vega.bundle(), "") for run in (reported.hostile_run, reported.small_run))
    assert len(re.findall(r"<script\b", html)) == len(re.findall(r"<script\b", harmless))
    for mark in ("<img", "\u2028", "\u202e"):
        assert mark not in html
    for spec in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.S):
        json.loads(spec)
        assert "<" not in spec


def test_the_drawings_stand_in_the_page_with_ids_of_their_own_and_colours_that_fall_back(small: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", small[: small.index(vega.bundle())], re.S)
    assert len(drawings) == len(figures.CHARTS) == 15
    ids = [found for drawing in drawings for found in re.findall(r'\bid="([^"]*)"', drawing)]
    assert len(ids) == len(set(ids))
    assert "var(--c1,#22409c)" in small
    assert not re.search(r"var\(--\w+\)", "".join(drawings))


def test_a_report_that_the_disk_does_not_take_is_a_named_error_and_leaves_nothing_half(tmp_path: Path) -> None:
    findings, manifest = reported.small_run()
    decision = decide(findings.trials, manifest["criteria"], manifest["report"]["payload"])
    (tmp_path / "report.md").mkdir()
    (tmp_path / "report.md" / "in the way").touch()
    with pytest.raises(StorageError, match=r"report\.md: "):
        build(tmp_path, findings, decision, manifest)
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    findings, manifest = reported.small_run()
    decision = decide(findings.trials, manifest["criteria"], manifest["report"]["payload"])
    written = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        build(tmp_path / name, findings, decision, manifest)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        written.append({str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files})
    assert written[0] == written[1]
    assert {"report.html", "report.md", "charts/business_summary.svg", "charts/error_rates.svg"} <= set(written[0])
    for name in re.findall(r"\((charts/[^)]*)\)", written[0]["report.md"].decode()):
        drawing = written[0][name].decode()
        assert drawing.startswith("<svg")
        assert "var(" not in drawing


def test_a_chart_that_is_not_drawn_any_more_is_taken_away_and_a_file_that_is_nobodys_stays(tmp_path: Path) -> None:
    def built(found: Findings, manifest: dict[str, Any]) -> set[str]:
        decision = decide(found.trials, manifest["criteria"], manifest["report"]["payload"])
        build(tmp_path, found, decision, manifest)
        return {path.stem for path in (tmp_path / "charts").glob("*.svg")}

    drawn = built(*reported.small_run())
    for name in ("client.png", "mine.svg"):
        (tmp_path / "charts" / name).touch()
    assert "client" in drawn
    fewer = built(*reported.seed_run())
    assert not {"client"} & fewer, "the seed's report knows nothing of its client"
    assert "mine" in fewer
    assert not (tmp_path / "charts" / "client.png").exists()


def test_drawings_become_pictures_beside_them(tmp_path: Path) -> None:
    (tmp_path / "charts").mkdir()
    drawing = figures.draw(look(*_looked()))["little"].drawing
    (tmp_path / "charts" / "little.svg").write_text(vega.standalone(drawing), "utf-8")
    pictures(tmp_path)
    assert (tmp_path / "charts" / "little.png").read_bytes().startswith(b"\x89PNG")


def _looked() -> tuple[Any, Any, dict[str, Any]]:
    findings, manifest = reported.small_run()
    return findings, decide(findings.trials, manifest["criteria"], manifest["report"]["payload"]), manifest


def test_a_grid_of_panels_has_no_gap_that_would_shift_the_others() -> None:
    findings, manifest = reported.small_run()
    rows = findings.trials.to_pylist()
    for row in rows:
        if row["instance_type"] == reported.G5 and row["concurrency"] < 8:
            row["valid"] = "INVALID"
    findings = replace(findings, trials=reported.findings(rows).trials)
    view = look(findings, decide(findings.trials, manifest["criteria"], manifest["report"]["payload"]), manifest)
    shown = columns.tokens(view.asked, findings.tokens)
    panels = {(row["config"], row["level_text"]) for row in shown}
    assert panels == {(config, load) for config in (reported.G5, reported.P4D) for load in "1248"}
    empty = [row for row in shown if row["requests"] is None]
    assert {(row["config"], row["level_text"]) for row in empty} == {(reported.G5, load) for load in "124"}
    drawn = figures.draw(view)["tokens_latency"].drawing
    assert "NaN" not in drawn


def test_a_chart_with_too_many_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="5,001 rows"):
        vega.bounded("big", {"datasets": {"d": [{}] * 5_001}})


def test_five_hundred_trials_stay_within_the_bounds_of_every_chart() -> None:
    findings, manifest = reported.small_run()
    names = {reported.G5: "g5", reported.P4D: "p4d"}
    payloads = [f"payload_{n}" for n in range(5)]
    trials, curves = [], []
    for level in range(1, 51):
        for payload in payloads:
            for instance, name in names.items():
                known = {"latency_mean": 0.1 * level, "transactions_per_minute": 600.0, "latency_p50": 0.1 * level}
                row = reported.trial(instance, name, payload, level, **known)
                trials.append(row)
                curves += [
                    {"trial_id": row["trial_id"], "quantile": n / 20, "latency_s": 0.1 * level, "beyond": 20}
                    for n in range(1, 20)
                ]
    findings, manifest = reported.findings(trials, curves), reported.manifest(names, payloads)
    drawn = figures.draw(look(findings, decide(findings.trials, manifest["criteria"], None), manifest))
    assert {"price", "saturation", "percentiles", "load_latency", "error_rates"} <= set(drawn)
    assert sum(len(figure.drawing) + len(json.dumps(figure.spec)) for figure in drawn.values()) < 3_000_000


def luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [palette.LIGHT, palette.DARK], ids=["light", "dark"])
def test_text_and_marks_can_be_read_in_both_themes(colours: dict[str, str]) -> None:
    for name in ("ink", "ink2", "ok", "bad", "warn"):
        assert contrast(colours[name], colours["card"]) >= 4.5, name
    for ground in ("ok", "bad", "warn"):
        assert contrast(colours[ground], colours[f"{ground}bg"]) >= 4.5, ground
    for n in range(1, 9):
        assert contrast(colours["ink"], colours[f"d{n}"]) >= 4.5, n
    for name in ("mute", *(f"c{n}" for n in range(1, 9))):
        assert contrast(colours[name], colours["card"]) >= 3, name


def test_numbers_are_rounded_for_display_only() -> None:
    assert [spoken.seconds(value) for value in (0.4182, 3.806, 42.79, None, float("inf"))] == [
        "0.418", "3.81", "42.8", "–", "–",
    ]  # fmt: skip
    assert [spoken.usd(value) for value in (1049.594, 1.0, 0.5022, 0.0123, 0.0, None)] == [
        "1,049.59", "1.00", "0.502", "0.0123", "0.00", "–",
    ]  # fmt: skip
    assert [spoken.times(value) for value in (1.004, 4.188, 13.57)] == ["1.00×", "4.2×", "14×"]
    assert [text.short(value, 2) for value in (2.6, 0.0, 10.294)] == ["2.6", "0.0", "10.29"]
    assert [text.short(value, 2) for value in (0.0004123, 300.0, None)] == ["0.000412", "300.0", "–"]
    assert text.short(0.00003, 6) == "0.00003", "not in powers of ten"


def test_warming_up_needs_no_run() -> None:
    warm_up()
    assert vega.bundle() is vega.bundle()


def test_loads_that_share_a_number_keep_a_place_each() -> None:
    def cell(level: float, text: str) -> Any:
        return SimpleNamespace(level=level, level_text=text)

    cells = [cell(8, "8"), cell(2, "2/s"), cell(2, "2"), cell(0, "replay-b"), cell(0, "replay-a"), cell(2, "2")]
    assert columns.levels(cells) == ["replay-a", "replay-b", "2", "2/s", "8"]


def test_loads_of_one_kind_and_rate_are_told_apart_by_their_labels() -> None:
    names = ("gamma-2.0-burstiness-0.5", "gamma-2.0-burstiness-4.0", "gamma-8.0-burstiness-0.5", "poisson-2.0")
    rows = [{"kind": load.split("-")[0], "load": load, "rate": float(load.split("-")[1])} for load in names]
    found = cells._level_texts([row | {"concurrency": None} for row in rows])
    assert [found[load] for load in names] == [names[0], names[1], "8/s", "2/s"]


def test_a_number_without_an_interval_is_said_to_have_none_and_not_to_be_close() -> None:
    bare = State("latency_p95", Standing.UNSURE, 50.0, 209.0, None, None, 4.18)
    assert missed(bare) == "p95 latency is not certain (209 s, limit 50 s): it has no interval"
