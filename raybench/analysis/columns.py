"""Every metric once: its name, its unit, what it is; together the columns of the trials table."""

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

import pyarrow as pa

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


INSTANTS = {
    "planned_ns": "planned",
    "sent_ns": "sent",
    "first_token_ns": "first token",
    "last_token_ns": "last token",
    "end_ns": "last byte",
}
"""The instants of a request that metrics are made of, as people say them."""


class Duration(NamedTuple):
    """A time of one request: the instant `later` minus the instant `earlier`."""

    later: str
    earlier: str

    @property
    def means(self) -> str:
        """What it is, in words."""
        return f"{INSTANTS[self.later]} - {INSTANTS[self.earlier]}"


DURATIONS = {
    "latency": Duration("end_ns", "planned_ns"),
    "service_latency": Duration("end_ns", "sent_ns"),
    "ttft": Duration("first_token_ns", "planned_ns"),
    "service_ttft": Duration("first_token_ns", "sent_ns"),
    "lateness": Duration("sent_ns", "planned_ns"),
    "decoding": Duration("last_token_ns", "first_token_ns"),
    "answering": Duration("end_ns", "first_token_ns"),
}
"""Every difference of two instants of one request."""


class Spread(NamedTuple):
    """A metric of requests: its unit, how people say it, what it is, and whether it needs a reply in pieces."""

    unit: str
    said: str
    means: str
    streamed: bool = False


SPREADS = {
    "latency": Spread("s", "latency", DURATIONS["latency"].means),
    "service_latency": Spread("s", "service latency", DURATIONS["service_latency"].means),
    "ttft": Spread("s", "time to first token", DURATIONS["ttft"].means, streamed=True),
    "itl": Spread(
        "s",
        "inter-token latency",
        "gap between successive token chunks of a reply, all gaps pooled; chunks of one instant are one",
        streamed=True,
    ),
    "worst_gap": Spread(
        "s", "longest gap between tokens", "longest gap between successive token chunks of a reply", streamed=True
    ),
    "tpot": Spread(
        "s",
        "time per output token",
        f"({DURATIONS['decoding'].means}) / (completion tokens - 1); none for a reply in one chunk",
        streamed=True,
    ),
    "output_tokens_per_s_per_user": Spread(
        "tokens/s", "output tokens per second per user", "1 / tpot", streamed=True
    ),
}
"""Metrics of requests with a mean (of ok requests) and percentiles (of all)."""

PARTS = {
    "client_mean": f"{DURATIONS['lateness'].means}: the client's own delay",
    "prefill_mean": f"{DURATIONS['service_ttft'].means}: waiting for a place, and the prompt",
    "decode_mean": DURATIONS["answering"].means,
}
"""What mean latency is made of, in seconds, over ok requests that had a first token."""

CERTIFIED = ("latency", "service_latency", "ttft")
"""Metrics whose percentiles also have an upper bound that holds with 99 % confidence."""

RATES = {
    "error_rate": ("1", "failed / requests; Wilson's interval"),
    "prompt_token_throughput": ("tokens/s", "prompt tokens of ok requests / window, counted as requests_per_s"),
    "completion_token_throughput": (
        "tokens/s",
        "completion tokens of ok requests / window, counted as requests_per_s",
    ),
    "requests_per_s": ("1/s", "ok requests served in the window / window; one cut by its edge counts by its share"),
    "transactions_per_minute": ("1/min", "60 * requests_per_s, not rounded"),
    "goodput_per_s": ("1/s", "as requests_per_s, of requests that meet each criterion on a request's time"),
    "good_token_throughput": ("tokens/s", "as completion_token_throughput, of the requests that goodput counts"),
    "price_per_txn": ("USD", "price_per_hour * instance_count / (60 * transactions_per_minute)"),
    "price_per_10k_txn": ("USD", "10,000 * price_per_txn"),
    "price_per_1m_output_tokens": ("USD", "price of an hour / completion tokens of an hour * 1,000,000"),
    "price_per_1m_good_tokens": ("USD", "price of an hour / good completion tokens of an hour * 1,000,000"),
}
"""Metrics of a whole trial, each with its 95 % interval."""

PRICE = "price_per_10k_txn"
"""The metric that settings are ranked by."""

ALIASES = {"cost_per_10k": PRICE}
"""Criteria that go by a shorter name than their column."""


def criterion_column(criterion: str) -> str:
    """The column of the trials table that a criterion is about."""
    return ALIASES.get(criterion, criterion)


def criterion_unit(criterion: str) -> str:
    """What a criterion is measured in: s, USD, or 1 for a share."""
    column = criterion_column(criterion)
    return RATES[column][0] if column in RATES else SPREADS[column.rpartition("_")[0]].unit


def _field(name: str, kind: pa.DataType, unit: str = "", means: str = "") -> pa.Field:
    return pa.field(name, kind, metadata={k: v for k, v in (("unit", unit), ("means", means)) if v} or None)


def _estimates(name: str, unit: str, means: str) -> Iterator[pa.Field]:
    yield _field(name, pa.float64(), unit, means)
    yield _field(f"{name}_low", pa.float64(), unit, "lower end of the 95 % interval")
    yield _field(f"{name}_high", pa.float64(), unit, "upper end of the 95 % interval")


def _spread(name: str) -> Iterator[pa.Field]:
    spread = SPREADS[name]
    yield from _estimates(f"{name}_mean", spread.unit, f"mean over ok requests of: {spread.means}")
    for p in QUANTILES:
        yield from _estimates(f"{name}_{p}", spread.unit, f"percentile over all requests of: {spread.means}")
        if name in CERTIFIED:
            yield _field(f"{name}_{p}_certified", pa.float64(), spread.unit, "upper bound with 99 % confidence")


def _rate(name: str) -> Iterator[pa.Field]:
    return _estimates(name, *RATES[name])


class Valid(StrEnum):
    """The verdict on a trial: whether its numbers can be trusted."""

    VALID = "VALID"
    INVALID = "INVALID"
    INCONCLUSIVE = "INCONCLUSIVE"


_TEXTS, _COUNT = pa.list_(pa.string()), pa.int64()

TRIALS = pa.schema(
    [
        _field("trial_id", pa.string()),
        _field("experiment", pa.string()),
        _field("payload", pa.string()),
        _field("instance_type", pa.string()),
        _field("instance_count", pa.int32()),
        _field("load", pa.string()),
        _field("kind", pa.string(), means="how requests arrive: closed, constant, poisson, ..."),
        _field("concurrency", pa.int32(), means="slots of a closed load"),
        _field("rate", pa.float64(), "1/s", "arrivals of an open load"),
        _field("repeat", pa.int32()),
        _field("state", pa.string(), means="done, partial, or planned and never played"),
        _field("simulated", pa.bool_(), means="the endpoint is a simulated one"),
        _field("requests", _COUNT, "requests", "planned in the phase measure; the denominator"),
        _field("ok", _COUNT, "requests"),
        _field("failed", _COUNT, "requests", "requests - ok; not_sent, lost, throttled and truncated are among them"),
        _field("not_sent", _COUNT, "requests"),
        _field("lost", _COUNT, "requests"),
        _field("throttled", _COUNT, "requests"),
        _field("truncated", _COUNT, "requests"),
        _field("window_start_s", pa.float64(), "s", "start of the measuring window since T0"),
        _field("window_s", pa.float64(), "s", "length of the measuring window"),
        *_rate("error_rate"),
        _field("prompt_token_count_mean", pa.float64(), "tokens", "mean over ok requests"),
        *_rate("prompt_token_throughput"),
        _field("completion_token_count_mean", pa.float64(), "tokens", "mean over ok requests"),
        *_rate("completion_token_throughput"),
        _field("prompt_tokens_source", pa.string(), means="the least exact means by which they were counted"),
        _field("completion_tokens_source", pa.string(), means="the least exact means by which they were counted"),
        *(field for name in SPREADS for field in _spread(name)),
        *(_field(name, pa.float64(), "s", f"mean over ok requests of: {means}") for name, means in PARTS.items()),
        *_rate("requests_per_s"),
        *_rate("transactions_per_minute"),
        *_rate("goodput_per_s"),
        *_rate("good_token_throughput"),
        _field("price_per_hour", pa.float64(), "USD", "of one instance"),
        *_rate("price_per_txn"),
        *_rate("price_per_10k_txn"),
        *_rate("price_per_1m_output_tokens"),
        *_rate("price_per_1m_good_tokens"),
        _field(
            "lateness_p50", pa.float64(), "s", f"{DURATIONS['lateness'].means}; as measured, with no floor of samples"
        ),
        _field(
            "lateness_p99", pa.float64(), "s", f"{DURATIONS['lateness'].means}; as measured, with no floor of samples"
        ),
        _field("lateness_max", pa.float64(), "s", DURATIONS["lateness"].means),
        _field("little_ratio", pa.float64(), "1", "time slots were filled / time they were there, in the window"),
        _field("beyond", _TEXTS, means="percentiles that fall among requests that never finished"),
        _field("n_eff", pa.float64(), "requests", "independent requests that the latencies are worth"),
        _field("steady", pa.bool_(), means="no drift and no warm-up left inside the window; null if too few to tell"),
        _field("drift", pa.float64(), "1", "change of latency across the window / its mean"),
        _field("drift_low", pa.float64(), "1", "lower end of the 99 % interval"),
        _field("drift_high", pa.float64(), "1", "upper end of the 99 % interval"),
        _field("warmup_cut", pa.float64(), "1", "share of the requests that MSER-5 would cut as warm-up"),
        _field("warmup_shift", pa.float64(), "1", "by how much that cut would change mean latency / its mean"),
        _field("prompts_repeated", pa.float64(), "1", "share of requests whose prompt the trial had sent before"),
        _field("prompt_repeats_max", _COUNT, "requests", "how often the commonest prompt was sent"),
        _field("cached_token_share", pa.float64(), "1", "cached prompt tokens / prompt tokens, as the server says"),
        _field("cached_repeats", _COUNT, "requests", "of prompts sent before, with tokens from the server's cache"),
        _field("cached_prompts", _COUNT, "requests", "with 90 % or more of the prompt from the server's cache"),
        _field("repeat_ratio", pa.float64(), "1", "time to answer the second time / the first time of a prompt"),
        _field("repeat_ratio_low", pa.float64(), "1", "lower end of the 99 % interval"),
        _field("repeat_ratio_high", pa.float64(), "1", "upper end of the 99 % interval"),
        _field("first_times_fell", pa.bool_(), means="first times got faster by themselves; null if too few to tell"),
        _field("echoed", _COUNT, "requests", "replies that repeat the prompt"),
        _field("over_max", _COUNT, "requests", "replies longer than the tokens asked for"),
        _field(
            "token_mismatches", _COUNT, "requests", "replies whose chunks hold another number of tokens than usage"
        ),
        _field("stamp_disorders", _COUNT, "requests", "rows whose instants are out of order"),
        _field("new_connections", _COUNT, "requests", "requests that had to open a connection"),
        _field("missing_rows", _COUNT, "requests", "planned requests without a row"),
        _field("lost_actors", _COUNT, "actors"),
        *(
            _field(f"lag_{which}_s", pa.float64(), "s", "how late the clients' event loops were, worst actor")
            for which in ("p90", "p95", "p99", "max")
        ),
        _field("cpu_share", pa.float64(), "1", "CPU seconds per second of the busiest client process"),
        _field("streams", pa.float64(), "requests", "in flight in the busiest tenth of the window, per load actor"),
        _field("chunks_per_s", pa.float64(), "1/s", "chunks that came in that tenth, per load actor"),
        _field("ceiling_streams", pa.float64(), "requests", "what selftest found an actor to carry; null if unknown"),
        _field("ceiling_chunks_per_s", pa.float64(), "1/s", "the chunks of those streams"),
        _field("ceiling_error_s", pa.float64(), "s", "p99 error of token stamps above that; null if not tried"),
        _field("valid", pa.string(), means="VALID, INVALID or INCONCLUSIVE"),
        _field("reasons", _TEXTS, means="codes of what was noticed; only some make a trial not VALID"),
        _field("reason_texts", _TEXTS),
        _field(
            "criteria_met",
            pa.bool_(),
            means="all of them; null if none is set, or one cannot be told and none is missed",
        ),
        _field("missed", _TEXTS, means="criteria that are missed, interval and all"),
        _field("unsure", _TEXTS, means="criteria whose limit lies inside the interval, or whose number has none"),
    ]
)
"""The trials table: one row per trial."""
