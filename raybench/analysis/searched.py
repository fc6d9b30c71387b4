"""What searches leave for the answer: of their probes, the trial that certified a rate, if none refuted it later."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raybench.analysis.decide import Decision, Phrase, decide
from raybench.analysis.reduce import Findings
from raybench.analysis.validity import FAULTS


def counted(findings: Findings, manifest: Mapping[str, Any]) -> Findings:
    """Findings without the probes of searches, but for the trials that certified a rate.

    The others mostly overload the endpoint, and end as soon as they are settled: they are no settings to choose.
    """
    certifying = _certifying(manifest)
    out = [trial for trial in manifest["trials"] if trial.get("search") and trial["trial_id"] not in certifying]
    if not out:
        return findings
    names = ("trials", "curves", "failures", "over_time", "density")
    tables = {name: _without(getattr(findings, name), ("trial_id",), out) for name in names}
    return replace(findings, **tables, tokens=_without(findings.tokens, ("experiment", "payload", "load"), out))


def _without(table: pa.Table, columns: Sequence[str], trials: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A table without the lines that are like one of the trials in these columns."""
    gone = pa.array(sorted({"\0".join(trial[name] for name in columns) for trial in trials}))
    keys = pc.binary_join_element_wise(*(table[name] for name in columns), "\0")
    return table.filter(pc.invert(pc.is_in(keys, gone)))


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
        if probe["step"] == "certify" and probe["passed"] and probe["rate"] == search["verdict"]["rate"]
    }
