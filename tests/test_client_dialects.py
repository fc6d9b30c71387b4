"""Every container's words, out and in."""

from typing import Any, get_args

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raybench.client.dialects import DIALECTS, body, dialect_named
from raybench.client.target import ROUTES
from raybench.client.transcript import RecordError, Transcript
from raybench.counting import max_tokens
from raybench.errors import InputError
from raybench.load.search import METRICS
from raybench.loads import SearchLoad
from raybench.specs import Experiment


def sent(dialect: str, parameters: dict[str, Any], stream: bool) -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(body(dialect, "Hello", parameters, stream))
    return document


def whole(dialect: str, document: Any) -> Transcript:
    transcript = Transcript()
    DIALECTS[dialect].read_reply(transcript, orjson.dumps(document))
    return transcript


def streamed(dialect: str, *records: Any) -> Transcript:
    """The records read, arrived at 0, 1, 2, …"""
    transcript = Transcript()
    for stamp, record in enumerate(records):
        raw = record if isinstance(record, bytes) else orjson.dumps(record)
        DIALECTS[dialect].read_record(transcript, raw, stamp)
    return transcript


def test_the_config_allows_every_dialect_and_route_and_metric_of_a_search_and_no_other() -> None:
    for dialect in DIALECTS:
        asked = {"name": "a", "instance_type": "ml.g5.xlarge", "endpoint": {"name": "a"}, "dialect": dialect}
        assert Experiment.model_validate(asked).dialect == dialect
    assert get_args(Experiment.model_fields["route"].annotation) == ROUTES
    assert get_args(SearchLoad.model_fields["metric"].annotation) == METRICS


@pytest.mark.parametrize("dialect", ["tgi", "lmi"])
def test_tgi_and_lmi_are_asked_for_their_count_and_not_for_the_prompt(dialect: str) -> None:
    asked = {"details": True, "return_full_text": False, "max_new_tokens": 9}
    assert sent(dialect, {"max_new_tokens": 9}, False) == {"inputs": "Hello", "parameters": asked}
    assert sent(dialect, {"max_new_tokens": 9}, True) == {"inputs": "Hello", "parameters": asked, "stream": True}


def test_the_users_parameters_win() -> None:
    assert sent("tgi", {"return_full_text": True}, False)["parameters"]["return_full_text"] is True
    assert sent("openai", {"model": "adapter", "stream_options": {"include_usage": False}}, True) == {
        "model": "adapter",
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": True,
        "stream_options": {"include_usage": False},
    }


def test_openai_is_asked_in_its_own_words_and_for_usage_in_a_stream() -> None:
    messages = [{"role": "user", "content": "Hello"}]
    assert sent("openai", {"max_new_tokens": 9}, False) == {"model": "", "messages": messages, "max_tokens": 9}
    assert sent("openai", {}, True)["stream_options"] == {"include_usage": True}


def test_jumpstart_and_embeddings_are_asked_plainly() -> None:
    assert sent("jumpstart", {"top_p": 0.9}, True) == {"inputs": "Hello", "parameters": {"top_p": 0.9}}
    assert sent("embeddings", {"truncate": True}, False) == {"inputs": ["Hello"], "truncate": True}
    with pytest.raises(InputError, match="streamed"):
        body("embeddings", "Hello", {}, True)


def test_an_unknown_dialect_names_those_there_are() -> None:
    with pytest.raises(InputError, match="tgi, lmi, openai, jumpstart, embeddings"):
        dialect_named("tgl")


@pytest.mark.parametrize("name", ["max_new_tokens", "max_tokens", "max_completion_tokens"])
def test_the_most_tokens_asked_for_has_several_names(name: str) -> None:
    assert max_tokens({name: 7}) == 7
    assert max_tokens({}) is None


DETAILS = {"generated_tokens": 3, "input_length": 11, "finish_reason": "length"}


@pytest.mark.parametrize(
    ("dialect", "document"),
    [
        ("tgi", [{"generated_text": "a b", "details": DETAILS}]),
        ("lmi", {"generated_text": "a b", "details": DETAILS}),
        (
            "openai",
            {
                "choices": [{"message": {"role": "assistant", "content": "a b"}, "finish_reason": "length"}],
                "usage": {"prompt_tokens": 11, "completion_tokens": 3},
            },
        ),
    ],
)
def test_a_whole_reply_gives_text_and_the_servers_counts(dialect: str, document: Any) -> None:
    read = whole(dialect, document)
    assert (read.text, read.completion_tokens, read.prompt_tokens, read.finish_reason) == ("a b", 3, 11, "length")
    assert read.ended
    assert read.chunk_ns == []


@pytest.mark.parametrize(
    "document",
    [
        [{"generated_text": "a b"}],
        [{"generation": "a b"}],
        [{"generation": {"role": "assistant", "content": "a b"}}],
        {"generated_text": "a b"},
    ],
)
def test_jumpstart_says_its_text_in_several_ways_and_counts_nothing(document: Any) -> None:
    read = whole("jumpstart", document)
    assert (read.text, read.completion_tokens, read.estimated_tokens) == ("a b", None, 3)


@pytest.mark.parametrize("document", [[[0.1, 0.2]], {"data": [{"embedding": [0.1]}], "usage": {"prompt_tokens": 4}}])
def test_vectors_are_an_answer_of_no_tokens(document: Any) -> None:
    read = whole("embeddings", document)
    assert (read.completion_tokens, read.ended) == (0, True)
    assert read.prompt_tokens == (4 if isinstance(document, dict) else None)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("document", [{}, [], 7, None, "text", {"choices": []}, [{"generated_text": 7}], [[]]])
def test_a_reply_of_another_dialect_is_refused(dialect: str, document: Any) -> None:
    with pytest.raises(RecordError, match=dialect):
        whole(dialect, document)


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({"error": "CUDA out of memory", "error_type": "generation"}, ("generation", "CUDA out of memory")),
        ({"error": {"message": "too long", "type": "bad", "code": "model_error"}}, ("model_error", "too long")),
        ({"error": "no", "code": 424}, ("424", "no")),
    ],
)
@pytest.mark.parametrize("dialect", ["tgi", "lmi", "openai", "jumpstart"])
def test_an_error_is_an_error_whatever_the_status_was(dialect: str, document: Any, error: tuple[str, str]) -> None:
    assert whole(dialect, document).error == error
    assert streamed(dialect, document).error == error


def token(text: str, special: bool = False, **more: Any) -> dict[str, Any]:
    return {"index": 1, "token": {"id": 5, "text": text, "special": special}, "generated_text": None, **more}


def test_a_tgi_stream_has_one_token_a_record_and_its_count_in_the_last() -> None:
    last = {"generated_text": "Hi you", "details": {**DETAILS, "finish_reason": "eos_token"}}
    read = streamed("tgi", token("Hi"), token(" you"), {**token("</s>", True), **last})
    assert (read.text, read.chunk_ns, read.chunk_tokens) == ("Hi you", [0, 1, 2], [1, 1, 1])
    assert (read.completion_tokens, read.finish_reason, read.ended) == (3, "eos_token", True)


def test_a_tgi_stream_without_its_last_record_has_not_ended() -> None:
    assert not streamed("tgi", token("Hi"), token(" you", details=None)).ended


def test_lmi_lines_are_read_and_its_error_is_one() -> None:
    lines: list[dict[str, Any]] = [
        {"token": {"id": [5], "text": "Hi", "log_prob": -1.0}},
        {"token": {"id": [6], "text": " you"}},
    ]
    read = streamed("lmi", lines[0], {**lines[1], "generated_text": "Hi you", "details": DETAILS})
    assert (read.text, read.completion_tokens, read.ended) == ("Hi you", 3, True)
    failed = {"token": {"id": -1, "text": ""}, "details": {"finish_reason": "error", "error": "batch failed"}}
    assert streamed("lmi", lines[0], failed).error == ("Error", "batch failed")


def delta(reason: str | None = None, **said: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": said, "finish_reason": reason}]}


def test_an_openai_stream_begins_with_its_first_content_and_not_with_its_role() -> None:
    usage = {"prompt_tokens": 11, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}
    read = streamed(
        "openai",
        delta(role="assistant", content=""),
        delta(content=None),
        delta(content="Hi"),
        delta(content=" you"),
        delta("stop", content=""),
        {"choices": [], "usage": usage},
        b"[DONE]",
    )
    assert (read.text, read.chunk_ns, read.chunk_tokens) == ("Hi you", [2, 3], None)
    assert (read.completion_tokens, read.prompt_tokens, read.cached_tokens) == (3, 11, 8)
    assert (read.finish_reason, read.ended) == ("stop", True)


@pytest.mark.parametrize("last", [b"[DONE]", delta("length")])
def test_an_openai_stream_ends_with_a_reason_or_with_done(last: Any) -> None:
    assert not streamed("openai", delta(content="Hi")).ended
    assert streamed("openai", delta(content="Hi"), last).ended


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_is_tokens_but_not_text(name: str) -> None:
    read = streamed("openai", delta(role="assistant"), delta(**{name: "hmm hm"}), delta(content="Hi"))
    assert (read.text, read.chunk_ns, read.estimated_tokens) == ("Hi", [1, 2], 4)


def test_tool_calls_and_plain_completions_are_tokens_too() -> None:
    call = {"index": 0, "function": {"name": "f", "arguments": ""}}
    assert streamed("openai", delta(tool_calls=[call])).chunk_ns == [0]
    read = streamed("openai", {"choices": [{"text": "Hi", "finish_reason": None}]})
    assert (read.text, read.chunk_ns) == ("Hi", [0])


def test_a_jumpstart_stream_is_outputs_without_an_end() -> None:
    read = streamed("jumpstart", {"outputs": [" a"]}, {"outputs": [""]}, {"outputs": [" b"]})
    assert (read.text, read.chunk_ns, read.chunk_tokens, read.ended) == (" a b", [0, 2], None, False)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "record", [b"{", b"7", b"[]", b"\xff", b'{"token":7}', b'{"choices":7}', b'{"outputs":[7]}', b"{}"]
)
def test_a_record_of_another_dialect_is_refused(dialect: str, record: bytes) -> None:
    with pytest.raises(RecordError):
        streamed(dialect, record)


TOKEN_RECORDS: list[Any] = [
    *[token("Hi"), token(""), token(" 東京"), token("</s>", True), token("x", error=None), token("x", error="CUDA")],
    *[token("end", generated_text="Hi end"), token("end", details=DETAILS), token("x", details={}), token(7)],  # type: ignore[arg-type]
    *[{"token": {"id": -1, "text": ""}, "details": {"finish_reason": "error"}}, {"token": {}}, {"token": 7}],
    *[{"token": {"text": "x", "special_token": True}}, {"token": None, "generated_text": "x"}, {"token": ["text"]}],
]
DELTA_RECORDS: list[Any] = [
    *[delta(content="Hi"), delta(content=""), delta(content=None), delta(role="assistant", content="Hi")],
    *[delta("stop", content="Hi"), delta("stop"), delta(content=7), delta(reasoning="hm"), delta(tool_calls=[{}])],
    *[
        delta(content="Hi", reasoning_content="hm"),
        delta(content="Hi", reasoning=7),
        delta(content="Hi", tool_calls=7),
    ],
    *[{**delta(content="Hi"), "usage": {"completion_tokens": 3}}, {**delta(content="Hi"), "usage": 7}],
    *[{"choices": [{"text": "Hi"}]}, {"choices": []}, {"choices": 7}, {"choices": "Hi"}, {"choices": [["delta"]]}],
    *[{"choices": [{"delta": ["content"]}]}, {"choices": {}, "usage": None}, {**delta(content="x"), "error": "no"}],
    {"choices": [*delta(content="a")["choices"], *delta(content="b")["choices"]]},
]
OUTPUTS_RECORDS: list[Any] = [
    *[{"outputs": ["a"]}, {"outputs": [""]}, {"outputs": [None]}, {"outputs": [7]}, {"outputs": []}],
    *[{"outputs": "ab"}, {"outputs": {}}, {"outputs": ["a", "b"]}, {"outputs": ["a"], "error": "no"}],
]
NO_RECORDS: list[Any] = [b"[DONE]", b" [DONE]", b"{", b'{"a":1},{"a":2}', b"[1", b"2]", b"\xff", 7, None, "x", [], {}]
KINDS = {
    "tgi": TOKEN_RECORDS,
    "lmi": TOKEN_RECORDS,
    "openai": DELTA_RECORDS,
    "jumpstart": OUTPUTS_RECORDS,
    "embeddings": TOKEN_RECORDS,
}


def some_records(dialect: str) -> st.SearchStrategy[tuple[str, list[Any]]]:
    """Mostly the first of its kinds, which is the common one."""
    kinds = KINDS[dialect]
    any_record = st.one_of(*[st.just(kinds[0])] * 3, st.sampled_from(kinds), st.sampled_from(NO_RECORDS))
    return st.tuples(st.just(dialect), st.lists(any_record, max_size=12))


def read_both_ways(dialect: str, records: list[Any]) -> tuple[list[Any], list[Any]]:
    """What is known after reading records at once, and one by one up to an error."""
    wire = [record if isinstance(record, bytes) else orjson.dumps(record) for record in records]

    def at_once(transcript: Transcript) -> None:
        DIALECTS[dialect].read_records(transcript, wire, range(len(wire)))

    def one_by_one(transcript: Transcript) -> None:
        for stamp, record in enumerate(wire):
            if transcript.error is None:
                DIALECTS[dialect].read_record(transcript, record, stamp)

    found: list[list[Any]] = []
    for way in (at_once, one_by_one):
        transcript, wrong = Transcript(), ""
        try:
            way(transcript)
        except RecordError as error:
            wrong = str(error)
        names = [name for name in ("text", *Transcript.__slots__) if name != "_text"]
        found.append([wrong, *((name, getattr(transcript, name)) for name in names)])
    return found[0], found[1]


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(sorted(KINDS)).flatmap(some_records))
def test_records_read_at_once_are_records_read_one_by_one(case: tuple[str, list[Any]]) -> None:
    at_once, one_by_one = read_both_ways(*case)
    assert at_once == one_by_one


@pytest.mark.parametrize(("dialect", "kinds"), KINDS.items())
@pytest.mark.parametrize("before", [0, 1])
def test_every_kind_of_record_is_read_among_others_as_it_is_alone(
    dialect: str, kinds: list[Any], before: int
) -> None:
    for record in [*kinds, *NO_RECORDS]:
        at_once, one_by_one = read_both_ways(dialect, [*[kinds[0]] * before, record, kinds[0]])
        assert at_once == one_by_one
