"""The dress rehearsal: a whole config in virtual time, against the simulated endpoints it names.

The load loop, the client, the simulator's wire and the analysis are those of a run; only the waiting is left out.
What it tells is true of the profile, and of a real endpoint as far as that resembles it. Each trial, and each probe
of a search, meets an endpoint that has just started.
"""

import math
import multiprocessing
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raybench import manifest as manifests
from raybench import searching
from raybench.analysis import stats
from raybench.analysis.columns import CERTIFIED, QUANTILES
from raybench.analysis.metrics import Requests
from raybench.analysis.reduce import reduce_trial
from raybench.analysis.summary import ranked
from raybench.clock import NS_PER_S
from raybench.cluster.search import Searched, Seen
from raybench.config import Config
from raybench.datasets import load_pools
from raybench.load.arrivals import Closed, Replay
from raybench.load.search import Search
from raybench.plan import Plan, Trial
from raybench.practice import Practice
from raybench.prices import cost_usd
from raybench.rows import REQUESTS, Prompt
from raybench.specs import Experiment, SimulatedEndpoint
from raybench.states import TrialState

MOST_REQUESTS, MOST_TIMES = 2000, 3
"""How far a trial that is too short is played on for the length that would do: so many, or so often the planned."""

MOST_WAITED_S = 86_400
"""How long all that wait for their next request may then wait together, who look every second whether it is over."""

MOST_SEARCHED = 100_000
"""How many requests a search is rehearsed for at most: what no rate overloads would go on for hours."""

USUAL = ("latency_p95", "latency_p99")
"""The percentiles asked about where no criterion names one."""


@dataclass(frozen=True, slots=True)
class Need:
    """What it takes to certify the percentile `metric`: the least requests, and the seconds to plan them in.

    `met` says that the trial as planned does. `requests` is None where none of the `tried` requests sufficed; where
    so many fail that no length can, no more are tried than planned. `tried_s` are the seconds in which no more came,
    where time ended it; `whole` says that the trace has no more.
    """

    metric: str
    met: bool
    requests: int | None
    duration_s: float | None
    tried: int
    tried_s: float | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """A trial as it went, and its row of the trials table.

    `seconds`, and their USD, are from T0 to the last reply, or to the end of its duration if that is later.
    """

    trial: Trial
    seconds: float
    usd: float | None
    row: Mapping[str, Any]
    needs: tuple[Need, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A search as it went: `seconds` of load of all its probes, their USD, and what it came to.

    The verdict of `searched` is None if it was left at MOST_SEARCHED requests; it then takes longer than `seconds`.
    """

    searched: Searched
    seconds: float
    usd: float | None

    @property
    def trial(self) -> Trial:
        return self.searched.trial


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """Every trial and every search of a plan as it went, each in the plan's order."""

    plan: Plan
    trials: tuple[Rehearsed, ...]
    searches: tuple[Found, ...] = ()
    most_searched: int = MOST_SEARCHED

    def of(self, experiment: str) -> tuple[Rehearsed | Found, ...]:
        """The trials and searches of one experiment."""
        return tuple(each for each in self._all if each.trial.experiment == experiment)

    @property
    def _all(self) -> tuple[Rehearsed | Found, ...]:
        return *self.trials, *self.searches

    def seconds(self, experiment: str | None = None) -> float:
        """Seconds of load of one experiment; of the run, its experiments being measured in parallel."""
        if experiment is not None:
            return sum(each.seconds for each in self.of(experiment))
        return max(self.seconds(forecast.experiment) for forecast in self.plan.forecasts)

    def usd(self, experiment: str | None = None) -> float | None:
        """USD of one experiment or of all, while they are measured; None if one has no price."""
        each = [each.usd for each in (self._all if experiment is None else self.of(experiment))]
        return None if None in each else sum(usd for usd in each if usd is not None)


@dataclass(frozen=True, slots=True)
class Scene:
    """Trials of one experiment with one payload, or one search: what a process rehearses by itself."""

    config: Config
    experiment: Experiment
    pool: tuple[Prompt, ...]
    trials: tuple[Trial, ...]
    manifest: Mapping[str, Any]
    most_searched: int


def rehearse(
    config: Config, plan: Plan, workers: int | None = None, *, most_searched: int = MOST_SEARCHED
) -> Rehearsal:
    """Plays `plan` in `workers` processes, one a CPU if not said; InputError where an endpoint is not simulated.

    A search is left off at `most_searched` requests.
    """
    for place, experiment in enumerate(config.experiments):
        if not isinstance(experiment.endpoint, SimulatedEndpoint):
            problem = f"'{experiment.name}' is a real endpoint, which cannot be rehearsed"
            raise config.wrong(problem, "endpoint: {simulate: PROFILE}", "experiments", place, "endpoint")
    scenes = list(_scenes(config, plan, most_searched))
    workers = min(workers or os.cpu_count() or 1, len(scenes))
    if workers == 1:
        played = [_rehearse_scene(scene) for scene in scenes]
    else:
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as processes:
            played = list(processes.map(_rehearse_scene, scenes))
    every = sorted((each for scene in played for each in scene), key=lambda each: each.trial.index)
    trials = tuple(each for each in every if isinstance(each, Rehearsed))
    return Rehearsal(plan, trials, tuple(each for each in every if isinstance(each, Found)), most_searched)


def _scenes(config: Config, plan: Plan, most_searched: int) -> Iterator[Scene]:
    folder = config.file.parent if config.file else Path()
    pools = load_pools(config.payloads, config.seed, folder)
    manifest = manifests.begin(config, plan, pools, "rehearsal")
    for experiment in config.experiments:
        for name, pool in pools.items():
            mine = [trial for trial in plan.of(experiment.name) if trial.payload == name]
            searches = [(trial,) for trial in mine if isinstance(trial.load, Search)]
            rest = tuple(trial for trial in mine if not isinstance(trial.load, Search))
            for trials in (*searches, rest):
                if trials:
                    yield Scene(config, experiment, pool.prompts, trials, manifest, most_searched)


def _rehearse_scene(scene: Scene) -> list[Rehearsed | Found]:
    return [
        _rehearse_search(scene, trial, trial.load)
        if isinstance(trial.load, Search)
        else _rehearse_trial(scene, trial)
        for trial in scene.trials
    ]


def _rehearse_search(scene: Scene, trial: Trial, search: Search) -> Found:
    """Plays a search as a run does, from `searching`, and no further than the scene's `most_searched` requests."""
    practice = Practice(scene.config, scene.experiment, scene.pool)
    manifest = {**scene.manifest, "trials": [], "searches": [manifests.planned(trial, search)]}
    noted: dict[str, manifests.Manifest] = {}
    left, paid_s = scene.most_searched, 0.0

    def play(one: Trial, seen: Seen) -> pa.Table | None:
        nonlocal left, paid_s
        rate, too_many = one.load.rate or 0.0, False

        def watch(batch: pa.Table) -> None:
            nonlocal too_many
            seen(batch)
            if rate * practice.clock() / NS_PER_S > left:
                too_many = True
                practice.stop()

        if rate > left:
            return None
        rows = practice.play(one, watch)
        left -= len(rows)
        paid_s += practice.clock() / NS_PER_S
        noted[one.trial_id] |= _played(scene, rows)
        return None if too_many else rows

    stage = searching.Stage(
        manifest=manifest,
        trials=noted,
        play=play,
        stop=practice.stop,
        rows_of=lambda entry: REQUESTS.empty_table(),
        record=lambda: None,
        say=lambda line: None,
    )
    found = searching.search(trial, search, stage, scene.experiment.usd_per_hour, practice.clock)
    seconds = found.verdict.seconds if found.verdict else paid_s
    return Found(found, seconds, cost_usd(scene.experiment.usd_per_hour, seconds))


def _rehearse_trial(scene: Scene, trial: Trial) -> Rehearsed:
    table = Practice(scene.config, scene.experiment, scene.pool).play(trial)
    noted = next(each for each in scene.manifest["trials"] if each["trial_id"] == trial.trial_id)
    told = noted | _played(scene, table)
    row = reduce_trial(table, told, scene.manifest).trials.to_pylist()[0]
    last_s = max(_last_ns(table, "end_ns"), _last_ns(table, "planned_ns")) / NS_PER_S
    seconds = max(last_s, trial.warmup_s + (trial.duration_s or 0.0))
    needs = tuple(_needs(scene, trial, table, row, max(MOST_TIMES * seconds, _longest_s(scene, trial))))
    return Rehearsed(trial, seconds, cost_usd(scene.experiment.usd_per_hour, seconds), row, needs)


def _played(scene: Scene, rows: pa.Table) -> manifests.Manifest:
    """What a trial's entry says once it was played; without a crew its actors would be guessed from the rows."""
    crew = {"actors": scene.config.fleet.actors, "ceiling": None}
    return {"state": TrialState.DONE, "rows": len(rows), "crew": crew}


def _last_ns(table: pa.Table, instant: str) -> int:
    return max(filter(None, table[instant].to_pylist()), default=0)


def _longest_s(scene: Scene, trial: Trial) -> float:
    """When those who wait for their next request have waited for MOST_WAITED_S together, if they only waited."""
    load, actors = trial.load, scene.config.fleet.actors
    if isinstance(load, Closed):
        return MOST_WAITED_S / load.concurrency if load.think_time_s else math.inf
    return MOST_WAITED_S / min(actors, trial.max_in_flight or actors)


def _needs(scene: Scene, trial: Trial, table: pa.Table, row: Mapping[str, Any], longest_s: float) -> Iterator[Need]:
    """For every percentile asked about, in the trial as planned or else in one that goes on, `longest_s` at most."""
    wanted = _wanted(scene.config)
    missing = {metric: q for metric, q in wanted.items() if row[f"{metric}_certified"] is None}
    reachable = {metric: q for metric, q in missing.items() if (row["error_rate"] or 0.0) < 1 - q}
    longer, requests, tried_s = Requests(table), row["requests"], None
    there = _there(trial)
    most = min(there, max(MOST_REQUESTS, MOST_TIMES * requests))
    queued = not isinstance(trial.load, Closed)
    while requests < most and tried_s is None and (ahead := _ahead(longer, reachable, queued)):
        asked = int(min(most, math.ceil(max(3 * ahead, 2 * requests))))
        played = replace(trial, duration_s=None, requests=asked)
        longer = Requests(Practice(scene.config, scene.experiment, scene.pool).play(played, most_s=longest_s))
        requests = int(longer.measured.sum())
        tried_s = longest_s if requests < asked else None
    planned_ns = longer.numbers("planned_ns")[longer.measured]
    for metric, q in wanted.items():
        least = _least(longer, metric, q, queued)
        lasts_s = None if least is None else math.ceil(planned_ns[least - 1] / NS_PER_S - trial.warmup_s + 1e-9)
        yield Need(metric, metric not in missing, least, lasts_s, requests, tried_s, requests == there)


def _there(trial: Trial) -> float:
    """How many requests there are to measure: those of a trace end."""
    if not isinstance(trial.load, Replay):
        return math.inf
    return int((trial.load.offsets_ns(0) >= round(trial.warmup_s * NS_PER_S)).sum())


def _ahead(rows: Requests, reachable: Mapping[str, float], queued: bool) -> float:
    """About how many requests those percentiles need that these do not certify; 0 if there are none."""
    latency_s = ranked(rows, rows.durations()["latency"])
    spread = len(latency_s) / stats.effective_size(latency_s) if len(latency_s) else 1.0
    missing = [q for metric, q in reachable.items() if _least(rows, metric, q, queued) is None]
    return max((spread * _floor(q, queued) for q in missing), default=0.0)


def _floor(q: float, queued: bool) -> int:
    """The fewest independent requests that certify the q-quantile."""
    return max(stats.certified_floor(q), stats.QUEUED_FLOOR if queued else 0)


def _wanted(config: Config) -> dict[str, float]:
    """The percentiles asked about, and their quantiles."""
    named = [metric.rpartition("_") for metric in config.criteria.limits]
    asked = [f"{name}_{p}" for name, _, p in named if name in CERTIFIED and p in QUANTILES]
    return {metric: QUANTILES[metric.rpartition("_")[2]] for metric in asked or USUAL}


def _least(rows: Requests, metric: str, q: float, queued: bool) -> int | None:
    """The fewest measured requests, in order, from which on every longer series certifies the q-quantile."""
    values = ranked(rows, rows.durations()[metric.rpartition("_")[0]])
    floor, least = _floor(q, queued), None
    if len(values) < floor:
        return None
    for size in np.unique(np.geomspace(len(values), floor, 60).astype(int))[::-1].tolist():
        begun = values[:size]
        worth = stats.effective_size(begun)
        if stats.percentile(np.sort(begun), q, stats.queued(worth) if queued else worth).certified is None:
            break
        least = size
    return least
