"""The end of a run, or of a later look at it: findings become files, an answer on stdout, and an exit code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raybench.analysis import decide, reduce, searched
from raybench.analysis.columns import Valid
from raybench.analysis.reduce import Findings
from raybench.errors import CriteriaMissedError, InvalidRunError, RaybenchError
from raybench.report import build
from raybench.rundir import PAGE, TRIALS_TABLE, RunDir


def report(path: Path, png: bool = False) -> None:
    """Rebuilds trials.parquet and the reports of a run directory; InputError while a run is going on in it.

    Raises what `rebuild` raises.
    """
    rundir = RunDir.open(path.absolute())
    with rundir.hold():
        rebuild(rundir, png)


def rebuild(rundir: RunDir, png: bool = False) -> None:
    """Does so from the rows and run.json alone, in a directory that is held.

    Raises InvalidRunError or CriteriaMissedError as the run did.
    """
    manifest = rundir.manifest()
    error = publish(rundir, manifest, reduce.reduce(rundir.requests, manifest))
    if png:
        build.pictures(rundir.path)
    if error:
        raise error


def publish(rundir: RunDir, manifest: Mapping[str, Any], findings: Findings) -> RaybenchError | None:
    """Writes trials.parquet and the reports, prints the answer, and returns the error it deserves, if any."""
    rundir.write_table(TRIALS_TABLE, findings.trials)
    _note(rundir, manifest, findings)
    findings = searched.counted(findings, manifest)
    decision = searched.decided(findings, manifest)
    build.build(rundir.path, findings, decision, manifest)
    found = (search["sentence"] for search in manifest.get("searches", ()))
    for sentence in dict.fromkeys((*found, *map(decide.plain, decision.sentences))):
        print(sentence)
    print(f"report: {rundir.path / PAGE}")
    invalid = [trial for trial in findings.trials.to_pylist() if trial["valid"] == Valid.INVALID]
    if invalid:
        codes = sorted({code for trial in invalid for code in trial["reasons"]})
        many = f"{len(invalid)} of {len(findings.trials)} trials"
        return InvalidRunError(f"{many} cannot be trusted ({', '.join(codes)}); the report says why and what to do")
    if faults := searched.faults(manifest):
        return InvalidRunError(f"a search ended for what cannot be trusted ({', '.join(faults)}); the report has it")
    if manifest["enforce"] and decision.winner is None:
        none = "no setting meets every criterion" if decision.nearest else "no trial can be decided by"
        return CriteriaMissedError(none)
    return None


def _note(rundir: RunDir, manifest: Mapping[str, Any], findings: Findings) -> None:
    """Brings each trial's verdict into run.json."""
    found = {trial["trial_id"]: trial for trial in findings.trials.to_pylist()}
    for noted in manifest["trials"]:
        if trial := found.get(noted["trial_id"]):
            noted |= {"valid": trial["valid"], "reasons": trial["reasons"]}
    rundir.write_manifest(manifest)
