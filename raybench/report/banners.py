"""What a reader must know before any number: that it is simulated, partial, resumed or INVALID."""

from dataclasses import dataclass

from raybench.analysis import searched, spoken
from raybench.report import text
from raybench.report.view import View
from raybench.states import RunState, TrialState


@dataclass(frozen=True, slots=True)
class Banner:
    """One warning above the report; kind is simulated, partial, resumed or invalid."""

    kind: str
    head: str
    said: str


def banners(view: View) -> list[Banner]:
    """What a reader must know before any number: simulated, partial, resumed, invalid."""
    found = []
    pretend = [c.label for c in view.experiments.values() if c.simulated]
    if pretend:
        whole = "every endpoint is simulated" if len(pretend) == len(view.experiments) else spoken.listed(pretend)
        said = f"No model was measured ({whole}): the numbers show how raybench works, not what an instance can do."
        found.append(Banner("simulated", "Simulated.", said))
    cut = sum(cell.row["state"] != TrialState.DONE for cell in view.cells)
    if view.manifest["state"] != RunState.DONE or cut:
        state = text.clean(view.manifest["state"])
        trials = f"; {cut} of {view.counted(len(view.cells))} did not run to the end" if view.cells else ""
        found.append(Banner("partial", "Partial.", f"The run's state is “{state}”{trials}."))
    if stopped := view.manifest.get("resumed_utc"):
        times = text.count(len(stopped), "time")
        said = f"The run stopped and was resumed {times}, last at {text.clean(stopped[-1])}; its trials lie apart."
        found.append(Banner("resumed", "Resumed.", said))
    invalid = sum(not cell.valid for cell in view.cells)
    if invalid:
        said = (
            f"{invalid} of {view.counted(len(view.cells))} cannot be trusted: out of the comparison, and "
            "struck through wherever their numbers stand. The reasons are under Trust."
        )
        found.append(Banner("invalid", "INVALID.", said))
    if faults := searched.faults(view.manifest):
        said = f"A search ended for what cannot be trusted ({spoken.listed(faults)}): it certified nothing."
        found.append(Banner("invalid", "INVALID.", said))
    return found
