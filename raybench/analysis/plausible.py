"""Numbers that cannot be what they say, found by rule in the trials table alone, whoever measured them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from raybench.analysis.columns import PRICE
from raybench.analysis.metrics import Facts
from raybench.analysis.spoken import listed, percent, seconds, usd
from raybench.counting import max_tokens

LITTLE = (0.9, 1.1)
"""Where throughput · latency / concurrency is near enough to 1."""

CEILING = 1.02
"""How far over its ceiling a rounded throughput may be."""

FEWEST = 3
ECHO_SLOPE = (0.9, 1.1)


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something that does not add up: a stable code, the trials it is about, and the evidence in a sentence."""

    code: str
    trial_ids: tuple[str, ...]
    text: str


def doubts(rows: Sequence[Facts], experiments: Sequence[Facts] = ()) -> list[Doubt]:
    """Everything that does not add up in these rows of TRIALS; `experiments` are those of run.json."""
    asked = {about["name"]: max_tokens(about.get("parameters") or {}) for about in experiments}
    return [doubt for rule in _RULES for doubt in rule(rows, asked)]


def little(row: Facts) -> float | None:
    """X·R/N of a closed load: as its rows give it, else from its throughput, mean latency and concurrency."""
    if row["little_ratio"] is not None:
        return float(row["little_ratio"])
    slots, per_minute, mean = row["concurrency"], row["transactions_per_minute"], row["latency_mean"]
    if row["kind"] != "closed" or not slots or per_minute is None or mean is None:
        return None
    return float(per_minute / 60 * mean / slots)


Asked = Mapping[str, float | None]
"""Experiment -> how many tokens it asks for at most, if known."""


def _idle(rows: Sequence[Facts], asked: Asked) -> Iterator[Doubt]:
    known = {row["trial_id"]: ratio for row in rows if (ratio := little(row)) is not None}
    off = {name: ratio for name, ratio in known.items() if not LITTLE[0] <= ratio <= LITTLE[1]}
    if off:
        worst = max(off.values(), key=lambda ratio: abs(ratio - 1))
        text = f"Throughput × latency ÷ concurrency is {worst:.2f} at worst, where 1 means that every slot was busy"
        yield Doubt("little", tuple(off), f"{text}: below, the load was lighter than it says; above, it cannot be.")


def _impossible(rows: Sequence[Facts], asked: Asked) -> Iterator[Doubt]:
    known = [row for row in rows if row["transactions_per_minute"] and row["latency_mean"]]
    over = [row for row in known if (little(row) or 0) > CEILING]
    if over:
        row = max(over, key=lambda row: little(row) or 0)
        most = 60 * row["concurrency"] / row["latency_mean"]
        text = (
            f"{row['transactions_per_minute']:.4g} requests a minute at concurrency {row['concurrency']}, where a "
            f"latency of {seconds(row['latency_mean'])} s allows {most:.3g}."
        )
        yield Doubt("over_ceiling", tuple(row["trial_id"] for row in over), text)


def _equal_percentiles(rows: Sequence[Facts], asked: Asked) -> Iterator[Doubt]:
    """Nothing that takes time takes the same time to the last digit: such percentiles are of means, or of one."""
    names = ("latency_mean", "latency_p50", "latency_p95", "latency_p99")
    same = [row for row in rows if row["latency_p99"] is not None and len({row[name] for name in names}) == 1]
    if same:
        value = seconds(same[0]["latency_mean"])
        text = f"Mean, p50, p95 and p99 are all {value} s: these are percentiles of averages, not of requests."
        yield Doubt("equal_percentiles", tuple(row["trial_id"] for row in same), text)


def _echo(rows: Sequence[Facts], asked: Asked) -> Iterator[Doubt]:
    """Completions as long as their prompts and a little, whatever the prompt: the prompt is counted in."""
    for experiment, group in _by_experiment(rows).items():
        sizes = [(row["prompt_token_count_mean"], row["completion_token_count_mean"]) for row in group]
        told = [(row, *size) for row, size in zip(group, sizes, strict=True) if None not in size]
        longer = [(row, prompt, completion) for row, prompt, completion in told if completion >= prompt]
        prompts = np.array([prompt for _, prompt, _ in longer])
        most = asked.get(experiment)
        follows = len(set(prompts.tolist())) >= 2 and len(longer) == len(told)
        if follows:
            slope = float(np.polyfit(prompts, [completion for *_, completion in longer], 1)[0])
            follows = ECHO_SLOPE[0] <= slope <= ECHO_SLOPE[1]
        beyond = most is not None and any(completion > most for *_, completion in longer)
        if follows or beyond:
            extra = [completion - prompt for _, prompt, completion in longer]
            text = (
                f"Completions are {min(extra):.0f}–{max(extra):.0f} tokens longer than their prompts, whatever the "
            )
            text += "prompt: it is echoed, and counted as output."
            yield Doubt("echoed", tuple(row["trial_id"] for row, *_ in longer), text)


def _steps(rows: Sequence[Facts], asked: Asked) -> Iterator[Doubt]:
    """Throughput in whole numbers, and so prices in steps: rounded before it was divided by."""
    priced = [row for row in rows if row["transactions_per_minute"] and row[PRICE]]
    if len(priced) < FEWEST or any(row["transactions_per_minute"] % 1 for row in priced):
        return
    pairs = [
        (lower, upper)
        for group in _by_experiment(priced).values()
        for lower, upper in pairwise(sorted(group, key=lambda row: row["transactions_per_minute"]))
        if upper["transactions_per_minute"] - lower["transactions_per_minute"] == 1
    ]
    text = f"All {len(priced)} throughputs are whole numbers, rounded before prices were made of them"
    if pairs:
        least = min(pairs, key=lambda pair: pair[0]["transactions_per_minute"])
        rates = [f"{row['transactions_per_minute']:.0f} (${usd(row[PRICE])})" for row in least]
        jump = least[0][PRICE] / least[1][PRICE] - 1
        text += f": between {listed(rates)} requests a minute the price jumps by {percent(jump)}"
    yield Doubt("price_steps", tuple(row["trial_id"] for row in priced), f"{text}.")


def _by_experiment(rows: Sequence[Facts]) -> dict[str, list[Facts]]:
    found: dict[str, list[Facts]] = {}
    for row in rows:
        found.setdefault(row["experiment"], []).append(row)
    return found


_RULES: tuple[Callable[[Sequence[Facts], Asked], Iterator[Doubt]], ...] = (
    _idle,
    _impossible,
    _equal_percentiles,
    _echo,
    _steps,
)
