"""Prompts: what is read, what is filled in, what is made up, what is kept and why the rest is not."""

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raybench.counting import Source
from raybench.errors import InputError
from raybench.payloads.files import MAX_LINE_BYTES, Jsonl, LongBench, records
from raybench.payloads.pool import RECORDED_TOKENS, Payload, Pool, load_pool, order
from raybench.payloads.synthetic import HEAD_WORDS, WORDS, Recorded, Synthetic
from raybench.payloads.templates import parse, read_template
from raybench.payloads.tokens import Counter, counter, estimate_tokens

MISTRAL = Path(__file__).parents[2] / "shared" / "data" / "tokenizer-mistral-7b" / "tokenizer.json"
ESTIMATE = counter(None)

needs_tokenizer = pytest.mark.skipif(not MISTRAL.is_file(), reason="the Mistral tokenizer is not here")


@pytest.fixture(scope="module")
def mistral() -> Counter:
    return counter(MISTRAL)


def jsonl(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def words(n: int, tag: object = "word") -> str:
    return " ".join(f"{tag}" for _ in range(n))


# Tokens


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("one", 2), ("a b c", 4), (" a\n b\tc  d ", 6), (words(750), 1000)]
)
def test_an_estimate_is_four_thirds_of_the_words_rounded_up(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens
    assert ESTIMATE.count(text) == ESTIMATE.count_completion(text) == tokens
    assert ESTIMATE.source is Source.ESTIMATE


@needs_tokenizer
def test_a_tokenizer_counts_what_stands_before_a_prompt_but_not_before_a_completion(mistral: Counter) -> None:
    assert mistral.source is Source.TOKENIZER
    assert (mistral.count("hello world"), mistral.count_completion("hello world")) == (4, 3)
    assert mistral.count("hello world") == 4
    assert (mistral.count(""), mistral.count_completion("")) == (1, 0)


@pytest.mark.parametrize("content", [None, "{", '{"model": 1}'])
def test_a_tokenizer_that_cannot_be_read_is_an_input_error(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"tokenizer.json: .*; a tokenizer.json"):
        counter(path)


# Templates


def test_a_template_puts_fields_in_their_places_and_halves_doubled_braces() -> None:
    template = parse("{{{context}}} Q: {input}{input}\n{{}}", "t")
    assert template.fields == ("context", "input", "input")
    assert template.fill({"context": "c {x}", "input": 7, "other": None}, "f:1") == "{c {x}} Q: 77\n{}"


@pytest.mark.parametrize(
    "bad", ["{}", "{0}", "{a.b}", "{a[0]}", "{a!r}", "{a:>9}", "{", "}", "{a", "{ a }", "{__a-b}"]
)
def test_a_template_takes_plain_names_only(bad: str) -> None:
    with pytest.raises(InputError, match=r"t.txt:2: '.*' is not a field"):
        parse(f"{{ok}}\n{bad}", "t.txt")


def test_a_template_without_a_field_is_refused() -> None:
    with pytest.raises(InputError, match="every prompt would be the same"):
        parse("hello {{you}}", "t.txt")


@given(st.text(max_size=40))
def test_any_text_is_a_template_or_an_input_error(text: str) -> None:
    with suppress(InputError):
        template = parse(text, "t")
        assert len(template.literals) == len(template.fields) + 1


@given(st.lists(st.text(max_size=9), min_size=1, max_size=5), st.text(max_size=9))
def test_a_template_keeps_every_literal(literals: list[str], value: str) -> None:
    spelled = "{f}".join(literal.replace("{", "{{").replace("}", "}}") for literal in [*literals, ""])
    assert parse(spelled, "t").fill({"f": value}, "") == value.join([*literals, ""])


def test_a_template_file_that_cannot_be_read_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.txt: cannot be read: No such file"):
        read_template(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes(b"\xe9{a}")
    with pytest.raises(InputError, match=r"latin.txt: not UTF-8"):
        read_template(tmp_path / "latin.txt")


def test_a_missing_field_names_the_template_the_field_and_the_line(tmp_path: Path) -> None:
    jsonl(tmp_path / "d.jsonl", {"input": "a", "context": "b"}, {"input": "a"})
    (tmp_path / "t.txt").write_text("{context} {input}\n")
    payload = Payload("p", LongBench((Path("d.jsonl"),)), template=Path("t.txt"))
    with pytest.raises(
        InputError, match=r"d.jsonl:2: the field 'context' of template .*t.txt is missing; .*\(input\)"
    ):
        load_pool(payload, ESTIMATE, 1, tmp_path)


def test_a_field_that_is_no_text_is_named_too(tmp_path: Path) -> None:
    jsonl(tmp_path / "d.jsonl", {"answers": ["a"]})
    (tmp_path / "t.txt").write_text("{answers}")
    with pytest.raises(InputError, match=r"d.jsonl:1: the field 'answers' .* is not text"):
        load_pool(Payload("p", Jsonl((Path("d.jsonl"),)), Path("t.txt")), ESTIMATE, 1, tmp_path)


# Files


def test_longbench_records_fill_a_template_and_are_kept_by_tokens_and_language(tmp_path: Path) -> None:
    rows = [
        {"input": "q1", "context": words(5), "language": "en", "answers": ["x"], "length": 5},
        {"input": "q2", "context": words(5), "language": "zh"},
        {"input": "q3", "context": words(6), "language": "en"},
        {"input": "q4", "context": words(7), "language": "en"},
        {"input": "q5", "context": words(2), "language": "en"},
        {"input": "q1", "context": words(5), "language": "en"},
        {"input": "q6", "context": words(5)},
    ]
    jsonl(tmp_path / "hotpotqa.jsonl", *rows[:4])
    jsonl(tmp_path / "more.jsonl", *rows[4:])
    (tmp_path / "t.txt").write_text("<s>[INST] {context} {input}\n")
    payload = Payload(
        "en", LongBench((Path("hotpotqa.jsonl"), Path("more.jsonl"))), Path("t.txt"), tokens=(10, 12), language="en"
    )
    pool = load_pool(payload, ESTIMATE, 1, tmp_path)
    assert [prompt.text[-2:] for prompt in pool.prompts] == ["q1", "q3"]
    assert pool.prompts[0].text == f"<s>[INST] {words(5)} q1"
    assert [prompt.tokens for prompt in pool.prompts] == [10, 11]
    assert pool.kept == 2
    assert pool.prompt_tokens_mean == 10.5
    assert pool.dropped == {
        "language": 2,
        "too_large": 0,
        "too_short": 1,
        "too_long": 1,
        "duplicate": 1,
        "limit": 0,
    }
    assert pool.tokens_source == pool.prompts[0].tokens_source == "estimate"
    assert pool.datasets == ("hotpotqa.jsonl", "more.jsonl")


def test_longbench_without_a_template_is_the_context_and_then_the_input(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", {"input": "q", "context": "c"})
    assert load_pool(Payload("p", LongBench((path,))), ESTIMATE, 1, tmp_path).prompts[0].text == "c\n\nq"


def test_a_plain_record_holds_its_prompt_under_one_of_three_names(tmp_path: Path) -> None:
    jsonl(tmp_path / "d.jsonl", {"prompt": "a", "text": "z"}, {"text": "b"}, "", {"inputs": "c"})
    pool = load_pool(Payload("p", Jsonl((Path("d.jsonl"),))), ESTIMATE, 1, tmp_path)
    assert [prompt.text for prompt in pool.prompts] == ["a", "b", "c"]


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_a_record(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\r\n\r\n{"prompt": "b"}')
    assert [record["prompt"] for _, record in records(path)] == ["a", "b"]
    assert [where for where, _ in records(path)] == [f"{path}:1", f"{path}:3"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"prompt": ', "not JSON"),
        ('{"prompt": "\\ud800"}', "not JSON"),
        ('{"prompt": NaN}', "not JSON"),
        ("[" * 9999, "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"question": "a"}', "no prompt; text in a field prompt, text, inputs, or a template"),
        ('{"prompt": 1}', "no prompt"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(tmp_path: Path, line: str, says: str) -> None:
    path = jsonl(tmp_path / "d.jsonl", *[{"prompt": str(n)} for n in range(6)], line)
    with pytest.raises(InputError, match=f"d.jsonl:7: {says}"):
        load_pool(Payload("p", Jsonl((path,))), ESTIMATE, 1, tmp_path)


def test_a_line_without_end_is_not_read_into_memory(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", {"prompt": "a"})
    with path.open("r+b") as file:
        file.truncate(MAX_LINE_BYTES + 100)
    with pytest.raises(InputError, match=f"d.jsonl:2: the line is too long; at most {MAX_LINE_BYTES} bytes"):
        list(records(path))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_records_or_an_input_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(data)
    with suppress(InputError):
        assert all(isinstance(record, dict) for _, record in records(path))


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.jsonl: cannot be read: No such file"):
        load_pool(Payload("p", Jsonl((Path("none.jsonl"),))), ESTIMATE, 1, tmp_path)


# Buckets


def prompts_of(tmp_path: Path, *texts: str, **wanted: object) -> Pool:
    path = jsonl(tmp_path / "d.jsonl", *({"prompt": text} for text in texts))
    return load_pool(Payload("bucket", Jsonl((path,)), **wanted), ESTIMATE, 1, tmp_path)  # type: ignore[arg-type]


def test_an_empty_bucket_says_how_many_were_seen_and_why_none_fits(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"payload bucket: none of 3 prompts fits: 2 too_short, 1 too_long; "
        r"they have 2 to 134 tokens, 10 to 99 are wanted; at least one prompt",
    ):
        prompts_of(tmp_path, "a", "a b", words(100), tokens=(10, 100))


def test_a_record_that_does_not_say_its_language_is_not_of_the_wanted_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of 2 prompts fits: 2 language; at least"):
        prompts_of(tmp_path, "a", "b", language="en")


def test_an_empty_file_is_an_empty_dataset(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="payload bucket: the dataset is empty"):
        prompts_of(tmp_path)


def test_a_blank_prompt_is_too_short_and_one_over_the_largest_body_too_large(tmp_path: Path) -> None:
    pool = prompts_of(tmp_path, " ", "ok", "a" * 6_291_456, '"' * 3_145_728)
    assert pool.kept == 1
    assert (pool.dropped["too_short"], pool.dropped["too_large"]) == (1, 2)


def test_a_limit_takes_a_seeded_choice_from_the_whole_dataset_in_its_order(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", *({"prompt": f"n {n:03}"} for n in range(200)))
    payload = Payload("p", Jsonl((path,)), limit=20)
    pool, again, other = (load_pool(payload, ESTIMATE, seed, tmp_path) for seed in (1, 1, 2))
    chosen = [prompt.text for prompt in pool.prompts]
    assert len(set(chosen)) == 20
    assert chosen == sorted(chosen)
    assert chosen[-1] > "n 100"
    assert pool.dropped["limit"] == 180
    assert pool == again != other


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Payload("p", Jsonl(())), "names no file"),
        (lambda: Payload("p", Jsonl((Path("d"),)), tokens=(5, 5)), r"tokens is \[5, 5\]"),
        (lambda: Payload("p", Jsonl((Path("d"),)), limit=0), "limit is 0"),
        (lambda: Payload("p", Synthetic(5)), "needs a length"),
        (lambda: Payload("p", Recorded("t", ((5, 1),)), tokens=(1, 9)), "nothing beside it"),
        (lambda: Payload("p", Synthetic(5), Path("t"), tokens=(1, 5)), "takes no template"),
        (lambda: Payload("p", Synthetic(5), tokens=(1, 5), language="zh"), "synthetic texts are in en"),
        (lambda: Payload("p", Synthetic(5, (1, 6)), tokens=(1, 5)), "reaches out of tokens"),
        (lambda: Synthetic(0), "prompts is 0"),
        (lambda: Synthetic(1, (0, 5)), r"prompt_tokens is \[0, 5\]"),
    ],
)
def test_a_payload_that_cannot_be_is_refused(make: type, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


# Synthetic texts


def synthetic(prompts: int, tokens: tuple[int, int], by: Counter = ESTIMATE, seed: int = 1, name: str = "p") -> Pool:
    return load_pool(Payload(name, Synthetic(prompts), tokens=tokens, language="en"), by, seed, Path())


@pytest.mark.parametrize("tokens", [(1, 500), (500, 520), (3000, 3840), (20, 21), (4, 6)])
def test_synthetic_prompts_fill_their_bucket_and_no_two_begin_alike(tokens: tuple[int, int]) -> None:
    low, high = tokens
    pool = synthetic(200, tokens)
    assert pool.kept == 200
    assert sum(pool.dropped.values()) == 0
    assert all(low <= prompt.tokens < high for prompt in pool.prompts)
    assert len({" ".join(prompt.text.split()[:HEAD_WORDS]) for prompt in pool.prompts}) == 200
    assert {word for prompt in pool.prompts for word in prompt.text.split()} <= set(WORDS)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 4000).filter(lambda n: n % 4 != 1), st.integers(0, 2**63))
def test_an_estimated_length_is_exact_wherever_words_reach_it(tokens: int, seed: int) -> None:
    [prompt] = synthetic(1, (tokens, tokens + 1), seed=seed).prompts
    assert prompt.tokens == tokens == estimate_tokens(prompt.text)


def test_a_length_that_no_text_has_is_an_input_error() -> None:
    with pytest.raises(InputError, match="payload p: no text has 5 to 5 tokens, as estimate counts them"):
        synthetic(1, (5, 6))


def test_more_texts_than_words_can_tell_apart_are_an_input_error() -> None:
    with pytest.raises(InputError, match=r"only \d+ different texts of about 2 tokens"):
        synthetic(2 * len(WORDS), (2, 3))


def test_lengths_are_spread_evenly_over_the_wanted_range() -> None:
    pool = load_pool(Payload("p", Synthetic(2000, (500, 600)), tokens=(1, 1000)), ESTIMATE, 1, Path())
    assert pool.prompt_tokens_mean == pytest.approx(549.5, abs=3)
    assert min(prompt.tokens for prompt in pool.prompts) < 505
    assert max(prompt.tokens for prompt in pool.prompts) > 594


def test_a_seed_and_a_payloads_name_make_the_texts() -> None:
    pool, again = synthetic(5, (20, 30)), synthetic(5, (20, 30))
    assert pool == again
    texts = {prompt.text for prompt in pool.prompts}
    assert not texts & {prompt.text for prompt in synthetic(5, (20, 30), seed=2).prompts}
    assert not texts & {prompt.text for prompt in synthetic(5, (20, 30), name="q").prompts}


@needs_tokenizer
@pytest.mark.parametrize("tokens", [(1, 500), (500, 520), (3000, 3100), (20, 21)])
def test_a_real_tokenizer_finds_synthetic_prompts_as_long_as_was_asked(
    mistral: Counter, tokens: tuple[int, int]
) -> None:
    pool = synthetic(10, tokens, by=mistral)
    assert pool.tokens_source == "tokenizer"
    for prompt in pool.prompts:
        assert tokens[0] <= prompt.tokens == mistral.count(prompt.text) < tokens[1]


# Order


def take(count: int, turns: Iterator[int]) -> list[int]:
    return list(islice(turns, count))


@given(st.integers(1, 50), st.integers(0, 2**63), st.integers(0, 20))
def test_every_pass_takes_every_prompt_once(prompts: int, seed: int, trial: int) -> None:
    turns = order(prompts, seed, trial)
    for _ in range(4):
        assert sorted(take(prompts, turns)) == list(range(prompts))


def test_each_pass_is_shuffled_anew_and_the_same_each_time() -> None:
    turns = take(60, order(20, 7, 3))
    assert turns == take(60, order(20, 7, 3))
    assert len({tuple(turns[at : at + 20]) for at in (0, 20, 40)}) == 3
    assert turns != take(60, order(20, 8, 3))


@given(st.integers(1, 30), st.integers(0, 5), st.integers(1, 9))
def test_actors_turns_recombine_to_the_very_order(prompts: int, trial: int, actors: int) -> None:
    whole = take(10 * actors, order(prompts, 7, trial))
    for actor in range(actors):
        assert take(10, order(prompts, 7, trial, actor=actor, actors=actors)) == whole[actor::actors]


def test_short_trials_do_not_replay_each_others_prompts() -> None:
    trials = [set(take(100, order(1000, 7, trial))) for trial in range(5)]
    assert len(set.union(*trials)) == 500


def test_a_traces_prompts_are_as_long_as_its_requests_and_may_be_alike_where_they_are_short() -> None:
    lengths = ((1, 3), *((n, 2 * n) for n in range(5, 300)), *(((1, 9),) * 600))
    pool = load_pool(Payload("p", Recorded("trace", lengths)), ESTIMATE, 7, Path())
    assert [prompt.max_tokens for prompt in pool.prompts] == [most for _, most in lengths]
    assert all(abs(prompt.tokens - wanted) <= 1 for prompt, (wanted, _) in zip(pool.prompts, lengths, strict=True))
    assert pool.kept == len(lengths)
    assert pool.datasets == ("trace",)


@pytest.mark.parametrize(
    ("lengths", "problem"),
    [(((RECORDED_TOKENS + 1, 1),), "32,000,001 tokens"), (((2_000_000, 1),), "request 0 of trace has")],
)
def test_a_trace_too_large_for_memory_or_for_a_body_is_an_input_error(
    lengths: tuple[tuple[int, int], ...], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        load_pool(Payload("p", Recorded("trace", lengths)), ESTIMATE, 7, Path())
