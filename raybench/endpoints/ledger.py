"""What was about to be created, written down before each create: a crash can't leave what nobody knows of.

One JSON line an event, on the disk before the call it speaks of is made.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from raybench.errors import StorageError

Kind = Literal["endpoint", "endpoint-config", "model"]
KINDS: tuple[Kind, ...] = ("endpoint", "endpoint-config", "model")
"""The three resources of an endpoint, in the order in which they can be deleted."""

Key = tuple[str, str, Kind, str]
"""Account, region, kind and name: what makes two resources the same one."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One event: `at_ns` since the epoch, `expires_s` since the epoch, `usd_per_hour` of one instance as text.

    A name means something only within an `account` and a `region`. An endpoint `serves` once it is seen in service,
    and is `used` until a run lets go of it.
    """

    event: Literal["create", "serves", "used", "gone"]
    kind: Kind
    name: str
    account: str
    region: str
    run: str
    at_ns: int
    expires_s: int = 0
    instances: int = 0
    usd_per_hour: str | None = None


class Ledger:
    """The events of one file, appended and synced one by one; a torn last line is no event."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, entry: Entry) -> None:
        """Puts an event on the disk; StorageError if that can't be done, so that nothing is created unknown."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                torn = False
                if end:
                    file.seek(end - 1)
                    torn = file.read(1) != b"\n"
                file.write((b"\n" if torn else b"") + json.dumps(asdict(entry)).encode() + b"\n")
                os.fsync(file.fileno())
            if not end:
                _sync(self.path.parent)
        except OSError as error:
            raise StorageError(f"{self.path}: cannot keep the ledger of endpoints: {error.strerror}") from error

    def entries(self) -> Iterator[Entry]:
        """Every whole event, oldest first."""
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"{self.path}: cannot read the ledger of endpoints: {error.strerror}") from error
        for line in lines:
            try:
                yield Entry(**json.loads(line))
            except (ValueError, TypeError):
                continue

    def open(self) -> dict[Key, Entry]:
        """The last create of everything not known to be gone, by account, region, kind and name."""
        left: dict[Key, Entry] = {}
        for entry in self.entries():
            key = (entry.account, entry.region, entry.kind, entry.name)
            if entry.event == "create":
                left[key] = entry
            elif entry.event == "gone":
                left.pop(key, None)
        return left

    def history(self, region: str, name: str) -> list[Entry]:
        """What became of the one endpoint of that name, from its create on; empty if gone, or one of several."""
        mine = [e for e in self.entries() if (e.kind, e.region, e.name) == ("endpoint", region, name)]
        made = [e for key, e in self.open().items() if key[1:] == (region, "endpoint", name)]
        if len(made) != 1:
            return []
        return [e for e in mine[mine.index(made[0]) :] if e.account == made[0].account]


def default_ledger() -> Ledger:
    """The ledger of this user: `RAYBENCH_LEDGER`, or `~/.raybench/endpoints.jsonl`."""
    return Ledger(Path(os.environ.get("RAYBENCH_LEDGER") or Path.home() / ".raybench" / "endpoints.jsonl"))


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
