"""Faults come at their rates, from their seed, and records are cut without losing a byte."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raybench.errors import InputError
from raybench.simulator.call import Splitter
from raybench.simulator.faults import Fate, Fault, Faults


def drawn(faults: Faults, n: int, seed: int = 7) -> list[Fault | None]:
    fate = Fate(faults, seed)
    return [fate.draw()[0] for _ in range(n)]


def test_each_fault_comes_at_its_rate() -> None:
    count = Counter(drawn(Faults(throttle=0.1, cut=0.05, hang=0.02), 20_000))
    assert count[Fault.THROTTLE] / 20_000 == pytest.approx(0.1, abs=0.01)
    assert count[Fault.CUT] / 20_000 == pytest.approx(0.05, abs=0.01)
    assert count[Fault.HANG] / 20_000 == pytest.approx(0.02, abs=0.005)
    assert set(count) == {None, Fault.THROTTLE, Fault.CUT, Fault.HANG}


def test_the_same_seed_fails_the_same_requests() -> None:
    faults = Faults(throttle=0.3, truncate=0.3)
    assert drawn(faults, 200, seed=1) == drawn(faults, 200, seed=1)
    assert drawn(faults, 200, seed=1) != drawn(faults, 200, seed=2)


def test_without_rates_nothing_fails_and_with_certainty_everything_does() -> None:
    assert set(drawn(Faults(), 1000)) == {None}
    assert set(drawn(Faults(model_error=1.0), 1000)) == {Fault.MODEL_ERROR}


def test_a_script_names_the_faults_of_the_first_requests() -> None:
    faults = Faults(script=("throttle", None, "cut"), unavailable=1.0)
    assert drawn(faults, 5) == [Fault.THROTTLE, None, Fault.CUT, Fault.UNAVAILABLE, Fault.UNAVAILABLE]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"throtle": 0.1}, r"faults\.throtle: unknown fault; .*throttle"),
        ({"throttle": 1.5}, "rates must lie"),
        ({"throttle": 0.6, "cut": 0.6}, "at most 1"),
        ({"split": -0.1}, "rates must lie"),
        ({"script": ["boom"]}, "no such fault: boom"),
    ],
)
def test_wrong_faults_are_input_errors(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Faults.of(values)


@given(st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=4), min_size=1, max_size=20), st.randoms())
def test_split_records_lose_neither_a_byte_nor_a_token(chunks: list[list[bytes]], random: Random) -> None:
    splitter = Splitter(0.7, random)
    parts = [part for i, records in enumerate(chunks) for part in splitter.parts(records, last=i == len(chunks) - 1)]
    assert b"".join(data for data, _ in parts) == b"".join(record for records in chunks for record in records)
    assert sum(tokens for _, tokens in parts) == sum(map(len, chunks))


def test_a_token_counts_in_the_part_that_completes_its_record() -> None:
    splitter = Splitter(1.0, Random(5))
    seen, whole = b"", 0
    for i in range(50):
        for data, tokens in splitter.parts([b"0123456789\n"], last=i == 49):
            seen += data
            whole += tokens
            assert whole == seen.count(b"\n")
