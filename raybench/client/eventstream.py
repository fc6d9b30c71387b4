"""`application/vnd.amazon.eventstream`: frames out of bytes, both checksums verified.

total length u32 | header length u32 | crc32 of the two | headers | payload | crc32 of all before
header: name length u8 | name | type u8 | value, its length u16 first where it is bytes (6) or text (7)
"""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from struct import Struct, unpack_from
from struct import error as StructError  # noqa: N812
from typing import Any, NamedTuple
from zlib import crc32

FRAME_BYTES = 16 * 1024 * 1024
"""The longest frame taken; SageMaker's own parts are far shorter."""

RUN_FRAMES = 64
"""The most frames of a run: some 30 µs of work."""

_PRELUDE = Struct(">III")
_OVERHEAD = _PRELUDE.size + 4
_NUMBERS = {2: Struct(">b"), 3: Struct(">h"), 4: Struct(">i"), 5: Struct(">q"), 8: Struct(">q")}
_KNOWN_BYTES = 512
"""The longest headers remembered."""

Value = bool | int | str | bytes


class FrameError(Exception):
    """The bytes are no event stream: a wrong checksum, an impossible length or header."""


class FrameRun(NamedTuple):
    """Frames that follow each other with the same headers: those, the offset after each frame, and each payload."""

    headers: Mapping[str, Value]
    ends: list[int]
    payloads: list[bytes]


def runs(data: bytes, most: int = RUN_FRAMES) -> Iterator[FrameRun]:
    """The whole frames in `data`, in runs of at most `most`; raises FrameError at the first bad one."""
    at = 0
    while (run := _run(data, at, most)).ends:
        yield run
        at = run.ends[-1]


def _run(data: bytes, at: int, most: int) -> FrameRun:
    """The run that starts at `at` and stops before a bad frame; raises FrameError if its first is bad."""
    ends, payloads = list[int](), list[bytes]()
    size, last_start = len(data), len(data) - _PRELUDE.size
    if at > last_start:
        return FrameRun({}, ends, payloads)
    total, header_bytes = _lengths(data[at : at + _PRELUDE.size])
    if at + total > size:
        return FrameRun({}, ends, payloads)
    block = data[at + _PRELUDE.size : at + _PRELUDE.size + header_bytes]
    few = header_bytes <= _KNOWN_BYTES
    plan, headers = (_known_plan, _known_headers) if few else (_plan, _headers)
    try:
        for _ in range(most):
            total, crc, cut = plan(block, data[at : at + _PRELUDE.size])
            end = at + total
            if end > size:
                break
            same, payload, checksum = cut(data, at + _PRELUDE.size)
            if same != block:
                break
            if crc32(payload, crc) != checksum:
                raise FrameError("the checksum of a frame is wrong")
            ends.append(end)
            payloads.append(payload)
            at = end
            if at > last_start:
                break
    except FrameError:
        if not ends:
            raise
    return FrameRun(headers(block), ends, payloads)


def _lengths(prelude: bytes) -> tuple[int, int]:
    """The bytes of a frame and of its headers."""
    total, header_bytes, crc = _PRELUDE.unpack(prelude)
    if crc32(prelude[:8]) != crc:
        raise FrameError("the checksum of a frame's prelude is wrong")
    if not header_bytes + _OVERHEAD <= total <= FRAME_BYTES:
        raise FrameError(f"a frame of {total} bytes with {header_bytes} bytes of headers")
    return total, header_bytes


def _plan(block: bytes, prelude: bytes) -> tuple[int, int, Callable[[bytes, int], tuple[Any, ...]]]:
    """How to take a frame with the headers `block`: its bytes, their checksum up to the payload, what cuts the rest.

    The rest is headers, payload and checksum, cut out of bytes at an offset.
    """
    total, header_bytes = _lengths(prelude)
    if header_bytes != len(block):
        raise FrameError("a frame with other headers")
    rest = Struct(f">{header_bytes}s{total - header_bytes - _OVERHEAD}sI")
    return total, crc32(block, crc32(prelude)), rest.unpack_from


_known_plan = lru_cache(maxsize=1024)(_plan)  # the frames of a stream have few headers and few lengths


def _headers(block: bytes) -> Mapping[str, Value]:
    """The headers of a frame, each name once."""
    headers: dict[str, Value] = {}
    at = 0
    try:
        while at < len(block):
            name_end = at + 1 + block[at]
            name = block[at + 1 : name_end].decode()
            if name in headers:
                raise FrameError(f"a frame has two headers {name[:40]!r}")
            headers[name], at = _value(block, name_end)
    except (IndexError, StructError, UnicodeDecodeError) as error:
        raise FrameError("the headers of a frame cannot be read") from error
    return headers


def _value(block: bytes, at: int) -> tuple[Value, int]:
    """The value whose type stands at `at`, and where the next header starts."""
    kind, at = block[at], at + 1
    if kind in (0, 1):
        return kind == 0, at
    if kind in _NUMBERS:
        return int(_NUMBERS[kind].unpack_from(block, at)[0]), at + _NUMBERS[kind].size
    if kind in (6, 7):
        length: int = unpack_from(">H", block, at)[0]
        at += 2
    elif kind == 9:
        length = 16
    else:
        raise FrameError(f"a header of the unknown type {kind}")
    if at + length > len(block):
        raise IndexError
    value = block[at : at + length]
    return (value.decode() if kind == 7 else value), at + length


_known_headers = lru_cache(maxsize=64)(_headers)
