"""Runs that are in S3, brought to this machine: whole, to go on with, or just as much as says how far they are."""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from raybench import mirror, s3
from raybench.errors import InputError
from raybench.rundir import default_path

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


def taken_over(place: s3.Prefix, say: Say) -> Path:
    """Fetches a run that this machine will go on with; InputError while another one does."""
    store = s3.Store(place)
    last = store.listed().get(mirror.MANIFEST)
    young = last and (store.probe() - last.changed).total_seconds() < ALIVE_S
    if young and json.loads(store.get(mirror.MANIFEST)).get("state") == "running":
        allowed = f"stop it, or wait: a run that says nothing for {ALIVE_S:.0f} s is dead"
        raise InputError("a run is going on in it", where=str(place), allowed=allowed)
    return fetched(place, say)


@contextmanager
def glimpsed(run_dir: str) -> Iterator[Path]:
    """A run directory of which only what says how far the run is can be counted on."""
    if not s3.is_url(run_dir):
        yield Path(run_dir)
        return
    with tempfile.TemporaryDirectory(prefix="raybench-") as folder:
        mirror.glimpse(s3.Store(s3.prefix(run_dir)), Path(folder))
        yield Path(folder)
