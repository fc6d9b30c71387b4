"""The run directory: spool segments written per request, Parquet parts, the manifest, and how to read them back.

A finished request is one CRC'd line in its actor's segment before anything else sees the row; the line is in
the page cache when `write` returns, so it outlives the process. Everything else is written to a temporary
name, synced and renamed: a reader finds the old file or the new one, never half of one.
"""

import contextlib
import fcntl
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from raybench.errors import InputError, StorageError
from raybench.rows import REQUESTS, SCHEMA_VERSION, Row, requests_table, row_from_values

PARTITIONS = ("experiment", "payload", "load")
MANIFEST, LIVE = "run.json", "live.json"
"""What was asked for and how far it got; and what is being measured just now."""

TRIALS_TABLE, PAGE, MARKDOWN = "trials.parquet", "report.html", "report.md"
"""What is made of the rows."""

TRUTH = "truth.jsonl"
"""What a simulator did, by its own clock; it stays where it was written."""

NEEDED = frozenset(
    ("schema", "raybench", "run_id", "name", "state", "started_utc", "criteria", "experiments", "payloads", "trials")
)
"""What every run.json says."""

OWN = (MANIFEST, LIVE, TRIALS_TABLE, PAGE, MARKDOWN, TRUTH)
"""The files that a copy of the config must not lie over."""

SITTING = "sitting-"
"""How the name of what belongs to a sitting begins; its number follows, 0 for the run's first."""

_SAID = "what a raybench run says of itself, in JSON"


def spool_suffix(sitting: int) -> str:
    """How the names of a sitting's spools end: what an earlier one left on a worker is not its own."""
    return f"@{sitting}.rows"


def default_path(name: str) -> Path:
    """Where a run of this name goes if nobody says otherwise: runs/NAME-TIME, the time in UTC."""
    return Path("runs") / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def free(path: Path) -> None:
    """InputError if there is a file at `path`, or a directory that is not empty."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError("is not empty", where=str(path), allowed="name a new or empty directory with --out")


class Segment:
    """One actor's spool of one trial: a line a row, appended whole, unbuffered."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            size = os.fstat(self._fd).st_size
            self._torn = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"
        except OSError as error:
            raise _storage_error(error, path) from None

    def append(self, row: Row) -> None:
        """Writes one row; StorageError if the disk did not take the whole line.

        What was torn before is ended first, never cut off: others read on from where the file ended.
        """
        body = orjson.dumps(tuple(row))
        line = b"%s%08x %s\n" % (b"\n" * self._torn, zlib.crc32(body), body)
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            raise _storage_error(error, self.path) from None
        self._torn = written != len(line)
        if self._torn:
            raise StorageError(f"{self.path}: the disk took {written} of {len(line)} bytes; is it full?")

    def sync(self) -> None:
        """Forces what was appended onto the disk itself."""
        with contextlib.suppress(OSError):
            os.fsync(self._fd)

    def close(self) -> None:
        self.sync()
        os.close(self._fd)


def read_segment(path: Path) -> Iterator[Row]:
    """The whole rows of a segment, in order; a line cut short by a crash or a full disk is left out."""
    with path.open("rb") as file:
        for line in file:
            crc, _, body = line.rstrip(b"\n").partition(b" ")
            if line.endswith(b"\n") and crc == b"%08x" % zlib.crc32(body):
                yield row_from_values(orjson.loads(body))


class RunDir:
    """One run's files; the only place where the two wings meet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> "RunDir":
        """Makes a new run directory; InputError if the place is taken or cannot be written."""
        try:
            path.mkdir(parents=True, exist_ok=True)
            free(path)
            probe = path / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise InputError(f"cannot be written: {error.strerror}", where=str(path)) from None
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunDir":
        """An existing run directory; InputError if there is no run.json in it."""
        if not (path / MANIFEST).is_file():
            raise InputError(f"no {MANIFEST} here", where=str(path), allowed="the directory of a raybench run")
        return cls(path)

    def manifest(self) -> dict[str, Any]:
        """run.json as it stands; InputError if it cannot be read."""
        path = self.path / MANIFEST
        try:
            manifest: object = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"cannot be read: {error}", where=str(path), allowed=_SAID) from None
        if not isinstance(manifest, dict) or not manifest.keys() >= NEEDED:
            raise InputError(f"does not say what every {MANIFEST} says", where=str(path), allowed=_SAID)
        if manifest["schema"] != SCHEMA_VERSION:
            problem = f"its rows are of schema {manifest['schema']}, ours of {SCHEMA_VERSION}"
            raise InputError(problem, where=str(path), allowed=f"use raybench {manifest['raybench']}")
        return manifest

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        self.write(MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n")

    def write(self, name: str, data: bytes) -> Path:
        """Writes a file of the run whole or not at all."""
        path = self.path / name
        with _whole(path) as temporary:
            temporary.write_bytes(data)
        return path

    def write_table(self, name: str, table: pa.Table) -> Path:
        """Writes a table of the run as Parquet, whole or not at all."""
        path = self.path / name
        with _whole(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")
        return path

    def segment(self, trial_id: str, actor: str, sitting: int = 0) -> Segment:
        """A new spool segment for one actor of one trial, of its own in each sitting of the run."""
        return Segment(self._spool_of(trial_id, actor, sitting))

    def spooled(self, trial_id: str, actor: str, sitting: int = 0) -> Iterator[Row]:
        """The whole rows that one actor's spool of a trial holds on this machine; none if there is no such spool."""
        path = self._spool_of(trial_id, actor, sitting)
        return read_segment(path) if path.is_file() else iter(())

    def _spool_of(self, trial_id: str, actor: str, sitting: int) -> Path:
        return self.path / "spool" / trial_id / f"{quote(actor, safe='')}{spool_suffix(sitting)}"

    def set_aside(self, trial: Mapping[str, Any], place: str) -> None:
        """Moves what there is of a trial, its part and its spool, to abandoned/`place`; nothing is deleted."""
        aside = self.path / "abandoned" / place
        for path in (self.part(trial), self.path / "spool" / trial["trial_id"]):
            if path.exists():
                kept = aside / path.relative_to(self.path)
                kept.parent.mkdir(parents=True, exist_ok=True)
                path.rename(kept)

    def left_in_spools(self, trial_ids: Iterable[str], before: int) -> Iterator[tuple[str, bytes]]:
        """The spools that sittings `before` one left of trials: where `set_aside` moves each, and what it holds."""
        for trial_id in trial_ids:
            for segment in self.spool(trial_id):
                for sitting in range(before):
                    if segment.name.endswith(spool_suffix(sitting)):
                        aside = self.path / "abandoned" / f"{SITTING}{sitting}" / segment.relative_to(self.path)
                        yield str(aside.relative_to(self.path)), segment.read_bytes()

    def keep_aside(self, name: str, data: bytes) -> None:
        """Keeps what `left_in_spools` of another machine gave, unless as much of it is here already."""
        path = self.path / name
        if not path.is_file() or path.stat().st_size < len(data):
            self.write(name, data)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Holds the directory for this process, which the kernel undoes when it ends; InputError if another does."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise InputError("a run is going on in it", where=str(self.path), allowed="wait, or stop it") from None
        except OSError:  # a file system that knows no locks
            pass
        try:
            yield
        finally:
            os.close(fd)

    def part(self, trial: Mapping[str, Any]) -> Path:
        """Where the rows of a trial stand once the trial is over."""
        folders = [f"{key}={quote(str(trial[key]), safe='')}" for key in PARTITIONS]
        return self.path.joinpath("requests", *folders, f"part-{trial['repeat']:04d}.parquet")

    def write_part(self, trial: Mapping[str, Any], table: pa.Table) -> Path:
        """Writes the rows of a trial, sorted by `seq`, as its Parquet part; then drops its spool."""
        path = self.part(trial)
        order = table.sort_by([("seq", "ascending"), ("attempt", "ascending")]).drop_columns(list(PARTITIONS))
        self.write_table(str(path.relative_to(self.path)), order)
        self._drop_spool(trial["trial_id"])
        return path

    def requests(self, trial: Mapping[str, Any]) -> pa.Table:
        """All rows of a trial: its part, or what its spool still holds; an empty table if there are none."""
        path = self.part(trial)
        if path.is_file():
            table = pq.read_table(path, partitioning=None)
            for key in PARTITIONS:
                table = table.append_column(key, pa.repeat(pa.scalar(str(trial[key])), len(table)))
            return table.select(REQUESTS.names).cast(REQUESTS)
        rows = [row for segment in self.spool(trial["trial_id"]) for row in read_segment(segment)]
        unique = {(row.seq, row.attempt): row for row in rows}
        return requests_table(sorted(unique.values(), key=lambda row: (row.seq, row.attempt)))

    def spool(self, trial_id: str) -> Sequence[Path]:
        """The segments of a trial that have not become its part yet."""
        return sorted((self.path / "spool" / trial_id).glob("*.rows"))

    def _drop_spool(self, trial_id: str) -> None:
        for segment in self.spool(trial_id):
            segment.unlink()
        for folder in (self.path / "spool" / trial_id, self.path / "spool"):
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that becomes it, synced, when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError as error:
        raise _storage_error(error, path) from None
    finally:
        temporary.unlink(missing_ok=True)


def _storage_error(error: OSError, path: Path) -> StorageError:
    return StorageError(f"{path}: {error.strerror or error}")
