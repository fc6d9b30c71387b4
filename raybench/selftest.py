"""`raybench selftest`: how wrong this machine's own stamps are, and how many streams a load actor carries.

Every load actor plays a simulator on its own host, all at the same time, a ladder of streams of 50 chunks a second
each. An actor's ceiling is the highest rung on which first tokens and chunks are stamped at most 5 ms late (p99). A
rung that failed while its simulator was short of CPU says nothing about the client. The simulators share the cores
with the actors, so what is found is at worst too strict.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raybench.client.target import Target
from raybench.cluster import environment
from raybench.cluster.calibration import CHUNKS_PER_S, ERROR_MS, NAME, Figures, Rung
from raybench.cluster.monitor import Screen
from raybench.cluster.part import Post
from raybench.plan import Plan

if TYPE_CHECKING:
    from raybench.cluster.fleet import Crew

LADDER = (1, 16, 64, 128, 256)
FULL_S, SHORT_S = 1.25, 0.5
ATTEMPTS = 2
"""How often a rung is tried: what else the machine does can only make a stamp later."""

MOST_STREAMS, UNBOUNDED = 256, 128
"""Before a run: the most streams that are tried, and those that an open load without a bound is taken for."""

STEP_DOWN, STEPS_DOWN = 4, 2
"""Then from the run's own load down, so many times fewer streams, so many times."""


class Limit(StrEnum):
    """What stands above a ceiling: the client's own failure, a simulator too slow to tell, or nothing tried."""

    CLIENT = "client"
    SIMULATOR = "simulator"
    UNTESTED = "untested"


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What an actor carries: `streams` and the chunks a second that they were; `error_ms` is the p99 error of
    its stamps on the lowest rung above that the client failed."""

    streams: int
    chunks_per_s: float
    limit: Limit
    error_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """One actor: where it stands, and the best attempt at every rung it played, fewest streams first."""

    experiment: str
    actor: str
    host: str
    rungs: tuple[Figures, ...]

    @property
    def ceiling(self) -> Ceiling:
        """The highest rung that passed; 0 streams where none did."""
        streams = max((rung.streams for rung in self.rungs if rung.passes), default=0)
        chunks_per_s = streams * CHUNKS_PER_S
        above = [rung for rung in self.rungs if rung.streams > streams]
        for rung in above:
            if rung.simulator_kept_up:
                return Ceiling(streams, chunks_per_s, Limit.CLIENT, rung.late_ms)
        return Ceiling(streams, chunks_per_s, Limit.SIMULATOR if above else Limit.UNTESTED)


@dataclass(frozen=True, slots=True)
class Selftest:
    """What every actor measured of itself."""

    actors: tuple[Measured, ...]

    @property
    def ceiling(self) -> Ceiling:
        """That of the weakest actor; one that the client failed counts before one that a slow simulator hid."""
        limits = tuple(Limit)
        return min(
            (each.ceiling for each in self.actors), key=lambda found: (limits.index(found.limit), found.streams)
        )

    def of(self, experiment: str) -> "Selftest":
        """What the actors of one experiment measured."""
        return Selftest(tuple(measured for measured in self.actors if measured.experiment == experiment))

    def as_dict(self) -> dict[str, Any]:
        """JSON values, for run.json and `--json`."""
        actors = [asdict(measured) | {"ceiling": asdict(measured.ceiling)} for measured in self.actors]
        return {"error_ms": ERROR_MS, "stream_chunks_per_s": CHUNKS_PER_S, "actors": actors}


def selftest(actors: int, address: str, screen: Screen) -> Selftest:
    """Measures `actors` load actors, all at once, on the Ray cluster at `address`; ClusterError if there is none."""
    environment.prepare(local=address == "local")
    from raybench.cluster import fleet

    nobody = Target("http://127.0.0.1:9", NAME, "us-west-2")
    screen.say(environment.arrival(address))
    with fleet.cluster(address):
        crew = fleet.Crew([Post(NAME, index, actors, nobody, {}, Path()) for index in range(actors)])
        screen.say(f"measuring up to {LADDER[-1]} streams on {actors} load actor{'s' if actors > 1 else ''}")
        return _measure([crew], _up(LADDER))


def before(crews: Sequence["Crew"], plan: Plan) -> Selftest:
    """The short check of a run's own actors: at its largest load first, and lower only where that fails."""
    actors = max(len(crew.posts) for crew in crews)
    return _measure(crews, _down(min(MOST_STREAMS, largest(plan, actors))), until_passed=True)


def note(found: Selftest, manifest: dict[str, Any]) -> None:
    """Enters into run.json what was measured, and at each experiment the ceiling that its trials are judged by."""
    manifest["selftest"] = found.as_dict()
    for experiment in manifest["experiments"]:
        experiment["ceiling"] = asdict(found.of(experiment["name"]).ceiling)


def largest(plan: Plan, actors: int) -> int:
    """The most streams that one of `actors` is planned to hold."""
    return max(-(-(trial.max_in_flight or UNBOUNDED) // actors) for trial in plan.trials)


def _up(ladder: Iterable[int]) -> "Way":
    return ((Rung(streams, FULL_S), ATTEMPTS) for streams in ladder)


def _down(streams: int) -> "Way":
    for step in range(1 + STEPS_DOWN):
        yield Rung(streams, SHORT_S), 1 if step else ATTEMPTS
        if streams == 1:
            return
        streams = max(1, streams // STEP_DOWN)


Way = Iterator[tuple[Rung, int]]
"""Rungs in the order they are played, each with how often it is tried at most."""

Play = Callable[[Rung], Sequence[Figures]]
"""Plays a rung on every actor at once."""


def _measure(crews: Sequence["Crew"], way: Way, *, until_passed: bool = False) -> Selftest:
    from raybench.cluster.fleet import together

    posts = [post for crew in crews for post in crew.posts]
    try:
        hosts = together(crews, "calibrate")
        climbed = climb(way, lambda rung: together(crews, "climb", rung), until_passed=until_passed)
    finally:
        together(crews, "calibrated")
    names = [(post.experiment, post.name) for post in posts]
    return Selftest(tuple(Measured(*name, *found) for name, *found in zip(names, hosts, climbed, strict=True)))


def climb(way: Way, play: Play, *, until_passed: bool) -> list[tuple[Figures, ...]]:
    """What each actor measured on each rung, fewest streams first; `until_passed` ends once all pass a rung."""
    played: list[list[Figures]] = []
    for rung, attempts in way:
        best = list(play(rung))
        for _ in range(attempts - 1):
            if all(each.passes for each in best):
                break
            best = [min(pair, key=_badness) for pair in zip(best, play(rung), strict=True)]
        played.append(best)
        if until_passed and all(each.passes for each in best):
            break
    played.sort(key=lambda rung: rung[0].streams)
    return list(zip(*played, strict=True))


def _badness(figures: Figures) -> tuple[bool, float]:
    return not figures.passes, figures.late_ms if figures.late_ms is not None else math.inf
