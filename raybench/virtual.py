"""Virtual time, which never waits, and a network in it: both ends of a protocol run in one process, in memory.

Code that opens connections through its loop needs no change: `create_server` binds a name in this loop and
`create_connection` finds it there. Bytes arrive in the order they were written, one latency later; a write is one
arrival, never joined with another and never cut. Both ends see the same clock.
"""

import asyncio
import errno
import os
import selectors
from collections import deque
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, TypeVar

from raybench.clock import NS_PER_S, Clock

T = TypeVar("T")

Protocols = Callable[[], asyncio.BaseProtocol]

FIRST_PORT = 49152


class VirtualSelector(selectors.SelectSelector):
    """A selector that advances its own clock by the time it was asked to wait, instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise RuntimeError("virtual time stands still: nothing is scheduled and nothing is running")
        self.now_ns += max(0, round(timeout * NS_PER_S))
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop in virtual time: sleeps cost nothing, and the same program gives the same instants."""

    def __init__(self) -> None:
        self.selector = VirtualSelector()
        super().__init__(self.selector)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self.selector.now_ns / NS_PER_S

    def now_ns(self) -> int:
        """The virtual instant, as a `Clock`."""
        return self.selector.now_ns

    def block(self, seconds: float) -> None:
        """Lets time pass while nothing else runs, as a callback that computes or blocks does."""
        self.selector.now_ns += round(seconds * NS_PER_S)


def run_virtually(main: Callable[[Clock], Coroutine[Any, Any, T]], loop: VirtualLoop | None = None) -> T:
    """Runs `main(clock)` to its end in virtual time, on `loop` or a new one, and returns what it returns."""
    loop = loop or VirtualLoop()
    try:
        return loop.run_until_complete(main(loop.now_ns))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


class VirtualNetwork(VirtualLoop):
    """A virtual loop that is a network of its own: what listens on it can only be reached from it.

    A latency is `latency_s` and, drawn by `seed`, an exponential part of mean `jitter_s`. Without the latter things
    that begin together stay together for ever, as they do in no real network.
    """

    def __init__(self, latency_s: float = 0.0, jitter_s: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        self._latency_s, self._jitter_s = latency_s, jitter_s
        self._random = Random(seed)
        self.accepted = 0
        self._listening: dict[tuple[str, int], Protocols] = {}

    async def create_server(  # type: ignore[override]
        self, protocol_factory: Protocols, host: str, port: int = 0, **options: Any
    ) -> "Listener":
        """Listens; port 0 is the next free one. No option of a real server means anything here."""
        while not port or (host, port) in self._listening:
            if port:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            port = next(p for p in range(FIRST_PORT, 65536) if (host, p) not in self._listening)
        self._listening[host, port] = protocol_factory
        return Listener(self, host, port)

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Protocols, host: str, port: int, **options: Any
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Connects after one latency there and one back; ConnectionRefusedError where nobody listens."""
        if options.get("ssl"):
            raise ValueError("no TLS in virtual time")
        await asyncio.sleep(self.latency_s() + self.latency_s())
        if (host, port) not in self._listening:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        self.accepted += 1
        ours, theirs = Wire(self, protocol_factory()), Wire(self, self._listening[host, port]())
        ours.peer, theirs.peer = theirs, ours
        theirs.protocol.connection_made(theirs)
        ours.protocol.connection_made(ours)
        return ours, ours.protocol

    def latency_s(self) -> float:
        """Draws the next latency."""
        return self._latency_s + (self._random.expovariate(1 / self._jitter_s) if self._jitter_s else 0.0)

    def forget(self, host: str, port: int) -> None:
        """Nobody listens there any more."""
        self._listening.pop((host, port), None)


class Listener:
    """What `create_server` gives: as much of an `asyncio.Server` as has a meaning here."""

    def __init__(self, network: VirtualNetwork, host: str, port: int) -> None:
        self._network, self._name = network, (host, port)
        self.sockets = (self,)

    def getsockname(self) -> tuple[str, int]:
        """The host and port."""
        return self._name

    def close(self) -> None:
        """Accepts no more connections; those that are open stay."""
        self._network.forget(*self._name)


class Wire(asyncio.Transport):
    """One end of a connection: what is written here arrives at the peer."""

    peer: "Wire"

    def __init__(self, network: VirtualNetwork, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self._network = network
        self.protocol: Any = protocol
        self._coming: deque[bytes | None] = deque()
        self._closing = self._lost = False

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        """Sends; what is written to a closing end is dropped, as a socket would."""
        if not self._closing and data:
            self._send(bytes(data))

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """Ends both directions; what was written still arrives, and then the end."""
        if not self._closing:
            self._closing = True
            self._send(None)
            self._network.call_soon(self._end)

    def abort(self) -> None:
        """As `close`: nothing is ever unsent here."""
        self.close()

    def _send(self, data: bytes | None) -> None:
        self.peer._coming.append(data)
        if latency_s := self._network.latency_s():
            self._network.call_later(latency_s, self.peer._arrive)
        else:
            self._network.call_soon(self.peer._arrive)

    def _arrive(self) -> None:
        """Takes whatever is next: the order is that of sending, whichever timer rings first."""
        data = self._coming.popleft()
        if self._lost:
            return
        if data is not None:
            self.protocol.data_received(data)
        else:
            self.protocol.eof_received()
            self._closing = True
            self._end()

    def _end(self) -> None:
        if not self._lost:
            self._lost = True
            self.protocol.connection_lost(None)
