"""Compares two run directories: reads both, and writes compare.html and compare.md."""

from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from raybench.analysis import compare as room
from raybench.analysis import reduce, searched
from raybench.analysis.change import Call
from raybench.analysis.columns import TRIALS
from raybench.analysis.compare import Comparison, Run
from raybench.errors import CriteriaMissedError, InputError
from raybench.report import comparison
from raybench.rundir import TRIALS_TABLE, RunDir


def compare(base: Path, candidate: Path, out: Path | None = None, anyway: bool = False) -> Comparison:
    """Compares two run directories and writes the comparison into `out`, by default CANDIDATE/compare-BASE_RUN_ID.

    InputError where one is no run, or they are not comparable and `anyway` does not say so.
    """
    if base.resolve() == candidate.resolve():
        raise InputError("is compared with itself", where=str(base), allowed="two runs")
    before, after = _run(base), _run(candidate)
    found = room.compare(before, after, anyway=anyway)
    place = RunDir(folder(found, candidate, out))
    place.write("compare.html", comparison.page(found).encode())
    place.write("compare.md", comparison.markdown(found).encode())
    return found


def folder(found: Comparison, candidate: Path, out: Path | None = None) -> Path:
    """Where the comparison is written."""
    return out or candidate / f"compare-{quote(str(found.base['run_id']), safe='')[:100]}"


def _run(path: Path) -> Run:
    """A run's numbers, made anew from its rows, so that both runs' are made alike; or from trials.parquet alone."""
    rundir = RunDir.open(path)
    try:
        manifest = rundir.manifest()
        named = [thing["name"] for things in ("experiments", "payloads") for thing in manifest[things]]
        named += [trial[key] for trial in manifest["trials"] for key in ("experiment", "payload", "load")]
        if not all(isinstance(name, str) for name in named):
            raise TypeError
        if (path / "requests").is_dir() or (path / "spool").is_dir():
            return Run(manifest, searched.counted(reduce.reduce(rundir.requests, manifest), manifest).trials)
    except (ValueError, TypeError, KeyError, AttributeError, OSError, pa.ArrowException) as error:
        why = type(error).__name__
        raise InputError(f"cannot be read ({why})", where=str(path), allowed="a whole run directory") from None
    return Run(manifest, _trials(path / TRIALS_TABLE))


def _trials(path: Path) -> pa.Table:
    """The trials table of a run whose rows are gone."""
    try:
        table = pq.read_table(path, partitioning=None)
        return table.select(TRIALS.names).cast(TRIALS)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise InputError(
            f"cannot be read ({type(error).__name__})", where=str(path), allowed="rows, or the trials of this version"
        ) from None


def gate(found: Comparison, *, enforce: bool) -> None:
    """CriteriaMissedError if a gate is asked for and anything is called worse."""
    worse = len(found.called(Call.WORSE))
    if enforce and worse:
        raise CriteriaMissedError(f"{worse} of {len(found.called())} comparisons are worse")
