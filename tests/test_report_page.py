"""The page: it answers first, tells the truth about what it does not know, and carries no outside word as markup."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import reported

from raybench.analysis.decide import decide
from raybench.report import columns, figures, palette, text, vega
from raybench.report.build import build, warm_up
from raybench.report.page import page
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
    place = read.index("llama2-70b-p4d.24xlarge-tgi0.9.3 at concurrency 4")
    assert place < read.index("Price against latency")
    assert "95 % interval" in read[place : place + 200]
    assert "Rule: of the trials that are VALID" in read
    assert not re.search(r"\bbest\b(?! estimate| throughput)", read.lower())


def test_a_winner_whose_interval_straddles_a_limit_is_called_too_close(small: str) -> None:
    assert "It passes by its best estimate only:" in words(small)
    assert "too close to call" in words(small)


def test_without_a_winner_the_nearest_miss_is_named_with_its_multiple() -> None:
    read = words(write(reported.seed_run()))
    assert "No configuration meets every criterion." in read
    assert "cost is 4.2× the limit" in read
    assert "nearest miss: cost per 10,000 requests is 4.2× the limit ($209.38 against $50)" in read


def test_an_invalid_trial_is_struck_through_and_does_not_win() -> None:
    html = write(changed(valid="INVALID", reasons=["late"], reason_texts=["The client was late"]))
    assert "INVALID. 1 of 16 trials cannot be trusted: struck through below" in words(html)
    assert '<tr class="invalid">' in html
    assert "The client was late" in words(html)
    assert "not counted: INVALID" in words(html)
    verdict = re.search(r'<p class="verdict \w+">(.*?)</p>', html, re.S)
    assert verdict is not None
    assert "p4d.24xlarge-tgi0.9.3</b> at <b>concurrency 4" not in verdict[1]


def test_percentiles_below_their_floor_are_dashes(small: str) -> None:
    table = small[small.index("Every trial (16)") :]
    row = table[table.index("<tbody>") : table.index("</tr>", table.index("<tbody>"))]
    assert re.findall(r'<td class="n">([^<]*)</td>', row)[4:6] == ["–", "–"]


def test_banners_tell_of_simulated_and_partial_runs() -> None:
    findings, manifest = changed(state="partial")
    for experiment in manifest["experiments"]:
        experiment["simulated"] = True
    manifest["state"] = "interrupted"
    read = words(write((findings, manifest)))
    assert "Simulated. No model was measured (every endpoint is simulated)" in read
    assert "Partial. The run's state is “interrupted”; 1 of 16 trials did not run to the end." in read


def test_a_run_without_trials_still_has_a_page() -> None:
    manifest = reported.manifest(reported.SEED_NAMES, ["payload_en_1-500"], state="failed")
    assert "Nothing was measured." in words(write((reported.findings([]), manifest)))


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


def test_every_number_in_the_download_is_the_one_in_the_trials_table() -> None:
    findings, manifest = reported.small_run()
    html = write((findings, manifest))
    told = json.loads(re.search(r'<script type="application/json" id="trials">(.*?)</script>', html, re.S)[1])
    for row, shown in zip(findings.trials.to_pylist(), told, strict=True):
        assert {k: v for k, v in shown.items() if isinstance(v, float)} == {
            k: v for k, v in row.items() if isinstance(v, float)
        }


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
    assert len(drawings) == 6
    ids = [found for drawing in drawings for found in re.findall(r'\bid="([^"]*)"', drawing)]
    assert len(ids) == len(set(ids))
    assert "var(--c1,#22409c)" in small
    assert not re.search(r"var\(--\w+\)", "".join(drawings))


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
    for name in ("mute", *(f"c{n}" for n in range(1, 9))):
        assert contrast(colours[name], colours["card"]) >= 3, name


def test_numbers_are_rounded_for_display_only() -> None:
    assert [text.seconds(value) for value in (0.4182, 3.806, 42.79, None, float("inf"))] == [
        "0.418", "3.81", "42.8", "–", "–",
    ]  # fmt: skip
    assert [text.usd(value) for value in (209.377, 0.0123, 0.0, None)] == ["209.38", "0.0123", "0.00", "–"]
    assert [text.times(value) for value in (1.004, 4.188, 13.57)] == ["1.00×", "4.2×", "14×"]
    assert [text.short(value, 2) for value in (2.6, 0.0, 10.294)] == ["2.6", "0.0", "10.29"]


def test_warming_up_needs_no_run() -> None:
    warm_up()
    assert vega.bundle() is vega.bundle()
