"""The engine against known answers, all in virtual time."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import mean, pstdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raybench.errors import InputError
from raybench.simulator.dialects import VOICES
from raybench.simulator.engine import Agenda, PrefixCache, engine
from raybench.simulator.profiles import DIALECTS, PROFILES, Batching, Fixed, Profile, profile
from raybench.virtual import VirtualLoop, run_virtually


@dataclass
class Watched:
    """A request in virtual time: when it was asked, started, and got each chunk."""

    asked_s: float
    done: asyncio.Future[None]
    left: int
    started_s: float = -1.0
    chunks: list[tuple[float, int]] = field(default_factory=list)

    def started(self) -> None:
        self.started_s = asyncio.get_running_loop().time()

    def produced(self, tokens: int) -> None:
        self.chunks.append((asyncio.get_running_loop().time(), tokens))
        self.left -= tokens
        if not self.left:
            self.done.set_result(None)

    @property
    def latency_s(self) -> float:
        return self.chunks[-1][0] - self.asked_s


Arrival = tuple[float, int, int]
"""Seconds from the start, prompt tokens, completion tokens."""


def play(timing: Profile, arrivals: Sequence[Arrival], seed: int = 0) -> list[Watched]:
    async def main(_: object) -> list[Watched]:
        loop = asyncio.get_running_loop()
        server = engine(timing, Agenda(), seed)
        requests = []
        for at_s, prompt, completion in arrivals:
            if at_s > loop.time():
                await asyncio.sleep(at_s - loop.time())
            requests.append(Watched(loop.time(), loop.create_future(), completion))
            server.submit(prompt, completion, requests[-1])
        await asyncio.gather(*(request.done for request in requests))
        return requests

    return run_virtually(main)


def waves(timing: Profile, n: int, prompt: int, completion: int) -> list[float]:
    """Latencies as the benchmark behind the seed made them: n at once, wait for all."""
    return [request.latency_s for request in play(timing, [(0.0, prompt, completion)] * n)]


SIMPLE = Batching(
    name="simple", tokens=10, prefill_ms=1.0, prefill_ms2=0.0, step_ms=10.0, sequence_ms=1.0, waiting_ratio=1.2
)

P4D = [
    (1, 3394, 26, 2.60),
    (2, 3394, 26, 3.80),
    (4, 3394, 26, 6.09),
    (6, 3394, 26, 8.09),
    (8, 3394, 26, 10.29),
    (8, 304, 24, 2.27),
    (6, 1672, 24, 4.24),
    (2, 2503, 36, 3.44),
    (8, 980, 24, 4.07),
]
G5 = [
    (1, 3394, 26, 10.71),
    (2, 3394, 26, 19.35),
    (4, 3394, 26, 31.97),
    (6, 3394, 26, 42.79),
    (8, 3394, 26, 55.85),
    (4, 304, 26, 4.25),
    (1, 980, 25, 3.56),
]


@pytest.mark.parametrize(
    ("name", "points", "mean_error", "worst_error"),
    [("llama2-70b-p4d-tgi", P4D, 0.050, 0.115), ("llama2-70b-g5-tgi", G5, 0.016, 0.030)],
)
def test_the_fitted_profiles_give_the_mean_latencies_of_the_seed(
    name: str, points: list[tuple[int, int, int, float]], mean_error: float, worst_error: float
) -> None:
    timing = profile(name, jitter=0.0)
    errors = [
        abs(mean(waves(timing, n, prompt, completion)) / seconds - 1) for n, prompt, completion, seconds in points
    ]
    assert mean(errors) <= mean_error
    assert max(errors) <= worst_error


def test_eight_long_prompts_at_once_on_g5_outlast_the_cap_of_the_service() -> None:
    assert max(waves(profile("llama2-70b-g5-tgi", jitter=0.0), 8, 3394, 26)) > 60


def test_one_request_takes_its_prefill_and_a_step_for_each_further_token() -> None:
    (request,) = play(SIMPLE, [(0.0, 100, 10)])
    assert [instant for instant, _ in request.chunks] == pytest.approx([0.100 + 0.011 * i for i in range(10)])
    assert request.latency_s == pytest.approx(0.199)


def test_requests_of_one_instant_share_a_prefill_and_a_step_costs_by_batch_size() -> None:
    for request in play(SIMPLE, [(0.0, 100, 3), (0.0, 50, 3)]):
        assert [instant for instant, _ in request.chunks] == pytest.approx([0.150, 0.162, 0.174])


def test_a_prefill_takes_at_most_4096_prompt_tokens() -> None:
    first, second = play(SIMPLE, [(0.0, 3000, 2), (0.0, 2000, 2)])
    assert first.started_s == 0.0
    assert second.started_s == pytest.approx(3.011)


def test_one_waiting_request_joins_after_twenty_decode_steps_and_holds_them_up() -> None:
    first, second = play(SIMPLE, [(0.0, 100, 50), (0.101, 500, 5)])
    assert second.started_s == pytest.approx(0.100 + 20 * 0.011)
    gaps = [b[0] - a[0] for a, b in zip(first.chunks, first.chunks[1:], strict=False)]
    assert gaps[19] == pytest.approx(0.011)
    assert gaps[20] == pytest.approx(0.500 + 0.012)


def test_enough_waiting_requests_join_at_the_next_step() -> None:
    first, second, third = play(SIMPLE, [(0.0, 100, 50), (0.101, 10, 5), (0.101, 10, 5)])
    assert second.started_s == third.started_s == pytest.approx(0.111)
    assert len(first.chunks) == 50


def test_the_kv_cache_admits_a_request_only_when_its_tokens_fit() -> None:
    timing = Batching(**{**{f: getattr(SIMPLE, f) for f in SIMPLE.__dataclass_fields__}, "kv_limit_tokens": 300})
    first, second, third = play(timing, [(0.0, 100, 50), (0.0, 200, 10), (0.0, 10, 10)])
    assert second.started_s == pytest.approx(first.chunks[-1][0])
    assert third.started_s == second.started_s, "first come, first served: the small one does not overtake"


def test_a_request_larger_than_the_kv_cache_runs_alone() -> None:
    timing = profile("llama2-70b-p4d-tgi", jitter=0.0, kv_limit_tokens=100)
    first, second = play(timing, [(0.0, 500, 5), (0.0, 500, 5)])
    assert second.started_s == pytest.approx(first.chunks[-1][0])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 5000), st.integers(1, 60)), min_size=1, max_size=30))
def test_every_token_is_made_once_and_nobody_overtakes(arrivals: list[Arrival]) -> None:
    requests = play(profile("llama2-70b-p4d-tgi"), sorted(arrivals), seed=3)
    starts = [request.started_s for request in requests]
    assert starts == sorted(starts)
    for request, (_, _, completion) in zip(requests, sorted(arrivals), strict=True):
        assert sum(tokens for _, tokens in request.chunks) == completion
        assert request.asked_s <= request.started_s < request.chunks[0][0]
        assert [instant for instant, _ in request.chunks] == sorted(instant for instant, _ in request.chunks)


@pytest.mark.parametrize("name", list(PROFILES))
def test_the_same_seed_gives_the_same_instants_and_another_seed_others(name: str) -> None:
    arrivals = [(0.1 * i, 300, 20) for i in range(8)]
    timing = profile(name, jitter=0.05)

    def instants(seed: int) -> list[list[tuple[float, int]]]:
        return [request.chunks for request in play(timing, arrivals, seed)]

    assert instants(1) == instants(1)
    assert instants(1) != instants(2)


def test_jitter_is_the_relative_deviation_of_a_step() -> None:
    timing = profile("fixed", jitter=0.1, itl_s=0.05, tokens=4000)
    (request,) = play(timing, [(0.0, 1, 4000)])
    gaps = [b[0] - a[0] for a, b in zip(request.chunks, request.chunks[1:], strict=False)]
    assert mean(gaps) == pytest.approx(0.05, rel=0.01)
    assert pstdev(gaps) == pytest.approx(0.005, rel=0.1)


def test_the_fixed_profile_keeps_its_timetable_under_any_load() -> None:
    timing = profile("fixed", ttft_s=0.5, itl_s=0.1, tokens=5)
    for request in play(timing, [(0.0, 10, 5)] * 100):
        assert [instant for instant, _ in request.chunks] == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9])


def test_tokens_share_chunks_and_the_last_chunk_takes_the_rest() -> None:
    timing = profile("fixed", ttft_s=0.5, itl_s=0.1, tokens_per_chunk=3)
    (request,) = play(timing, [(0.0, 10, 8)])
    assert [tokens for _, tokens in request.chunks] == [3, 3, 2]
    assert [instant for instant, _ in request.chunks] == pytest.approx([0.5, 0.8, 1.1])
    (batched,) = play(profile("llama2-70b-p4d-tgi", tokens_per_chunk=3), [(0.0, 10, 8)])
    assert [tokens for _, tokens in batched.chunks] == [3, 3, 2]


def test_a_step_announced_late_does_not_delay_the_next() -> None:
    timing = profile("fixed", ttft_s=0.1, itl_s=0.1)

    async def main(_: object) -> tuple[list[float], float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        agenda = Agenda()
        done = loop.create_future()

        block = loop.block

        class Blocking(Watched):
            def produced(self, tokens: int) -> None:
                super().produced(tokens)
                if len(self.chunks) == 2:
                    block(0.15)

        request = Blocking(0.0, done, 5)
        engine(timing, agenda, 0).submit(1, 5, request)
        await done
        return [instant for instant, _ in request.chunks], max(agenda.lags_s)

    instants, worst_lag_s = run_virtually(main)
    assert instants == pytest.approx([0.1, 0.2, 0.35, 0.4, 0.5])
    assert worst_lag_s == pytest.approx(0.05)


def test_a_coarse_timer_is_waited_for_in_whole_grains_and_never_early() -> None:
    async def main(_: object) -> list[float]:
        loop = asyncio.get_running_loop()
        agenda = Agenda(grain_s=0.001)
        seen: list[float] = []
        for when in (0.0104, 0.0101, 0.0200):
            agenda.at(when, lambda _: seen.append(loop.time()))
        await asyncio.sleep(0.1)
        return seen

    assert run_virtually(main) == pytest.approx([0.011, 0.011, 0.020])


@pytest.mark.parametrize(
    ("timing", "first_token_s"),
    [
        (profile("fixed", ttft_s=0.4), [0.4, 0.0, 0.1]),
        (profile("llama2-70b-p4d-tgi", prefill_ms=1.0, prefill_ms2=0.0, jitter=0.0), [0.4, 0.0, 0.1]),
    ],
    ids=["fixed", "batching"],
)
def test_what_is_cached_of_a_prompt_is_not_read_again(timing: Profile, first_token_s: list[float]) -> None:
    async def main(_: object) -> list[float]:
        loop, server, took_s = asyncio.get_running_loop(), engine(timing, Agenda(), 0), list[float]()
        for cached in (0, 400, 300):
            request = Watched(loop.time(), loop.create_future(), 1)
            server.submit(400, 1, request, cached)
            await request.done
            took_s.append(request.latency_s)
        return took_s

    assert run_virtually(main) == pytest.approx(first_token_s, abs=1e-6)


def test_a_prompt_is_cached_whole_once_it_came() -> None:
    cache = PrefixCache()
    assert [cache.cached_tokens(prompt, 7) for prompt in ("a", "b", "a", "ab", "b")] == [0, 0, 7, 0, 7]


def test_profiles_are_found_by_name_and_changed_by_key() -> None:
    timing = profile("fixed", ttft_s=1.0)
    assert isinstance(timing, Fixed)
    assert timing.ttft_s == 1.0
    with pytest.raises(InputError, match=r"profile: unknown profile nope; .*fixed"):
        profile("nope")
    with pytest.raises(InputError, match=r"fixed\.tokenz: unknown key; .*tokens"):
        profile("fixed", tokenz=3)


def test_a_profile_may_speak_every_dialect_that_there_is_a_voice_for() -> None:
    assert set(DIALECTS) == set(VOICES)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("tokens", 0, "at least 1"),
        ("tokens", 2.5, "a whole number"),
        ("tokens", True, "a whole number"),
        ("tokens", None, "a whole number"),
        ("ttft_s", "fast", "a number"),
        ("itl_s", -1.0, "at least 0"),
        ("jitter", float("nan"), "a number"),
        ("dialect", "french", "tgi, lmi, jumpstart, openai"),
        ("prefix_cache", 1, "true or false"),
    ],
)
def test_a_wrong_value_of_a_profile_is_an_input_error(key: str, value: object, allowed: str) -> None:
    with pytest.raises(InputError, match=rf"fixed\.{key}: wrong value .*; .*{allowed}"):
        profile("fixed", **{key: value})
