"""Time as integer nanoseconds: the machine's monotonic clock, and a virtual one that never sleeps."""

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

Clock = Callable[[], int]
"""Returns now in integer nanoseconds; only differences mean anything."""

monotonic_ns: Clock = time.monotonic_ns
"""The machine's clock; processes on one Linux host share it, hosts do not."""

NS_PER_S = 1_000_000_000


async def sleep_until(instant_ns: int, clock: Clock) -> None:
    """Returns at `instant_ns` or as soon after as the loop can: never early, whatever the timer's grain."""
    while (left_ns := instant_ns - clock()) > 0:
        await asyncio.sleep(left_ns / NS_PER_S)


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
