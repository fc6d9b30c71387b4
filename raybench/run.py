"""The conductor: each endpoint plays its trials in order, endpoints in parallel, and the run directory fills.

What was measured is never lost to what goes wrong later: rows are on disk before anybody counts them, and an
interrupted or failed run still ends with its Parquet parts and a report of what there is.
"""

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from raybench import manifest as manifests
from raybench import selftest as selftests
from raybench import targets
from raybench.analysis import decide, reduce, validity
from raybench.analysis.reduce import Findings
from raybench.client.target import Target
from raybench.cluster import environment
from raybench.cluster.actor import Post, preflight
from raybench.cluster.monitor import Screen
from raybench.config import Config
from raybench.errors import (
    CriteriaMissedError,
    InfrastructureError,
    InterruptedRunError,
    InvalidRunError,
    RaybenchError,
)
from raybench.payloads.pool import Pool, load_pool
from raybench.payloads.tokens import counter
from raybench.plan import Plan, Trial, plan
from raybench.report import build
from raybench.rundir import RunDir
from raybench.simulator.process import Simulated
from raybench.specs import Experiment

if TYPE_CHECKING:
    from raybench.cluster.fleet import Crew

LOOK_EVERY_S = 1.0
HEALTH_EVERY_S = 5.0


def run(
    config: Config, out: Path, address: str, screen: Screen, *, enforce: bool = False, selftest: bool = True
) -> None:
    """Measures what the config asks for into the run directory `out`, report included.

    Raises InputError before anything was started; after the report, an InfrastructureError or InterruptedRunError if
    it is one of what there is, InvalidRunError if a trial cannot be trusted, and CriteriaMissedError with `enforce`.
    """
    matrix = plan(config)
    folder = config.file.parent if config.file else Path()
    pools = {
        payload.name: load_pool(payload.payload, counter(payload.tokenizer), config.seed, folder)
        for payload in config.payloads
    }
    rundir = RunDir.create(out.absolute())
    conductor = Conductor(config, matrix, pools, rundir, screen)
    conductor.manifest["enforce"] = enforce
    conductor.record()
    if config.file:
        rundir.write(config.file.name, config.text.encode())
    try:
        conductor.conduct(address, selftest=selftest)
    except KeyboardInterrupt:
        raise InterruptedRunError(f"stopped at once; what was measured is in {rundir.path}") from None
    finally:
        screen.close()


def report(path: Path) -> None:
    """Rebuilds trials.parquet and the reports of a run directory from its rows and run.json alone.

    Raises InvalidRunError or CriteriaMissedError as the run did.
    """
    rundir = RunDir.open(path.absolute())
    manifest = rundir.manifest()
    verdict = _publish(rundir, manifest, reduce.reduce(rundir.requests, manifest))
    if verdict:
        raise verdict


class Conductor:
    """One run: its plan, its directory, and how far it got."""

    def __init__(
        self, config: Config, matrix: Plan, pools: Mapping[str, Pool], rundir: RunDir, screen: Screen
    ) -> None:
        self.config, self.plan, self.pools, self.rundir, self.screen = config, matrix, pools, rundir, screen
        self.manifest = manifests.begin(config, matrix, pools, rundir.path.name)
        self._trials = {trial["trial_id"]: trial for trial in self.manifest["trials"]}
        self._experiments = {experiment["name"]: experiment for experiment in self.manifest["experiments"]}
        self._played: list[pa.Table] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._crews: list[Crew] = []
        self._began_s = time.monotonic()

    def record(self) -> None:
        """Brings run.json up to date."""
        with self._lock:
            self.rundir.write_manifest(self.manifest)

    def conduct(self, address: str, *, selftest: bool = True) -> None:
        """Starts what is needed, plays every trial, and writes the report, whatever happened."""
        environment.prepare(local=address == "local")
        with ThreadPoolExecutor(1) as helper, ExitStack() as stack:
            warm = helper.submit(build.warm_up)
            simulator = stack.enter_context(targets.simulator(self.config, self.rundir.path / "truth.jsonl"))
            self._crews = self._start(simulator, address, stack)
            warm.result()
            if selftest:
                self._selftest()
            self.screen.say("measuring")
            self.screen.expect(self.plan)
            with self._interruptible():
                failure = self._play_all(simulator)
            self.screen.close()
            self.screen.say("reducing the rows")
            try:
                findings = reduce.reduce_with_ray(self._played, self.manifest, self.rundir.write_part)
                self._finish(failure)
                verdict = _publish(self.rundir, self.manifest, findings)
            except RaybenchError as later:
                raise failure or later from None
        self._conclude(failure, verdict)

    def _start(self, simulator: Simulated | None, address: str, stack: ExitStack) -> "list[Crew]":
        """Checks the endpoints, starts or joins Ray, and has every actor standing and armed."""
        aims = {one.name: targets.target(self.config, one, simulator) for one in self.config.experiments}
        self.screen.say("checking the endpoints")
        for experiment in self.config.experiments:
            prompt = self.pools[self.config.payloads[0].name].prompts[0]
            preflight(aims[experiment.name], experiment.parameters, prompt)
        self.screen.say("starting Ray" if address == "local" else f"joining Ray at {address}")
        from raybench.cluster import fleet

        stack.enter_context(fleet.cluster(address))
        crews = [self._crew(fleet.Crew, one, aims[one.name]) for one in self.config.experiments]
        fleet.warm_up()
        for crew, experiment in zip(crews, self.config.experiments, strict=True):
            crew.gather()
            crew.arm({name: pool.prompts for name, pool in self.pools.items()})
            self._experiments[experiment.name]["actors"] = crew.about
        return crews

    def _crew(self, crew: "type[Crew]", experiment: Experiment, target: Target) -> "Crew":
        actors = self.config.fleet.actors
        posts = [
            Post(
                experiment=experiment.name,
                index=index,
                actors=actors,
                target=target,
                parameters=experiment.parameters,
                run_dir=self.rundir.path,
                keep_text=self.config.keep_text,
            )
            for index in range(actors)
        ]
        return crew(posts)

    def _selftest(self) -> None:
        """Lets the load actors measure their own error first; where they cannot, the run goes on without."""
        self.screen.say("measuring what the load actors' own stamps are worth")
        try:
            found = selftests.before(self._crews, self.plan)
        except InfrastructureError as error:
            self.screen.say(f"no selftest: {error}")
        else:
            selftests.note(found, self.manifest)
            self.screen.say(selftests.line(found))

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM drains; the second is Python's own KeyboardInterrupt."""

        def stop(signum: int, frame: object) -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._stopping.set()
            self.screen.say("stopping: waiting for the requests in flight (again to stop at once)")

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _play_all(self, simulator: Simulated | None) -> RaybenchError | None:
        """Plays all experiments in parallel; returns what stopped them, if something of ours did."""
        health: list[Mapping[str, float]] = []
        looked_s = 0.0
        with ThreadPoolExecutor(len(self._crews)) as threads:
            playing = [
                threads.submit(self._play, crew, experiment)
                for crew, experiment in zip(self._crews, self.config.experiments, strict=True)
            ]
            told = False
            while wait(playing, timeout=LOOK_EVERY_S).not_done:
                if any(future.done() and future.exception() for future in playing):
                    self._stopping.set()
                if self._stopping.is_set() and not told:
                    told = True
                    for crew in self._crews:
                        crew.stop()
                if simulator and time.monotonic() - looked_s > HEALTH_EVERY_S:
                    looked_s = time.monotonic()
                    health.append(simulator.health())
        self.manifest["simulator"] = _worst(health)
        return _failure(playing)

    def _play(self, crew: "Crew", experiment: Experiment) -> None:
        """Plays one endpoint's trials, one after another."""
        about = self._experiments[experiment.name]
        began_s = time.monotonic()
        for trial in self.plan.of(experiment.name):
            if self._stopping.is_set():
                break
            self._play_trial(crew, trial)
            held_s = time.monotonic() - began_s
            about["duration_s"] = held_s
            if experiment.price_per_hour is not None:
                about["cost_usd"] = experiment.price_per_hour * experiment.instance_count * held_s / 3600
            self.record()
        crew.close()

    def _play_trial(self, crew: "Crew", trial: Trial) -> None:
        noted = self._trials[trial.trial_id]
        noted["state"], noted["started_s"] = "partial", round(time.monotonic() - self._began_s, 3)
        self.screen.begin(trial)
        played = crew.play(trial, self.config.seed, lambda batch: self.screen.seen(trial, batch))
        if not self._stopping.is_set() and not played.lost:
            noted["state"] = "done"
        rows = self.rundir.requests(noted) if played.lost else played.rows
        noted["rows"], noted["actors"], noted["lost"] = len(rows), list(played.actors), list(played.lost)
        self._played.append(rows)
        self.screen.end(trial, rows)

    def _finish(self, failure: RaybenchError | None) -> None:
        state = "failed" if failure else "interrupted" if self._stopping.is_set() else "done"
        self.manifest |= {"state": state, "finished_utc": manifests.utc()}
        self.record()

    def _conclude(self, failure: RaybenchError | None, verdict: RaybenchError | None) -> None:
        """Raises what the exit code should say: what broke the run, else that it was stopped, else the verdict."""
        if failure:
            raise failure
        if self._stopping.is_set():
            raise InterruptedRunError(f"interrupted; what was measured is in {self.rundir.path}")
        if verdict:
            raise verdict


def _publish(rundir: RunDir, manifest: Mapping[str, Any], findings: Findings) -> RaybenchError | None:
    """Writes trials.parquet and the reports, prints the answer, and returns the error it deserves, if any."""
    decision = decide.decide(findings.trials, manifest["criteria"], manifest["report"]["payload"])
    rundir.write_table("trials.parquet", findings.trials)
    build.build(rundir.path, findings, decision, manifest)
    for sentence in decision.sentences:
        print(decide.plain(sentence))
    print(f"report: {rundir.path / 'report.html'}")
    invalid = [trial for trial in findings.trials.to_pylist() if trial["valid"] == validity.Valid.INVALID]
    if invalid:
        codes = sorted({code for trial in invalid for code in trial["reasons"]})
        many = f"{len(invalid)} of {len(findings.trials)} trials"
        return InvalidRunError(f"{many} cannot be trusted ({', '.join(codes)}); the report says why and what to do")
    if manifest["enforce"] and decision.winner is None:
        return CriteriaMissedError("no setting meets every criterion")
    return None


def _worst(health: Sequence[Mapping[str, float]]) -> dict[str, float] | None:
    """The simulator at its busiest; the first look covers its start and is left out."""
    looks = health[1:]
    if not looks:
        return None
    return {
        "cpu_share_max": max(look["cpu_share"] for look in looks),
        "lag_p99_ms": max(look["lag_p99_ms"] for look in looks),
    }


def _failure(playing: Sequence["Future[None]"]) -> RaybenchError | None:
    """What ended the first experiment that did not end well; a bug is raised as it is."""
    for future in playing:
        error = future.exception()
        if isinstance(error, RaybenchError):
            return error
        if error is not None:
            raise error
    return None
