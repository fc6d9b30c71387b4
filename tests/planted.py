"""Secrets that a test plants, and the search for them: in the bytes of files, and in what those bytes stand for."""

import base64
import gzip
import io
import re
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raybench.cluster.frames import FRAME, unpack


@dataclass(frozen=True)
class Planted:
    """Secrets by name."""

    secrets: Mapping[str, str]

    def named_in(self, data: bytes) -> set[str]:
        """Which of them stand in some bytes, as they are or in base64."""
        names = {pattern: name for name, secret in self.secrets.items() for pattern in spellings(secret)}
        found = re.finditer(b"|".join(map(re.escape, names)), data)
        return {names[match.group()] for match in found}

    def found(self, places: Iterable[Path]) -> list[tuple[str, str]]:
        """Each secret that was found, and the file; of folders all files are searched, links are not followed."""
        files = (path for place in places for path in ([place] if place.is_file() else sorted(place.rglob("*"))))
        return [
            (name, str(path))
            for path in files
            if path.is_file() and not path.is_symlink()
            for data in readings(path)
            for name in self.named_in(data)
        ]


def spellings(secret: str) -> Iterator[bytes]:
    """A secret as it is, and in base64 at any place of what is encoded."""
    raw = secret.encode()
    yield raw
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + raw)
        yield encoded[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]


def readings(path: Path) -> Iterator[bytes]:
    """A file's bytes, then what they hold: Parquet's values and metadata, packed files, a job's run directory."""
    data = path.read_bytes()
    yield data
    if data.startswith(b"PAR1"):
        table = pq.read_table(pa.BufferReader(data), partitioning=None)
        yield str((table.schema.metadata, [field.metadata for field in table.schema])).encode()
        for column in table.columns:
            yield "\n".join(map(str, column.to_pylist())).encode()
    elif data.startswith(b"\x1f\x8b"):
        yield gzip.decompress(data)
    elif zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            yield from (packed.read(name) for name in packed.namelist())
    if frames := [line.decode() for line in data.splitlines() if line.startswith(FRAME.encode())]:
        with tempfile.TemporaryDirectory() as folder:
            unpack(frames, Path(folder) / "run")
            for inner in sorted(Path(folder).rglob("*")):
                if inner.is_file():
                    yield from readings(inner)
