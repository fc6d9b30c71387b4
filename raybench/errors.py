"""Every failure of ours, as one tree; failures of requests are rows, not exceptions.

RaybenchError                 exit
├── InputError                  2    the config, a dataset or an argument is wrong: nothing was started
├── InvalidRunError             3    measured, but a trial cannot be trusted
├── CriteriaMissedError         4    measured and valid, but a gate was asked for and is missed
├── InfrastructureError         5    cluster, endpoint or disk failed; what was measured is kept
│   ├── ClusterError
│   ├── EndpointError
│   └── StorageError
└── InterruptedRunError       130    stopped by a signal, drained and reported
"""


class RaybenchError(Exception):
    """A failure with one line for the user and an exit code for the shell."""

    exit_code = 1


class InputError(RaybenchError):
    """The input is wrong; `where` is `file:line`, `key` the dotted key, `allowed` what would be right."""

    exit_code = 2

    def __init__(self, problem: str, *, where: str = "", key: str = "", allowed: str = "") -> None:
        head = ": ".join(part for part in (where, key, problem) if part)
        super().__init__(f"{head}; {allowed}" if allowed else head)


class InvalidRunError(RaybenchError):
    """The run was measured, but at least one trial is INVALID."""

    exit_code = 3


class CriteriaMissedError(RaybenchError):
    """A criterion is missed and the user asked for a gate."""

    exit_code = 4


class InfrastructureError(RaybenchError):
    """Something between us and the endpoint failed; rows measured so far are kept."""

    exit_code = 5


class ClusterError(InfrastructureError):
    """Ray could not be started, reached, or lost an actor that was needed."""


class EndpointError(InfrastructureError):
    """The endpoint does not exist, refuses connections, or refuses our credentials."""


class StorageError(InfrastructureError):
    """The disk or bucket that holds the run directory failed."""


class InterruptedRunError(RaybenchError):
    """The user stopped the run; in-flight requests were drained and a report written."""

    exit_code = 130
