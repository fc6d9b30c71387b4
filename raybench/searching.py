"""A search as a run plays it: a probe enters run.json before its first request, and what came of it after its last.

A probe that run.json says was played whole is not played again: its rows tell the search what they told it before.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raybench import manifest as manifests
from raybench.analysis import validity
from raybench.analysis.columns import Valid
from raybench.analysis.metrics import Requests
from raybench.analysis.reduce import reduce_trial
from raybench.clock import NS_PER_S, Clock, monotonic_ns
from raybench.cluster.search import Play, PlayedProbe, Searched, Seen, play_search
from raybench.cluster.search_text import sentence
from raybench.load.search import Search
from raybench.plan import Trial
from raybench.states import TrialState


@dataclass(frozen=True, slots=True)
class Stage:
    """What a search asks of the run it belongs to.

    `play` plays one trial, its entry being in `trials`, and `stop` makes it plan nothing more; `rows_of` reads the
    rows of an entry, `record` brings run.json up to date, `say` tells a person.
    """

    manifest: manifests.Manifest
    trials: dict[str, manifests.Manifest]
    play: Play
    stop: Callable[[], None]
    rows_of: Callable[[Mapping[str, Any]], pa.Table]
    record: Callable[[], None]
    say: Callable[[str], None]


def search(
    trial: Trial, wanted: Search, stage: Stage, usd_per_hour: float | None, clock: Clock = monotonic_ns
) -> Searched:
    """Plays the search that `trial` stands for to its verdict, or as far as the run lets it."""
    playing = _Playing(trial, wanted, stage)
    found = play_search(
        trial,
        wanted,
        playing.play,
        playing.stop,
        clock,
        usd_per_hour=usd_per_hour,
        past=playing.past,
        distrust=playing.distrust,
        told=playing.told,
    )
    playing.note(found)
    return found


class _Playing:
    """One search on its stage."""

    def __init__(self, trial: Trial, wanted: Search, stage: Stage) -> None:
        self.trial, self.wanted, self.stage = trial, wanted, stage
        self._over: list[PlayedProbe] = []
        self._stopped = False

    def play(self, one: Trial, seen: Seen) -> pa.Table | None:
        """Plays a probe; of one that was stopped early, `decided_after` says what of its plan it was offered."""
        noted = self._enter(one)
        self._stopped = False
        rows = self.stage.play(one, seen)
        if rows is not None and self._stopped and one.duration_s is not None:
            noted["decided_after"] = {"duration_s": min(one.duration_s, offered_s(rows, one.warmup_s))}
        elif rows is not None and self._stopped:
            noted["decided_after"] = {"requests": int(Requests(rows).measured.sum())}
        return rows

    def _enter(self, one: Trial) -> manifests.Manifest:
        """A probe's entry in run.json, in the place of one that was cut short."""
        entry = manifests.entry(one) | {"search": self.trial.trial_id, "decided_after": None}
        noted = self.stage.trials.setdefault(one.trial_id, entry)
        if noted is entry:
            self.stage.manifest["trials"].append(entry)  # whole: another experiment may write run.json just then
        noted |= entry
        self.stage.record()
        return noted

    def stop(self) -> None:
        self._stopped = True
        self.stage.stop()

    def past(self, one: Trial) -> pa.Table | None:
        """The rows of a probe that was played to its end before."""
        noted = self.stage.trials.get(one.trial_id)
        return self.stage.rows_of(noted) if noted and noted["state"] == TrialState.DONE else None

    def distrust(self, one: Trial, rows: pa.Table) -> str | None:
        """The first fault of the measurement, if it makes the probe INVALID."""
        manifest = self.stage.manifest
        row = reduce_trial(rows, self.stage.trials[one.trial_id], manifest).trials.to_pylist()[0]
        _, reasons = validity.verdict(row, manifest["criteria"])
        invalid = (reason.code for reason in reasons if reason.makes is Valid.INVALID)
        return next((code for code in invalid if code in validity.FAULTS), None)

    def told(self, played: PlayedProbe) -> None:
        """Says how a probe went, and keeps it."""
        seen, probe = played.seen, played.probe
        rate = f" at {probe.rate:g}/s" if probe.rate else ""
        outcome = "passed" if played.passed else seen.fault or "failed"
        self.stage.say(f"{probe.name}{rate}: {outcome}, {seen.late:,} of {seen.requests:,} requests over the limit")
        self._over.append(played)
        self.note(Searched(self.trial, self.wanted, None, tuple(self._over)))

    def note(self, found: Searched) -> None:
        """Brings the search's entry in run.json up to date."""
        searches = self.stage.manifest["searches"]
        place = next(i for i, each in enumerate(searches) if each["trial_id"] == self.trial.trial_id)
        searches[place] = found.as_dict() | {"sentence": sentence(found)}
        self.stage.record()


def offered_s(rows: pa.Table, warmup_s: float) -> float:
    """Seconds from the end of warm-up to the last request that was planned; 0 if none was planned after it."""
    planned_ns = Requests(rows).numbers("planned_ns")
    return max(0.0, float(planned_ns.max()) / NS_PER_S - warmup_s) if len(planned_ns) else 0.0
