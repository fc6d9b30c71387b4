"""Watching over trials while they play: a signal drains them, a failure stops all, the simulator is looked at."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING

from raybench.errors import RaybenchError
from raybench.simulator.process import Simulated

if TYPE_CHECKING:
    from raybench.cluster.fleet import Crew

LOOK_EVERY_S = 1.0
HEALTH_EVERY_S = 5.0


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM is a KeyboardInterrupt here, as SIGINT is: also where Ray, as it starts, makes it a SystemExit."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGTERM, before)


DRAINING = "stopping: waiting for the requests in flight"
REPORTING = "all is measured, making the report"
"""What the first signal is answered with, by what is going on."""


@contextmanager
def interruptible(stopping: threading.Event, say: Callable[[str], None], doing: str = DRAINING) -> Iterator[None]:
    """The first SIGINT or SIGTERM sets `stopping`; the second, of either, is Python's own KeyboardInterrupt."""

    def stop(signum: int, frame: object) -> None:
        for each in before:
            signal.signal(each, signal.default_int_handler)
        # A signal may come amid a print or amid a set(), and neither can be entered twice by one thread.
        threading.Thread(target=heard).start()

    def heard() -> None:
        stopping.set()
        say(f"{doing} (again to stop at once)")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def watch(
    playing: Sequence[Future[None]],
    crews: "Sequence[Crew]",
    stopping: threading.Event,
    simulator: Simulated | None,
    broken: Callable[[], RaybenchError | None],
) -> dict[str, float] | None:
    """Waits for all to end, and drains all once one fails or something is `broken`; the simulator at its busiest.

    A KeyboardInterrupt kills the actors.
    """
    health: list[Mapping[str, float]] = []
    looked_s = -HEALTH_EVERY_S
    try:
        while wait(playing, timeout=LOOK_EVERY_S).not_done:
            if broken() or any(future.done() and future.exception() for future in playing):
                stopping.set()
            if stopping.is_set():
                for crew in crews:  # again and again: a trial may begin just as it is told
                    crew.drain()
            if simulator and time.monotonic() - looked_s > HEALTH_EVERY_S:
                looked_s = time.monotonic()
                health += simulator.looked_at()
    except KeyboardInterrupt:
        stopping.set()
        for crew in crews:
            crew.kill()
        raise
    return _busiest([*health, *(simulator.looked_at() if simulator else ())])


def first_failure(playing: Sequence[Future[None]]) -> RaybenchError | None:
    """What ended the first experiment that did not end well; a bug is raised as it is."""
    for future in playing:
        error = future.exception()
        if isinstance(error, RaybenchError):
            return error
        if error is not None:
            raise error
    return None


def _busiest(health: Sequence[Mapping[str, float]]) -> dict[str, float] | None:
    """The first look covers the simulator's start and is left out."""
    looks = health[1:]
    if not looks:
        return None
    return {
        "cpu_share_max": max(look["cpu_share"] for look in looks),
        "lag_p99_ms": max(look["lag_p99_ms"] for look in looks),
    }
