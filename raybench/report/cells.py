"""What the report knows of each trial: its summary row, whose it is, and how it stands against the criteria."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from raybench.analysis.columns import Valid, criterion_unit
from raybench.analysis.decide import Decision
from raybench.analysis.metrics import Facts
from raybench.analysis.spoken import plain
from raybench.analysis.standing import Setting, Standing, State
from raybench.report.naming import NamedExperiment, payload_label
from raybench.report.text import clean
from raybench.states import TrialState

GLYPHS = {Standing.PASS: "✓", Standing.FAIL: "✕", Standing.UNSURE: "≈", Standing.MISSING: "–"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One setting as the report shows it: whose it is, its load, and how it stands."""

    setting: Setting
    experiment: NamedExperiment
    level_text: str
    """`8`, or `2/s` for an open load; the load's label where it has no level, or shares that with another load."""

    @property
    def row(self) -> Mapping[str, Any]:
        """Its row of the trials table, repeats put together."""
        return self.setting.row

    @property
    def payload(self) -> str:
        """Its data set's label."""
        return payload_label(self.row["payload"])

    @property
    def kind(self) -> str:
        """How its requests arrive: closed, constant, poisson, …"""
        return clean(self.row["kind"])

    @property
    def level(self) -> float:
        """Concurrency, or requests a second of an open load; 0 for a load that has neither."""
        return _level(self.row)

    @property
    def load_text(self) -> str:
        """The load in words."""
        return clean(self.setting.load)

    @property
    def valid(self) -> bool:
        """Whether its numbers may be read at all; INCONCLUSIVE ones may, with their reasons beside them."""
        return bool(self.row["valid"] != Valid.INVALID)

    @property
    def counted(self) -> bool:
        """Whether it takes part in the comparison: measured to its end and VALID."""
        return self.setting.counts

    @property
    def met(self) -> bool:
        """Whether every criterion is met, by the best estimate."""
        return all(state.met for state in self.setting.states)

    @property
    def within(self) -> bool:
        """The same, but cost is not asked."""
        return all(state.met for state in self.setting.states if criterion_unit(state.criterion) != "USD")

    @property
    def standing(self) -> Standing:
        """To all its criteria together; missing where it is not counted or a number is wanting."""
        standings = {state.standing for state in self.setting.states}
        if not self.counted:
            return Standing.MISSING
        worst = (Standing.FAIL, Standing.MISSING, Standing.UNSURE)
        return next((standing for standing in worst if standing in standings), Standing.PASS)

    @property
    def glyph(self) -> str:
        """Its standing as a sign, so that colour never speaks alone."""
        return GLYPHS[self.standing]

    @property
    def standing_text(self) -> str:
        """Its standing in words."""
        if not self.valid:
            return "not counted: INVALID"
        if not self.counted:
            cut = "unfinished" if self.setting.played else "never played"
            return "not counted: " + ("inconclusive" if self.row["state"] == TrialState.DONE else cut)
        if not self.setting.states:
            return "no criteria"
        return {
            Standing.PASS: "meets every criterion",
            Standing.FAIL: "misses a criterion",
            Standing.UNSURE: "too close to call",
            Standing.MISSING: "a criterion could not be measured",
        }[self.standing]

    def state(self, criterion: str) -> State | None:
        """How it stands against one criterion, if that was asked for."""
        return next((state for state in self.setting.states if state.criterion == criterion), None)


def cells(decision: Decision, manifest: Mapping[str, Any], named: Mapping[str, NamedExperiment]) -> list[Cell]:
    """One cell per setting: experiments and data sets in the order of the config, then rising load."""
    experiments, payloads = list(named), [payload["name"] for payload in manifest["payloads"]]
    settings = decision.settings.values()
    texts = _level_texts([setting.row for setting in settings])
    found = [Cell(setting, named[setting.experiment], texts[setting.row["load"]]) for setting in settings]
    found.sort(
        key=lambda cell: (
            experiments.index(cell.row["experiment"]),
            payloads.index(cell.row["payload"]),
            cell.kind,
            cell.level,
        )
    )
    return found


def _level(row: Facts) -> float:
    concurrency, rate = row["concurrency"], row["rate"]
    return float(concurrency if concurrency is not None else rate or 0)


def _level_texts(rows: Iterable[Facts]) -> dict[str, str]:
    """A load's label -> its level as charts write it; loads of one kind and level are told apart by their labels."""
    loads = {row["load"]: row for row in rows}
    alike = Counter((row["kind"], _level(row)) for row in loads.values())
    return {
        load: f"{plain(_level(row))}{'' if row['concurrency'] is not None else '/s'}"
        if _level(row) and alike[row["kind"], _level(row)] == 1
        else clean(load)
        for load, row in loads.items()
    }
