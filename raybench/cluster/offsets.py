"""How far the wall clocks of load actors are from ours: what T0 is agreed on by."""

import time
from collections.abc import Mapping
from concurrent.futures import Future, wait
from typing import Any

ROUNDS = 3


def offsets(actors: Mapping[int, Any], within_s: float) -> dict[int, tuple[int, int]]:
    """By place, the shortest of some round trips, whose half bounds the error, and what it shows: their clock - ours.

    All actors are asked at once; whoever does not answer in time is left out.
    """
    best = dict.fromkeys(actors, (2**63, 0))
    for _ in range(ROUNDS):
        asked = {place: _asked(actors[place]) for place in best}
        heard = wait(asked.values(), within_s).done
        best = {
            place: min(best[place], answer.result())
            for place, answer in asked.items()
            if answer in heard and not answer.exception()
        }
    return best


def _asked(actor: Any) -> Future[tuple[int, int]]:
    """A round trip and the offset it shows; it is stamped as the answer comes, not as somebody takes it."""
    shown = Future[tuple[int, int]]()
    before_ns, start_ns = time.time_ns(), time.monotonic_ns()

    def came(theirs: Future[int]) -> None:
        rtt_ns = time.monotonic_ns() - start_ns
        if error := theirs.exception():
            shown.set_exception(error)
        else:
            shown.set_result((rtt_ns, theirs.result() - before_ns - rtt_ns // 2))

    actor.wall_ns.remote().future().add_done_callback(came)
    return shown
