"""What a person sees while a run goes on: progress bars on a terminal, plain lines everywhere else, all on stderr."""

import threading
import time
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from raybench.plan import Plan, Trial
from raybench.rows import Outcome, Phase


class Screen:
    """One place to say things from any thread; `begin`, `seen` and `end` follow the trials."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._lock = threading.Lock()
        self._began_s = time.monotonic()
        self._progress: Progress | None = None
        self._bars: dict[str, TaskID] = {}
        self._of: Mapping[str, int] = {}
        self._done: dict[str, int] = {}
        self._measured: dict[str, int] = {}

    def say(self, text: str) -> None:
        """One line, with the seconds since the start."""
        with self._lock:
            self.console.print(f"{time.monotonic() - self._began_s:6.1f} s  {text}", markup=False)

    def expect(self, plan: Plan) -> None:
        """Learns how many trials there are; on a terminal, draws a bar for each experiment."""
        self._of = {estimate.experiment: estimate.trials for estimate in plan.estimates}
        if not self.console.is_terminal:
            return
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[state]}"))
        self._progress = Progress(*columns, TimeElapsedColumn(), console=self.console, transient=True)
        for experiment, trials in self._of.items():
            self._bars[experiment] = self._progress.add_task(experiment, total=trials, state="waiting")
        self._progress.start()

    def begin(self, trial: Trial) -> None:
        """A trial starts."""
        self._measured[trial.experiment] = 0
        self._state(trial, "starting")

    def seen(self, trial: Trial, batch: pa.Table) -> None:
        """Rows of a trial came in."""
        if self._progress and len(batch):
            self._measured[trial.experiment] += pc.sum(pc.equal(batch["phase"], Phase.MEASURE.value)).as_py()
            of = f" of {trial.requests}" if trial.requests else ""
            self._state(trial, f"{trial.payload} {trial.load.label}: {self._measured[trial.experiment]}{of} measured")

    def end(self, trial: Trial, rows: pa.Table) -> None:
        """A trial is over: says how many requests it measured and how they went."""
        measured = rows.filter(pc.equal(rows["phase"], Phase.MEASURE.value))
        failed = (
            len(measured) - pc.sum(pc.equal(measured["outcome"], Outcome.OK.value)).as_py() if len(measured) else 0
        )
        done = self._done[trial.experiment] = self._done.get(trial.experiment, 0) + 1
        place = f"[{done}/{self._of.get(trial.experiment, done)}]"
        self.say(
            f"{place} {trial.experiment} {trial.payload} {trial.load.label}: "
            f"{len(measured)} requests measured, {failed} failed"
        )
        if self._progress:
            self._progress.advance(self._bars[trial.experiment])

    def close(self) -> None:
        """Takes the bars away."""
        if self._progress:
            self._progress.stop()
            self._progress = None

    def _state(self, trial: Trial, state: str) -> None:
        if self._progress:
            self._progress.update(self._bars[trial.experiment], state=state)
