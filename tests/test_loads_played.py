"""Loads played whole, in virtual time: the schedule to the nanosecond, and a row for every planned request."""

from collections import Counter
from pathlib import Path

import numpy as np
import orjson
import pytest
from world import S, World

from raybench.client.bodies import request
from raybench.client.target import Target
from raybench.counting import MAX_TOKENS
from raybench.load.arrivals import Closed, Constant, Gamma, Poisson, Ramp, Replay
from raybench.payloads.pool import Payload, load_pool
from raybench.payloads.synthetic import Recorded
from raybench.payloads.tokens import counter
from raybench.rows import Prompt

TRACES = Path(__file__).parents[2] / "shared" / "data" / "traces"
OURS = Path(__file__).parents[1] / "configs" / "replay.jsonl"
QUICK = {"ttft_s": 0.01, "tokens": 1}

Drawn = Constant | Poisson | Gamma | Ramp

RAMPS = (Ramp(10.0, 50.0, 30.0), Ramp(10.0, 50.0, 30.0, steps=5))
LOADS: tuple[Drawn, ...] = (Constant(40.0), Poisson(40.0), Gamma(40.0, 0.3), *RAMPS)


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.kind)
@pytest.mark.parametrize("actors", [1, 3])
def test_every_request_leaves_at_its_planned_nanosecond_however_many_send(load: Drawn, actors: int) -> None:
    played = World(load, duration_s=30, route="invoke", overrides=QUICK, actors=actors).play()
    schedule = load.offsets_ns(7, duration_ns=30 * S)
    measured = [row for row in played.table.to_pylist() if row["phase"] == "measure"]
    assert sorted(row["planned_ns"] for row in measured) == schedule.tolist()
    assert all(row["sent_ns"] == row["planned_ns"] for row in measured)
    assert played.summary()["valid"] == "VALID"


def test_a_planned_request_without_a_place_is_a_row_and_makes_the_trial_invalid() -> None:
    slow = {"ttft_s": 1.0, "tokens": 1}
    played = World(Constant(100.0, max_in_flight=2), duration_s=20, route="invoke", overrides=slow).play()
    told = played.summary()
    assert (told["requests"], told["ok"], told["not_sent"]) == (2000, 40, 1960)
    assert sorted(played.column("seq"))[:2000] == list(range(2000))
    assert told["reasons"] == ["not_sent"]
    rates = "1,960 of 2,000 requests were planned but never sent: 2.0/s sent of 100.0/s planned; "
    assert told["reason_texts"] == [f"{rates}raise max_in_flight, or lower the rate"]
    assert told["valid"] == "INVALID"
    assert told["requests_per_s"] == pytest.approx(2.0, rel=0.06)


@pytest.mark.parametrize("pattern", ["*.csv", "*.jsonl"])
def test_a_trace_replays_with_its_own_inter_arrival_times(pattern: str) -> None:
    found = sorted(TRACES.rglob(pattern))
    if not found:
        pytest.skip(f"no trace {pattern} in {TRACES}")
    load = Replay(found[0], speed=10.0)
    offsets = load.offsets_ns(0, count=500)
    played = World(load, requests=500, route="invoke", overrides=QUICK).play()
    sent_ns = np.sort(np.array(played.column("sent_ns")))[:500]
    assert np.array_equal(sent_ns, offsets)
    assert played.summary()["lateness_max"] == 0


def recorded(load: Replay) -> tuple[list[tuple[int, int]], list[Prompt]]:
    """What a trace asks for, tokens in and out, and a prompt for each of its requests."""
    asked = load.requests()
    lengths = list(zip(asked.input_tokens.tolist(), asked.output_tokens.tolist(), strict=True))
    pool = load_pool(Payload("p", Recorded("trace", tuple(lengths))), counter(None), 7, Path())
    return lengths, list(pool.prompts)


@pytest.mark.parametrize("actors", [1, 3])
def test_a_replay_sends_the_traces_own_lengths_each_at_its_own_instant(actors: int) -> None:
    load = Replay(OURS, speed=2.0, slice_s=(10.0, 40.0))
    lengths, prompts = recorded(load)
    many = {"ttft_s": 0.01, "itl_s": 0.001, "tokens": 100}
    play = World(load, duration_s=15, overrides=many, prompts=prompts, actors=actors, in_order=True).play()
    rows = sorted(play.table.to_pylist(), key=lambda row: row["seq"])
    assert [row["planned_ns"] for row in rows] == load.offsets_ns(0).tolist()
    assert [row["max_tokens"] for row in rows] == [tokens_out for _, tokens_out in lengths]
    assert [row["completion_tokens"] for row in rows] == [row["max_tokens"] for row in rows]
    assert all(abs(row["prompt_tokens"] - asked) <= 1 for row, (asked, _) in zip(rows, lengths, strict=True))


def test_max_in_flight_holds_where_arrivals_share_an_instant(tmp_path: Path) -> None:
    trace = tmp_path / "burst.jsonl"
    trace.write_text('{"timestamp": 0, "input_length": 5, "output_length": 3}\n' * 10)
    play = World(Replay(trace, max_in_flight=2), requests=10, route="invoke", overrides=QUICK).play()
    assert sorted(play.column("outcome")) == ["not_sent"] * 8 + ["ok"] * 2


def test_requests_that_are_not_sent_take_their_prompts_with_them() -> None:
    load = Replay(OURS, speed=50.0, max_in_flight=1)
    lengths, prompts = recorded(load)
    slow = {"ttft_s": 0.5, "tokens": 1}
    play = World(load, duration_s=1, overrides=slow, route="invoke", prompts=prompts, in_order=True).play()
    rows = sorted(play.table.to_pylist(), key=lambda row: row["seq"])
    assert {row["outcome"] for row in rows} == {"ok", "not_sent"}
    assert [row["max_tokens"] for row in rows] == [tokens_out for _, tokens_out in lengths[: len(rows)]]


@pytest.mark.parametrize(("concurrency", "actors", "dealt"), [(1, 2, [100]), (3, 2, [67, 33]), (2, 3, [50, 50])])
def test_a_closed_load_measures_as_many_requests_as_it_plans_however_many_actors_play(
    concurrency: int, actors: int, dealt: list[int]
) -> None:
    play = World(Closed(concurrency), requests=100, duration_s=None, actors=actors).play()
    told = play.summary()
    measured = [row for row in play.table.to_pylist() if row["phase"] == "measure"]
    counts = Counter(row["actor"] for row in measured)
    assert sorted(counts.values(), reverse=True) == dealt
    assert told["requests"] == 100
    assert told["little_ratio"] == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_prompts_own_limit_goes_by_the_name_that_the_config_gives_it(name: str) -> None:
    target = Target("http://127.0.0.1:9", "e", "us-west-2", route="openai", dialect="openai")
    sent = request(target, {name: 9, "top_p": 1}, Prompt("Hello", 1, "estimate", max_tokens=5))
    document = orjson.loads(sent.body)
    assert document[name] == 5
    assert sum(key in document for key in MAX_TOKENS) == 1
    assert sent.max_tokens == 5


def test_an_actor_without_a_place_in_flight_takes_no_arrivals() -> None:
    quick = {"ttft_s": 0.01, "itl_s": 0.001, "tokens": 2}
    play = World(Constant(20.0, max_in_flight=2), duration_s=5.0, actors=4, overrides=quick).play()
    rows = [row for row in play.table.to_pylist() if row["phase"] == "measure"]
    assert len(rows) == 100
    assert {row["outcome"] for row in rows} == {"ok"}
    assert {row["actor"] for row in rows} == {"e-0", "e-1"}
    assert play.summary()["valid"] == "VALID"
