"""What the server really did, one JSON line per request id, on this machine's monotonic clock."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import orjson


@dataclass(slots=True)
class Record:
    """One request as the server saw it: `arrived_ns` when its last byte was read, `started_ns` when work began,
    `chunks` the instant just before each write that carried tokens and how many, `ended_ns` before the last write.

    `outcome` is in the words of `raybench.rows.Outcome`; a caller that hung up first is `client_timeout`.
    `endpoint` is the name in the path; `fault` the one that was drawn, if any.
    """

    request_id: str
    endpoint: str
    connection: int
    arrived_ns: int
    started_ns: int | None = None
    chunks: list[tuple[int, int]] = field(default_factory=list)
    ended_ns: int = 0
    status: int = 0
    outcome: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int = 0
    fault: str | None = None


class TruthLog:
    """Appends records to a file, or nowhere; a line is on its way to the disk before the reply's last byte leaves."""

    def __init__(self, path: Path | None) -> None:
        self._fd = None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, record: Record) -> None:
        """One line, in one write; a log that cannot be written ends there, and the simulator goes on."""
        if self._fd is None:
            return
        try:
            os.write(self._fd, orjson.dumps(record) + b"\n")
        except OSError as error:
            print(f"the truth log ends here: {error.strerror}", file=sys.stderr)
            self.close()

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
