"""What one report is made from: findings, decision and manifest, joined once into the cells it speaks of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raybench.analysis.columns import PRICE, criterion_column
from raybench.analysis.decide import Decision
from raybench.analysis.reduce import Findings
from raybench.analysis.repeats import together
from raybench.report.cells import Cell, cells
from raybench.report.naming import NamedExperiment, chosen, named_experiments, payload_label
from raybench.report.text import count


@dataclass(frozen=True, slots=True)
class View:
    """One run as its report sees it; `payload` is the label of the data set that the question is about."""

    findings: Findings
    decision: Decision
    manifest: Mapping[str, Any]
    experiments: Mapping[str, NamedExperiment]
    cells: list[Cell]
    payload: str

    @property
    def thing(self) -> str:
        """What a cell is: a trial, or a setting where trials were repeated."""
        return "trial" if self.findings.trials.num_rows == len(self.cells) else "setting"

    def counted(self, number: int) -> str:
        """So many cells, in words."""
        return count(number, self.thing)

    @property
    def asked(self) -> list[Cell]:
        """The cells on the data set that the question is about."""
        return [cell for cell in self.cells if cell.row["payload"] == self.decision.payload]

    @property
    def payload_name(self) -> str:
        """That data set's payload, as the config names it."""
        return next((str(cell.row["payload"]) for cell in self.asked), "")

    def place(self, payload: str) -> int:
        """Where a payload stands in the config."""
        return [found["name"] for found in self.manifest["payloads"]].index(payload)

    @property
    def limits(self) -> Mapping[str, float]:
        """Criterion -> largest value allowed."""
        criteria: Mapping[str, float] = self.manifest["criteria"]
        return criteria

    @property
    def latency_criterion(self) -> str | None:
        """The first criterion that is about a request's latency."""
        return next((name for name in self.limits if name.startswith(("latency_", "service_latency_"))), None)

    @property
    def latency(self) -> str:
        """The latency that price is drawn against: the one a criterion limits, else the mean."""
        return criterion_column(self.latency_criterion or "latency_mean")

    @property
    def latency_limit(self) -> float | None:
        """The limit on latency in seconds, if there is one."""
        return self.limits.get(self.latency_criterion or "")

    @property
    def latency_line(self) -> float | None:
        """The limit as charts of latency may draw it: not one that is on service latency."""
        return self.latency_limit if self.latency.startswith("latency_") else None

    @property
    def price_limit(self) -> float | None:
        """The limit on the price of 10,000 requests, if there is one."""
        return min((limit for name, limit in self.limits.items() if criterion_column(name) == PRICE), default=None)

    @property
    def winner(self) -> Cell | None:
        """The trial that the decision names, if any."""
        return self._of(self.decision.winner)

    @property
    def nearest(self) -> Cell | None:
        """The nearest miss, where there is no winner."""
        return self._of(self.decision.nearest)

    @property
    def payloads(self) -> list[str]:
        """Labels of the data sets, in the order of the config."""
        return [payload_label(payload["name"]) for payload in self.manifest["payloads"]]

    @property
    def shown(self) -> list[str]:
        """Labels of the configurations that charts with a panel each have room for."""
        return [found.label for found in self.experiments.values() if found.colour != "mute"]

    def choice(self, payload: str, experiment: str) -> tuple[Cell | None, Cell | None]:
        """The winner and the nearest miss of one configuration on one payload."""
        for found in self.decision.recommendations:
            if (found.payload, found.experiment) == (payload, experiment):
                return self._of(found.trial_id), self._of(found.nearest)
        return None, None

    def pairs(self) -> list[tuple[str, str]]:
        """(payload, experiment) of everything that was measured, in the order of the config."""
        return list(dict.fromkeys((cell.row["payload"], cell.row["experiment"]) for cell in self.cells))

    def _of(self, trial_id: str | None) -> Cell | None:
        return next((cell for cell in self.cells if cell.row["trial_id"] == trial_id), None)


def look(findings: Findings, decision: Decision, manifest: Mapping[str, Any]) -> View:
    """Joins what a report is made from; the data set asked about is the one decided."""
    shown = chosen(decision, manifest)
    named = named_experiments(manifest, shown)
    payload = payload_label(decision.payload) if decision.payload else ""
    findings = together(findings, {name: found.trial_ids for name, found in decision.settings.items()})
    return View(findings, decision, manifest, named, cells(decision, manifest, named), payload)
