"""What one more load actor costs: start-up, memory, and CPU of the driver and of Ray's own processes.

All actors stand on this machine and play a small rate against one simulator, then twice that rate: what the driver
does for an actor should not change with it. CPU is read over some seconds in the middle of each trial; what the
actors and the simulator use is left out, for it belongs to other machines.
"""

import contextlib
import io
import os
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.run_cpu import cpu_by_pid
from raybench.client.sigv4 import Credentials
from raybench.client.target import Target
from raybench.cluster import environment
from raybench.cluster.monitor import Screen
from raybench.cluster.part import Post
from raybench.load.arrivals import Constant
from raybench.plan import Forecast, Plan, Trial
from raybench.rows import Prompt
from raybench.simulator.process import Simulated, simulated

ACTORS = (1, 2, 4, 8, 16, 64)
RATES = (1.0, 2.0)
"""Requests a second of one actor."""

BUSY, BUSY_RATES = 4, (8.0, 256.0)
"""So many actors at rates that differ by so much that what a request costs the driver would show."""

SECONDS, AROUND_S = 3.0, 1.5
OVERRIDES = {"ttft_s": 0.005, "itl_s": 0.002, "tokens": 8}
PROMPTS = [Prompt(f"{n} hello world", 4, "estimate") for n in range(200)]


@dataclass(frozen=True)
class Used:
    """CPU seconds so far: of this process, the driver, and of Ray's own."""

    driver_s: float
    ray_s: float

    @classmethod
    def now(cls, actors: set[int]) -> "Used":
        me = os.getpid()
        theirs = {pid: used_s for pid, used_s in cpu_by_pid(me).items() if pid != me and pid not in actors}
        return cls(time.process_time(), sum(theirs.values()))


class Middle:
    """What is used in the middle of a trial; it begins with the trial's first batch."""

    def __init__(self, actors: set[int]) -> None:
        self._actors = actors
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self.driver_s = self.ray_s = 0.0

    def seen(self) -> None:
        """A batch came."""
        if not self._watching.ident:
            self._watching.start()

    def _watch(self) -> None:
        time.sleep(AROUND_S)
        before, began_s = Used.now(self._actors), time.monotonic()
        time.sleep(SECONDS)
        after, lasted_s = Used.now(self._actors), time.monotonic() - began_s
        self.driver_s = (after.driver_s - before.driver_s) / lasted_s
        self.ray_s = (after.ray_s - before.ray_s) / lasted_s


def pss_mib(pid: int) -> float:
    """The memory of a process, what it shares divided among those who share it."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def play(crew: Any, actors: int, rate: float, screen: Screen) -> Middle:
    """Plays one trial as a run does, its live figures included; what that used."""
    load = Constant(actors * rate)
    trial = Trial(load.label, 0, "e", "p", load, 0, 0, 0.0, SECONDS + 2 * AROUND_S, None, 7, None)
    middle = Middle({about["pid"] for about in crew.about})

    def seen(batch: pa.Table) -> None:
        middle.seen()
        screen.seen(trial, batch)

    screen.expect(Plan("scale", (trial,), (Forecast("e", "", 1, None, None, simulated=True),)))
    screen.begin(trial)
    played = crew.play(trial, 7, seen)
    screen.close()
    assert played.lost == ()
    assert len(played.rows) >= actors * rate * SECONDS
    return middle


def raised(actors: int, simulator: Simulated, folder: Path) -> Any:
    """So many actors, standing."""
    from raybench.cluster.fleet import Crew

    keys = Credentials(simulator.access_key, simulator.secret_key)
    target = Target(simulator.url, "e", simulator.region, "stream", credentials=keys)
    crew = Crew([Post("e", index, actors, target, {}, folder / str(actors)) for index in range(actors)])
    crew.gather()
    return crew


def line(actors: int, simulator: Simulated, folder: Path) -> str:
    """Raises so many actors, has them play both rates, and says what that cost."""
    began_s = time.monotonic()
    crew = raised(actors, simulator, folder)
    started_s = time.monotonic() - began_s
    pids = {about["pid"] for about in crew.about}
    used_s = sum(used_s for pid, used_s in cpu_by_pid(os.getpid()).items() if pid in pids)
    crew.arm({"p": PROMPTS})
    slow, fast = (play(crew, actors, rate, Screen()) for rate in RATES)
    mib = sum(map(pss_mib, pids)) / actors
    crew.kill()
    cpu = "".join(f"{1000 * each:9.1f}" for each in (slow.driver_s, fast.driver_s, slow.ray_s, fast.ray_s))
    each_ms = 1000 * (slow.driver_s + fast.driver_s) / 2 / actors
    return f"{actors:6d}{started_s:8.1f}{used_s / actors:9.2f}{mib:9.0f}{cpu}{each_ms:10.2f}"


def busy(simulator: Simulated, folder: Path) -> str:
    """What one request more costs the driver."""
    crew = raised(BUSY, simulator, folder / "busy")
    crew.arm({"p": PROMPTS})
    slow, fast = (play(crew, BUSY, rate, Screen()) for rate in BUSY_RATES)
    crew.kill()
    more = BUSY * (BUSY_RATES[1] - BUSY_RATES[0])
    cpu = " and ".join(f"{1000 * each.driver_s:.1f}" for each in (slow, fast))
    rates = " and ".join(f"{rate:g}" for rate in BUSY_RATES)
    each_us = 1e6 * (fast.driver_s - slow.driver_s) / more
    return (
        f"{BUSY} actors at {rates} requests/s each: driver {cpu} ms of each second, {each_us:.1f} us a request more"
    )


def main() -> None:
    environment.prepare(local=True)
    from raybench.cluster import fleet

    out, load = sys.stdout, os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load average {load:.1f} before; python {sys.version.split()[0]}")
    fleet.START_TIMEOUT_S = 180.0
    with (
        tempfile.TemporaryDirectory(prefix="raybench-scale-") as folder,
        simulated({"e": {"profile": "fixed", "overrides": OVERRIDES}}) as simulator,
        contextlib.redirect_stdout(io.StringIO()),  # Ray warns of so many processes on so few cores
        contextlib.redirect_stderr(io.StringIO()),
        fleet.cluster("local"),
    ):
        print(busy(simulator, Path(folder)), file=out, flush=True)
        print(
            "start: s until all stand; of one actor: CPU s to start, MiB (PSS); driver, Ray: CPU ms of each second",
            file=out,
        )
        print(f"at {RATES[0]:g} and {RATES[1]:g} requests/s an actor, and the driver's for one actor", file=out)
        print("actors   start   CPU s     MiB   driver  doubled      Ray  doubled  ms/actor", file=out)
        for actors in ACTORS:
            print(line(actors, simulator, Path(folder)), file=out, flush=True)


if __name__ == "__main__":
    main()
