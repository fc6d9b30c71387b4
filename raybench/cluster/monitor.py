"""What a person sees while a run goes on: a live view on a terminal, plain lines everywhere else, all on stderr.

The view is drawn, and `live.json` written, by a thread of its own, at most twice a second: whoever brings batches
only leaves them, and a terminal that stands still stops nobody.
"""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.live import Live as Drawing

from raybench.cluster.status import write
from raybench.cluster.view import line, view
from raybench.plan import Plan, Trial
from raybench.rows import Outcome, Phase

if TYPE_CHECKING:
    from raybench.cluster.live import Live

DRAW_EVERY_S = 0.5
WRITE_EVERY_S = 1.0
JOIN_S = 2.0
SAY_EVERY_S = 30.0
"""How often a long trial gets a plain line."""


class Screen:
    """One place to say things from any thread; `begin`, `seen` and `end` follow the trials of the plan it expects."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self.clock = clock
        self._lock = threading.RLock()
        self._began_s = clock()
        self._live: Live | None = None
        self._drawing: Drawing | None = None
        self._ticking: threading.Thread | None = None
        self._closing = threading.Event()
        self._path: Path | None = None
        self._wrote_s = 0.0
        self._said_s: dict[str, float] = {}

    def say(self, text: str) -> None:
        """One line, with the seconds since the start; above the view where there is one."""
        with self._lock:
            self.console.print(f"{self.clock() - self._began_s:6.1f} s  {text}", markup=False, soft_wrap=True)

    def expect(
        self,
        plan: Plan,
        usd_per_hour: Mapping[str, float | None] | None = None,
        run_dir: Path | None = None,
        *,
        tick: bool = True,
    ) -> None:
        """Learns what will be played and what it costs; shows it from now on, and writes `live.json` into `run_dir`.

        Without `tick` it does so only when `tick` is called.
        """
        from raybench.cluster.live import Live

        self._live, self._path = Live(plan, usd_per_hour or {}, self.clock), run_dir
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self._drawing = Drawing(console=self.console, auto_refresh=False, transient=True, redirect_stdout=False)
            self._drawing.start()
        if tick:
            self._closing.clear()
            self._ticking = threading.Thread(target=self._tick_on, name="screen", daemon=True)
            self._ticking.start()

    def begin(self, trial: Trial) -> None:
        """A trial starts."""
        self._said_s[trial.experiment] = self.clock()
        if self._live:
            self._live.begin(trial)

    def seen(self, trial: Trial, batch: pa.Table) -> None:
        """A batch of a trial came in; nothing is done with it here."""
        if self._live:
            self._live.seen(trial, batch)

    def end(self, trial: Trial, rows: pa.Table) -> None:
        """A trial is over: says how many requests it measured and how they went."""
        measured = rows.filter(pc.equal(rows["phase"], Phase.MEASURE.value))
        ok = pc.sum(pc.equal(measured["outcome"], Outcome.OK.value)).as_py() or 0
        with self._lock:
            place = ""
            if self._live:
                number, trials = self._live.end(trial)
                place = f"[{number}/{trials}] "
            self.say(
                f"{place}{trial.experiment} {trial.payload} {trial.load.label}: "
                f"{len(measured)} requests measured, {len(measured) - ok} failed"
            )

    def tick(self) -> None:
        """Brings the view, `live.json` and the plain lines up to date, each as often as it may be."""
        if self._live is None:
            return
        with self._lock:  # so that no trial is said to go on after it was said to be over
            now_s, run = self.clock(), self._live.snapshot()
            for one in () if self._drawing else run["experiments"]:
                if one["state"] == "playing" and now_s - self._said_s[one["experiment"]] >= SAY_EVERY_S:
                    self._said_s[one["experiment"]] = now_s
                    self.say(line(one))
        if self._drawing:
            self._drawing.update(view(run, self.console.height - 1), refresh=True)
        if self._path and now_s - self._wrote_s >= WRITE_EVERY_S:
            self._wrote_s = now_s
            write(self._path, run)

    def close(self) -> None:
        """Takes the view away, and `live.json` with it."""
        self._closing.set()
        if self._ticking:
            self._ticking.join(timeout=JOIN_S)
        if self._drawing:
            self._drawing.stop()
        if self._path:
            write(self._path, None)
        self._live = self._drawing = self._ticking = self._path = None

    def _tick_on(self) -> None:
        while not self._closing.wait(DRAW_EVERY_S):
            with suppress(OSError):  # a terminal that has gone away
                self.tick()
