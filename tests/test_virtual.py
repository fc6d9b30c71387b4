"""The network in virtual time: instants are exact, and order is kept."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import MS, S, World

from raybench.clock import Clock
from raybench.load.arrivals import Closed, Poisson
from raybench.virtual import VirtualNetwork, run_virtually


class Noting(asyncio.Protocol):
    """Notes what happens to it, with the instant."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.events = clock, list[tuple[int, bytes | str]]()
        self.transport = asyncio.Transport()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.events.append((self.clock(), data))

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append((self.clock(), "lost"))


def joined(latency_s: float, act: Callable[[Noting, Noting], Awaitable[None]]) -> tuple[Noting, Noting]:
    """A caller and a server after `act` has had its way with them."""
    network = VirtualNetwork(latency_s)

    async def main(clock: Clock) -> tuple[Noting, Noting]:
        theirs = Noting(clock)
        await network.create_server(lambda: theirs, "there", 80)
        _, ours = await network.create_connection(lambda: Noting(clock), "there", 80)
        assert isinstance(ours, Noting)
        await act(ours, theirs)
        await asyncio.sleep(1)
        return ours, theirs

    return run_virtually(main, network)


def test_bytes_arrive_one_latency_later_in_the_order_written() -> None:
    async def act(ours: Noting, theirs: Noting) -> None:
        for n in range(100):
            ours.transport.write(b"%d" % n)
        theirs.transport.write(b"back")

    ours, theirs = joined(0.005, act)
    assert theirs.events == [(15 * MS, b"%d" % n) for n in range(100)]
    assert ours.events == [(15 * MS, b"back")]


def test_what_was_written_arrives_before_the_end_and_nothing_after_it() -> None:
    async def act(ours: Noting, theirs: Noting) -> None:
        ours.transport.write(b"last")
        ours.transport.close()
        ours.transport.write(b"too late")
        assert ours.transport.is_closing()

    ours, theirs = joined(0.005, act)
    assert theirs.events == [(15 * MS, b"last"), (15 * MS, "lost")]
    assert ours.events == [(10 * MS, "lost")]
    assert theirs.transport.is_closing()


@given(st.integers(0, 1000), st.lists(st.floats(0, 0.01), max_size=50))
def test_however_the_latency_varies_order_is_kept_and_nothing_comes_before_it_was_sent(
    seed: int, pauses_s: list[float]
) -> None:
    network, sent_ns = VirtualNetwork(0.001, 0.005, seed), list[int]()

    async def main(clock: Clock) -> list[tuple[int, bytes | str]]:
        theirs = Noting(clock)
        await network.create_server(lambda: theirs, "there", 80)
        transport, _ = await network.create_connection(lambda: Noting(clock), "there", 80)
        for n, pause_s in enumerate(pauses_s):
            sent_ns.append(clock())
            transport.write(b"%d" % n)
            await asyncio.sleep(pause_s)
        await asyncio.sleep(10)
        return theirs.events

    events = run_virtually(main, network)
    assert [data for _, data in events] == [b"%d" % n for n in range(len(pauses_s))]
    assert all(arrived_ns >= at_ns + MS for (arrived_ns, _), at_ns in zip(events, sent_ns, strict=True))


def test_where_nobody_listens_a_connection_is_refused() -> None:
    network = VirtualNetwork()

    async def main(clock: Clock) -> None:
        listening = await network.create_server(lambda: Noting(clock), "there")
        assert listening.getsockname() == ("there", 49152)
        with pytest.raises(OSError, match="in use"):
            await network.create_server(lambda: Noting(clock), *listening.getsockname())
        listening.close()
        with pytest.raises(ConnectionRefusedError):
            await network.create_connection(lambda: Noting(clock), *listening.getsockname())

    run_virtually(main, network)


def test_a_blocked_loop_wakes_its_sleepers_late() -> None:
    network = VirtualNetwork()

    async def main(clock: Clock) -> int:
        network.call_later(0.5, network.block, 2.0)
        await asyncio.sleep(1)
        return clock()

    assert run_virtually(main, network) == 2.5 * S


@pytest.mark.parametrize("load", [Closed(8), Poisson(1.0)])
def test_the_same_world_plays_the_same_rows_twice(load: Closed | Poisson) -> None:
    world = World(
        load, requests=300, profile="llama2-70b-g5-tgi", faults={"throttle": 0.05, "cut": 0.05, "split": 0.3}
    )
    assert world.play().table.equals(world.play().table)


def test_every_row_agrees_with_the_truth_to_the_nanosecond() -> None:
    played = World(Closed(8), requests=300, profile="llama2-70b-g5-tgi", latency_s=0.001).play()
    truth = {record["request_id"]: record for record in played.truth}
    assert sorted(truth) == sorted(played.column("request_id"))
    connected_ns = 2 * MS
    for row in played.table.to_pylist():
        did = truth[row["request_id"]]
        assert row["sent_ns"] + connected_ns + MS == did["arrived_ns"]
        assert [ns + connected_ns - MS for ns in row["chunk_ns"]] == [ns for ns, _ in did["chunks"]]
        assert row["end_ns"] + connected_ns - MS == did["ended_ns"]
        assert row["completion_tokens"] == did["completion_tokens"]
