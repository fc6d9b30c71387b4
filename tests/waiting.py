"""Waiting in tests: for what must come, never for a while."""

import time
from collections.abc import Callable


def until(
    so: Callable[[], object], why: Callable[[], object] = str, within_s: float = 120.0, every_s: float = 0.02
) -> None:
    """Returns once it is so; fails, and says `why`, if it has not come by then: far later than it ever takes.

    It looks every `every_s`: less often where a look is work.
    """
    over_s = time.monotonic() + within_s
    while not so():
        assert time.monotonic() < over_s, why()
        time.sleep(every_s)
