"""The load loop in virtual time: every instant below is exact."""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from raybench.clock import NS_PER_S, Clock, sleep_until
from raybench.errors import StorageError
from raybench.load.attack import Attack, Identity, Span
from raybench.rows import Exchange, Outcome, Prompt, Request, Row
from raybench.virtual import run_virtually

MS = 1_000_000
T0 = 5 * NS_PER_S


@dataclass
class Reply:
    sent_ns: int
    end_ns: int


class Endpoint:
    """A client of an imaginary endpoint that answers after `service_ns(n)` and counts what is in flight."""

    def __init__(self, clock: Clock, service_ns: Callable[[int], int]) -> None:
        self.clock, self.service_ns = clock, service_ns
        self.in_flight = self.most_in_flight = self.sent = 0
        self.given_up_ns: list[int] = []

    async def send(self, request: Request) -> Reply:
        n, self.sent = self.sent, self.sent + 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        sent_ns = self.clock()
        await sleep_until(sent_ns + self.service_ns(n), self.clock)
        self.in_flight -= 1
        return Reply(sent_ns, self.clock())

    def give_up(self) -> None:
        self.given_up_ns.append(self.clock())

    async def read(self, request: Request, reply: Reply) -> Exchange:
        await asyncio.sleep(0)
        return Exchange(Outcome.OK, sent_ns=reply.sent_ns, end_ns=reply.end_ns)


def bodies() -> Iterator[Request]:
    for n in itertools.count():
        yield Request(b"{}", f"p{n}", Prompt("a b c", 4, "estimate"))


def identity(index: int = 0, actors: int = 1) -> Identity:
    return Identity("t", 0, "e", "p", "closed-4", f"actor-{index}", "host", index, actors)


def play(
    span: Span,
    *,
    slots: int = 0,
    offsets_ns: list[int] | None = None,
    service_ns: Callable[[int], int] = lambda n: 100 * MS,
    max_in_flight: int | None = None,
    stop_at_ns: int | None = None,
    think_time_ns: int = 0,
    who: Identity | None = None,
) -> tuple[list[Row], Endpoint]:
    rows: list[Row] = []

    async def main(clock: Clock) -> Endpoint:
        endpoint = Endpoint(clock, service_ns)
        attack = Attack(endpoint, bodies(), span, who or identity(), t0_ns=T0, clock=clock, write=rows.append)
        if stop_at_ns is not None:
            asyncio.get_running_loop().call_later((T0 + stop_at_ns) / NS_PER_S, attack.stop)
        if offsets_ns is None:
            await attack.closed(slots, think_time_ns)
        else:
            await attack.open(np.array(offsets_ns, dtype=np.int64), max_in_flight)
        return endpoint

    return rows, run_virtually(main)


def test_a_closed_load_refills_each_slot_the_instant_it_is_free() -> None:
    rows, endpoint = play(Span(0, duration_ns=NS_PER_S), slots=4, service_ns=lambda n: (50 + 30 * (n % 3)) * MS)
    assert endpoint.most_in_flight == 4
    ends = sorted(row.end_ns for row in rows if row.end_ns is not None)
    for row in rows:
        assert row.sent_ns == row.planned_ns
        assert row.planned_ns == 0 or row.planned_ns in ends


def test_slots_do_not_wait_for_the_slowest_as_waves_do() -> None:
    rows, _ = play(Span(0, duration_ns=10 * NS_PER_S), slots=2, service_ns=lambda n: (10 if n % 2 else 1000) * MS)
    busy_ns = sum(
        min(r.end_ns or 0, 10 * NS_PER_S) - (r.sent_ns or 0) for r in rows if (r.sent_ns or 0) < 10 * NS_PER_S
    )
    assert busy_ns == 2 * 10 * NS_PER_S


def test_the_phases_follow_the_planned_instant_and_load_is_held_until_the_last_measured_ends() -> None:
    rows, endpoint = play(Span(500 * MS, duration_ns=NS_PER_S), slots=2, service_ns=lambda n: 300 * MS)
    assert [r.planned_ns // MS for r in rows if r.phase == "warmup"] == [0, 0, 300, 300]
    assert [r.planned_ns // MS for r in rows if r.phase == "measure"] == [600, 600, 900, 900, 1200, 1200]
    last_measured = max(r.end_ns or 0 for r in rows if r.phase == "measure")
    assert all((r.end_ns or 0) >= last_measured for r in rows if r.phase == "drain")
    assert endpoint.in_flight == 0


def test_one_slow_measured_request_keeps_the_other_slots_loaded() -> None:
    rows, _ = play(Span(0, duration_ns=NS_PER_S), slots=2, service_ns=lambda n: 3 * NS_PER_S if n == 0 else 100 * MS)
    drain = [r for r in rows if r.phase == "drain"]
    assert len(drain) == 20, "the second slot goes on from 1.0 s to 3.0 s while the slow request is in flight"


def test_a_count_measures_exactly_that_many_requests() -> None:
    rows, _ = play(Span(200 * MS, requests=7), slots=3)
    assert sum(r.phase == "measure" for r in rows) == 7


def test_every_planned_request_has_one_row_and_actors_number_theirs_in_stripes() -> None:
    rows, endpoint = play(Span(0, duration_ns=NS_PER_S), slots=3, who=identity(index=1, actors=4))
    assert sorted(r.seq for r in rows) == [1 + 4 * k for k in range(endpoint.sent)]


def test_stop_plans_nothing_more_and_waits_for_what_is_in_flight() -> None:
    rows, endpoint = play(Span(0, duration_ns=60 * NS_PER_S), slots=4, stop_at_ns=250 * MS)
    assert len(rows) == endpoint.sent == 12
    assert all(r.outcome == "ok" for r in rows)


def test_think_time_separates_an_end_from_the_next_plan() -> None:
    rows, _ = play(Span(0, requests=3), slots=1, think_time_ns=40 * MS)
    assert [r.planned_ns // MS for r in rows[:3]] == [40, 180, 320]


def test_who_thinks_stops_thinking_when_the_load_is_over() -> None:
    hour_ns = 3600 * NS_PER_S
    rows, endpoint = play(Span(0, duration_ns=9 * NS_PER_S), slots=2, stop_at_ns=2 * NS_PER_S, think_time_ns=hour_ns)
    assert (rows, endpoint.clock()) == ([], T0 + 2 * NS_PER_S)
    rows, endpoint = play(Span(0, duration_ns=9 * NS_PER_S), slots=2, think_time_ns=hour_ns)
    assert (rows, endpoint.clock()) == ([], T0 + 9 * NS_PER_S)


def test_an_open_load_does_not_wait_for_an_arrival_that_nobody_needs() -> None:
    offsets_ns = [0, 900 * NS_PER_S]
    rows, endpoint = play(Span(0, duration_ns=9 * NS_PER_S), offsets_ns=offsets_ns, stop_at_ns=2 * NS_PER_S)
    assert (len(rows), endpoint.clock()) == (1, T0 + 2 * NS_PER_S)
    rows, endpoint = play(Span(0, duration_ns=9 * NS_PER_S), offsets_ns=offsets_ns)
    assert (len(rows), endpoint.clock()) == (1, T0 + 9 * NS_PER_S)
    rows, endpoint = play(Span(0, requests=1), offsets_ns=offsets_ns)
    assert (len(rows), endpoint.clock()) == (1, T0 + NS_PER_S)


def test_an_open_load_sends_at_its_instants_whatever_the_endpoint_does() -> None:
    offsets = [7 * MS * n for n in range(100)]
    rows, _ = play(Span(0, duration_ns=350 * MS), offsets_ns=offsets, service_ns=lambda n: 2 * NS_PER_S)
    measured = [r for r in rows if r.phase == "measure"]
    assert [r.planned_ns for r in measured] == [o for o in offsets if o < 350 * MS]
    assert all(r.sent_ns == r.planned_ns for r in measured)


def test_an_arrival_without_a_place_is_a_row_not_sent() -> None:
    offsets = [10 * MS * n for n in range(100)]
    rows, endpoint = play(Span(0, requests=100), offsets_ns=offsets, service_ns=lambda n: NS_PER_S, max_in_flight=2)
    assert len(rows) == 100
    assert sum(r.outcome == "ok" for r in rows) == endpoint.sent == 2
    assert all(r.sent_ns is None and r.end_ns is None for r in rows if r.outcome == "not_sent")


def test_a_row_that_cannot_be_written_ends_the_attack_with_that_error() -> None:
    def full(row: Row) -> None:
        raise StorageError("the disk is full")

    async def main(clock: Clock) -> Endpoint:
        endpoint = Endpoint(clock, lambda n: 100 * MS)
        attack = Attack(endpoint, bodies(), Span(0, requests=50), identity(), t0_ns=T0, clock=clock, write=full)
        try:
            await attack.closed(2)
        finally:
            assert endpoint.sent <= 4
        return endpoint

    with pytest.raises(StorageError, match="the disk is full"):
        run_virtually(main)


def test_the_same_trial_plays_the_same_rows_twice() -> None:
    assert play(Span(0, requests=500), slots=8)[0] == play(Span(0, requests=500), slots=8)[0]
