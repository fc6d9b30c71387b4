"""S3: whole objects below a prefix, put, read and listed by Arrow's own client.

The endpoint, the region and the credentials are what the AWS variables, files and instance roles say; no credential
passes through here.
"""

import os
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import pyarrow as pa
from pyarrow import fs

from raybench.errors import InputError, StorageError

SCHEME = "s3://"
PROBE = ".writable"
ANSWER_TIMEOUT_S = 10.0
"""How long a bucket may take to say that it takes files."""

CLAIM_S = 30.0
"""How long a prefix that was found free is kept for who found it, who puts a run.json there at once."""

CONNECT_TIMEOUT_S, SILENCE_S = 3.0, 3.0
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PATH = re.compile(r"[^/\x00-\x1f\x7f]+(/[^/\x00-\x1f\x7f]+)*")
_WHY = re.compile(r"AWS Error (?P<code>\w+) during (?P<operation>\w+) operation: (?P<said>.*?)(?: \(Request ID.*)?$")


@dataclass(frozen=True, slots=True)
class Prefix:
    """A place for files in S3 and how to reach it; it holds no credentials, so it may travel and be written down."""

    bucket: str
    path: str
    endpoint: str | None = None
    region: str | None = None

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.path}"

    @property
    def name(self) -> str:
        """The last piece of its path."""
        return self.path.rpartition("/")[2]


def is_url(text: str) -> bool:
    """Whether a run directory is meant to be in S3."""
    return text.startswith(SCHEME)


def prefix(url: str) -> Prefix:
    """The place that `s3://bucket/prefix` means, reached as the AWS variables say; InputError if it means none."""
    bucket, _, path = url.removeprefix(SCHEME).partition("/")
    path = path.removesuffix("/")
    fine = _BUCKET.fullmatch(bucket) and _PATH.fullmatch(path) and not {".", ".."} & set(path.split("/"))
    if not is_url(url) or not fine:
        raise InputError("is no place in S3", where=url, allowed="s3://bucket/prefix")
    return Prefix(bucket, path, _said(ENDPOINTS), _said(REGIONS))


def _said(variables: tuple[str, ...]) -> str | None:
    return next((os.environ[name] for name in variables if os.environ.get(name)), None)


class Store:
    """The objects below a prefix; StorageError, in one line, where S3 does not answer or refuses."""

    def __init__(self, place: Prefix) -> None:
        self.place = place

    def __str__(self) -> str:
        return str(self.place)

    @cached_property
    def _files(self) -> fs.S3FileSystem:
        place, region = self.place, self.place.region
        if not region and not place.endpoint:
            region = _region_of(place.bucket)
        return fs.S3FileSystem(
            endpoint_override=place.endpoint,
            region=region,
            connect_timeout=CONNECT_TIMEOUT_S,
            request_timeout=SILENCE_S,
            background_writes=False,
            allow_delayed_open=True,  # a small object is one PutObject, and needs no right but that
        )

    def put(self, key: str, data: bytes) -> None:
        """Writes an object, whole or not at all."""
        with self._one_line(), self._files.open_output_stream(self._full(key)) as stream:
            stream.write(data)

    def get(self, key: str) -> bytes:
        """All of an object."""
        with self._one_line(), self._files.open_input_stream(self._full(key)) as stream:
            return bytes(stream.read())

    def listed(self) -> Mapping[str, datetime]:
        """Every object below the prefix, by the rest of its key, and when it was put, by S3's clock."""
        start = self._full("")
        with self._one_line():
            found = self._files.get_file_info(fs.FileSelector(start[:-1], allow_not_found=True, recursive=True))
        return {one.path.removeprefix(start): one.mtime for one in found if one.type == fs.FileType.File}

    def probe(self, key: str = PROBE) -> datetime:
        """Puts an empty object and returns when that was, by S3's clock."""
        self.put(key, b"")
        with self._one_line():
            changed: datetime = self._files.get_file_info(self._full(key)).mtime
        return changed

    def _full(self, key: str) -> str:
        return f"{self.place.bucket}/{self.place.path}/{key}"

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"{self.place}: {_why(error)}") from None


def free(place: Prefix, claim_s: float = CLAIM_S) -> None:
    """Claims a prefix; InputError if anything is below it, StorageError if it cannot be listed or takes nothing.

    Either comes in good time: a server that says nothing at all is not waited for. A claim is put before
    others' are looked for: of two at the same time one at least sees the other's.
    """

    def look() -> None:
        store, claim = Store(place), f"{PROBE}-{secrets.token_hex(8)}"
        _empty(store)
        now = store.probe(claim)
        others = [one for key, one in _empty(store).items() if key not in (claim, PROBE)]
        if any((now - other).total_seconds() < claim_s for other in others):
            allowed = f"name another prefix with --out, or wait {claim_s:.0f} s"
            raise InputError("another run is about to begin in it", where=str(place), allowed=allowed)

    in_time(look, place)


def _empty(store: Store) -> Mapping[str, datetime]:
    """The claims below a prefix; InputError if there is anything else."""
    listed = store.listed()
    if not all(key.startswith(PROBE) for key in listed):
        raise InputError("is not empty", where=str(store), allowed="name a new or empty prefix with --out")
    return listed


def in_time(look: Callable[[], None], place: Prefix, within_s: float = ANSWER_TIMEOUT_S) -> None:
    """Does what may hang where a server is silent; StorageError once it has had its time."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            look()
        except BaseException as error:
            raised.append(error)

    looking = threading.Thread(target=run, daemon=True)
    looking.start()
    looking.join(within_s)
    if looking.is_alive():
        raise StorageError(f"{place}: no answer within {within_s:.0f} s")
    if raised:
        raise raised[0]


def _region_of(bucket: str) -> str | None:
    """The bucket's own region; None where that cannot be learned, and the SDK's guess has to do."""
    try:
        region: str = fs.resolve_s3_region(bucket)
    except (OSError, pa.ArrowException):
        return None
    return region


def _why(error: Exception) -> str:
    """What S3 said, or what stood between us, without the words around it."""
    text = " ".join(str(error).split())
    found = _WHY.search(text)
    if not found:
        return text[:200]
    said = found["said"].rpartition("Details: ")[2].removesuffix("No response body.").strip()
    return f"{found['operation']}: {found['code']}" + (f": {said[:200]}" if said else "")
