"""Findings with repeats put together, so that what is drawn of a setting is what its row says."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from raybench.analysis import stats
from raybench.analysis.reduce import Findings
from raybench.analysis.tables import CURVES, FAILURES


def together(findings: Findings, repeats: Mapping[str, Sequence[str]]) -> Findings:
    """Curves and failures of settings, under the id of each one's first repeat; `repeats` maps that to them all.

    A quantile is the geometric mean of its repeats, as in the setting's row, and null where one repeat lacks it;
    its interval is that between repeats, where each has its own. Failures are added up; a timeline stays one trial's.
    """
    repeated = {one: first for first, each in repeats.items() for one in each}
    if all(one == first for one, first in repeated.items()):
        return findings
    return replace(
        findings, curves=_curves(findings.curves, repeated), failures=_failures(findings.failures, repeated)
    )


def _curves(curves: pa.Table, repeated: Mapping[str, str]) -> pa.Table:
    points: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for point in curves.to_pylist():
        first = repeated.get(point["trial_id"], point["trial_id"])
        points.setdefault((first, point["quantile"]), []).append(point)
    return pa.Table.from_pylist([_point(first, each) for (first, _), each in points.items()], CURVES)


def _point(first: str, each: list[dict[str, Any]]) -> dict[str, Any]:
    if len(each) == 1:
        return each[0] | {"trial_id": first}
    one = stats.combined_within([stats.Estimate(*(p[n] for n in ("latency_s", "low_s", "high_s"))) for p in each])
    told = {"trial_id": first, "quantile": each[0]["quantile"], "beyond": sum(point["beyond"] for point in each)}
    return told | {"latency_s": one.value, "low_s": one.low, "high_s": one.high}


def _failures(failures: pa.Table, repeated: Mapping[str, str]) -> pa.Table:
    kinds: dict[tuple[Any, ...], dict[str, Any]] = {}
    for line in failures.to_pylist():
        line["trial_id"] = repeated.get(line["trial_id"], line["trial_id"])
        key = tuple(line[name] for name in ("trial_id", "outcome", "error_code", "error_message"))
        if (same := kinds.setdefault(key, line)) is not line:
            same["requests"] += line["requests"]
            same["first_s"] = min(same["first_s"], line["first_s"])
            same["last_s"] = max(same["last_s"], line["last_s"])
    return pa.Table.from_pylist(list(kinds.values()), FAILURES)
