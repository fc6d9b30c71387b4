"""From rows to findings: the same by hand, in Ray Data, in any order, and written twice."""

import logging
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from made import S, failed, loop, manifest, numbers, reduced, row, table, trial

from raybench.analysis import reduce, tables
from raybench.analysis.columns import TRIALS
from raybench.rows import REQUESTS, Row

TABLES = ("trials", "curves", "tokens", "failures", "over_time", "density")


def stream(number: int, seed: int, **other: Any) -> list[Row]:
    """One slot's requests with some spread, a few of them failed."""
    rng, rows, at = np.random.default_rng(seed), [], 0.0
    for i in range(number):
        lasts = float(rng.lognormal())
        chunks = np.sort(at + rng.random(8) * lasts).tolist()
        kind: dict[str, Any] = {"outcome": "model_error", "error_code": "ModelError"} if i % 17 == 5 else {}
        tokens = int(rng.integers(1, 500))
        rows.append(row(i, at, at, at + lasts, chunks=chunks, prompt_tokens=tokens, **kind, **other))
        at += lasts
    return rows


def run() -> tuple[dict[str, Any], dict[str, pa.Table]]:
    """Three trials, the last of which was never played."""
    trials = [trial(trial_id=f"t{i}", load=f"closed-{i + 1}", duration_s=60.0) for i in range(3)]
    rows = {f"t{i}": table(stream(80, i, trial_id=f"t{i}", load=f"closed-{i + 1}")) for i in range(2)}
    trials[2]["state"] = "planned"
    return manifest(*trials, criteria={"latency_p95": 5.0, "error_rate": 0.1}), rows


def found(about: dict[str, Any], rows: dict[str, pa.Table]) -> reduce.Findings:
    return reduce.reduce(lambda one: rows.get(one["trial_id"], REQUESTS.empty_table()), about)


def test_findings_are_the_declared_tables_with_a_row_for_every_trial_in_order() -> None:
    findings = found(*run())
    assert findings.trials.schema.equals(TRIALS, check_metadata=True)
    assert findings.trials["trial_id"].to_pylist() == ["t0", "t1", "t2"]
    assert findings.trials["requests"].to_pylist() == [80, 80, 0]
    assert (findings.curves.schema, findings.tokens.schema) == (tables.CURVES, tables.TOKENS)
    assert findings.failures.schema == tables.FAILURES


def test_findings_do_not_depend_on_the_order_or_the_chunks_of_rows() -> None:
    about, rows = run()
    rng = np.random.default_rng(1)
    mixed = {name: each.take(pa.array(rng.permutation(len(each)))) for name, each in rows.items()}
    parts = {name: pa.concat_tables([each.slice(0, 33), each.slice(33)]) for name, each in mixed.items()}
    once, again = found(about, rows), found(about, parts)
    for name in TABLES:
        assert getattr(once, name).equals(getattr(again, name))


def test_a_run_without_trials_has_empty_findings() -> None:
    findings = found(manifest(), {})
    assert [len(getattr(findings, name)) for name in TABLES] == [0] * 6


def test_a_curve_is_null_below_the_floor_and_where_requests_never_finished() -> None:
    rows = loop(95) + [failed(95 + i, 95.0 + i) for i in range(5)]
    curve = {line["quantile"]: line for line in reduced(rows, duration_s=100.0).curves.to_pylist()}
    assert tuple(curve) == tables.CURVE_QUANTILES
    assert curve[0.5]["latency_s"] == 1.0
    assert curve[0.05]["latency_s"] == 1.0
    assert curve[0.96]["latency_s"] is curve[0.99]["latency_s"] is None
    assert curve[0.9]["beyond"] == 10


def test_tokens_are_binned_on_edges_of_the_bucket_and_shared_out_per_load() -> None:
    rows = [
        row(0, 0, 0, 0.5, prompt_tokens=1),
        row(1, 1, 1, 1.5, prompt_tokens=50),
        row(2, 2, 2, 4, prompt_tokens=51),
    ]
    about = manifest(trial(), trial(trial_id="u", repeat=1))
    findings = found(about, {"t": table(rows), "u": table(rows[:1])})
    lines = findings.tokens.to_pylist()
    assert [(line["prompt_tokens_low"], line["prompt_tokens_high"]) for line in lines] == [(1, 51), (51, 101)]
    assert [line["requests"] for line in lines] == [3, 1]
    assert [line["share"] for line in lines] == [0.75, 0.25]
    assert all(line["latency_low_s"] <= s < line["latency_high_s"] for line, s in zip(lines, (0.5, 2.0), strict=True))


def test_tokens_without_a_bucket_are_binned_by_doubling() -> None:
    about = manifest(trial(), payloads=[{"name": "p", "tokens": None}])
    lines = found(about, {"t": table([row(0, prompt_tokens=4), row(1, 1, prompt_tokens=7)])}).tokens.to_pylist()
    assert [line["prompt_tokens_low"] for line in lines] == pytest.approx([4, 2**2.5])


def test_failures_are_counted_by_kind_with_when_they_came() -> None:
    rows = [failed(i, float(i), error_code="X", error_message="no") for i in range(3)]
    rows += [failed(3, 3.0, "throttled"), failed(4, 4.0, phase="warmup"), row(5, 5.0)]
    lines = reduced(rows).failures.to_pylist()
    assert [(x["outcome"], x["error_code"], x["error_message"], x["requests"]) for x in lines] == [
        ("model_error", "X", "no", 3),
        ("throttled", None, None, 1),
    ]
    assert (lines[0]["first_s"], lines[0]["last_s"]) == (0.0, 2.0)


def test_a_thousand_kinds_of_failure_are_summed_up() -> None:
    rows = [failed(i, float(i), error_message=f"id {i:04}") for i in range(1000)]
    lines = reduced(rows).failures.to_pylist()
    assert len(lines) == tables.MOST_FAILURES + 1
    assert lines[-1]["error_message"] == f"({1000 - tables.MOST_FAILURES} other messages)"
    assert sum(line["requests"] for line in lines) == 1000


def test_a_trial_says_which_criteria_it_misses_and_which_it_cannot_tell() -> None:
    rows = [row(i, i, i, i + 1 + 0.01 * (i % 3), end_ns=i * S + S) for i in range(80)]
    criteria = {"latency_mean": 0.5, "latency_p95": 2.0, "error_rate": 0.01}
    (one,) = reduced(rows, criteria, duration_s=80.0).trials.to_pylist()
    assert (one["criteria_met"], one["missed"], one["unsure"]) == (False, ["latency_mean"], ["error_rate"])


def test_few_rows_are_reduced_and_kept_without_ray() -> None:
    about, rows = run()
    kept = []
    findings = reduce.reduced(
        [rows["t1"], rows["t0"]], about, lambda one, table: kept.append((one["trial_id"], len(table)))
    )
    assert kept == [("t0", 80), ("t1", 80)]
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()
    assert all(getattr(findings, name).equals(getattr(found(about, rows), name)) for name in TABLES)


@pytest.mark.ray
def test_ray_data_finds_the_very_same_and_keeps_each_trials_rows(tmp_path: Path) -> None:
    import ray

    about, rows = run()
    kept = tmp_path / "kept"

    def keep(one: Mapping[str, Any], rows: pa.Table) -> None:
        with kept.open("a") as file:
            file.write(f"{one['trial_id']} {len(rows)}\n")

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        findings = reduce.reduce_with_ray([rows[name] for name in ("t1", "t0")], about, keep)
        assert reduce.reduce_with_ray([], manifest(), keep).trials.num_rows == 0
    finally:
        ray.shutdown()
    assert sorted(kept.read_text().splitlines()) == ["t0 80", "t1 80"]
    plain = found(about, rows)
    for name in TABLES:
        assert getattr(findings, name).equals(getattr(plain, name))
        assert getattr(findings, name).schema.equals(getattr(plain, name).schema, check_metadata=True)


def test_a_closed_loads_numbers_are_as_sure_as_it_had_rounds() -> None:
    lasting = [(0.0, 1.0), (1.0, 1.1), (2.1, 1.2)]
    rows = [
        row(4 * turn + slot, at, at, at + lasts, chunks=(at + lasts / 2, at + 0.75 * lasts, at + lasts))
        for turn, (at, lasts) in enumerate(lasting)
        for slot in range(4)
    ]
    found = numbers(rows, concurrency=4, duration_s=3.3)
    reach = 4.3026527 * 0.1 * math.sqrt(2 / 3)
    assert found["latency_mean"] == pytest.approx(1.1)
    assert [found["latency_mean_low"], found["latency_mean_high"]] == pytest.approx([1.1 - reach, 1.1 + reach])
    assert found["itl_mean_high"] - found["itl_mean"] == pytest.approx(reach / 4)
    one_round = numbers(rows, concurrency=12, duration_s=3.3)
    assert (one_round["latency_mean_low"], one_round["itl_mean_low"]) == (None, None)
