"""How long an endpoint of ours was held, and by which run: deployed, idle and in use, from the ledger."""

from dataclasses import dataclass, replace
from typing import Any

from raybench.endpoints.ledger import default_ledger


@dataclass(frozen=True, slots=True)
class Holding:
    """What an endpoint cost before a run's load: `deploy_s` from create to seen in service, `idle_s` from then on.

    Once a run has used it, deploying is that run's, and `idle_s` counts from when it let go: every second is in one
    run at most. A run that was killed lets go of nothing, and counts as idle time of the next.
    """

    deploy_s: float | None
    idle_s: float


def held(region: str, name: str, now_ns: int) -> Holding | None:
    """How long an endpoint was deployed and idle until now; None if this user's ledger doesn't know when it served.

    Instants are the wall clock of the machine that the ledger is kept on, which ran `deploy` and runs the load.
    """
    history = default_ledger().history(region, name)
    created, served = ([entry for entry in history if entry.event == event] for event in ("create", "serves"))
    if not served:
        return None
    used = [entry for entry in history if entry.event == "used"]
    deploy_s = None if used else (served[0].at_ns - created[0].at_ns) / 1e9
    return Holding(deploy_s, max(0.0, (now_ns - (used or served)[-1].at_ns) / 1e9))


def note_held(about: dict[str, Any], region: str, name: str, now_ns: int) -> None:
    """Writes into an experiment of run.json what its endpoint was held for until now; sittings of a run add up."""
    if waited := held(region, name, now_ns):
        about["idle_s"] = about.get("idle_s", 0.0) + waited.idle_s
        if waited.deploy_s is not None:
            about.setdefault("deploy_s", waited.deploy_s)


def let_go(region: str, name: str, now_ns: int) -> None:
    """Writes down that a run has used an endpoint until now, if this user's ledger knows it."""
    ledger = default_ledger()
    if history := ledger.history(region, name):
        ledger.write(replace(history[0], event="used", at_ns=now_ns))
