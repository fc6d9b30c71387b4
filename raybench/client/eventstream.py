"""`application/vnd.amazon.eventstream`: frames out of bytes, both checksums verified.

total length u32 | header length u32 | crc32 of the two | headers | payload | crc32 of all before
header: name length u8 | name | type u8 | value, its length u16 first where it is bytes (6) or text (7)
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from struct import Struct, unpack_from
from struct import error as StructError  # noqa: N812
from typing import NamedTuple
from zlib import crc32

FRAME_BYTES = 16 * 1024 * 1024
"""The longest frame taken; SageMaker's own parts are far shorter."""

_PRELUDE = Struct(">III")
_CRC = Struct(">I")
_OVERHEAD = _PRELUDE.size + _CRC.size
_NUMBERS = {2: Struct(">b"), 3: Struct(">h"), 4: Struct(">i"), 5: Struct(">q"), 8: Struct(">q")}
_CACHED_HEADER_BYTES = 512

Value = bool | int | str | bytes


class FrameError(Exception):
    """The bytes are no event stream: a wrong checksum, an impossible length or header."""


class Frame(NamedTuple):
    """One message: its headers by name, and its payload."""

    headers: Mapping[str, Value]
    payload: bytes


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
        for end, headers, payload in frames(data):
            taken = end
            yield Frame(headers, payload)
        self._rest += data[taken:]
        self._wanted = _PRELUDE.size
        if len(self._rest) >= _PRELUDE.size:
            self._wanted = _PRELUDE.unpack_from(self._rest)[0]


def frames(data: bytes) -> Iterator[tuple[int, Mapping[str, Value], bytes]]:
    """The whole frames in `data` as (end, headers, payload), `end` the offset after it; raises FrameError."""
    start, size = 0, len(data)
    while size - start >= _PRELUDE.size:
        total, body, crc = _prelude(data[start : start + _PRELUDE.size])
        end = start + total
        if end > size:
            return
        if crc32(data[start + 8 : end - 4], crc) != _CRC.unpack_from(data, end - 4)[0]:
            raise FrameError("the checksum of a frame is wrong")
        body += start
        block = data[start + _PRELUDE.size : body]
        headers = _known_headers(block) if len(block) <= _CACHED_HEADER_BYTES else _headers(block)
        yield end, headers, data[body : end - 4]
        start = end


@lru_cache(maxsize=1024)
def _prelude(prelude: bytes) -> tuple[int, int, int]:
    """A frame's length, where its payload begins, and the checksum of the two lengths; one stream has few of them."""
    total, header_bytes, crc = _PRELUDE.unpack(prelude)
    if crc32(prelude[:8]) != crc:
        raise FrameError("the checksum of a frame's prelude is wrong")
    if not header_bytes + _OVERHEAD <= total <= FRAME_BYTES:
        raise FrameError(f"a frame of {total} bytes with {header_bytes} bytes of headers")
    return total, _PRELUDE.size + header_bytes, crc


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
