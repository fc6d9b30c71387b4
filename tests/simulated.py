"""A simulator for tests: a process of its own, on a port of its own, gone when the test is."""

import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple


class Keys(NamedTuple):
    access_key: str
    secret_key: str
    region: str


KEYS = Keys("AKIDSIMULATED", "simulated-secret", "us-west-2")


@dataclass(frozen=True)
class Simulator:
    """`url` to call, `credentials` it verifies, and the truth it wrote so far."""

    url: str
    credentials: Keys
    truth_file: Path

    def truth(self) -> list[dict[str, Any]]:
        """One dict per request that has ended, in the order they ended."""
        return [json.loads(line) for line in self.truth_file.read_text().splitlines()]

    def health(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/raybench/health", timeout=10) as reply:
            health: dict[str, Any] = json.load(reply)
        return health


@contextmanager
def simulator(
    endpoints: Mapping[str, Mapping[str, Any]],
    truth: Path | None = None,
    keys: Keys = KEYS,
    session_token: str | None = None,
) -> Iterator[Simulator]:
    """Serves {name: {"profile": …, "overrides": {…}, "faults": {…}, "seed": …}} until the block ends."""
    with tempfile.TemporaryDirectory(prefix="simulator-") as folder:
        truth_file = truth or Path(folder) / "truth.jsonl"
        config = Path(folder) / "config.json"
        told = {**keys._asdict(), "session_token": session_token, "truth": str(truth_file)}
        config.write_text(json.dumps({"endpoints": endpoints, **told}))
        command = [sys.executable, "-m", "raybench.simulator", "--config", str(config)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                yield Simulator(json.loads(process.stdout.readline())["url"], keys, truth_file)
            finally:
                process.stdin.close()
                assert process.wait(timeout=20) == 0
