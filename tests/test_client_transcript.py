"""Records come out of bytes whole, in order and with the right stamp, however the bytes are cut."""

from itertools import accumulate

import pytest
from canned import cut
from hypothesis import given
from hypothesis import strategies as st

from raybench.client.transcript import RECORD_BYTES, Arrivals, RecordError, Transcript, records


def arriving(pieces: list[bytes]) -> Arrivals:
    """The bytes of pieces, each stamped with its number."""
    return Arrivals(b"".join(pieces), range(len(pieces)), list(accumulate(map(len, pieces))))


def split(pieces: list[bytes]) -> list[tuple[int, bytes]]:
    """Every record with the number of the piece that completed it."""
    arrivals = arriving(pieces)
    return [
        (number, record.strip())
        for ends, found in records(arrivals.data, 3)
        for number, record in zip(arrivals.stamps(ends), found, strict=True)
    ]


RECORDS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1, max_size=20), max_size=8
)


@given(RECORDS, st.sampled_from(["\n", "\n\n", "\r\n"]), st.booleans(), st.lists(st.integers(0), max_size=12))
def test_records_are_split_right_however_they_are_cut(
    texts: list[str], end: str, last_newline: bool, places: list[int]
) -> None:
    sent = [f'{{"{text}"}}'.encode() for text in texts]
    stream = end.encode().join(b"data:" + record for record in sent) + (end.encode() if last_newline else b"")
    pieces = cut(stream, places)
    found = split(pieces)
    assert [record for _, record in found] == sent
    seen, ends = 0, []
    for record in sent:
        seen = stream.index(record, seen) + len(record)
        ends.append(seen)
    edges = [len(b"".join(pieces[: number + 1])) for number in range(len(pieces))]
    assert [number for number, _ in found] == [next(n for n, edge in enumerate(edges) if edge >= at) for at in ends]


def test_a_record_has_the_stamp_of_its_last_byte_and_not_of_its_newline() -> None:
    assert split([b'{"a":', b"1}", b'\n{"b":2}\n']) == [(1, b'{"a":1}'), (2, b'{"b":2}')]


def test_a_line_that_ends_with_the_data_may_be_cut() -> None:
    arrivals = arriving([b"1\n2 ", b"\n3 "])
    [(ends, found)] = records(arrivals.data, 3)
    assert (ends, found) == ([1, 3, 6], [b"1", b"2", b"3"])
    assert [arrivals.ends_a_line(end) for end in ends] == [True, True, False]
    assert list(records(b"", 3)) == []


def test_records_come_a_few_at_a_time() -> None:
    assert [found for _, found in records(b"1\n2\n3\n4\n5\n", 2)] == [[b"1", b"2"], [b"3", b"4"], [b"5"]]


def test_the_records_before_one_too_long_are_given_first() -> None:
    taken = records(b"1\n2\n" + b"x" * (RECORD_BYTES + 1), 5)
    assert next(taken) == ([1, 3], [b"1", b"2"])
    with pytest.raises(RecordError):
        next(taken)


def test_what_is_no_record_in_an_event_stream_is_left_out() -> None:
    stream = b': ping\nevent: message\nid: 7\nretry: 10\ndata: {"a":1}\n\ndata:\n\ndata: [DONE]\n\n'
    assert [record for _, record in split([stream])] == [b'{"a":1}', b"[DONE]"]


def test_a_character_cut_in_two_is_one_character() -> None:
    stream = '{"text":"東"}\n'.encode()
    assert split([stream[:10], stream[10:]]) == [(1, '{"text":"東"}'.encode())]


@pytest.mark.parametrize("pieces", [[b"x" * (RECORD_BYTES + 1) + b"\n"], [b"x" * (RECORD_BYTES // 4)] * 5])
def test_a_record_too_long_is_refused_and_not_gathered(pieces: list[bytes]) -> None:
    with pytest.raises(RecordError, match="bytes"):
        split(pieces)


def test_the_first_chunk_is_the_first_visible_one_and_counts_the_tokens_before_it() -> None:
    transcript = Transcript()
    for stamp, text in enumerate(["", "", "a", "", "b"]):
        transcript.chunk(stamp, text, 1)
    assert transcript.chunk_ns == [2, 3, 4]
    assert transcript.chunk_tokens == [3, 1, 1]
    assert transcript.text == "ab"


def test_one_chunk_of_unknown_size_makes_all_sizes_unknown() -> None:
    transcript = Transcript()
    transcript.chunk(1, "a", 1)
    transcript.chunk(2, "b c", None)
    transcript.chunk(3, "d", 1)
    assert (transcript.chunk_ns, transcript.chunk_tokens) == ([1, 2, 3], None)


def said(transcript: Transcript) -> list[object]:
    return [getattr(transcript, name) for name in ("text", *Transcript.__slots__) if name != "_text"]


TEXTS = st.lists(st.sampled_from(["", "a", "b c"]), max_size=6)
TOKENS = st.sampled_from([None, 1, 2])


@given(st.lists(st.tuples(TEXTS, TOKENS), max_size=4))
def test_chunks_at_once_are_chunks_one_by_one(batches: list[tuple[list[str], int | None]]) -> None:
    at_once, one_by_one = Transcript(), Transcript()
    for texts, tokens in batches:
        at_once.chunks(range(len(texts)), texts, tokens)
        for stamp, text in enumerate(texts):
            one_by_one.chunk(stamp, text, tokens)
    assert said(at_once) == said(one_by_one)


def test_an_estimate_is_four_tokens_for_three_words_rounded_up_reasoning_included() -> None:
    transcript = Transcript()
    transcript.chunk(1, "one two", None)
    transcript.chunk(2, "", None, hidden="thr")
    transcript.chunk(3, "", None, hidden="ee four")
    assert transcript.estimated_tokens == 6
    assert transcript.text == "one two"


@pytest.mark.parametrize("nonsense", [-1, 2**31, 1e30, True, "7", None, [7]])
def test_a_count_that_is_none_is_not_taken(nonsense: object) -> None:
    transcript = Transcript()
    transcript.details({"generated_tokens": nonsense, "input_length": nonsense, "finish_reason": nonsense})
    assert transcript.completion_tokens is None
    assert transcript.prompt_tokens is None
