"""How late an event loop is: its stamps cannot be better."""

import asyncio

from raybench.clock import NS_PER_S, Clock

LAG_PROBE_S = 0.02


async def probe_lag(lag_ns: list[int], clock: Clock) -> None:
    """Notes how much later than asked the loop wakes a sleeper: what a stamp could be late by."""
    while True:
        due_ns = clock() + round(LAG_PROBE_S * NS_PER_S)
        await asyncio.sleep(LAG_PROBE_S)
        lag_ns.append(max(0, clock() - due_ns))
