"""Time as integer nanoseconds, as the machine's monotonic clock tells it."""

import asyncio
import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Returns now in integer nanoseconds; only differences mean anything."""

monotonic_ns: Clock = time.monotonic_ns
"""The machine's clock; processes on one Linux host share it, hosts do not."""

NS_PER_S = 1_000_000_000


async def sleep_until(instant_ns: int, clock: Clock) -> None:
    """Returns at `instant_ns` or as soon after as the loop can: never early, whatever the timer's grain."""
    while (left_ns := instant_ns - clock()) > 0:
        await asyncio.sleep(left_ns / NS_PER_S)
