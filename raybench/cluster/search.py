"""A search on one endpoint: each probe is a trial of its own, its rows on disk, stopped as soon as it is settled.

What plays a probe is given: a crew of Ray actors, one actor, or virtual time. A probe that was played to its end
before is not played again, and the search goes on from there.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from raybench.analysis.probe import evidence, so_far
from raybench.analysis.stats import Values
from raybench.clock import NS_PER_S, Clock
from raybench.load.probe import Evidence, Probe, Step, bound
from raybench.load.search import Alone, Hunt, Offered, Search, SearchVerdict
from raybench.plan import Trial

LOOK_S = 1.0

Seen = Callable[[pa.Table], None]
"""Takes rows as they come; an empty table is a sign of life, the first of them one that T0 is near."""

Play = Callable[[Trial, Seen], pa.Table | None]
"""Plays one trial and returns all of its rows; None if it was not played to its end."""


@dataclass(frozen=True, slots=True)
class PlayedProbe:
    """A probe as it went: the trial that holds its rows, and what they show."""

    trial: Trial
    probe: Probe
    seen: Evidence
    passed: bool

    def as_dict(self) -> dict[str, Any]:
        """As JSON values, for run.json."""
        blocks = self.probe.step is Step.CERTIFY
        whole = blocks and all(requests for requests, _ in self.seen.blocks)
        return {
            "trial_id": self.trial.trial_id,
            **asdict(self.probe),
            **asdict(self.seen),
            "blocks": [list(block) for block in self.seen.blocks] if blocks else [],
            "bound": bound(self.seen.shares) if whole else None,
            "passed": self.passed,
        }


@dataclass(frozen=True, slots=True)
class Searched:
    """A search as it went; `verdict` is None if it was interrupted."""

    trial: Trial
    search: Search
    verdict: SearchVerdict | None
    probes: tuple[PlayedProbe, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON values, for run.json."""
        verdict = None if self.verdict is None else {"state": self.verdict.state, **asdict(self.verdict)}
        about = {"trial_id": self.trial.trial_id, "experiment": self.trial.experiment, "payload": self.trial.payload}
        probes = [played.as_dict() for played in self.probes]
        return {**about, "search": asdict(self.search), "verdict": verdict, "probes": probes}


def play_search(
    trial: Trial,
    search: Search,
    play: Play,
    stop: Callable[[], None],
    clock: Clock,
    *,
    usd_per_hour: float | None = None,
    past: Callable[[Trial], pa.Table | None] = lambda trial: None,
    distrust: Callable[[Trial, pa.Table], str | None] = lambda trial, rows: None,
    told: Callable[[PlayedProbe], None] = lambda played: None,
) -> Searched:
    """Plays the probes of a search until its verdict.

    `stop` makes the trial that plays plan nothing more; `past` gives the rows of a trial that was played to its end
    before; `distrust` says what is wrong with a trial's measurement, `told` hears of each probe once it is over.
    """
    hunt, probes = Hunt(search, usd_per_hour), list[PlayedProbe]()
    while isinstance(probe := hunt.next(), Probe):
        one = probe_trial(trial, search, probe)
        rows = past(one)
        if rows is None:
            rows = play(one, Watch(search, probe, one, stop, clock))
        if rows is None:
            return Searched(trial, search, None, tuple(probes))
        seen = evidence(search, probe, rows)
        seen = replace(seen, fault=seen.fault or distrust(one, rows))
        probes.append(PlayedProbe(one, probe, seen, hunt.tell(seen)))
        told(probes[-1])
    return Searched(trial, search, probe, tuple(probes))


def probe_trial(trial: Trial, search: Search, probe: Probe) -> Trial:
    """The trial of a probe: arrivals, prompts, rows and name of its own."""
    name = f"{search.label}-{probe.name}"
    load = Offered(probe.rate, None, name) if probe.rate else Alone(1, 0.0, name)
    return replace(
        trial,
        trial_id=f"{trial.trial_id}~{probe.name}",
        load=load,
        lot=trial.lot + 10_000 * (1 + probe.index),
        warmup_s=probe.warmup_s,
        duration_s=None if probe.requests else probe.seconds,
        requests=probe.requests,
        seed=trial.seed ^ (probe.index + 1),
        expected_s=probe.warmup_s + probe.seconds,
    )


class Watch:
    """Looks at a probe's rows as they come, and stops it once they settle it or its time is over."""

    def __init__(self, search: Search, probe: Probe, trial: Trial, stop: Callable[[], None], clock: Clock) -> None:
        self.search, self.probe, self.stop, self.clock = search, probe, stop, clock
        self._planned_s = _planned_s(trial)
        self._batches: list[pa.Table] = []
        self._began_ns: int | None = None
        self._looked_s = 0.0
        self._stopped = False

    def __call__(self, batch: pa.Table) -> None:
        """Takes a batch of rows."""
        if self._began_ns is None:
            self._began_ns = self.clock()
        if len(batch):
            self._batches.append(batch)
        now_s = (self.clock() - self._began_ns) / NS_PER_S
        if not self._stopped and now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            self._stopped = self._over(now_s)
            if self._stopped:
                self.stop()

    def _over(self, now_s: float) -> bool:
        if self._planned_s is None:
            return now_s > self.probe.seconds
        if not self._batches:
            return False
        rows = pa.concat_tables(self._batches).combine_chunks()
        self._batches = [rows]
        seen = so_far(self.search, self.probe, rows, self._planned_s, now_s)
        return self.probe.settled(seen) is not None


def _planned_s(trial: Trial) -> Values | None:
    """When each request of an open load is planned since T0."""
    if not isinstance(trial.load, Offered):
        return None
    until_ns = round((trial.warmup_s + (trial.duration_s or 0.0)) * NS_PER_S)
    return trial.load.offsets_ns(trial.seed, duration_ns=until_ns) / NS_PER_S
