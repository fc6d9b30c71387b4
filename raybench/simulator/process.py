"""The simulator as others use it: a process of its own, started, asked for its health, and ended with ours."""

import json
import secrets
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raybench.errors import InfrastructureError

STOP_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Simulated:
    """A running simulator: where it listens, and the keys it accepts (its own, worthless elsewhere)."""

    url: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)

    def health(self) -> dict[str, float]:
        """What it says of itself: its share of a core since the last time it was asked, its scheduling lag."""
        with urllib.request.urlopen(f"{self.url}/raybench/health", timeout=2) as reply:  # noqa: S310
            said: dict[str, float] = json.load(reply)
        return said

    def looked_at(self) -> list[dict[str, float]]:
        """Its health, if it answers: one that is too busy to say so is no reason to end a run."""
        with suppress(OSError):
            return [self.health()]
        return []


@contextmanager
def simulated(
    endpoints: Mapping[str, Mapping[str, Any]], region: str = "us-west-2", truth: Path | None = None
) -> Iterator[Simulated]:
    """Runs a simulator with these endpoints (name -> profile, overrides, faults, seed) for the length of the block.

    It stops when its standard input ends, so it cannot outlive this process; InfrastructureError if it never starts.
    """
    keys = {"access_key": "AKIA" + secrets.token_hex(8).upper(), "secret_key": secrets.token_hex(20)}
    settings = {"endpoints": endpoints, "port": 0, "truth": truth and str(truth), "region": region, **keys}
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(settings, file)
        file.flush()
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "raybench.simulator", "--config", file.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise InfrastructureError(f"the simulator did not start (exit code {process.wait()})")
            yield Simulated(json.loads(line)["url"], region, **keys)
        finally:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
