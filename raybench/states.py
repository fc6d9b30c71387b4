"""How far a run and its trials are, as run.json says it."""

from enum import StrEnum


class RunState(StrEnum):
    """How far a run is; a failed or interrupted one can be resumed, and a report of it holds what there is."""

    RUNNING = "running"
    DONE = "done"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


class TrialState(StrEnum):
    """How far a trial is: never begun, begun, or played to its end."""

    PLANNED = "planned"
    PARTIAL = "partial"
    DONE = "done"
