"""What does not add up in a trials table: each rule on numbers small enough to check by hand."""

from typing import Any

import pytest
from made import setting

from raybench.analysis.plausible import Doubt, doubts, little


def made(concurrency: int, per_minute: float, mean: float, **known: Any) -> dict[str, Any]:
    price = 10_000 * 20.0 / 60 / per_minute
    named = {"load": f"closed-{concurrency}", "concurrency": concurrency, "repeat": 0, "price_per_10k_txn": price}
    return setting(**(named | {"transactions_per_minute": per_minute, "latency_mean": mean} | known))


def found(*rows: dict[str, Any], most: float | None = None) -> dict[str, Doubt]:
    experiments = [{"name": "e", "parameters": {"max_new_tokens": most}}]
    return {doubt.code: doubt for doubt in doubts(rows, experiments)}


def test_littles_ratio_is_the_measured_one_or_else_follows_from_the_table() -> None:
    assert little(made(4, 60.0, 4.0)) == pytest.approx(1.0)
    assert little(made(4, 60.0, 4.0, little_ratio=0.97)) == 0.97
    assert little(made(4, 60.0, 4.0) | {"kind": "poisson", "concurrency": None}) is None


def test_a_sound_table_raises_no_doubt() -> None:
    rows = [made(n, 59.3 * n, 1.0, latency_p50=0.9, latency_p95=1.2, latency_p99=1.4) for n in (1, 2, 4)]
    for row, tokens in zip(rows, (100.0, 500.0, 900.0), strict=True):
        row |= {"prompt_token_count_mean": tokens, "completion_token_count_mean": 100.0}
    assert found(*rows, most=100) == {}


def test_slots_that_wait_for_the_slowest_break_littles_law() -> None:
    doubt = found(made(8, 5.3, 55.85), made(1, 59.9, 1.0))["little"]
    assert doubt.trial_ids == ("e/p/closed-8/0",)
    assert "0.62 at worst" in doubt.text


def test_more_requests_than_latency_allows_cannot_be() -> None:
    doubt = found(made(1, 25.0, 2.6))["over_ceiling"]
    assert doubt.text == "25 requests a minute at concurrency 1, where a latency of 2.60 s allows 23.1."
    assert "over_ceiling" not in found(made(1, 23.4, 2.6))


def test_where_no_request_succeeded_there_is_no_latency_to_hold_throughput_against() -> None:
    nothing = {"latency_mean": None, "transactions_per_minute": 0.0, "little_ratio": 1.1}
    assert "over_ceiling" not in found(made(1, 25.0, 2.6) | nothing)


def test_equal_percentiles_are_those_of_averages() -> None:
    same = {"latency_p50": 2.6, "latency_p95": 2.6, "latency_p99": 2.6}
    assert "equal_percentiles" in found(made(1, 23.0, 2.6, **same))
    assert "equal_percentiles" not in found(made(1, 23.0, 2.6, **same | {"latency_p99": 2.7}))
    assert "equal_percentiles" not in found(made(1, 23.0, 2.6))


def sized(*sizes: tuple[float, float]) -> list[dict[str, Any]]:
    return [
        made(n + 1, 59.3 * (n + 1), 1.0, prompt_token_count_mean=prompt, completion_token_count_mean=completion)
        for n, (prompt, completion) in enumerate(sizes)
    ]


def test_completions_that_follow_their_prompts_are_echoes() -> None:
    doubt = found(*sized((304.0, 328.0), (980.0, 1004.0), (2503.0, 2539.0)))["echoed"]
    assert len(doubt.trial_ids) == 3
    assert "24–36 tokens longer" in doubt.text


def test_completions_of_their_own_length_are_not() -> None:
    assert "echoed" not in found(*sized((304.0, 26.0), (980.0, 25.0)))
    assert "echoed" not in found(*sized((100.0, 500.0), (200.0, 505.0)))


def test_one_trial_is_an_echo_where_it_is_longer_than_was_asked_for() -> None:
    assert "echoed" in found(*sized((304.0, 328.0)), most=100)
    assert "echoed" not in found(*sized((304.0, 328.0)), most=400)
    assert "echoed" not in found(*sized((304.0, 328.0)))


def test_whole_numbers_of_requests_make_prices_in_steps() -> None:
    doubt = found(made(1, 5.0, 11.9), made(2, 6.0, 19.9), made(4, 5.0, 47.9))["price_steps"]
    assert "between 5 ($666.67) and 6 ($555.56) requests a minute the price jumps by 20.0 %" in doubt.text
    assert "price_steps" not in found(made(1, 5.0, 11.9), made(2, 6.1, 19.9), made(4, 5.0, 47.9))
    assert "price_steps" not in found(made(1, 5.0, 11.9), made(2, 6.0, 19.9))
