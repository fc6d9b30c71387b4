"""A run directory in a second place: copied there round by round while the run goes on, and fetched from there.

A round takes run.json as it stands, copies what else is new, and puts run.json last: of whatever the copy's run.json
calls done, the rows are there. A spool only grows, so what is new of it becomes a piece of its own, named after where
in the spool it starts. A copy that ended too early is a directory as a crash leaves it, and is read like one.

Nothing is ever deleted. What a resumed run set aside stays where it was too: pieces bear the number of their sitting,
and a part that is older than the sitting its trial was played in last is not that trial's. So a sitting must have had
its first round before it plays anything.
"""

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from raybench.errors import InputError, StorageError
from raybench.rundir import LIVE, MANIFEST, SITTING, TRUTH, RunDir, spool_suffix

PIECE_BYTES = 8 * 2**20
"""The largest piece of a spool: one request, and little memory."""

FETCHING = 8
"""Objects that are read at once."""

LEFT_OUT = {MANIFEST, TRUTH}
"""Put last; and what only a simulator has."""

PIECE = re.compile(r"(?P<spool>spool/(?P<trial>[^/]+)/[^/]+\.rows)\.(?P<sitting>\d+)\.(?P<start>\d+)")
ASIDE = re.compile(rf"abandoned/{SITTING}(?P<sitting>\d+)/")
OURS = re.compile(rf"\.({SITTING}\d+|writable.*|.*\.tmp)")
"""No files of a run: what is not whole yet, and what stands only in the copy. A config may have a dot in front."""

COPIED = "where a raybench run is copied to"


class Store(Protocol):
    """Whole objects by key; StorageError where it does not take or give them. Its text says where it is."""

    def put(self, key: str, data: bytes) -> None: ...
    def get(self, key: str) -> bytes: ...
    def listed(self) -> Mapping[str, datetime]: ...


class Sittings:
    """A run's sittings: the first is 0, and each resume begins another; which one a trial's rows are of."""

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        self.latest = len(manifest.get("resumed_utc", ()))
        known = {trial["trial_id"]: trial.get("sitting") for trial in manifest.get("trials", ())}
        self._known = {trial: int(sitting) for trial, sitting in known.items() if sitting is not None}

    def of(self, trial_id: str) -> int:
        """The trial's sitting; the latest while nothing is said of it."""
        return self._known.get(trial_id, self.latest)


def _beginning(sitting: int) -> str:
    """An object that is as old as a sitting: an older part of a trial that was played in it was set aside."""
    return f".{SITTING}{sitting}"


class Mirror:
    """What of a run directory is in a store already, and how the rest gets there.

    With a `sitting`, of the spools only those of that: where no trial was set aside, older ones are still there.
    """

    def __init__(
        self, run_dir: Path, store: Store, piece_bytes: int = PIECE_BYTES, sitting: int | None = None
    ) -> None:
        self._dir, self._store, self._piece_bytes = run_dir, store, piece_bytes
        self._suffix = "" if sitting is None else spool_suffix(sitting)
        self._put: dict[str, tuple[int, int, int]] = {}
        self._grown: dict[str, int] = {}
        self._begun = False

    def round(self) -> None:
        """Copies what is new; StorageError if that is refused, and the next round goes on from there."""
        with self._readable():
            said = self._manifest()
            sittings = Sittings(json.loads(said or b"{}"))
            if said is not None and not self._begun:
                self._begin(sittings.latest)
            whole = self.spools(sittings)
            for name in self._others():
                whole &= self._copy(name)
        if said is not None and whole:
            self._store.put(MANIFEST, said)

    def _begin(self, sitting: int) -> None:
        """Marks when a sitting began, once: copied again from here, its parts would be no younger."""
        if _beginning(sitting) not in self._store.listed():
            self._store.put(_beginning(sitting), b"")
        self._begun = True

    def spools(self, sittings: Sittings) -> bool:
        """Copies only what is new of the spools; whether none of them became a part meanwhile."""
        with self._readable():
            return all([self._extend(name, sittings.of(name.split("/")[1])) for name in self._spools()])

    def backlog_bytes(self) -> int:
        """What is here and not there yet; StorageError if the disk does not say."""
        with self._readable():
            waiting = sum(self._size(name) - self._grown.get(name, 0) for name in self._spools())
            return waiting + sum(self._size(name) for name in self._others() if self._is_new(name))

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"{error.filename or self._dir}: {error.strerror or error}") from None

    def _manifest(self) -> bytes | None:
        path = self._dir / MANIFEST
        return path.read_bytes() if path.is_file() else None

    def _spools(self) -> list[str]:
        return sorted(name for name in self._names(self._dir / "spool") if name.endswith(self._suffix))

    def _others(self) -> list[str]:
        """Looked for after the spools: rows are in their spool until they are in their part."""
        names = (name for name in self._names(self._dir) if not name.startswith("spool/"))
        return sorted(name for name in names if name not in LEFT_OUT)

    def _names(self, folder: Path) -> Iterator[str]:
        """Files by their paths in the run directory, but for those that are not whole yet."""
        for place, _, files in os.walk(folder):
            for file in files:
                if not OURS.fullmatch(file):
                    yield Path(place, file).relative_to(self._dir).as_posix()

    def _extend(self, name: str, sitting: int) -> bool:
        start = self._grown.get(name, 0)
        if self._size(name) == start:
            return True
        try:
            with (self._dir / name).open("rb") as file:
                file.seek(start)
                while data := file.read(self._piece_bytes):
                    self._store.put(f"{name}.{sitting}.{start:012d}", data)
                    self._grown[name] = start = start + len(data)
        except FileNotFoundError:
            return False
        return True

    def _copy(self, name: str) -> bool:
        try:
            stamp = self._stamp(name)
            if self._put.get(name) != stamp:
                self._store.put(name, (self._dir / name).read_bytes())
                self._put[name] = stamp
        except FileNotFoundError:
            return False
        return True

    def _is_new(self, name: str) -> bool:
        try:
            return self._put.get(name) != self._stamp(name)
        except FileNotFoundError:
            return False

    def _stamp(self, name: str) -> tuple[int, int, int]:
        """Another one once the file was replaced."""
        stat = (self._dir / name).stat()
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def _size(self, name: str) -> int:
        try:
            return (self._dir / name).stat().st_size
        except FileNotFoundError:
            return self._grown.get(name, 0)


class _Copy:
    """What a store holds of a run: what counts of it, and what an earlier sitting left or one that never was."""

    def __init__(self, said: bytes, listed: Mapping[str, datetime]) -> None:
        manifest = json.loads(said)
        self._listed, self._sittings = listed, Sittings(manifest)
        self._ended, self._stale = set[str](), set[str]()
        for trial in manifest["trials"]:
            part = RunDir(Path()).part(trial).as_posix()
            if part not in listed:
                continue
            began = listed.get(_beginning(self._sittings.of(trial["trial_id"])))
            if began and listed[part] <= began:
                self._stale.add(part)
            else:
                self._ended.add(trial["trial_id"])

    def files(self) -> dict[str, list[str]]:
        """The files of the run and the objects that each is made of: one, or the pieces of a spool in their order."""
        files: dict[str, list[str]] = {}
        for key in sorted(filter(self._counts, self._listed)):
            piece = PIECE.fullmatch(key)
            files.setdefault(piece["spool"] if piece else key, []).append(key)
        return files

    def _counts(self, key: str) -> bool:
        if piece := PIECE.fullmatch(key):
            return piece["trial"] not in self._ended and int(piece["sitting"]) == self._sittings.of(piece["trial"])
        if aside := ASIDE.match(key):
            return int(aside["sitting"]) < self._sittings.latest
        return key not in (MANIFEST, LIVE) and key not in self._stale and not OURS.fullmatch(key.rpartition("/")[2])


def fetch(store: Store, out: Path) -> None:
    """Brings a run directory from a store to `out`, whole or not at all.

    InputError if there is no run, or if its names lead out of it; StorageError where the store fails.
    """
    listed = store.listed()
    if MANIFEST not in listed:
        raise InputError(f"no {MANIFEST} here", where=str(store), allowed=COPIED)
    for key in listed:
        if key.startswith("/") or ".." in key.split("/") or "\0" in key:
            raise InputError(f"{key!r} leads out of it", where=str(store), allowed=COPIED)
    said = store.get(MANIFEST)
    try:
        files = _Copy(said, listed).files()
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InputError(f"{MANIFEST} cannot be read", where=str(store), allowed=COPIED) from None
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        fetched = Path(folder, "run")
        fetched.mkdir()
        (fetched / MANIFEST).write_bytes(said)
        with ThreadPoolExecutor(FETCHING) as threads:
            for done in [threads.submit(_bring, store, fetched / name, files[name]) for name in files]:
                done.result()
        fetched.rename(out)


def _bring(store: Store, path: Path, keys: Sequence[str]) -> None:
    """Writes a file; pieces that were copied twice fall onto each other, and what comes after a gap is left out."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            end = 0
            for key in keys:
                piece = PIECE.fullmatch(key)
                start = int(piece["start"]) if piece else 0
                if start > end:
                    return
                file.seek(start)
                end = max(end, start + file.write(store.get(key)))
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from None


def glimpse(store: Store, folder: Path) -> None:
    """Brings only what says how far a run is; InputError if there is no run."""
    there = {MANIFEST, LIVE} & store.listed().keys()
    if MANIFEST not in there:
        raise InputError(f"no {MANIFEST} here", where=str(store), allowed=COPIED)
    for name in there:
        (folder / name).write_bytes(store.get(name))
