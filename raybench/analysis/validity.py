"""Can a trial be trusted, and why not: the verdict on it, from its row of TRIALS.

INVALID says that the numbers would mislead about the endpoint; INCONCLUSIVE that they may be right but this trial
cannot tell; a reason that does neither is a remark on a VALID trial.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from raybench.analysis import stats
from raybench.analysis.columns import QUANTILES, SPREADS, Valid, criterion_column
from raybench.analysis.facts import DRIFT
from raybench.analysis.metrics import Facts

LATE_S, LATE_SHARE = 0.01, 0.02
"""A p99 delay of the client's own may be so long, or this share of what a reply takes."""

FIRST = 5
"""Of the time to a first token a delay may be so many times that share: a tenth, if it is its p99.

One stamp in a hundred that is a tenth off moves a mean by thousandths, and a p99 by less than a thousand requests
leave open.
"""

LATE_SLOTS = 5
"""How many times that a closed load may start late before it counts."""

LAG_MAX_S, LAG_MAX_SHARE = 0.15, 0.1
"""The longest delay of the client's event loop may be so long, or this share of what a reply takes."""

LAG_WINDOWS_S = {"p99": 15.0, "p95": 5.0, "p90": 0.0}
"""From what window on a percentile of the event loop's delays decides: one as long as LAG_MAX_S must not make it.

A hundredth of 15 s is as long as that one. In a shorter window p99 is a remark.
"""

SLACK = 0.01
"""Of a stream: what arithmetic may add to a load that is just as large as its ceiling."""

BUSY = 0.9
"""CPU seconds a second above which a client process may be the bottleneck."""

IDLE = 0.98
"""The least share of the time in which a closed load's slots are filled."""

SHARE = 0.01
"""The share of requests above which a fault decides; below, it is a remark."""

CONNECTIONS = 0.05
"""The share of requests on new connections above which latency is not the endpoint's alone."""

CHECKED = 1
"""The prompts that the check of an endpoint before the run left in its cache."""

FASTER = 0.9
"""How fast a prompt may be answered the second time, over the first; faster is a cache (MLPerf's TEST04)."""

LATE = ("client_lag", "late_starts")
"""Codes of what says that the load generator did not keep up."""

FAULTS = (*LATE, "lost_rows", "stamp_disorder", "token_mismatch", "echoed_prompt", "repeated_prompts")
"""Codes of what makes a probe worthless; overloading the endpoint does not: overload is what is searched for."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Something noticed about a trial: a stable code, one sentence, what to do, and what it makes of the trial."""

    code: str
    text: str
    remedy: str
    makes: Valid = Valid.VALID


def verdict(summary: Facts, criteria: Mapping[str, float]) -> tuple[Valid, tuple[Reason, ...]]:
    """The verdict on a trial from its row of TRIALS, facts included, and the reasons for it."""
    reasons = tuple(reason for check in CHECKS for reason in check(summary, criteria))
    worst = (Valid.INVALID, Valid.INCONCLUSIVE)
    made = {reason.makes for reason in reasons}
    return next((valid for valid in worst if valid in made), Valid.VALID), reasons


Check = Callable[[Facts, Mapping[str, float]], Iterator[Reason]]


def _share_of(summary: Facts, name: str) -> float:
    return (summary.get(name) or 0) / summary["requests"] if summary.get("requests") else 0.0


def _counted(code: str, column: str, text: str, remedy: str) -> Check:
    """A check on a number of requests: above one in a hundred it decides, below it is a remark."""

    def check(summary: Facts, criteria: Mapping[str, float]) -> Iterator[Reason]:
        if number := summary.get(column):
            said = f"{number:,} of {summary['requests']:,} requests {text}"
            yield Reason(code, said, remedy, Valid.INVALID if _share_of(summary, column) > SHARE else Valid.VALID)

    return check


def _usual_s(summary: Facts) -> float:
    """What a reply usually takes, or FIRST times its first token if that is less; delays are judged by it."""
    reply_s = summary.get("service_latency_p50") or summary.get("service_latency_mean") or 0.0
    first_s = summary.get("ttft_p50") or summary.get("ttft_mean")
    return min(reply_s, FIRST * first_s) if first_s else reply_s


LESS_PER_ACTOR = "use more load actors, a quieter machine, or less load per core"


def _client_lag(summary: Facts, criteria: Mapping[str, float]) -> Iterator[Reason]:
    """What the load actors noticed of themselves in the trial; else what selftest had found before; else a remark."""
    window_s = summary.get("window_s") or 0.0
    which = next(p for p, least_s in LAG_WINDOWS_S.items() if window_s >= least_s)
    remark = () if which == "p99" else _woke_late(summary, "p99", Valid.VALID)
    yield from tuple(_lagged(summary, which)) or tuple(_over_ceiling(summary)) or remark


def _woke_late(summary: Facts, which: str, makes: Valid = Valid.INVALID) -> Iterator[Reason]:
    floor_s, share = (LAG_MAX_S, LAG_MAX_SHARE) if which == "max" else (LATE_S, LATE_SHARE)
    lag_s = summary.get(f"lag_{which}_s")
    if lag_s is not None and lag_s > max(floor_s, share * _usual_s(summary)):
        name = "at worst" if which == "max" else which
        text = f"the client's event loop woke {lag_s * 1000:,.0f} ms late ({name}): its stamps are as late"
        yield Reason("client_lag", text, LESS_PER_ACTOR, makes)


def _lagged(summary: Facts, which: str) -> Iterator[Reason]:
    late = tuple(_woke_late(summary, which)) or tuple(_woke_late(summary, "max"))
    yield from late
    if not late and (summary.get("cpu_share") or 0) > BUSY:
        text = f"a load actor used {summary['cpu_share']:.0%} of a core: the client may be the bottleneck"
        yield Reason("client_lag", text, LESS_PER_ACTOR, Valid.INVALID)


def _over_ceiling(summary: Facts) -> Iterator[Reason]:
    """More than an actor carries, both in streams and in chunks: many streams of few chunks are little work.

    Where selftest saw by how much the stamps are then late, and that is small beside what is timed, it is a remark.
    """
    streams, most = summary.get("streams") or 0.0, summary.get("ceiling_streams")
    chunks, most_chunks = summary.get("chunks_per_s") or 0.0, summary.get("ceiling_chunks_per_s") or 0.0
    if most is None or streams <= most + SLACK or chunks <= most_chunks:
        return
    text = f"a load actor held {streams:,.1f} streams of {chunks:,.0f} chunks/s together in the busiest tenth of the "
    text += f"window; selftest vouches for {most:,.0f} of {most_chunks:,.0f}"
    error_s, makes = summary.get("ceiling_error_s"), Valid.INVALID
    if error_s is not None:
        text += f", and saw stamps {error_s * 1000:,.0f} ms late (p99) above that"
        makes = Valid.VALID if error_s <= LATE_SHARE * _usual_s(summary) else Valid.INVALID
    yield Reason("client_lag", text, LESS_PER_ACTOR, makes)


def _late_starts(summary: Facts, criteria: Mapping[str, float]) -> Iterator[Reason]:
    """An open load that starts late is another load; a closed one is a little lighter, as `slots_idle` measures."""
    late_s, limit_s = summary.get("lateness_p99"), max(LATE_S, LATE_SHARE * _usual_s(summary))
    if late_s is not None and late_s > limit_s:
        text = f"requests left up to {late_s * 1000:,.0f} ms (p99) after they were due"
        decides = summary.get("kind") != "closed" or late_s > LATE_SLOTS * limit_s
        remedy = "use more load actors or a lower rate"
        yield Reason("late_starts", text, remedy, Valid.INVALID if decides else Valid.VALID)


def _not_sent(summary: Facts, criteria: Mapping[str, float]) -> Iterator[Reason]:
    """An open load that was not sent whole: also how much of its rate was."""
    text, lasts_s = "were planned but never sent", summary.get("window_s")
    if lasts_s:
        planned = summary["requests"] / lasts_s
        text += f": {planned * (1 - _share_of(summary, 'not_sent')):,.1f}/s sent of {planned:,.1f}/s planned"
    yield from _counted("not_sent", "not_sent", text, "raise max_in_flight, or lower the rate")(summary, criteria)


def _slots_idle(summary: Facts, criteria: Mapping[str, float]) -> Iterator[Reason]:
    ratio = summary.get("little_ratio")
    if ratio is not None and ratio < IDLE:
        text = (
            f"the {summary['concurrency']} slots were filled {ratio:.1%} of the time: the load was lighter than said"
        )
        yield Reason("slots_idle", text, "check for lost actors and a client short of CPU", Valid.INVALID)


def _new_connections(summary: Facts, criteria: Mapping[str, float]) -> Iterator[Reason]:
    if number := summary.get("new_connections"):
        text = f"{number:,} of {summary['requests']:,} requests opened a connection within their latency"
        makes = Valid.INCONCLUSIVE if _share_of(summary, "new_connections") > CONNECTIONS else Valid.VALID
        yield Reason("new_connections", text, "see whether the endpoint or a proxy closes connections", makes)


def _tokens(summary: Facts, criteria: Mapping[str, float]) -> Iterator[Reason]:
    checks = (
        ("token_mismatches", "hold another number of tokens in their chunks than the server counted"),
        ("over_max", "hold more tokens than were asked for"),
    )
    for column, text in checks:
        yield from _counted("token_mismatch", column, text, "check the dialect and the container's token counts")(
            summary, criteria
        )


def _repeated_prompts(summary: Facts, criteria: Mapping[str, float]) -> Iterator[Reason]:
    """Prompts that a cache answers are not what the endpoint takes, whichever trial sent them before."""
    yield from tuple(_cached(summary)) or _sent_again(summary)


def _cached(summary: Facts) -> Iterator[Reason]:
    """More whole prompts from the cache, by the endpoint's own word, than this trial's repeats explain."""
    cached = summary.get("cached_prompts") or 0
    if cached > max(CHECKED, summary.get("cached_repeats") or 0) and _share_of(summary, "cached_prompts") > SHARE:
        text = f"{cached:,} of {summary['requests']:,} requests had 90 % or more of their prompt from the endpoint's "
        text += "cache, as it says itself: read before, in this trial or an earlier one, or begun as others are"
        remedy = "use a larger data set or another seed, or turn the endpoint's prefix cache off"
        yield Reason("repeated_prompts", text, remedy, Valid.INVALID)


def _sent_again(summary: Facts) -> Iterator[Reason]:
    """Repeats that a cache answers: by the endpoint's own word, or since they are faster.

    Where first times got faster by themselves, a slow start may be why the second ones are: this trial cannot tell.
    """
    if (summary.get("prompts_repeated") or 0.0) <= SHARE:
        return
    times, cached = summary["prompt_repeats_max"], summary.get("cached_repeats") or 0
    text = f"{summary['prompts_repeated']:.0%} of the requests sent a prompt again, the commonest {times:,} times"
    ratio, most, makes = summary.get("repeat_ratio"), summary.get("repeat_ratio_high"), Valid.VALID
    if cached:
        text += f", and {cached:,} of them had tokens from the endpoint's cache, as it says itself"
        makes = Valid.INVALID if _share_of(summary, "cached_repeats") > SHARE else Valid.VALID
    if ratio is not None and most is not None and most < FASTER:
        fell = summary.get("first_times_fell")
        text += (
            f", and a second time took {ratio:.0%} of the time of a first: a cache{', or a slow start' * bool(fell)}"
        )
        makes = max(makes, Valid.INCONCLUSIVE if fell else Valid.INVALID, key=_severity)
    yield Reason("repeated_prompts", text, "use a larger data set, or a synthetic one", makes)


def _severity(makes: Valid) -> int:
    return (Valid.VALID, Valid.INCONCLUSIVE, Valid.INVALID).index(makes)


def _unstable(summary: Facts, criteria: Mapping[str, float]) -> Iterator[Reason]:
    if summary.get("steady") is False:
        drift, shift = summary["drift"], summary.get("warmup_shift") or 0.0
        text = f"latency changed by {drift:+.0%} of its mean within the window"
        if abs(drift) <= DRIFT:
            text = f"latency never settled: without the first {summary['warmup_cut']:.0%} its mean is {shift:+.0%}"
        yield Reason("unstable", text, "warm up longer, measure longer, or lower the load", Valid.INCONCLUSIVE)


def _percentiles(criteria: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """Criteria on a percentile, as columns, with their quantile."""
    for name in criteria:
        p = name.rpartition("_")[2]
        if p in QUANTILES:
            yield name, QUANTILES[p]


def _near_saturation(summary: Facts, criteria: Mapping[str, float]) -> Iterator[Reason]:
    """Means and percentiles whose interval was refused, because in long queues requests are alike.

    A closed load has no long queue, but its slots fall into step: of there only what a criterion asks for is said.
    """
    closed = summary.get("kind") == "closed"
    asked = () if closed else tuple(f"latency_{p}" for p in QUANTILES)
    refused = [name for name in (*asked, *criteria) if name in _REFUSABLE and _refused(summary, name)]
    if refused:
        requests, worth = summary.get("requests") or 0, summary.get("n_eff") or 0.0
        text = f"{requests:,} requests are worth {worth:,.0f} independent ones: {refused[-1]} is not certified"
        remedy = "measure longer" if closed else "lower the rate, or measure much longer"
        decides = any(name in criteria for name in refused)
        yield Reason("near_saturation", text, remedy, Valid.INCONCLUSIVE if decides else Valid.VALID)


_REFUSABLE = {f"{name}_{p}" for name in SPREADS for p in ("mean", *QUANTILES)}


def _refused(summary: Facts, name: str) -> bool:
    if summary.get("kind") == "closed":
        too_few = name.endswith("_mean")
    else:
        too_few = _counting(summary, name) < stats.QUEUED_FLOOR
    return not too_few and summary.get(name) is not None and summary.get(f"{name}_low") is None


def _counting(summary: Facts, name: str) -> int:
    """How many requests a number is made of: a mean those that were answered, a percentile all."""
    return summary.get("ok" if name.endswith("_mean") else "requests") or 0


def _too_few(summary: Facts, criteria: Mapping[str, float]) -> Iterator[Reason]:
    requests = summary.get("requests") or 0
    if not requests:
        yield Reason("too_few", "no request was measured", "measure longer", Valid.INCONCLUSIVE)
        return
    closed = summary.get("kind") == "closed"
    for name, q in _percentiles(criteria):
        alone = 0 if name.startswith("itl") else stats.interval_floor(q)
        floor = alone if closed else max(alone, stats.QUEUED_FLOOR)
        if requests < floor:
            few = f"{requests:,} {'request is' if requests == 1 else 'requests are'} too few"
            text = f"{few} for {name}, which needs {floor:,}{' where requests may queue' * (floor > alone)}"
            yield Reason("too_few", text, "measure longer", Valid.INCONCLUSIVE)
    for name in criteria:
        column = criterion_column(name)
        if not column.endswith("_mean") or not (ok := summary.get("ok")):
            continue
        if summary.get(column) is None:
            yield Reason("too_few", f"{name} has no value to stand on", "measure longer", Valid.INCONCLUSIVE)
        elif closed:
            if summary.get(f"{column}_low") is None:
                slots = summary.get("concurrency") or 1
                few = f"{requests:,} {'request is' if requests == 1 else 'requests are'} too few"
                text = f"{few} for {name}, which needs two for each of {slots:,} slots"
                yield Reason("too_few", text, "measure longer", Valid.INCONCLUSIVE)
        elif ok < stats.QUEUED_FLOOR:
            text = f"{ok:,} {'answer is' if ok == 1 else 'answers are'} too few for {name}, which needs "
            text += f"{stats.QUEUED_FLOOR:,} where requests may queue"
            yield Reason("too_few", text, "measure longer", Valid.INCONCLUSIVE)


def _stamp_disorder(summary: Facts, criteria: Mapping[str, float]) -> Iterator[Reason]:
    if number := summary.get("stamp_disorders"):
        text = f"{number:,} rows have instants out of order: the clock or the client is broken"
        yield Reason("stamp_disorder", text, "report this as a bug, with the run directory", Valid.INVALID)


def _lost_rows(summary: Facts, criteria: Mapping[str, float]) -> Iterator[Reason]:
    lost = (summary.get("missing_rows") or 0) + (summary.get("lost") or 0)
    actors = summary.get("lost_actors") or 0
    if lost or actors:
        rows = f"{lost:,} planned request{'' if lost == 1 else 's'} left no result" if lost else ""
        died = f"{actors:,} load actor{'' if actors == 1 else 's'} died" if actors else ""
        yield Reason(
            "lost_rows",
            ", ".join(filter(None, (rows, died))),
            "see the actors' logs; play the trial again",
            Valid.INVALID,
        )


CHECKS: tuple[Check, ...] = (
    _client_lag,
    _late_starts,
    _not_sent,
    _slots_idle,
    _new_connections,
    _tokens,
    _counted("echoed_prompt", "echoed", "got their prompt back in the reply", "set return_full_text to false"),
    _repeated_prompts,
    _counted("truncated", "truncated", "ended without the terminal record", "see the container's log"),
    _counted(
        "throttled", "throttled", "were throttled: this measures the quota", "raise the quota or lower the load"
    ),
    _unstable,
    _near_saturation,
    _too_few,
    _stamp_disorder,
    _lost_rows,
)
"""Every alarm, each with its code, in the order of the report."""
