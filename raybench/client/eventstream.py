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
_CACHED_HEAD_BYTES = 512

Value = bool | int | str | bytes


class FrameError(Exception):
    """The bytes are no event stream: a wrong checksum, an impossible length or header."""


class Frame(NamedTuple):
    """One message: its headers by name, and its payload."""

    headers: Mapping[str, Value]
    payload: bytes


class Run(NamedTuple):
    """Frames that follow each other with the same headers: those, the offset after each frame, and each payload."""

    headers: Mapping[str, Value]
    ends: list[int]
    payloads: list[bytes]


class Decoder:
    """Takes an event stream in pieces, cut anywhere, and gives each frame when its last byte is there."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._wanted = _PRELUDE.size

    @property
    def unfinished(self) -> bool:
        """Whether the bytes so far end inside a frame."""
        return bool(self._rest)

    def feed(self, piece: bytes) -> Iterator[Frame]:
        """The frames that `piece` completes; raises FrameError at the first bad one."""
        self._rest += piece
        if len(self._rest) < self._wanted:
            return
        data, taken = bytes(self._rest), 0
        self._rest.clear()
        for headers, ends, payloads in runs(data):
            taken = ends[-1]
            for payload in payloads:
                yield Frame(headers, payload)
        self._rest += data[taken:]
        self._wanted = _PRELUDE.size
        if len(self._rest) >= _PRELUDE.size:
            self._wanted = _PRELUDE.unpack_from(self._rest)[0]


def runs(data: bytes, most: int = RUN_FRAMES) -> Iterator[Run]:
    """The whole frames in `data`, in runs of at most `most`; raises FrameError at the first bad one."""
    at = 0
    while (run := _run(data, at, most)).ends:
        yield run
        at = run.ends[-1]


def _run(data: bytes, at: int, most: int) -> Run:
    """The run that starts at `at` and stops before a bad frame; raises FrameError if its first is bad."""
    ends, payloads = list[int](), list[bytes]()
    size, last_start = len(data), len(data) - _PRELUDE.size
    if at > last_start:
        return Run({}, ends, payloads)
    head_bytes = _PRELUDE.size + _known_head(data[at : at + _PRELUDE.size])[0]
    few = head_bytes <= _CACHED_HEAD_BYTES
    head_of, headers_of = (_known_head, _known_headers) if few else (_head, _headers)
    shared = data[at + _PRELUDE.size : at + head_bytes]
    try:
        for _ in range(most):
            _, total, block, crc, rest = head_of(data[at : at + head_bytes])
            end = at + total
            if end > size or block != shared:
                break
            payload, checksum = rest(data, at + head_bytes)
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
    return Run(headers_of(shared) if ends else {}, ends, payloads)


Head = tuple[int, int, bytes | None, int, Callable[[bytes, int], tuple[Any, ...]]]


def _head(head: bytes) -> Head:
    """What comes before a payload: (length of headers, of the frame, headers, checksum so far, what cuts the rest).

    `head` is a prelude and as much again as the headers of the frame before; if those of this one are not as long,
    they are None. The rest is payload and checksum, cut out of bytes at an offset.
    """
    total, header_bytes, crc = _PRELUDE.unpack_from(head)
    if crc32(head[:8]) != crc:
        raise FrameError("the checksum of a frame's prelude is wrong")
    if not header_bytes + _OVERHEAD <= total <= FRAME_BYTES:
        raise FrameError(f"a frame of {total} bytes with {header_bytes} bytes of headers")
    block = head[_PRELUDE.size :] if len(head) == _PRELUDE.size + header_bytes else None
    rest = Struct(f">{total - header_bytes - _OVERHEAD}sI").unpack_from
    return header_bytes, total, block, crc32(head[8:], crc), rest


_known_head: Callable[[bytes], Head] = lru_cache(maxsize=1024)(_head)  # the frames of a stream have few lengths


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


_known_headers: Callable[[bytes], Mapping[str, Value]] = lru_cache(maxsize=64)(_headers)
