"""How a setting stands to the criteria: one configuration at one load on one payload, all its repeats together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from raybench.analysis import stats
from raybench.analysis.columns import PRICE, Valid, criterion_column, criterion_unit
from raybench.analysis.metrics import Facts
from raybench.analysis.pooled import pooled
from raybench.states import TrialState


class Standing(StrEnum):
    """How a number stands to its limit; unsure: the limit lies inside its interval, which may have no upper end, or
    the number has no interval at all."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    UNSURE = "unsure"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class State:
    """One criterion of one setting: the number, its interval, its limit and how it stands.

    `exceedance` is the number over its limit: above 1 it fails, by that multiple. It is infinite over a limit of
    zero, or where what is limited never finished, and None where there is no number.
    """

    criterion: str
    standing: Standing
    limit: float
    value: float | None
    low: float | None
    high: float | None
    exceedance: float | None

    @property
    def met(self) -> bool:
        """Whether the number is within its limit, by its best estimate."""
        return self.exceedance is not None and self.exceedance <= 1

    @property
    def bare(self) -> bool:
        """Whether its number has no interval: nothing says how far off it may be."""
        return self.value is not None and self.low is None and self.high is None


@dataclass(frozen=True, slots=True)
class Setting:
    """One configuration at one load on one payload: its row of TRIALS, and how that stands to each criterion."""

    row: Facts
    states: tuple[State, ...]

    @property
    def trial_id(self) -> str:
        """The trial, or the first of its repeats."""
        return str(self.row["trial_id"])

    @property
    def trial_ids(self) -> Sequence[str]:
        """The trial, or all its repeats."""
        found: Sequence[str] = self.row.get("trial_ids") or [self.trial_id]
        return found

    @property
    def experiment(self) -> str:
        return str(self.row["experiment"])

    @property
    def payload(self) -> str:
        return str(self.row["payload"])

    @property
    def load(self) -> str:
        """The load in words: `concurrency 8` where a concurrency is all there is to say, else its label."""
        label, concurrency = str(self.row["load"]), self.row["concurrency"]
        return f"concurrency {concurrency}" if label == f"closed-{concurrency}" else label

    @property
    def usd(self) -> stats.Estimate:
        """The price of 10,000 requests."""
        return stats.Estimate(*(self.row[PRICE + end] for end in ("", "_low", "_high")))

    @property
    def rank(self) -> tuple[float, float]:
        """What settings that pass are ordered by: price, then mean latency; unknown is last."""
        known = (self.row[PRICE], self.row["latency_mean"])
        price, latency = (math.inf if value is None else float(value) for value in known)
        return price, latency

    @property
    def played(self) -> bool:
        """Whether any of its requests was measured."""
        return bool(self.row.get("requests"))

    @property
    def answered(self) -> bool:
        """Whether each of its trials had a request that succeeded: without one there is nothing to choose."""
        return self.row["latency_mean"] is not None

    @property
    def counts(self) -> bool:
        """Whether it may be decided by: its trials were played whole and are VALID."""
        return bool(self.row["state"] == TrialState.DONE and self.row["valid"] == Valid.VALID)

    @property
    def missed(self) -> tuple[State, ...]:
        """The criteria that are not met, for want of a number too."""
        return tuple(state for state in self.states if not state.met)

    @property
    def distance(self) -> tuple[int, int, float]:
        """How far from passing: criteria without a number, infinitely missed ones, product of the exceedances."""
        by = [state.exceedance for state in self.missed]
        known = [excess for excess in by if excess is not None and math.isfinite(excess)]
        return by.count(None), len(by) - by.count(None) - len(known), math.prod(known)


def states(row: Facts, criteria: Mapping[str, float]) -> tuple[State, ...]:
    """How a row of TRIALS stands to each criterion, in the order configured."""
    return tuple(_state(row, criterion, float(limit)) for criterion, limit in criteria.items())


def met(found: Sequence[State]) -> bool | None:
    """Whether all criteria are met; None where there are none, or where one cannot be told and none surely fails."""
    if any(state.standing is Standing.FAIL for state in found):
        return False
    return True if found and all(state.met and not state.bare for state in found) else None


def settings(trials: Sequence[Facts], criteria: Mapping[str, float]) -> tuple[Setting, ...]:
    """The settings of rows of TRIALS, in their order, repeats put together."""
    cells: dict[tuple[Any, ...], list[Facts]] = {}
    for row in trials:
        cells.setdefault((row["experiment"], row["payload"], row["load"]), []).append(row)
    together = (rows[0] if len(rows) == 1 else pooled(rows) for rows in cells.values())
    return tuple(Setting(row, states(row, criteria)) for row in together)


_SERVED = {
    "price_per_1m_output_tokens": "completion_token_throughput",
    "price_per_1m_good_tokens": "good_token_throughput",
}
"""What a price is of; all others are of requests."""


def _state(row: Facts, criterion: str, limit: float) -> State:
    column = criterion_column(criterion)
    value, low, high = (row.get(column + end) for end in ("", "_low", "_high"))
    if value is None:
        served = _SERVED.get(column, "requests_per_s")
        endless = column in (row.get("beyond") or ()) or (criterion_unit(criterion) == "USD" and row.get(served) == 0)
        standing = Standing.FAIL if endless else Standing.MISSING
        return State(criterion, standing, limit, None, None, None, math.inf if endless else None)
    within = value <= limit
    if within:
        sure = (high is not None and high <= limit) or (column == "error_rate" and limit == 0)
    else:
        sure = low is not None and low > limit
    standing = (Standing.PASS if within else Standing.FAIL) if sure else Standing.UNSURE
    excess = value / limit if limit else math.inf if value > 0 else 0.0
    return State(criterion, standing, limit, value, low, high, excess)
