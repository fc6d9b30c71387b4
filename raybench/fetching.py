"""Runs that are in S3: brought to this machine, whole or what says how far they are; and who goes on with one."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raybench import mirror, s3
from raybench.errors import InputError
from raybench.rundir import MANIFEST, default_path
from raybench.states import RunState, TrialState

ALIVE_S = 30.0
"""A run that goes on puts its run.json every five seconds; one that has not for so long is dead."""

Say = Callable[[str], None]


def at_hand(run_dir: str, say: Say) -> Path:
    """The run directory on this machine: the path itself, or where a run in S3 was just fetched to."""
    return fetched(s3.prefix(run_dir), say) if s3.is_url(run_dir) else Path(run_dir)


def fetched(place: s3.Prefix, say: Say) -> Path:
    """Brings a run from S3 into runs/, under its own name where that is free; returns where it is."""
    path = Path("runs", place.name)
    if path.exists():
        path = default_path(place.name)
    mirror.fetch(s3.Store(place), path)
    say(f"fetched {place} to {path}")
    return path


def taken_over(place: s3.Prefix, say: Say, alive_s: float = ALIVE_S) -> Path:
    """Fetches a run that this machine will go on with; InputError while another one does."""
    if there := _there(s3.Store(place)):
        _not_alive(place, there, alive_s)
    return fetched(place, say)


def ahead(manifest: Mapping[str, Any], place: s3.Prefix, alive_s: float = ALIVE_S) -> None:
    """InputError unless the directory of this run.json knows all that S3 has, and nobody else goes on with its run.

    What S3 has is never newer than the directory that it was copied from, so else that is another one.
    """
    there = _there(s3.Store(place))
    if there is None:
        return
    ours, theirs = (list(said.get("resumed_utc", ())) for said in (manifest, there))
    newer = theirs != ours[: len(theirs)] or _done(there) - _done(manifest)
    if theirs == ours and manifest["state"] == RunState.RUNNING and not newer:
        _not_alive(place, there, alive_s)
        newer = there["state"] != RunState.RUNNING
    if newer:
        allowed = f"`raybench resume {place}` goes on from there"
        raise InputError("has more of the run than its directory here", where=str(place), allowed=allowed)


def _there(store: s3.Store) -> dict[str, Any] | None:
    """The run.json in S3, if there is one; InputError if it cannot be read."""
    if MANIFEST not in store.listed():
        return None
    try:
        said: dict[str, Any] = json.loads(store.get(MANIFEST))
    except ValueError as error:
        raise InputError(f"its {MANIFEST} cannot be read: {error}", where=str(store.place), allowed="a run") from None
    return said


def _done(manifest: Mapping[str, Any]) -> set[str]:
    return {trial["trial_id"] for trial in manifest["trials"] if trial["state"] == TrialState.DONE}


def _not_alive(place: s3.Prefix, there: Mapping[str, Any], alive_s: float) -> None:
    """InputError if the run there says that it is running, and said so a short while ago."""
    store = s3.Store(place)
    if there.get("state") != RunState.RUNNING:
        return
    since_s = (store.probe() - store.listed()[MANIFEST]).total_seconds()
    if since_s < alive_s:
        allowed = f"stop it, or wait: a run that says nothing for {alive_s:.0f} s is dead"
        raise InputError("a run is going on in it", where=str(place), allowed=allowed)


@contextmanager
def glimpsed(run_dir: str) -> Iterator[Path]:
    """A run directory of which only what says how far the run is can be counted on."""
    if not s3.is_url(run_dir):
        yield Path(run_dir)
        return
    with tempfile.TemporaryDirectory(prefix="raybench-") as folder:
        mirror.glimpse(s3.Store(s3.prefix(run_dir)), Path(folder))
        yield Path(folder)
