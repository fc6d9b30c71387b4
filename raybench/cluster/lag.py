"""How late an event loop is: its stamps cannot be better."""

import asyncio

from raybench.clock import NS_PER_S, Clock

LAG_PROBE_S = 0.02
STEP_NS = round(LAG_PROBE_S * NS_PER_S)


async def probe_lag(lag_ns: list[int], clock: Clock) -> None:
    """Notes, for every 20 ms, how much later than asked the loop wakes a sleeper: what a stamp could be late by.

    A loop that stands still wakes nobody, so a late waking also stands for those that it kept from being, each 20 ms
    less late than the one before (HdrHistogram's correction for coordinated omission).
    """
    while True:
        due_ns = clock() + STEP_NS
        await asyncio.sleep(LAG_PROBE_S)
        late_ns = clock() - due_ns
        lag_ns.extend(range(late_ns, 0, -STEP_NS) if late_ns > 0 else (0,))
