"""The plan: every trial of a config, in order, with what it will take in time and money. It touches nothing."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

from raybench.analysis.columns import QUANTILES
from raybench.clock import NS_PER_S
from raybench.config import Config
from raybench.datasets import PayloadSpec, TraceRequests
from raybench.load.arrivals import Closed, Load, Replay
from raybench.load.search import Search
from raybench.loads import LoadSpec
from raybench.prices import cost_usd
from raybench.simulator.profiles import Batching, Fixed
from raybench.specs import Experiment, SimulatedEndpoint

MAX_TRIALS = 10_000
MAX_ID_CHARS = 240
REPLAY_SLACK = 1.05
"""By how much a trial may outlast its trace: the last arrival is seldom where a round number of seconds ends."""

PROBE_CHARS = 20
"""What a probe's name adds to that of its search."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One experiment × payload × load × repeat; its rows are counted after `warmup_s`.

    It lasts `duration_s` or until `requests` were measured; a search has neither, its probes are trials of their own.
    `lot` counts payloads × loads × repeats and `seed` draws the arrivals: both are the same for every experiment, so
    that endpoints are compared on equal work. `in_order` gives the k-th arrival the k-th prompt. `expected_s` is None
    where nothing tells; of a search, the most.
    """

    trial_id: str
    index: int
    experiment: str
    payload: str
    load: Load | Search
    repeat: int
    lot: int
    warmup_s: float
    duration_s: float | None
    requests: int | None
    seed: int
    expected_s: float | None
    in_order: bool = False

    @property
    def max_in_flight(self) -> int | None:
        """The most requests in flight; None if nothing limits them."""
        return self.load.max_in_flight


@dataclass(frozen=True, slots=True)
class Forecast:
    """What one experiment will take: seconds of load, and USD for its instances in that time; None is unknown.

    The USD of a simulated endpoint are what a real one would have cost.
    """

    experiment: str
    instance: str
    trials: int
    seconds: float | None
    usd: float | None
    simulated: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """The trials of a run, per experiment in config order: payloads × loads × repeats."""

    name: str
    trials: tuple[Trial, ...]
    forecasts: tuple[Forecast, ...]

    @property
    def seconds(self) -> float | None:
        """Seconds of load of the whole run, experiments being measured in parallel; None if one is unknown."""
        each = [forecast.seconds for forecast in self.forecasts if forecast.seconds is not None]
        return max(each, default=0.0) if len(each) == len(self.forecasts) else None

    @property
    def usd(self) -> float | None:
        """USD of all experiments; None if one is unknown."""
        each = [forecast.usd for forecast in self.forecasts if forecast.usd is not None]
        return sum(each) if len(each) == len(self.forecasts) else None

    def of(self, experiment: str) -> tuple[Trial, ...]:
        """The trials of one experiment, in order."""
        return tuple(trial for trial in self.trials if trial.experiment == experiment)


def plan(config: Config) -> Plan:
    """Every trial of `config`; InputError where two would be the same, or a criterion could not be computed."""
    trials: list[Trial] = []
    places: dict[str, int] = {}
    for trial, place in _trials(config):
        if trial.trial_id in places:
            same = f"{trial.load.label} of {trial.payload} is planned twice, first in loads[{places[trial.trial_id]}]"
            raise config.wrong(same, "each load once to a payload", "loads", place)
        places[trial.trial_id] = place
        if len(trial.trial_id) > MAX_ID_CHARS - PROBE_CHARS * isinstance(trial.load, Search):
            raise config.wrong(
                "the names of this trial are too long", f"at most {MAX_ID_CHARS} together", "loads", place
            )
        _check_samples(config, trial)
        _check_replay(config, trial, place)
        trials.append(trial)
        if len(trials) > MAX_TRIALS:
            raise config.wrong("too many trials", f"at most {MAX_TRIALS} in a run", "loads")
    for experiment in config.experiments:
        if all(trial.experiment != experiment.name for trial in trials):
            raise config.wrong(f"no load is for '{experiment.name}'", "a load for each experiment", "loads")
    return Plan(config.name, tuple(trials), tuple(_forecast(experiment, trials) for experiment in config.experiments))


def _trials(config: Config) -> Iterator[tuple[Trial, int]]:
    """Each trial with the position of its load in the config."""
    index = 0
    for experiment in config.experiments:
        for lot, (payload, place, load, repeat) in enumerate(_lots(config)):
            spec = config.loads[place]
            if _is_for(spec, experiment, payload):
                yield _trial(config, index, experiment, payload, spec, load, repeat, lot), place
                index += 1


def _lots(config: Config) -> Iterator[tuple[PayloadSpec, int, Load | Search, int]]:
    """Payloads × loads × repeats; a load with the position of its entry."""
    for payload in config.payloads:
        for place, spec in enumerate(config.loads):
            for load in spec.arrivals():
                for repeat in range(config.repeats):
                    yield payload, place, load, repeat


def _is_for(spec: LoadSpec, experiment: Experiment, payload: PayloadSpec) -> bool:
    wanted = spec.experiments is None or experiment.name in spec.experiments
    return wanted and (spec.payloads is None or payload.name in spec.payloads)


def _trial(
    config: Config,
    index: int,
    experiment: Experiment,
    payload: PayloadSpec,
    spec: LoadSpec,
    load: Load | Search,
    repeat: int,
    lot: int,
) -> Trial:
    name = f"{payload.name}~{load.label}~{repeat}"
    return Trial(
        trial_id=f"{experiment.name}~{name}",
        index=index,
        experiment=experiment.name,
        payload=payload.name,
        load=load,
        repeat=repeat,
        lot=lot,
        warmup_s=spec.warmup_s,
        duration_s=spec.duration_s,
        requests=spec.requests,
        seed=int.from_bytes(hashlib.sha256(f"{config.seed}~{name}".encode()).digest()[:8]) >> 1,
        expected_s=_expected_s(experiment, payload, spec, load),
        in_order=isinstance(load, Replay) and isinstance(payload.dataset, TraceRequests),
    )


def _check_replay(config: Config, trial: Trial, place: int) -> None:
    """A trace that ends before the trial does would be measured as a lower rate than it has."""
    load = trial.load
    if not isinstance(load, Replay):
        return
    offsets_ns = load.offsets_ns(0)
    there = int((offsets_ns >= round(trial.warmup_s * NS_PER_S)).sum())
    if trial.requests is not None and trial.requests > there:
        after = " after its warm-up" * (there < len(offsets_ns))
        problem = f"{trial.requests} requests of a trace that has {there}{after}"
        raise config.wrong(problem, f"at most {there}", "loads", place, "requests")
    last_s = int(offsets_ns[-1]) / NS_PER_S
    ends_s = last_s if load.covers_s is None else load.covers_s
    if trial.duration_s is not None and trial.warmup_s + trial.duration_s > ends_s * REPLAY_SLACK:
        problem = f"lasts longer than the trace, whose last arrival is at {last_s:.1f} s"
        raise config.wrong(problem, f"warmup and duration of at most {ends_s:.1f} s", "loads", place, "duration")


def _check_samples(config: Config, trial: Trial) -> None:
    """A percentile or a mean that so few requests cannot give is refused now, not left blank later."""
    if trial.requests is None:
        return
    for metric in config.criteria.limits:
        _, _, statistic = metric.rpartition("_")
        quantile = QUANTILES.get(statistic)
        if quantile is None and statistic != "mean":
            continue
        from raybench.analysis import stats  # scipy, for who asks for one of them

        if quantile is not None:
            needed, certified = stats.interval_floor(quantile), stats.certified_floor(quantile)
        else:
            needed, certified = 2 * trial.load.concurrency if isinstance(trial.load, Closed) else 0, 0
        if not isinstance(trial.load, Closed):
            needed = max(needed, stats.QUEUED_FLOOR)
        if trial.requests < needed:
            problem = f"{trial.load.label} plans {trial.requests} requests, too few for a {statistic}"
            queue = "" if isinstance(trial.load, Closed) else " where they may queue"
            certify = f", {certified} to certify it" if certified > needed else ""
            raise config.wrong(problem, f"needs >= {needed} requests{queue}{certify}", "criteria", metric)


def _expected_s(experiment: Experiment, payload: PayloadSpec, spec: LoadSpec, load: Load | Search) -> float | None:
    """Seconds of one trial without its drain: as configured, or from the rate, or from the simulated profile."""
    if isinstance(load, Search):
        return load.most_s(experiment.usd_per_hour)
    if spec.duration_s is not None:
        return spec.warmup_s + spec.duration_s
    requests = spec.requests or 0
    if isinstance(load, Closed):
        round_s = _round_s(experiment, payload, load)
        if not round_s:
            return round_s
        return round_s * (math.ceil(spec.warmup_s / round_s) + math.ceil(requests / load.concurrency))
    return None if load.rate is None else spec.warmup_s + requests / load.rate


def _round_s(experiment: Experiment, payload: PayloadSpec, load: Closed) -> float | None:
    """Seconds in which a simulated endpoint answers one request of every slot: all prefills, then shared steps."""
    if not isinstance(experiment.endpoint, SimulatedEndpoint):
        return None
    profile, slots = experiment.endpoint.profile, load.concurrency
    tokens = min(profile.tokens, experiment.max_tokens or profile.tokens)
    match profile:
        case Fixed():
            return load.think_time_s + profile.ttft_s + (tokens - 1) * profile.itl_s
        case Batching() if payload.expected_tokens is not None:
            prefill_s, step_s = profile.prefill_s(payload.expected_tokens), profile.step_s(slots)
            return load.think_time_s + slots * prefill_s + (tokens - 1) * step_s
    return None


def _forecast(experiment: Experiment, trials: list[Trial]) -> Forecast:
    mine = [trial.expected_s for trial in trials if trial.experiment == experiment.name]
    known = [seconds for seconds in mine if seconds is not None]
    seconds = sum(known) if len(known) == len(mine) else None
    usd = cost_usd(experiment.usd_per_hour, seconds)
    instance = f"{experiment.instance_count} x {experiment.instance_type}"
    return Forecast(
        experiment.name, instance, len(mine), seconds, usd, isinstance(experiment.endpoint, SimulatedEndpoint)
    )
