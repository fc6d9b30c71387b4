"""The errors that load generators make with tokens: ours does not, and whoever does is seen."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from canned import reply
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from world import MS, PROMPTS, SSE_END, SSE_HEAD, S, World, delta, usage

from raybench.client.sagemaker import SageMakerClient
from raybench.client.sigv4 import Credentials
from raybench.client.target import Target
from raybench.counting import Source
from raybench.load.arrivals import Closed, Load, Poisson
from raybench.payloads.tokens import counter
from raybench.rows import Prompt, Request

OPENAI: dict[str, Any] = {"route": "openai", "dialect": "openai"}

# 9 TTFT at the headers, or at a chunk without a token


def hesitant(n: int, now_s: float) -> Sequence[tuple[float, bytes]]:
    """Headers at 0.1 s, a role and an empty chunk at 0.2 s, the first token at 0.5 s."""
    opening = delta(role="assistant", content="") + delta(content="")
    return [
        (0.1, SSE_HEAD),
        (0.2, opening),
        (0.5, delta(content="Hi")),
        (0.6, delta(content="!") + usage(2) + SSE_END),
    ]


def test_9_ttft_is_the_first_token_neither_the_headers_nor_the_role() -> None:
    played = World(Closed(1), requests=100, script=hesitant, **OPENAI).play()
    told = played.summary()
    first_byte_ns = np.array(played.column("first_byte_ns")) - np.array(played.column("planned_ns"))
    assert set(first_byte_ns.tolist()) == {100 * MS}
    assert told["ttft_p50"] == told["ttft_p95"] == 0.5
    assert told["itl_mean"] == pytest.approx(0.1, abs=1e-12)


def test_9_ttft_at_the_headers_would_say_a_fifth_of_it() -> None:
    played = World(Closed(1), requests=100, script=hesitant, **OPENAI).play()
    assert played.changed(first_token_ns=played.column("first_byte_ns"))["ttft_p50"] == 0.1


def test_9_ttft_counts_a_token_of_reasoning_as_a_token() -> None:
    def thinking(n: int, now_s: float) -> Sequence[tuple[float, bytes]]:
        said = delta(content="Hi") + usage(2) + SSE_END
        return [(0.1, SSE_HEAD), (0.3, delta(reasoning_content="Hm")), (0.5, said)]

    assert World(Closed(1), requests=100, script=thinking, **OPENAI).play().summary()["ttft_p50"] == 0.3


# 10 Several tokens in a chunk


@pytest.mark.parametrize("chunks", [6, 12, 24])
def test_10_several_tokens_per_chunk_gaps_are_as_measured_and_tpot_by_the_servers_count(chunks: int) -> None:
    per_chunk = 24 // chunks
    overrides = {"tokens": 24, "tokens_per_chunk": per_chunk, "ttft_s": 0.1, "itl_s": 0.02}
    played = World(Closed(1), requests=50, overrides=overrides).play()
    told, gap_s = played.summary(), 0.02 * per_chunk
    assert told["tpot_mean"] == pytest.approx(gap_s * (chunks - 1) / 23, abs=1e-12)
    assert [told["itl_mean"], told["itl_p50"]] == pytest.approx([gap_s] * 2, abs=1e-12)
    for stamps in played.column("chunk_ns"):
        assert len(np.flatnonzero(np.diff(stamps))) == chunks - 1
    assert told["token_mismatches"] == 0


def test_10_several_tokens_per_chunk_a_reply_in_one_chunk_has_no_tpot() -> None:
    told = World(Closed(1), requests=100, overrides={"tokens": 24, "tokens_per_chunk": 24}).play().summary()
    assert told["completion_token_count_mean"] == 24
    assert (told["tpot_mean"], told["tpot_p50"], told["itl_mean"], told["itl_p50"]) == (None,) * 4


def test_10_several_tokens_per_chunk_spaced_evenly_would_halve_the_gap() -> None:
    overrides = {"tokens": 24, "tokens_per_chunk": 2, "ttft_s": 0.1, "itl_s": 0.02}
    played = World(Closed(1), requests=50, overrides=overrides).play()
    spaced = [np.linspace(ns[0], ns[-1], 24).astype(np.int64).tolist() for ns in played.column("chunk_ns")]
    assert played.changed(chunk_ns=spaced)["itl_p50"] == pytest.approx(0.44 / 23, abs=1e-8)
    assert played.summary()["itl_p50"] == pytest.approx(0.04, abs=1e-12)


# 11 Percentiles of means


def stuttering(n: int, now_s: float) -> Sequence[tuple[float, bytes]]:
    """Twenty tokens 20 ms apart; one stream in fifty stands still for two seconds before its eleventh."""
    late_s = 2.0 if n % 50 == 0 else 0.0
    tokens = [(0.1 + 0.02 * k + (late_s if k > 10 else 0), delta(content="x ")) for k in range(20)]
    return [(0.05, SSE_HEAD), *tokens, (tokens[-1][0], usage(20) + SSE_END)]


def test_11_percentiles_of_means_the_worst_gap_of_each_request_is_told() -> None:
    told = World(Closed(8), requests=400, script=stuttering, **OPENAI).play().summary()
    assert told["worst_gap_p99"] == pytest.approx(2.02, abs=1e-9)
    assert told["itl_p99"] == pytest.approx(0.02, abs=1e-9)


def test_11_percentiles_of_means_make_a_stall_of_two_seconds_an_eighth_of_one() -> None:
    played = World(Closed(8), requests=400, script=stuttering, **OPENAI).play()
    measured = played.table.filter(pc.field("phase") == "measure")
    means = [(ns[-1] - ns[0]) / (len(ns) - 1) / S for ns in measured["chunk_ns"].to_pylist()]
    assert np.quantile(means, 0.99) == pytest.approx(2.38 / 19, abs=1e-9)


# 18 The wrong tokenizer


def test_18_wrong_tokenizer_the_servers_count_comes_first_and_is_named() -> None:
    def telling(n: int, now_s: float) -> Sequence[tuple[float, bytes]]:
        return [(0.1, SSE_HEAD + delta(content="un")), (0.2, delta(content="believable") + usage(7, 61) + SSE_END)]

    told = World(Closed(1), requests=100, script=telling, **OPENAI).play().summary()
    assert (told["completion_token_count_mean"], told["completion_tokens_source"]) == (7, "server")
    assert (told["prompt_token_count_mean"], told["prompt_tokens_source"]) == (61, "server")


def test_18_wrong_tokenizer_without_the_servers_count_it_is_an_estimate_and_says_so() -> None:
    def silent(n: int, now_s: float) -> Sequence[tuple[float, bytes]]:
        return [(0.1, SSE_HEAD + delta(content="un")), (0.2, delta(content="believable") + SSE_END)]

    told = World(Closed(1), requests=100, script=silent, **OPENAI).play().summary()
    assert (told["completion_tokens_source"], told["prompt_tokens_source"]) == ("estimate", "estimate")


def tokenizer(path: Path) -> Path:
    """A tokenizer.json of byte pairs that knows no merge: a token for every byte, and BOS before a prompt."""
    alphabet = sorted(ByteLevel.alphabet())
    made = Tokenizer(BPE({piece: n for n, piece in enumerate([*alphabet, "<s>"])}, []))
    made.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    made.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", len(alphabet))])
    made.save(str(path))
    return path


NOBODY = Credentials("AKID", "secret")
SAID = [{"choices": [{"delta": {"content": text}, "finish_reason": None}]} for text in ("abc", "東京", " naïve")]
GOLDEN = (("", 0), ("hello", 5), ("naïve", 6), ("東京", 6), ("😀", 4), ("a b", 3))


def test_18_wrong_tokenizer_a_tokenizer_counts_to_the_token_bos_before_prompts_only(tmp_path: Path) -> None:
    by = counter(tokenizer(tmp_path / "tokenizer.json"))
    assert [by.count_completion(text) for text, _ in GOLDEN] == [tokens for _, tokens in GOLDEN]
    assert [by.count(text) for text, _ in GOLDEN] == [1 + tokens for _, tokens in GOLDEN]


MISTRAL = Path(__file__).parents[2] / "shared" / "data" / "tokenizer-mistral-7b" / "tokenizer.json"


@pytest.mark.skipif(not MISTRAL.is_file(), reason=f"no {MISTRAL.name} in {MISTRAL.parent}")
def test_18_wrong_tokenizer_the_models_own_counts_are_golden() -> None:
    by = counter(MISTRAL)
    known = (("hello world", 3), ("The capital of France is Paris.", 7), ("東京", 3), ("naïve", 3), ("😀", 2))
    assert [by.count_completion(text) for text, _ in known] == [tokens for _, tokens in known]
    assert [by.count(text) for text, _ in known] == [1 + tokens for _, tokens in known]


@pytest.mark.parametrize("at", range(1, 26))
def test_18_wrong_tokenizer_it_counts_what_the_server_does_not_however_it_is_cut(tmp_path: Path, at: int) -> None:
    wire = b"".join(b"data: %b\n\n" % json.dumps(each, ensure_ascii=False).encode() for each in SAID)
    place = wire.index("東".encode()) + at
    got = reply([wire[:place], wire[place:] + b"data: [DONE]\n\n"], headers={"content-type": "text/event-stream"})
    client = SageMakerClient(Target("http://127.0.0.1:1", "e", "us-west-2", "openai", "openai", NOBODY))
    client.count_tokens = counter(tokenizer(tmp_path / "tokenizer.json")).count_completion
    exchange = asyncio.run(client.read(Request(b"{}", "hash", Prompt("Say it", 2, "estimate"), 12), got))
    assert (exchange.completion_tokens, exchange.completion_tokens_source) == (16, Source.TOKENIZER)


def test_18_wrong_tokenizer_a_count_that_the_chunks_contradict_is_token_mismatch() -> None:
    played = World(Closed(1), requests=100, overrides={"tokens": 8}).play()
    assert played.summary()["token_mismatches"] == 0
    told = played.changed(completion_tokens=[9] * len(played.table))
    assert told["token_mismatches"] == 100
    assert "token_mismatch" in told["reasons"]
    assert told["valid"] == "INVALID"


# 20 Cache hits


def cached(share: float) -> Any:
    def script(n: int, now_s: float) -> Sequence[tuple[float, bytes]]:
        return [(0.1, SSE_HEAD + delta(content="x") + usage(1, 100, round(100 * share)) + SSE_END)]

    return script


def test_20_cache_hits_no_prompt_is_sent_twice_while_there_are_others() -> None:
    told = World(Closed(4), requests=1000, script=cached(0), **OPENAI).play().summary()
    assert (told["prompts_repeated"], told["prompt_repeats_max"]) == (0, 1)
    assert told["cached_token_share"] == 0
    assert told["reasons"] == []


def test_20_cache_hits_of_prompts_that_come_again_are_seen() -> None:
    world = World(Closed(4), requests=1000, prompts=PROMPTS[:10], script=cached(0.9), **OPENAI)
    told = world.play().summary()
    assert told["prompts_repeated"] == 0.99
    assert told["cached_token_share"] == pytest.approx(0.9)
    assert told["reasons"] == ["repeated_prompts"]
    assert told["valid"] == "INVALID"


def test_20_cache_hits_of_one_repeat_in_two_hundred_are_a_remark() -> None:
    def once(n: int, now_s: float) -> Sequence[tuple[float, bytes]]:
        return [(0.1, SSE_HEAD + delta(content="x") + usage(1, 100, 16 * (n == 399)) + SSE_END)]

    told = World(Closed(1), requests=400, prompts=PROMPTS[:200], script=once, **OPENAI).play().summary()
    assert told["cached_repeats"] == 1
    assert "1 of them had tokens from the endpoint's cache, as it says itself" in told["reason_texts"][0]
    assert told["valid"] == "VALID"


POOL = [Prompt(f"{n} {'long ' * 1000}", 1001, "estimate") for n in range(60)]


def drawn(seed: int) -> list[Prompt]:
    """Prompts of the pool, each drawn from all of it."""
    return Random(seed).choices(POOL, k=300)


def answered(seed: int, cache: bool, prompts: Sequence[Prompt], load: Load, **other: Any) -> dict[str, Any]:
    """A trial on a server that reads a prompt in 0.2 s, and counts no cached tokens; with a cache, only once."""
    overrides = {"tokens": 2, "step_ms": 20, "sequence_ms": 1, "prefix_cache": cache}
    return (
        World(
            load, requests=300, profile="llama2-70b-p4d-tgi", overrides=overrides, prompts=prompts, seed=seed, **other
        )
        .play()
        .summary()
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("load", [Closed(4), Poisson(2.0)], ids=["closed", "poisson"])
def test_20_cache_hits_that_the_server_keeps_to_itself_show_in_its_haste(load: Load, seed: int) -> None:
    told = answered(seed, True, POOL, load)
    assert told["cached_token_share"] is None
    assert told["repeat_ratio_high"] < 0.5
    assert "repeated_prompts" in told["reasons"]
    assert told["valid"] == "INVALID"
    assert "of the time of a first: a cache" in told["reason_texts"][told["reasons"].index("repeated_prompts")]


@pytest.mark.parametrize("seed", range(5))
def test_20_cache_hits_show_where_prompts_are_drawn_from_a_small_pool(seed: int) -> None:
    told = answered(seed, True, drawn(seed), Poisson(2.0))
    assert told["repeat_ratio_high"] < 0.9
    assert told["valid"] != "VALID"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("load", [Closed(4), Poisson(2.0)], ids=["closed", "poisson"])
def test_20_cache_hits_are_not_cried_where_there_is_no_cache(load: Load, seed: int) -> None:
    for prompts in (POOL, drawn(seed)):
        told = answered(seed, False, prompts, load)
        assert told["repeat_ratio_high"] > 0.9
        assert "cache" not in told["reason_texts"][told["reasons"].index("repeated_prompts")]


def test_20_cache_hits_of_whole_replies_show_where_nothing_streams() -> None:
    assert answered(1, True, POOL, Closed(1), route="invoke")["valid"] == "INVALID"
    assert answered(1, False, POOL, Closed(1), route="invoke")["valid"] == "VALID"


def test_20_cache_hits_are_not_cried_for_a_slow_start() -> None:
    def warming(n: int, now_s: float) -> Sequence[tuple[float, bytes]]:
        return [(0.1 + max(0.0, 1.0 - 0.02 * n), SSE_HEAD + delta(content="x") + usage(1) + SSE_END)]

    told = World(Closed(1), requests=300, prompts=PROMPTS[:50], script=warming, **OPENAI).play().summary()
    assert told["repeat_ratio"] < 0.3
    assert told["first_times_fell"] is True
    assert told["valid"] == "INCONCLUSIVE"
    assert "cache" not in told["reason_texts"][told["reasons"].index("repeated_prompts")]


def test_20_cache_hits_are_counted_by_a_server_that_counts_them() -> None:
    overrides = {"ttft_s": 0.2, "tokens": 2, "prefix_cache": True}
    told = World(Closed(1), requests=300, prompts=PROMPTS[:100], overrides=overrides, **OPENAI).play().summary()
    assert told["cached_repeats"] == 200
    assert told["cached_token_share"] == pytest.approx(2 / 3, rel=0.05)
    assert told["valid"] == "INVALID"
