"""What searches leave for the answer: of their probes, the trial that certified a rate."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raybench.analysis.decide import Decision, Phrase, decide
from raybench.analysis.reduce import Findings

FAULTS = ("client_lag", "late_starts", "lost_rows", "stamp_disorder", "token_mismatch")
"""What makes a probe worthless; that it overloads the endpoint does not: overload is what is searched for."""


def counted(findings: Findings, manifest: Mapping[str, Any]) -> Findings:
    """Findings without the probes of searches, but for the trials that certified a rate.

    The others mostly overload the endpoint, and end as soon as they are settled: they are no settings to choose.
    """
    probes = {trial["trial_id"]: trial["load"] for trial in manifest["trials"] if trial.get("search")}
    out = probes.keys() - _certifying(manifest)
    if not out:
        return findings
    ids, loads = pa.array(sorted(out)), pa.array(sorted({probes[name] for name in out}))

    def without(table: pa.Table, column: str, values: pa.Array) -> pa.Table:
        return table.filter(pc.invert(pc.is_in(table[column], values)))

    names = ("trials", "curves", "failures", "over_time", "density")
    tables = {name: without(getattr(findings, name), "trial_id", ids) for name in names}
    return replace(findings, **tables, tokens=without(findings.tokens, "load", loads))


def decided(findings: Findings, manifest: Mapping[str, Any]) -> Decision:
    """The decision on what is counted; where that is nothing, what the searches came to."""
    decision = decide(findings.trials, manifest["criteria"], manifest["report"]["payload"])
    searches = manifest.get("searches", ())
    if not searches or findings.trials.num_rows:
        return decision
    return replace(decision, sentences=tuple((Phrase(search["sentence"]),) for search in searches))


def faults(manifest: Mapping[str, Any]) -> list[str]:
    """What ended searches, where it was a fault of the measurement."""
    ended = [search["probes"][-1] for search in manifest.get("searches", ()) if search["verdict"]]
    return [probe["fault"] for probe in ended if probe["fault"] in FAULTS]


def _certifying(manifest: Mapping[str, Any]) -> set[str]:
    return {
        probe["trial_id"]
        for search in manifest.get("searches", ())
        if search["verdict"] and search["verdict"]["rate"] is not None
        for probe in search["probes"]
        if probe["step"] == "certify" and probe["passed"]
    }
