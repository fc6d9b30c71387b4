"""Canned replies for the client's tests: frames, responses, and a peer on the other end of a socket pair."""

import asyncio
import socket
from binascii import crc32
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from struct import pack

from raybench.client.http import Connection, Failure, Reply
from raybench.clock import Clock


def header(name: str, value: str) -> bytes:
    """A text header of an event stream."""
    raw = value.encode()
    return pack(">B", len(name)) + name.encode() + b"\x07" + pack(">H", len(raw)) + raw


def frame(headers: bytes, payload: bytes) -> bytes:
    """One event-stream message, both checksums right."""
    prelude = pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = prelude + pack(">I", crc32(prelude)) + headers + payload
    return message + pack(">I", crc32(message))


def part(payload: bytes) -> bytes:
    """A PayloadPart."""
    headers = header(":message-type", "event") + header(":event-type", "PayloadPart")
    return frame(headers + header(":content-type", "application/octet-stream"), payload)


def exception(kind: str, payload: bytes) -> bytes:
    """An exception frame."""
    return frame(header(":message-type", "exception") + header(":exception-type", kind), payload)


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """`data` in pieces, cut at each place (taken modulo its length)."""
    edges = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(edges)]


def reply(
    pieces: Sequence[bytes],
    *,
    status: int | None = 200,
    failure: Failure | None = None,
    problem: str = "",
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """A reply whose pieces arrived at 1, 2, 3, … thousand nanoseconds after it was sent at 0."""
    stamps = [1000 * (index + 1) for index in range(len(pieces))]
    starts = [0, *accumulate(map(len, pieces))][: len(pieces)]
    named = {name.encode(): value.encode() for name, value in (headers or {}).items()}
    end = stamps[-1] if stamps else 500
    return Reply(end, 0, status, named, stamps, starts, b"".join(pieces), failure, problem, True)


async def pair(clock: Clock) -> tuple[Connection, asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection, and what its peer reads and writes."""
    ours, theirs = socket.socketpair()
    _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection(clock), sock=ours)
    reader, writer = await asyncio.open_connection(sock=theirs)
    return connection, reader, writer
