"""We read what botocore's reads, however the bytes are cut, and refuses what is damaged."""

import contextlib
import random
from collections.abc import Mapping
from struct import pack

import pytest
from botocore.eventstream import EventStreamBuffer
from canned import cut, frame, header, part
from hypothesis import given
from hypothesis import strategies as st

from raybench.client.eventstream import FRAME_BYTES, FrameError, Value, runs


def some_header(rng: random.Random, name: str) -> bytes:
    kind = rng.randrange(10)
    raw = rng.randbytes(rng.randint(0, 40))
    text = "".join(rng.choices("aé東😀 ", k=rng.randint(0, 20))).encode()
    value = {
        0: b"",
        1: b"",
        2: pack(">b", rng.randint(-128, 127)),
        3: pack(">h", rng.randint(-(2**15), 2**15 - 1)),
        4: pack(">i", rng.randint(-(2**31), 2**31 - 1)),
        5: pack(">q", rng.randint(-(2**63), 2**63 - 1)),
        6: pack(">H", len(raw)) + raw,
        7: pack(">H", len(text)) + text,
        8: pack(">q", rng.randint(0, 2**41)),
        9: rng.randbytes(16),
    }[kind]
    return pack(">B", len(name)) + name.encode() + bytes([kind]) + value


def some_frame(rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return part(rng.randbytes(rng.randint(0, 300)))
    names = [f":name-{index}" for index in range(rng.randint(0, 6))]
    return frame(b"".join(some_header(rng, name) for name in names), rng.randbytes(rng.randint(0, 600)))


Frame = tuple[Mapping[str, Value], bytes]


def frames(data: bytes) -> list[Frame]:
    """The headers and the payload of each frame."""
    return [(run.headers, payload) for run in runs(data) for payload in run.payloads]


def test_three_thousand_random_frames_cut_anywhere_are_decoded_as_botocore_decodes_them() -> None:
    rng = random.Random(3)
    for _ in range(500):
        stream = b"".join(some_frame(rng) for _ in range(6))
        so_far, theirs, buffer = b"", list[Frame](), EventStreamBuffer()
        for piece in cut(stream, [rng.randrange(len(stream)) for _ in range(rng.choice([0, 1, 5, 40]))]):
            so_far += piece
            buffer.add_data(piece)
            theirs.extend((message.headers, message.payload) for message in buffer)
            assert frames(so_far) == theirs
        assert len(theirs) == 6


def test_a_frame_is_given_when_its_last_byte_is_there() -> None:
    sent = [part(b"one"), part(b""), part("東京".encode())]
    stream = b"".join(sent)
    counts = [len(frames(stream[:size])) for size in range(len(stream) + 1)]
    edges = [len(sent[0]), len(sent[0] + sent[1]), len(stream)]
    assert counts == [sum(size >= edge for edge in edges) for size in range(len(stream) + 1)]


@given(st.binary(max_size=80), st.integers(0), st.integers(1, 255))
def test_a_frame_with_one_damaged_byte_is_never_given_out(payload: bytes, place: int, flip: int) -> None:
    damaged = bytearray(part(payload))
    damaged[place % len(damaged)] ^= flip
    with pytest.raises(FrameError):
        frames(bytes(damaged))


@given(st.binary(max_size=240))
def test_noise_is_refused_or_waited_for_but_never_anything_else(noise: bytes) -> None:
    with contextlib.suppress(FrameError):
        assert frames(noise) == []


def test_a_frame_too_long_is_refused_at_its_prelude() -> None:
    whole = frame(b"", b"x" * (FRAME_BYTES - 15))
    with pytest.raises(FrameError, match="bytes"):
        frames(whole[:12])


def test_a_frame_shorter_than_its_headers_is_refused() -> None:
    good = frame(header("a", "b"), b"")
    with pytest.raises(FrameError):
        frames(frame(good[12:17], b""))


@pytest.mark.parametrize(
    "headers",
    [
        header("a", "1") + header("a", "2"),
        b"\x01a\x0a",
        b"\x01a\x07\x00\x09short",
        b"\x01a\x04\x00",
        b"\x01\xff\x00",
        b"\x05a",
        b"\x01a\x07\x00\x01\xff",
    ],
)
def test_headers_that_cannot_be_read_are_a_frame_error(headers: bytes) -> None:
    with pytest.raises(FrameError):
        frames(frame(headers, b"{}"))


def test_frames_with_the_same_headers_come_in_runs() -> None:
    other = frame(header("a", "bc"), b"7")
    shorter = frame(header("a", "bc")[:-2].replace(b"\x02", b"\x00"), b"bc")  # goes on as `other` does
    sent = [part(b"1"), part(b"22"), part(b"333"), other, shorter, frame(b"", b"x"), frame(b"", b""), part(b"4")]
    stream = b"".join(sent)
    found = list(runs(stream, 2))
    assert [run.payloads for run in found] == [[b"1", b"22"], [b"333"], [b"7"], [b"bc"], [b"x", b""], [b"4"]]
    assert [dict(run.headers).get("a") for run in found] == [None, None, "bc", "", None, None]
    edges = [len(b"".join(sent[:count])) for count in range(1, len(sent) + 1)]
    assert [end for run in found for end in run.ends] == edges


@given(st.integers(0, 2), st.integers(0), st.integers(1, 255))
def test_the_frames_before_a_damaged_one_are_given_first(whole: int, place: int, flip: int) -> None:
    good, damaged = [part(b"1"), part(b"2")][:whole], bytearray(part(b"3"))
    damaged[place % len(damaged)] ^= flip
    taken = runs(b"".join(good) + bytes(damaged))
    if whole:
        assert next(taken).payloads == [b"1", b"2"][:whole]
    with pytest.raises(FrameError):
        next(taken)


def test_headers_too_long_to_remember_are_read_all_the_same() -> None:
    long = frame(header("a", "x" * 1000), b"1")
    assert [run.payloads for run in runs(long + long + part(b"2"))] == [[b"1", b"1"], [b"2"]]
