"""How numbers and criteria are said, in the decision's sentences as on the page: rounded here, and only for show."""

import math
from collections.abc import Callable, Iterator, Sequence

from raybench.analysis.columns import PRICE, SPREADS, criterion_column, criterion_unit

NO_NUMBER = "–"

_CRITERIA = {
    "error_rate": "error rate",
    "price_per_txn": "cost per request",
    PRICE: "cost per 10,000 requests",
    "price_per_1m_output_tokens": "cost per million output tokens",
    "price_per_1m_good_tokens": "cost per million good tokens",
}
_STATISTICS = {"mean": "mean ", "p50": "median ", "p90": "p90 ", "p95": "p95 ", "p99": "p99 "}


def data_set(payload: str) -> str:
    """A payload without the words every payload carries: `payload_en_1-500.jsonl` is `en_1-500`."""
    return payload.removeprefix("payload_").removesuffix(".jsonl")


def criterion_name(criterion: str) -> str:
    """`latency_p95` as people say it: p95 latency."""
    column = criterion_column(criterion)
    quantity, _, statistic = column.rpartition("_")
    if column in _CRITERIA:
        return _CRITERIA[column]
    if quantity in SPREADS and statistic in _STATISTICS:
        return _STATISTICS[statistic] + SPREADS[quantity].said
    return criterion.replace("_", " ")


def criterion_value(criterion: str, value: float | None) -> str:
    """A value of a criterion with its unit: `$20.00`, `1.0 %`, `3.80 s`."""
    if criterion_unit(criterion) == "1":
        return percent(value)
    return f"${usd(value)}" if criterion_unit(criterion) == "USD" else f"{seconds(value)} s"


def criterion_beyond(criterion: str) -> str:
    """What is said of a criterion beyond any number: too few requests finished, or what is paid for never came."""
    return "has no bound, as none was served" if criterion_unit(criterion) == "USD" else "never ends"


def criterion_limit(criterion: str, limit: float) -> str:
    """The limit of a criterion with its unit, as the person wrote it: `$20`, `1 %`, `3.8 s`."""
    if criterion_unit(criterion) == "1":
        return f"{plain(limit * 100)} %"
    return f"${plain(limit)}" if criterion_unit(criterion) == "USD" else f"{plain(limit)} s"


def plain(value: float) -> str:
    """A configured limit as a person wrote it: `5`, `0.5`, `1000`."""
    return f"{value:.10g}"


def usd(value: float | None) -> str:
    """Dollars: cents from one dollar on, three figures below: `1,049.59`, `0.502`, `0.00123`."""
    if value is None or not math.isfinite(value):
        return NO_NUMBER
    if abs(value) >= 1 or value == 0:
        return f"{value:,.2f}"
    return _figures(value)


def seconds(value: float | None) -> str:
    """A time, three figures: `0.00123`, `0.418`, `3.81`, `42.8`, `1,205`."""
    if value is None or not math.isfinite(value):
        return NO_NUMBER
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return _figures(value)


def times(value: float | None) -> str:
    """How far over a limit: `4.2×`, `14×`."""
    if value is None:
        return NO_NUMBER
    return f"{value:.2f}×" if value < 1.1 else f"{value:.1f}×" if value < 10 else f"{value:.0f}×"


def percent(value: float | None) -> str:
    """A fraction as per cent, one decimal, two below one per cent."""
    if value is None or not math.isfinite(value):
        return NO_NUMBER
    return f"{value * 100:.1f} %" if value >= 0.01 or value == 0 else f"{value * 100:.2f} %"


def between(low: float | None, high: float | None, write: Callable[[float], str]) -> str:
    """What follows a number with an interval: ` (95 % interval 2.90–3.10)` or `≥ 2.90`; nothing where it has none."""
    if low is None:
        return ""
    return f" (95 % interval ≥ {write(low)})" if high is None else f" (95 % interval {write(low)}–{write(high)})"


def room(rate: float | None) -> str:
    """What follows a count of errors by the highest rate that it cannot exclude; nothing where that is unknown."""
    return "" if rate is None else f" (which leaves room for a true rate up to {percent(rate)})"


def listed(parts: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1] if parts else ""


def aligned(cells: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Lines of cells as plain text, one below the other."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def lasting(seconds: float | None) -> str:
    """Seconds for people, rounded."""
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def dollars(usd: float | None) -> str:
    """USD for people, in cents."""
    return "cost unknown" if usd is None else f"{usd:.2f} USD"


def _figures(value: float) -> str:
    """Three figures of a number between 0 and 100 either way, not in powers of ten."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
