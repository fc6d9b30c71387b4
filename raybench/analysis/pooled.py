"""The repeats of a setting as one row of TRIALS: times and rates on the log scale, counts added up, worst verdict.

Every column has its rule here: one that had none would quietly show what the first repeat measured.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from raybench.analysis import stats
from raybench.analysis.columns import CERTIFIED, PARTS, QUANTILES, RATES, SPREADS, Valid
from raybench.analysis.metrics import Facts
from raybench.counting import Source
from raybench.states import TrialState

Rule = Callable[[Sequence[Any]], Any]
"""What the values of a column, one a repeat, are together."""


def pooled(rows: Sequence[Facts]) -> Facts:
    """One row for the repeats of one setting, in their order; `trial_ids` names them all."""
    row = {name: rule([each[name] for each in rows]) for name, rule in RULES.items()}
    for name in ESTIMATED:
        one = _combined(name, [stats.Estimate(*(each[name + end] for end in ("", "_low", "_high"))) for each in rows])
        row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
    errors = stats.wilson(row["failed"], row["requests"])
    row |= {"error_rate": errors.value, "error_rate_low": errors.low, "error_rate_high": errors.high}
    return row | {"trial_ids": [each["trial_id"] for each in rows]}


def _combined(name: str, each: Sequence[stats.Estimate]) -> stats.Estimate:
    """The mean on the log scale; 0 where all are, such as throughput where every request failed."""
    if all(one.value == 0 for one in each):
        return stats.Estimate(0.0)
    return stats.combined_within(each) if name in OF_REQUESTS else stats.combined([one.value for one in each])


def _first(values: Sequence[Any]) -> Any:
    """What all repeats share; of what numbers them, the first stands for all."""
    return values[0]


def _none(values: Sequence[Any]) -> None:
    """What holds for one trial and says nothing of several: a certified bound, where its window starts."""


def _sum(counts: Sequence[float | None]) -> float:
    return sum(count or 0 for count in counts)


def _most(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _least(values: Sequence[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _farthest_from(usual: float) -> Rule:
    def farthest(values: Sequence[float | None]) -> float | None:
        return max((value for value in values if value is not None), key=lambda v: abs(v - usual), default=None)

    return farthest


def _all(said: Sequence[bool | None]) -> bool | None:
    """False if any is; None if any cannot tell."""
    return False if False in said else None if None in said else True


def _each(texts: Sequence[Sequence[str] | None]) -> list[str]:
    """Every text that any repeat has, once."""
    return list(dict.fromkeys(text for each in texts for text in each or ()))


def _least_exact(said: Sequence[str | None]) -> str | None:
    return next((source.value for source in reversed(Source) if source in said), None)


def _worst(verdicts: Sequence[str]) -> str:
    return next(valid.value for valid in (Valid.INVALID, Valid.INCONCLUSIVE, Valid.VALID) if valid in verdicts)


def _state(states: Sequence[str]) -> str:
    return states[0] if len(set(states)) == 1 else TrialState.PARTIAL


def _ruled(rule: Rule, *names: str) -> Mapping[str, Rule]:
    return dict.fromkeys(names, rule)


OF_REQUESTS = tuple(f"{name}_{statistic}" for name in SPREADS for statistic in ("mean", *QUANTILES))
"""Columns whose interval a trial refuses where its requests are too much alike, and its repeats with it."""

ESTIMATED = (
    *OF_REQUESTS,
    *(name for name in RATES if name != "error_rate"),
    "repeat_ratio",
)
"""Columns with an interval, which between repeats is that of their logarithms; of `error_rate` it is Wilson's."""

RULES = {
    **_ruled(_first, "trial_id", "experiment", "payload", "instance_type", "instance_count", "load", "kind"),
    **_ruled(_first, "concurrency", "rate", "repeat", "simulated", "price_per_hour"),
    **_ruled(_none, *(f"{name}_{p}_certified" for name in CERTIFIED for p in QUANTILES)),
    **_ruled(_none, "window_start_s", "drift_low", "drift_high"),
    **_ruled(_sum, "requests", "ok", "failed", "not_sent", "lost", "throttled", "truncated", "missing_rows"),
    **_ruled(_sum, "window_s", "n_eff", "echoed", "over_max", "token_mismatches", "stamp_disorders"),
    **_ruled(_sum, "new_connections", "lost_actors", "cached_repeats", "cached_prompts"),
    **_ruled(stats.average, "prompt_token_count_mean", "completion_token_count_mean", *PARTS, "cached_token_share"),
    **_ruled(_most, "lateness_p50", "lateness_p99", "lateness_max", "cpu_share"),
    **_ruled(_most, "lag_p90_s", "lag_p95_s", "lag_p99_s", "lag_max_s"),
    **_ruled(_most, "prompts_repeated", "prompt_repeats_max", "warmup_cut", "streams", "chunks_per_s"),
    **_ruled(_least, "ceiling_streams", "ceiling_chunks_per_s"),
    **_ruled(_most, "ceiling_error_s"),
    **_ruled(_farthest_from(1), "little_ratio"),
    **_ruled(_farthest_from(0), "drift", "warmup_shift"),
    **_ruled(_all, "steady", "first_times_fell", "criteria_met"),
    **_ruled(_each, "beyond", "reasons", "reason_texts", "missed", "unsure"),
    **_ruled(_least_exact, "prompt_tokens_source", "completion_tokens_source"),
    "state": _state,
    "valid": _worst,
}
"""How the other columns of repeats are put together."""
