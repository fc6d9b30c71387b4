"""Two runs, cell by cell: what both have is compared, what cannot be trusted is not called."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raybench.analysis.change import METRICS, Call, Change, change_of
from raybench.analysis.columns import Valid
from raybench.analysis.comparable import Difference, Key, differences, key_of, remarks, unhashed
from raybench.analysis.metrics import Facts
from raybench.analysis.standing import Setting, settings
from raybench.errors import InputError
from raybench.states import TrialState


@dataclass(frozen=True, slots=True)
class Pair:
    """One cell that both runs have; where `uncalled` says why, nothing of it is compared."""

    base: Setting
    candidate: Setting
    changes: tuple[Change, ...]
    uncalled: str = ""

    @property
    def key(self) -> Key:
        return key_of(self.candidate.row)


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it is compared: its run.json and its trials table."""

    manifest: Mapping[str, Any]
    trials: pa.Table


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs compared; `differences` are there in spite of which they were, `remarks` may explain what is found."""

    base: Mapping[str, Any]
    candidate: Mapping[str, Any]
    pairs: tuple[Pair, ...]
    only_base: tuple[Key, ...]
    only_candidate: tuple[Key, ...]
    differences: tuple[Difference, ...]
    remarks: tuple[Difference, ...]
    unhashed: tuple[str, ...]

    def called(self, call: Call | None = None) -> list[tuple[Pair, Change]]:
        """Every comparison, or those with that call."""
        each = [(pair, change) for pair in self.pairs for change in pair.changes]
        return each if call is None else [(pair, change) for pair, change in each if change.call is call]

    @property
    def once(self) -> bool:
        """Whether any interval rests on a single trial: the spread between runs is allowed for, not measured."""
        return any(not change.welch for _, change in self.called())


def compare(base: Run, candidate: Run, *, anyway: bool = False) -> Comparison:
    """The runs cell by cell, in the candidate's order.

    InputError where what both have is not comparable, unless `anyway`, and where they have no cell in common.
    """
    found = differences(base.manifest, candidate.manifest)
    if found and not anyway:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        problem = f"the runs are not comparable: {found[0].text}{more}"
        raise InputError(problem, allowed="like with like, or --anyway")
    ours, theirs = _cells(base.trials), _cells(candidate.trials)
    pairs = tuple(_pair(ours[key], rows) for key, rows in theirs.items() if key in ours)
    if not pairs:
        raise InputError(
            "the runs have nothing in common", allowed="an experiment, payload and load that are in both"
        )
    return Comparison(
        base.manifest,
        candidate.manifest,
        pairs,
        tuple(key for key in ours if key not in theirs),
        tuple(key for key in theirs if key not in ours),
        found,
        remarks(base.manifest, candidate.manifest),
        tuple(unhashed(base.manifest, candidate.manifest)),
    )


def _cells(trials: pa.Table) -> dict[Key, list[Facts]]:
    """The trials of each cell; more than one are repeats."""
    cells: dict[Key, list[Facts]] = {}
    for row in trials.to_pylist():
        cells.setdefault(key_of(row), []).append(row)
    return cells


def _pair(ours: Sequence[Facts], theirs: Sequence[Facts]) -> Pair:
    base, candidate = settings(ours, {})[0], settings(theirs, {})[0]
    uncalled = _uncalled(base, "base") or _uncalled(candidate, "candidate")
    if uncalled:
        return Pair(base, candidate, (), uncalled)
    changes = (change_of(metric, base, candidate, ours, theirs) for metric in METRICS)
    return Pair(base, candidate, tuple(change for change in changes if change is not None))


def _uncalled(setting: Setting, side: str) -> str:
    """Why numbers of a setting cannot be called at all."""
    if not setting.played or setting.row["state"] != TrialState.DONE:
        return f"not {'finished' if setting.played else 'played'} in the {side}"
    if setting.row["valid"] == Valid.INVALID:
        return f"INVALID in the {side} ({', '.join(setting.row.get('reasons') or ()) or 'no reason given'})"
    return ""
