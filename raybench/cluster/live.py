"""A run while it goes on, as its batches tell it: where it is, how fast, how well, what it cost, who is alive.

`seen` only keeps a batch; all arithmetic waits for `snapshot`, which is asked for at most twice a second and handles
the rows of that time at once. Percentiles are kept in buckets of 1 %: memory and work never grow with the run.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from raybench.analysis.metrics import Requests
from raybench.analysis.stats import Values, interval_floor
from raybench.cluster.actor import SENDER
from raybench.plan import Forecast, Plan, Trial
from raybench.prices import cost_usd

RATE_S = 10.0
"""The time over which a rate is taken."""

ALIVE_S = 3.0
"""Who was heard of so shortly before a trial ended is expected in the next; whoever was not is replaced by then."""

QUANTILES = {"p50": 0.5, "p95": 0.95}

Snapshot = dict[str, Any]
"""JSON values: what `live.json` holds and what a terminal shows."""

_LOWEST_S, _HIGHEST_S, _STEP = 1e-5, 1e4, 0.01
_EDGES = np.exp(np.arange(math.log(_LOWEST_S), math.log(_HIGHEST_S), _STEP))


class Buckets:
    """Seconds counted in buckets 1 % wide; NaN is what never finished, slower than everything."""

    def __init__(self) -> None:
        self._counts = np.zeros(len(_EDGES) + 1, np.int64)
        self._never = 0

    def __len__(self) -> int:
        return int(self._counts.sum()) + self._never

    def add(self, seconds: Values) -> None:
        """Counts values in."""
        known = seconds[~np.isnan(seconds)]
        self._counts += np.bincount(np.searchsorted(_EDGES, known), minlength=len(self._counts))
        self._never += len(seconds) - len(known)

    def quantile(self, q: float) -> float | None:
        """The q-quantile, within half a percent; None if it never finished, or nothing was counted."""
        number = len(self)
        place = int(np.searchsorted(self._counts.cumsum(), math.floor(q * (number - 1)) + 1))
        if not number or place >= len(self._counts):
            return None
        return float(_EDGES[min(place, len(_EDGES) - 1)] * math.exp(-_STEP / 2)) if place else 0.0


@dataclass(slots=True)
class Playing:
    """One experiment: the trial it plays, or played last."""

    plan: tuple[Trial, ...]
    usd_per_hour: float | None
    forecast: Forecast
    trial: Trial | None = None
    held_from_s: float | None = None
    held_to_s: float | None = None
    began_s: float = 0.0
    ended_s: float | None = None
    lasted_s: list[float] = field(default_factory=list)
    heard_s: dict[str, float] = field(default_factory=dict)
    batches: list[pa.Table] = field(default_factory=list)
    recent: deque[tuple[float, int]] = field(default_factory=deque)
    requests: int = 0
    failed: int = 0
    latency: Buckets = field(default_factory=Buckets)
    lateness: Buckets = field(default_factory=Buckets)

    def begin(self, trial: Trial, now_s: float) -> None:
        """A trial starts; what the last one counted is forgotten."""
        if self.held_from_s is None:
            self.held_from_s = now_s
        alive_s = (self.ended_s or now_s) - ALIVE_S
        self.heard_s = {actor: now_s for actor, at_s in self.heard_s.items() if at_s >= alive_s}
        self.trial, self.began_s, self.ended_s, self.held_to_s = trial, now_s, None, None
        self.requests = self.failed = 0
        self.latency, self.lateness = Buckets(), Buckets()
        self.batches.clear()
        self.recent.clear()

    def end(self, now_s: float) -> None:
        """The trial is over."""
        self.ended_s = now_s
        self.lasted_s.append(now_s - self.began_s)
        if self.trial is not None and self.place == len(self.plan):
            self.held_to_s = now_s

    @property
    def place(self) -> int:
        """Which of the experiment's trials it is, from 1; a probe of a search counts as its trial."""
        assert self.trial is not None
        return 1 + sum(trial.index < self.trial.index for trial in self.plan)

    @property
    def measured(self) -> int:
        """Measured requests that came back so far."""
        return len(self.latency)

    def count(self) -> None:
        """Counts the batches that came since the last time."""
        if not self.batches:
            return
        table = pa.concat_tables(self.batches)
        self.batches.clear()
        rows = Requests(table)
        seconds = rows.durations()
        self.requests += len(rows.ok)
        self.failed += int((~rows.ok).sum())
        self.latency.add(np.where(rows.ok, seconds["latency"], np.nan)[rows.measured])
        late = seconds["lateness"]
        self.lateness.add(late[~np.isnan(late)])

    def rate(self, now_s: float) -> float:
        """Requests a second that ended in the last ten seconds."""
        while self.recent and self.recent[0][0] <= now_s - RATE_S:
            self.recent.popleft()
        span_s = min(RATE_S, now_s - self.began_s)
        return sum(number for _, number in self.recent) / span_s if span_s > 0 else 0.0

    def left_s(self, now_s: float) -> float | None:
        """About how long this experiment will go on; None where nothing tells."""
        if self.trial is None or self.held_to_s is not None:
            later = [] if self.held_to_s is not None else list(self.plan)
            current: float | None = 0.0
        else:
            later = list(self.plan[self.place :])
            current = self._trial_left_s(self.trial, now_s)
        usual_s = sum(self.lasted_s) / len(self.lasted_s) if self.lasted_s else None
        each = [current, *(usual_s if trial.expected_s is None else trial.expected_s for trial in later)]
        known = [seconds for seconds in each if seconds is not None]
        return sum(known) if len(known) == len(each) else None

    def _trial_left_s(self, trial: Trial, now_s: float) -> float | None:
        if self.ended_s is not None:
            return 0.0
        elapsed_s = now_s - self.began_s
        measuring_s = elapsed_s - trial.warmup_s
        if trial.duration_s is None and trial.requests and self.measured and measuring_s > 0:
            return max(0.0, trial.requests - self.measured) * measuring_s / self.measured
        return None if trial.expected_s is None else max(0.0, trial.expected_s - elapsed_s)

    def spent_usd(self, now_s: float) -> float | None:
        """What its instances cost since its first trial began; of a simulated one, what real ones would."""
        held_s = 0.0 if self.held_from_s is None else (self.held_to_s or now_s) - self.held_from_s
        return cost_usd(self.usd_per_hour, held_s)

    def snapshot(self, now_s: float) -> Snapshot:
        """The experiment now."""
        self.count()
        trial = self.trial
        return {
            "experiment": self.forecast.experiment,
            "trial_id": trial.trial_id if trial else None,
            "trial": self.place if trial else 0,
            "trials": len(self.plan),
            "payload": trial.payload if trial else None,
            "load": trial.load.label if trial else None,
            "state": "waiting" if trial is None else "playing" if self.ended_s is None else "played",
            "elapsed_s": now_s - self.began_s if trial and self.ended_s is None else 0.0,
            "trial_left_s": self._trial_left_s(trial, now_s) if trial else None,
            "left_s": self.left_s(now_s),
            "planned_requests": trial.requests if trial else None,
            "requests": self.requests,
            "measured": self.measured,
            "failed": self.failed,
            "requests_per_s": self.rate(now_s),
            **{f"latency_{name}_s": self._percentile(q) for name, q in QUANTILES.items()},
            **{f"latency_{name}_needs": self._needs(q) for name, q in QUANTILES.items()},
            "lateness_p99_s": self.lateness.quantile(0.99),
            "spent_usd": self.spent_usd(now_s),
            "planned_usd": self.forecast.usd,
            "simulated": self.forecast.simulated,
            "heard_s_ago": {actor: now_s - at_s for actor, at_s in sorted(self.heard_s.items())},
        }

    def _needs(self, q: float) -> int:
        return max(0, interval_floor(q) - self.measured)

    def _percentile(self, q: float) -> float | None:
        return None if self._needs(q) else self.latency.quantile(q)


class Live:
    """All experiments of a run, for any thread; `usd_per_hour` is what the instances of each cost together."""

    def __init__(
        self,
        plan: Plan,
        usd_per_hour: Mapping[str, float | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan, self.clock = plan, clock
        self._began_s = clock()
        self._lock = threading.Lock()
        self._playing = {
            forecast.experiment: Playing(
                plan.of(forecast.experiment), usd_per_hour.get(forecast.experiment), forecast
            )
            for forecast in plan.forecasts
        }

    def begin(self, trial: Trial) -> None:
        """A trial starts."""
        with self._lock:
            self._playing[trial.experiment].begin(trial, self.clock())

    def seen(self, trial: Trial, batch: pa.Table) -> None:
        """A batch came; an empty one is a sign of life of the actor that it names."""
        sender = (batch.schema.metadata or {}).get(SENDER.encode())
        with self._lock:
            playing, now_s = self._playing[trial.experiment], self.clock()
            if sender is not None:
                playing.heard_s[sender.decode()] = now_s
            if len(batch):
                playing.batches.append(batch)
                playing.recent.append((now_s, len(batch)))

    def end(self, trial: Trial) -> tuple[int, int]:
        """A trial is over: which of its experiment's trials it was, from 1, and of how many."""
        with self._lock:
            playing = self._playing[trial.experiment]
            playing.end(self.clock())
            return playing.place, len(playing.plan)

    def snapshot(self) -> Snapshot:
        """The run now."""
        with self._lock:
            now_s = self.clock()
            each = [playing.snapshot(now_s) for playing in self._playing.values()]
        left = [one["left_s"] for one in each]
        return {
            "name": self.plan.name,
            "elapsed_s": now_s - self._began_s,
            "left_s": None if None in left else max(left),
            "spent_usd": _sum([one["spent_usd"] for one in each]),
            "planned_usd": _sum([one["planned_usd"] for one in each]),
            "experiments": each,
        }


def _sum(parts: list[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
