"""The decision: among settings that can be trusted and meet every criterion, the cheapest; none is an answer too."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa

from raybench.analysis.columns import Valid
from raybench.analysis.spoken import (
    between,
    criterion_beyond,
    criterion_name,
    criterion_value,
    listed,
    room,
    seconds,
    times,
    usd,
)
from raybench.analysis.standing import Setting, State, settings
from raybench.states import TrialState


@dataclass(frozen=True, slots=True)
class Phrase:
    """A piece of a sentence; the report escapes it, sets what is strong in bold, may shorten an experiment's name."""

    text: str
    strong: bool = False
    experiment: bool = False


Sentence = tuple[Phrase, ...]


def plain(sentence: Sentence) -> str:
    """A sentence without its emphasis."""
    return "".join(phrase.text for phrase in sentence)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The answer for one configuration and payload: the trial id of its cheapest passing setting, or nearest miss."""

    experiment: str
    payload: str
    trial_id: str | None
    nearest: str | None


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer for `payload`, and one for each configuration and payload; settings go by their (first) trial id.

    `settings` are those of all payloads.
    """

    payload: str | None
    winner: str | None
    nearest: str | None
    settings: Mapping[str, Setting]
    recommendations: tuple[Recommendation, ...]
    sentences: tuple[Sentence, ...]


def decide(trials: pa.Table, criteria: Mapping[str, float], payload: str | None = None) -> Decision:
    """The cheapest setting of `payload` that is VALID and meets all criteria, or else the nearest miss.

    Equal prices are told apart by mean latency, then by order. A payload that was not played, or none, means the
    first one. Recommendations follow experiments in the order played, then payloads in lexicographic order.
    """
    everything = settings(trials.to_pylist(), criteria)
    played = [setting.payload for setting in everything]
    asked = payload if payload in played else next(iter(played), payload)
    here = [setting for setting in everything if setting.payload == asked]
    passing, nearest = passing_and_nearest(here)
    winner = passing[0] if passing else None
    kept_out = [s for s in here if s.answered and not (s.missed or s.counts)]
    cheaper = [s for s in kept_out if winner is None or s.rank < winner.rank]
    close = [other for other in passing[1:] if winner and _as_cheap(winner, other)]
    return Decision(
        payload=asked,
        winner=_id(winner),
        nearest=_id(nearest),
        settings={setting.trial_id: setting for setting in everything},
        recommendations=tuple(_recommendations(everything)),
        sentences=tuple(_sentences(here, winner, nearest, close, cheaper, bool(criteria))),
    )


def _id(setting: Setting | None) -> str | None:
    return None if setting is None else setting.trial_id


def passing_and_nearest(here: Sequence[Setting]) -> tuple[list[Setting], Setting | None]:
    """What counts, answers and passes, cheapest first; and if nothing does, what counts and comes nearest."""
    trusted = [setting for setting in here if setting.counts]
    passing = sorted((s for s in trusted if s.answered and not s.missed), key=lambda setting: setting.rank)
    missing = sorted((s for s in trusted if s.missed), key=lambda setting: (setting.distance, setting.rank))
    return passing, None if passing or not missing else missing[0]


def _recommendations(everything: Sequence[Setting]) -> Iterable[Recommendation]:
    order = {name: place for place, name in enumerate(dict.fromkeys(s.experiment for s in everything))}
    by_place = sorted(everything, key=lambda setting: (order[setting.experiment], setting.payload))
    for (experiment, payload), group in groupby(by_place, key=lambda s: (s.experiment, s.payload)):
        passing, nearest = passing_and_nearest(list(group))
        yield Recommendation(experiment, payload, _id(passing[0] if passing else None), _id(nearest))


def _as_cheap(winner: Setting, other: Setting) -> bool:
    """Whether the intervals of two prices overlap, a price without one being a point."""
    ours, theirs = winner.usd, other.usd
    if ours.value is None or theirs.value is None:
        return False
    ours_most = ours.value if ours.low is None else math.inf if ours.high is None else ours.high
    theirs_least = theirs.value if theirs.low is None else theirs.low
    return theirs_least <= ours_most


def _sentences(
    here: Sequence[Setting],
    winner: Setting | None,
    nearest: Setting | None,
    close: Sequence[Setting],
    cheaper: Sequence[Setting],
    judged: bool,
) -> Iterable[Sentence]:
    if winner is not None:
        yield _winner(winner, judged, priced=any(setting.usd.value is not None for setting in here))
        if close:
            yield _close(close)
    elif nearest is not None:
        yield _nearest(nearest)
    elif any(setting.counts for setting in here):
        failed = ": every setting that is whole and VALID has a trial in which no request succeeded."
        yield (Phrase("Nothing can be chosen", True), Phrase(failed))
    elif here:
        yield (Phrase("No trial can be decided by", True), Phrase(": none is both whole and VALID."))
    else:
        yield (Phrase("Nothing was measured.", True),)
    for setting in cheaper:
        yield (*_named(setting), Phrase(_kept_out(setting)))


def _kept_out(setting: Setting) -> str:
    """Why a setting is not chosen; of an INVALID one no number is said, nor what it would do."""
    why = listed(list(setting.row.get("reasons") or ())) or str(setting.row.get("state"))
    if setting.row["valid"] == Valid.INVALID:
        return f" is not counted: its trial is INVALID ({why})."
    verdict = setting.row["valid"] if setting.row["state"] == TrialState.DONE else "not finished"
    price = "" if setting.usd.value is None else f" at ${usd(setting.usd.value)} per 10k"
    return f" would pass{price}, but its trial is {verdict} ({why})."


def _named(setting: Setting) -> Sentence:
    return Phrase(setting.experiment, True, experiment=True), Phrase(" at "), Phrase(setting.load, True)


def _close(close: Sequence[Setting]) -> Sentence:
    phrases = [Phrase("Too close to call on cost, the intervals overlap: ")]
    for place, other in enumerate(close):
        before = "" if not place else " and " if place == len(close) - 1 else ", "
        said = f" at {other.load} (${usd(other.usd.value)})"
        phrases += [Phrase(before), Phrase(other.experiment, experiment=True), Phrase(said)]
    return (*phrases, Phrase("."))


def _winner(winner: Setting, judged: bool, *, priced: bool) -> Sentence:
    if winner.usd.value is None:
        rule = "Nothing that passes has a price; fastest" if priced else "No price is known; fastest"
        rule += " inside the criteria: " if judged else ": "
    else:
        rule = "Cheapest inside the criteria: " if judged else "Cheapest (no criteria are set): "
    parts = [_latency(winner)]
    if winner.usd.value is not None:
        parts.append(f"${usd(winner.usd.value)} per 10k{between(winner.usd.low, winner.usd.high, usd)}")
    parts.append(_errors(winner))
    return (Phrase(rule), *_named(winner), Phrase(f". {', '.join(part for part in parts if part)}."))


def _nearest(nearest: Setting) -> Sentence:
    each = [_standing(state) for state in nearest.states]
    none = Phrase("No configuration meets every criterion.", True)
    return (none, Phrase(" The nearest is "), *_named(nearest), Phrase(f": {', '.join(each)}."))


def _standing(state: State) -> str:
    name = criterion_name(state.criterion)
    if state.met:
        return f"{name} passes"
    if state.exceedance is None:
        return f"{name} is not known"
    if math.isinf(state.exceedance):
        value = criterion_value(state.criterion, state.value)
        return (
            f"{name} is {value} where none is allowed"
            if state.value
            else f"{name} {criterion_beyond(state.criterion)}"
        )
    return f"{name} is {times(state.exceedance)} the limit"


def _latency(setting: Setting) -> str:
    mean, low, high = (setting.row.get(f"latency_mean{end}") for end in ("", "_low", "_high"))
    return "" if mean is None else f"{seconds(mean)} s mean{between(low, high, seconds)}"


def _errors(setting: Setting) -> str:
    failed, requests = setting.row.get("failed"), setting.row.get("requests")
    if failed is None or not requests:
        return ""
    errors = f"{failed:,} error{'' if failed == 1 else 's'} in {requests:,}"
    return errors + room(setting.row.get("error_rate_high"))
