"""Prompts that a trial sent again, and whether they were answered as the first time: from a cache they are not.

Compared are the first and the second time of the same prompts, as MLPerf's TEST04 compares unlike with like queries.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from raybench.analysis import stats
from raybench.analysis.metrics import Requests
from raybench.analysis.stats import Estimate, Values

FEWEST = 20
"""The fewest prompts whose first and second time are compared."""

WORTH, FEWEST_BATCHES = 2, 3
"""How many independent requests a batch is worth at least, as far as there are three batches."""

WHOLE = 0.9
"""The share of a prompt from which on the cache counts as having all of it: many prompts begin alike, to a point."""

LEAST = 0.01
"""Of the usual time: anything shorter counts as this, since nothing has no logarithm."""

Places = npt.NDArray[np.int64]


def prompts(rows: Requests) -> dict[str, Any]:
    """How often prompts came again: the trial's warm-up counts as having sent them before."""
    prompt = rows.codes("prompt_id")
    known = prompt >= 0
    _, first, times = np.unique(prompt[known], return_index=True, return_counts=True)
    again = np.zeros(len(prompt), bool)
    again[known] = True
    again[np.flatnonzero(known)[first]] = False
    measured = rows.measured & known
    tokens, cached = rows.numbers("prompt_tokens"), rows.numbers("cached_tokens")
    counted = rows.measured & ~np.isnan(tokens) & ~np.isnan(cached)
    total = float(tokens[counted].sum())
    found = {
        "prompts_repeated": float(again[measured].mean()) if measured.any() else None,
        "prompt_repeats_max": int(times.max()) if len(times) else None,
        "cached_token_share": float(cached[counted].sum()) / total if total else None,
        "cached_repeats": int((again & measured & (cached > 0)).sum()),
        "cached_prompts": int((counted & (cached > 0) & (cached >= WHOLE * tokens)).sum()),
    }
    return found | _compared(rows, prompt) if again.any() else found


def _compared(rows: Requests, prompt: Places) -> dict[str, Any]:
    """The second time over the first, until the first token where replies have one, else until the last byte."""
    seconds = rows.durations()
    answered = seconds["service_ttft"]
    if np.isnan(answered[rows.ok]).all():
        answered = seconds["service_latency"]
    first, second = twice(prompt)
    kept = rows.ok & rows.measured & ~np.isnan(answered)
    both = kept[first] & kept[second]
    first, second = np.sort(first[both]), np.sort(second[both])
    ratio = second_over_first(answered[first], answered[second])
    falling = stats.drift(rows.numbers("planned_ns")[first], answered[first]).high
    return {
        "repeat_ratio": ratio.value,
        "repeat_ratio_low": ratio.low,
        "repeat_ratio_high": ratio.high,
        "first_times_fell": None if falling is None else falling < 0,
    }


def twice(prompt: Places) -> tuple[Places, Places]:
    """The places of the first and of the second time of every prompt that came twice; -1 is no prompt."""
    order = np.argsort(prompt, kind="stable")
    same = prompt[order[1:]] == prompt[order[:-1]]
    begins = same & ~np.concatenate([[False], same[:-1]])[: len(same)] & (prompt[order[:-1]] >= 0)
    return order[:-1][begins], order[1:][begins]


def second_over_first(first_s: Values, second_s: Values) -> Estimate:
    """The ratio of the usual times, each in time order, with Welch's 99 % interval of batches on logarithms."""
    if len(first_s) < FEWEST or not first_s.any():
        return Estimate()
    least_s = LEAST * float(first_s.mean())
    return stats.change(_batches(first_s, least_s), _batches(second_s, least_s), stats.CERTAINTY)


def _batches(seconds: Values, least_s: float) -> list[float]:
    """The geometric means of ten stretches of a series; of fewer where what is in a queue together is alike."""
    n = len(seconds)
    number = int(np.clip(stats.effective_size(seconds) / WORTH, FEWEST_BATCHES, stats.BATCHES))
    cuts = np.arange(number) * n // number
    sizes = np.diff(np.append(cuts, n))
    means: list[float] = np.exp(np.add.reduceat(np.log(np.maximum(seconds, least_s)), cuts) / sizes).tolist()
    return means
