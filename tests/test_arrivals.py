"""Schedules: exact where they are even, the right distribution where they are random, whole however split."""

import math
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raybench.errors import InputError
from raybench.load.arrivals import (
    Closed,
    Constant,
    Gamma,
    Poisson,
    Ramp,
    Replay,
    share,
    stripe,
)
from raybench.load.traces import read_trace

S = 1_000_000_000
TRACES = Path(__file__).parents[2] / "shared" / "data" / "traces"

needs_traces = pytest.mark.skipif(not TRACES.is_dir(), reason="the recorded traces are not here")

RATES = st.decimals("0.01", "5000", places=2).map(float)
OPEN = st.one_of(
    st.builds(Constant, RATES),
    st.builds(Poisson, RATES),
    st.builds(Gamma, RATES, st.floats(0.05, 10)),
    st.builds(Ramp, RATES, RATES, st.floats(0.001, 100), st.none() | st.integers(2, 9)),
)


# Even schedules


def test_a_constant_load_sends_at_whole_multiples_of_its_period_from_t0() -> None:
    assert Constant(4).offsets_ns(seed=1, count=5).tolist() == [0, S // 4, S // 2, 3 * S // 4, S]


def test_the_duration_is_excluded() -> None:
    assert len(Constant(500).offsets_ns(seed=1, duration_ns=2 * S)) == 1000


def test_a_period_that_is_no_whole_nanosecond_never_drifts() -> None:
    offsets = Constant(3).offsets_ns(seed=1, count=300_001)
    assert offsets[3::3].tolist() == [k * S for k in range(1, 100_001)]


def test_a_rate_is_the_decimal_that_was_written() -> None:
    assert Constant(0.1).offsets_ns(seed=1, count=4).tolist() == [0, 10 * S, 20 * S, 30 * S]


def test_a_linear_ramp_has_sent_the_integral_of_its_rate() -> None:
    offsets = Ramp(0, 10, over_s=10).offsets_ns(seed=1, duration_ns=12 * S)
    assert len(offsets) == 50 + 20
    assert offsets[:3].tolist() == [0, math.isqrt(2 * S * S) + 1, 2 * S]
    assert offsets[50:53].tolist() == [10 * S, 10 * S + S // 10, 10 * S + S // 5]


def test_a_falling_ramp_mirrors_a_rising_one() -> None:
    up = Ramp(0.001, 10, over_s=10).offsets_ns(seed=1, duration_ns=10 * S)
    down = Ramp(10, 0.001, over_s=10).offsets_ns(seed=1, duration_ns=10 * S)
    assert len(up) == len(down) == 51
    assert np.diff(up)[1:].tolist() == sorted(np.diff(up)[1:], reverse=True)
    assert np.diff(down).tolist() == sorted(np.diff(down))


def test_a_stepped_ramp_holds_each_rate_for_its_share_of_the_time() -> None:
    offsets = Ramp(2, 6, over_s=9, steps=3).offsets_ns(seed=1, duration_ns=10 * S)
    per_second, _ = np.histogram(offsets, bins=np.arange(11) * S)
    assert per_second.tolist() == [2, 2, 2, 4, 4, 4, 6, 6, 6, 6]


@settings(max_examples=60, deadline=None)
@given(RATES, RATES, st.integers(1, 10**11))
def test_every_arrival_of_a_ramp_is_the_first_nanosecond_by_which_it_is_due(
    start: float, end: float, over_ns: int
) -> None:
    ramp = Ramp(start, end, over_s=over_ns / S)
    over, first, last = Fraction(round(ramp.over_s * S)), Fraction(repr(start)), Fraction(repr(end))

    def due(t: int) -> Fraction:
        inside = min(Fraction(t), over)
        return (first * inside + (last - first) * inside**2 / (2 * over) + last * (t - inside)) / S

    for k, t in enumerate(ramp.offsets_ns(seed=0, count=40).tolist()):
        assert due(t) >= k
        assert t == 0 or due(t - 1) < k


# Random schedules


def test_poisson_gaps_have_the_mean_and_deviation_of_their_rate() -> None:
    gaps = np.diff(Poisson(20).offsets_ns(seed=7, count=100_001))
    assert gaps.mean() == pytest.approx(S / 20, rel=0.02)
    assert gaps.std() == pytest.approx(S / 20, rel=0.02)
    assert (gaps > 3 * S / 20).mean() == pytest.approx(math.exp(-3), rel=0.05)


@pytest.mark.parametrize("burstiness", [0.2, 1.0, 3.0])
def test_gamma_gaps_vary_more_the_smaller_their_burstiness(burstiness: float) -> None:
    gaps = np.diff(Gamma(20, burstiness).offsets_ns(seed=7, count=200_001))
    assert gaps.mean() == pytest.approx(S / 20, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(burstiness**-0.5, rel=0.03)


def test_another_seed_is_another_schedule_and_the_same_seed_the_same() -> None:
    first, again, other = (Poisson(5).offsets_ns(seed, duration_ns=60 * S) for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()


# All schedules


@settings(max_examples=60, deadline=None)
@given(OPEN, st.integers(0, 2**63 - 1), st.integers(0, 6000))
def test_a_longer_schedule_begins_with_the_shorter_one(
    load: Constant | Poisson | Gamma | Ramp, seed: int, count: int
) -> None:
    longer = load.offsets_ns(seed, count=9000)
    assert longer.dtype == np.int64
    assert len(longer) == 9000
    assert longer[0] >= 0
    assert (np.diff(longer) >= 0).all()
    assert load.offsets_ns(seed, count=count).tolist() == longer[:count].tolist()
    end = int(longer[count])
    assert load.offsets_ns(seed, duration_ns=end).tolist() == longer[longer < end].tolist()
    assert len(load.offsets_ns(seed, duration_ns=end, count=5)) == min(5, (longer < end).sum())


@given(st.integers(0, 200), st.integers(1, 50))
def test_stripes_recombine_to_the_very_schedule(count: int, actors: int) -> None:
    whole = Poisson(10).offsets_ns(seed=3, count=count)
    again = np.full_like(whole, -1)
    for actor in range(actors):
        again[actor::actors] = stripe(whole, actor, actors)
    assert again.tolist() == whole.tolist()


@given(st.integers(0, 1000), st.integers(1, 60))
def test_shares_of_slots_sum_to_all_of_them_and_differ_by_one_at_most(total: int, actors: int) -> None:
    shares = [share(total, actor, actors) for actor in range(actors)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


def test_an_endless_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="endless"):
        Constant(1).offsets_ns(seed=1)


# Labels and bounds


def test_a_label_says_what_the_load_is() -> None:
    assert [
        load.label
        for load in (
            Closed(8),
            Closed(8, think_time_s=2),
            Poisson(2),
            Constant(0.5, max_in_flight=3),
            Gamma(2, 1.5),
            Ramp(1, 9, over_s=60, steps=3),
            Replay(Path("a/azure llm.csv"), speed=2, slice_s=(60, 120)),
        )
    ] == [
        "closed-8",
        "closed-8-think-2.0",
        "poisson-2.0",
        "constant-0.5-max-3",
        "gamma-2.0-burstiness-1.5",
        "ramp-1.0-9.0-over-60.0-steps-3",
        "replay-azure_llm-x2.0-from-60.0-to-120.0",
    ]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Closed(0), "concurrency is 0; 1 to"),
        (lambda: Closed(1, think_time_s=-1), "think_time_s is -1"),
        (lambda: Constant(0), "rate is 0; 1e-05 to"),
        (lambda: Poisson(math.nan), "rate is nan"),
        (lambda: Poisson(math.inf), "rate is inf"),
        (lambda: Gamma(1, 0), "burstiness is 0"),
        (lambda: Ramp(1, 0, over_s=1), "end_rate is 0"),
        (lambda: Ramp(1, 2, over_s=0), "over_s is 0"),
        (lambda: Ramp(1, 2, over_s=1, steps=1), "steps is 1"),
        (lambda: Replay(Path("t"), speed=0), "speed is 0"),
        (lambda: Replay(Path("t"), slice_s=(2, 1)), r"slice_s is \[2, 1\]"),
        (lambda: Constant(1, max_in_flight=0), "max_in_flight is 0"),
    ],
)
def test_a_load_that_cannot_be_played_is_refused(make: type, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


# Traces

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 23:59:59.9799600,4808,10\r\n"
    "2023-11-17 00:00:00.0319601,3180,8\r\n"
    "2023-11-17 00:00:02.0000000,110,27"
)
MOONCAKE = (
    '{"timestamp": 500, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}\n'
    '{"timestamp": 500, "input_length": 7322, "output_length": 490, "hash_ids": []}\n'
    '{"timestamp": 3500, "input_length": 12, "output_length": 1, "hash_ids": []}\n'
)


def written(folder: Path, text: str) -> Path:
    path = folder / "trace"
    path.write_bytes(text.encode())
    return path


def test_azure_instants_keep_all_their_digits_past_midnight(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, AZURE))
    assert trace.offsets_ns.tolist() == [0, 52_000_100, 2_020_040_000]
    assert trace.input_tokens.tolist() == [4808, 3180, 110]
    assert trace.output_tokens.tolist() == [10, 8, 27]


def test_mooncake_instants_are_milliseconds_and_the_first_arrival_is_t0(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, MOONCAKE))
    assert trace.offsets_ns.tolist() == [0, 0, 3 * S]
    assert trace.input_tokens.tolist() == [6758, 7322, 12]
    assert trace.output_tokens.tolist() == [500, 490, 1]


def test_a_trace_out_of_order_is_put_in_order_with_its_tokens(tmp_path: Path) -> None:
    lines = MOONCAKE.splitlines()
    trace = read_trace(written(tmp_path, "\n".join([lines[2], *lines[:2]])))
    assert trace.offsets_ns.tolist() == [0, 0, 3 * S]
    assert trace.input_tokens.tolist() == [6758, 7322, 12]


def test_a_replay_is_sliced_in_the_traces_time_and_then_sped_up(tmp_path: Path) -> None:
    replay = Replay(written(tmp_path, MOONCAKE), speed=1.5, slice_s=(1, 4))
    assert replay.offsets_ns(seed=1).tolist() == [1_333_333_333]
    assert replay.requests().input_tokens.tolist() == [12]
    assert replay.offsets_ns(seed=1, duration_ns=S).tolist() == []


def test_a_replay_at_speed_one_has_the_traces_own_gaps(tmp_path: Path) -> None:
    path = written(tmp_path, AZURE)
    assert Replay(path).offsets_ns(seed=1).tolist() == read_trace(path).offsets_ns.tolist()
    assert Replay(path).offsets_ns(seed=1, count=2).tolist() == [0, 52_000_100]


def test_a_slice_with_no_arrival_is_an_input_error(tmp_path: Path) -> None:
    replay = Replay(written(tmp_path, MOONCAKE), slice_s=(1, 2))
    with pytest.raises(InputError, match=r"trace: no arrival from 1.0 s to 2.0 s; .*3.0 s"):
        replay.requests()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (AZURE.replace("3180", "x"), r"trace:3: .* is not an arrival"),
        (AZURE.replace("2023-11-17", "2023-02-30"), r"trace:3: .* is not an arrival"),
        (AZURE + "\n\n1,2,3", r"trace:6: '1,2,3' is not an arrival"),
        (MOONCAKE.replace("7322", "-1"), r"trace:2: .* is not an arrival"),
        (MOONCAKE.replace("7322", "1.5"), r"trace:2: .* is not an arrival"),
        (MOONCAKE.replace('"input_length": 12, ', ""), r"trace:3: .* is not an arrival"),
        (MOONCAKE + "{", r"trace:4: .* is not an arrival"),
        (MOONCAKE + "[]", r"trace:4: .* is not an arrival"),
        ("a,b,c\n", r"trace:1: not a trace that we know; the header TIMESTAMP"),
        ("", r"trace: the trace is empty"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", r"trace: the trace is empty"),
    ],
)
def test_a_bad_line_of_a_trace_is_named_by_file_and_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_trace(written(tmp_path, text))


def test_a_missing_trace_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_trace(tmp_path / "none")
    with pytest.raises(InputError, match="directory"):
        read_trace(tmp_path)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.sampled_from([b"", b"{", AZURE[:41].encode()]))
def test_any_bytes_are_a_trace_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, head: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(head + data)
    with suppress(InputError):
        assert len(read_trace(path)) > 0


@needs_traces
def test_the_azure_traces_are_read_whole() -> None:
    code, conversation = (read_trace(TRACES / f"azure-llm-2023-{name}.csv") for name in ("code", "conv"))
    assert (len(code), len(conversation)) == (8819, 19366)
    assert code.offsets_ns[:3].tolist() == [0, 52_000_000, 98_189_000]
    assert code.offsets_ns[-1] == (57 * 60 + 15) * S + 948_056_000
    assert (code.input_tokens[-1], code.output_tokens[-1]) == (549, 173)


@needs_traces
def test_the_mooncake_trace_is_read_whole() -> None:
    trace = read_trace(TRACES / "mooncake-conversation.jsonl")
    assert len(trace) == 12031
    assert trace.offsets_ns[-1] == 3_536_999_000_000
    assert (trace.input_tokens[-1], trace.output_tokens[-1]) == (20774, 508)
