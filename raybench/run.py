"""The conductor: each endpoint plays its trials in order, endpoints in parallel, and the run directory fills.

What was measured is never lost to what goes wrong later: rows are on disk before anybody counts them, and an
interrupted or failed run still ends with its Parquet parts and a report of what there is.
"""

import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from raybench import manifest as manifests
from raybench import s3, searching, targets
from raybench.analysis import reduce
from raybench.cluster import environment
from raybench.cluster.monitor import Screen
from raybench.cluster.search import Seen
from raybench.cluster.shipping import Shipping
from raybench.config import Config
from raybench.datasets import load_pools
from raybench.endpoints.holding import let_go, note_held
from raybench.errors import InputError, InterruptedRunError, RaybenchError, StorageError
from raybench.load.search import Search
from raybench.muster import Muster
from raybench.payloads.pool import Pool
from raybench.plan import Plan, Trial, plan
from raybench.prices import cost_usd
from raybench.publish import publish
from raybench.report import build
from raybench.rundir import OWN, TRUTH, RunDir
from raybench.simulator.process import Simulated
from raybench.specs import DeployedEndpoint, Experiment
from raybench.states import RunState, TrialState
from raybench.watching import REPORTING, first_failure, interruptible, terminable, watch

if TYPE_CHECKING:
    from raybench.cluster.fleet import Crew


def run(
    config: Config,
    out: Path,
    address: str,
    screen: Screen,
    *,
    enforce: bool = False,
    selftest: bool = True,
    to: s3.Prefix | None = None,
) -> None:
    """Measures what the config asks for into the run directory `out`, report included, and copies it `to` S3.

    Raises InputError before anything was started; after the report, an InfrastructureError or InterruptedRunError if
    it is one of what there is, InvalidRunError if a trial cannot be trusted, and CriteriaMissedError with `enforce`;
    StorageError at once if S3 takes nothing.
    """
    if config.file and config.file.name in OWN:
        problem = "a run directory, which gets a copy of the config, has a file of its own by that name"
        raise InputError(problem, where=str(config.file), allowed="another name, such as config.yaml")
    matrix = plan(config)
    folder = config.file.parent if config.file else Path()
    pools = load_pools(config.payloads, config.seed, folder)
    targets.known(config)
    if to:
        s3.free(to)
    rundir = RunDir.create(out.absolute())
    with rundir.hold():
        conductor = Conductor(config, matrix, pools, rundir, screen)
        conductor.manifest |= {"enforce": enforce, "config_folder": str(folder.absolute()), "s3": to and str(to)}
        conductor.manifest["on_cluster"] = address != "local"
        conductor.record()
        if config.file:
            rundir.write(config.file.name, config.text.encode())
        carry_out(conductor, address, selftest=selftest, to=to)


def carry_out(conductor: "Conductor", address: str, *, selftest: bool, to: s3.Prefix | None = None) -> None:
    """Conducts to the end, or until somebody has had enough of waiting for it; copies all the while `to` S3."""
    with terminable():
        if not to:
            _carry_out(conductor, address, selftest=selftest)
            return
        conductor.screen.say(f"copying to {to} from {conductor.rundir.path}")
        try:
            with Shipping(conductor.rundir.path, to, conductor.screen.say) as conductor.shipping:
                _carry_out(conductor, address, selftest=selftest)
        except KeyboardInterrupt:  # at the first copy, before anything was started
            raise _stopped(conductor) from None


def _carry_out(conductor: "Conductor", address: str, *, selftest: bool) -> None:
    try:
        conductor.conduct(address, selftest=selftest)
    except RaybenchError:
        if conductor.manifest["state"] == RunState.RUNNING:
            conductor.finish(RunState.FAILED)
        raise
    except KeyboardInterrupt:
        raise _stopped(conductor) from None
    finally:
        conductor.screen.close()


def _stopped(conductor: "Conductor") -> InterruptedRunError:
    """Ends a run that is not waited for, and says what can be done with it."""
    conductor.finish(RunState.INTERRUPTED)
    path = conductor.rundir.path
    after = f"`raybench report {path}` makes a report of what was measured, `raybench resume {path}` goes on"
    return InterruptedRunError(f"stopped at once: {after}")


class Conductor:
    """One run: its plan, its directory, and how far it got; with a `manifest` it goes on with that run.

    The plan then holds the trials that are left, and the rows of the others are read from the directory. `joined` is
    called once a cluster of others, which may have been there in earlier sittings, is joined.
    """

    def __init__(
        self,
        config: Config,
        matrix: Plan,
        pools: Mapping[str, Pool],
        rundir: RunDir,
        screen: Screen,
        manifest: manifests.Manifest | None = None,
        wall_ns: Callable[[], int] = time.time_ns,
        joined: Callable[[], None] = lambda: None,
    ) -> None:
        self.config, self.plan, self.pools, self.rundir, self.screen = config, matrix, pools, rundir, screen
        self.manifest = manifest or manifests.begin(config, matrix, pools, rundir.path.name)
        self._trials = {trial["trial_id"]: trial for trial in self.manifest["trials"]}
        self._experiments = {experiment["name"]: experiment for experiment in self.manifest["experiments"]}
        self._played = [
            rundir.requests(trial) for trial in self.manifest["trials"] if trial["state"] == TrialState.DONE
        ]
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._crews: list[Crew] = []
        self._began_s = time.monotonic() - (manifests.age_s(manifest) if manifest else 0.0)
        self._alone = True
        self._wall_ns, self._joined = wall_ns, joined
        self.shipping: Shipping | None = None

    def record(self) -> None:
        """Brings run.json up to date."""
        with self._lock:
            self.rundir.write_manifest(self.manifest)

    def conduct(self, address: str, *, selftest: bool = True) -> None:
        """Starts what is needed, plays every trial, and writes the report, whatever happened."""
        self._alone = address == "local"
        environment.prepare(local=self._alone)
        failure: RaybenchError | None = None
        try:
            with ThreadPoolExecutor(1) as beside, ExitStack() as calm:
                with ExitStack() as stack:
                    simulator = self._start(address, stack, selftest=selftest)
                    with interruptible(self._stopping, self.screen.say):
                        self.screen.say("measuring")
                        self.screen.expect(self.plan, self._usd_per_hour(), self.rundir.path)
                        failure = self._play_all(simulator)
                    self.screen.close()
                    if not self._stopping.is_set():
                        calm.enter_context(interruptible(threading.Event(), self.screen.say, REPORTING))
                    self.screen.say("reducing the rows")
                    keep = self.rundir.write_part if self._alone else _is_kept
                    findings = reduce.reduced(self._played, self.manifest, keep)
                    ended = RunState.INTERRUPTED if self._stopping.is_set() else RunState.DONE
                    self.finish(RunState.FAILED if failure else ended)
                    written = beside.submit(publish, self.rundir, self.manifest, findings)  # while Ray ends
                deserved = written.result()
        except RaybenchError as later:
            raise failure or later from None
        self._conclude(failure, deserved)

    def _start(self, address: str, stack: ExitStack, *, selftest: bool) -> Simulated | None:
        """Has the load actors ready; Ray starts while endpoints are checked and the report's tools load."""
        muster = Muster(self.config, self.plan, self.pools, self.rundir.path, self.manifest, self.screen)
        resumed, truth = len(self.manifest["resumed_utc"]), self.rundir.path / TRUTH

        def checked() -> Simulated | None:
            simulator = stack.enter_context(targets.simulator(self.config, truth, resumed))
            muster.check(simulator)
            return simulator

        with ThreadPoolExecutor(1) as beside:
            checking, warm = beside.submit(checked), beside.submit(build.warm_up)
            with terminable():
                muster.join(address, stack)
                if not self._alone:
                    self.screen.say(f"the run directory is {self.rundir.path} on {socket.gethostname()}")
                    self._joined()
            simulator = checking.result()
            self._crews = muster.raised()
            warm.result()
        if selftest:
            self._crews = muster.enough(self._crews)
        if self.shipping:
            stack.callback(self.shipping.leave)
            self.shipping.follow(lambda: [node for crew in self._crews for node in crew.nodes], resumed)
        return simulator

    def _play_all(self, simulator: Simulated | None) -> RaybenchError | None:
        """Plays all experiments in parallel; returns what stopped them, if something of ours did."""
        with ThreadPoolExecutor(len(self._crews)) as threads:
            playing = [
                threads.submit(self._play, crew, experiment)
                for crew, experiment in zip(self._crews, self.config.experiments, strict=True)
            ]
            busiest = watch(playing, self._crews, self._stopping, simulator, self._unshipped)
        self.manifest["simulator"] = busiest or self.manifest["simulator"]
        return first_failure(playing) or self._unshipped()

    def _unshipped(self) -> RaybenchError | None:
        """What should stop the run because its rows do not get away from here."""
        return self.shipping.failure if self.shipping else None

    def _play(self, crew: "Crew", experiment: Experiment) -> None:
        """Plays one endpoint's trials, one after another."""
        about = self._experiments[experiment.name]
        self._hold(crew, experiment, note_held, about)
        began_s = time.monotonic() - (about["duration_s"] or 0.0)
        try:
            self._play_on(crew, experiment, about, began_s)
        finally:
            self._hold(crew, experiment, let_go)
        crew.close()

    def _hold(self, crew: "Crew", experiment: Experiment, tell: Callable[..., None], *more: Any) -> None:
        """Asks or tells the ledger how an endpoint that we deployed is held; without a ledger nobody knows."""
        if isinstance(experiment.endpoint, DeployedEndpoint):
            aim = crew.posts[0].target
            try:
                with self._lock:
                    tell(*more, aim.region, aim.endpoint, self._wall_ns())
            except StorageError as error:
                self.screen.say(f"what deploying and idling took is not known: {error}")

    def _play_on(self, crew: "Crew", experiment: Experiment, about: dict[str, Any], began_s: float) -> None:
        for trial in self.plan.of(experiment.name):
            if self._stopping.is_set():
                break
            if isinstance(trial.load, Search):
                self._search(crew, trial, trial.load, experiment.usd_per_hour)
            else:
                self._play_trial(crew, trial)
            held_s = time.monotonic() - began_s
            about["duration_s"] = held_s
            about["cost_usd"] = cost_usd(experiment.usd_per_hour, held_s)
            self.record()

    def _search(self, crew: "Crew", trial: Trial, search: Search, usd_per_hour: float | None) -> None:
        """Plays a search, whose probes are trials of their own."""
        stage = searching.Stage(
            manifest=self.manifest,
            trials=self._trials,
            play=lambda probe, seen: self._play_trial(crew, probe, seen),
            stop=crew.stop,
            rows_of=self.rundir.requests,
            record=self.record,
            say=self.screen.say,
        )
        searching.search(trial, search, stage, usd_per_hour)

    def _play_trial(self, crew: "Crew", trial: Trial, watch: Seen | None = None) -> pa.Table | None:
        """Plays one trial; returns its rows, or None if it was not played to its end. `watch` sees every batch."""
        if self._stopping.is_set():
            return None

        def seen(batch: pa.Table) -> None:
            self.screen.seen(trial, batch)
            if watch:
                watch(batch)

        noted = self._trials[trial.trial_id]
        noted["state"], noted["started_s"] = TrialState.PARTIAL, round(time.monotonic() - self._began_s, 3)
        noted["sitting"] = len(self.manifest["resumed_utc"])
        ceiling = self._experiments[trial.experiment].get("ceiling")
        noted["crew"] = {"actors": len(crew.posts), "ceiling": ceiling}  # a resume may have others
        self.screen.begin(trial)
        played = crew.play(trial, self.config.seed, seen)
        whole, rows = not self._stopping.is_set() and not played.lost, played.rows
        noted["rows"], noted["actors"], noted["lost"] = len(rows), list(played.actors), list(played.lost)
        noted["lost_rows"], noted["t0_bound_ms"] = played.loss, played.t0_bound_ms
        if not self._alone:  # the spools are on the workers, and a worker may go
            self.rundir.write_part(noted, rows)
        if whole:
            noted["state"] = TrialState.DONE
        self._played.append(rows)
        self.screen.end(trial, rows)
        if played.failure:
            raise played.failure
        return rows if whole else None

    def _usd_per_hour(self) -> dict[str, float | None]:
        """What the instances of each experiment cost together."""
        return {one.name: one.usd_per_hour for one in self.config.experiments}

    def finish(self, state: RunState) -> None:
        """Says in run.json how the run ended."""
        self.manifest |= {"state": state, "finished_utc": manifests.utc()}
        self.record()

    def _conclude(self, failure: RaybenchError | None, deserved: RaybenchError | None) -> None:
        """Raises what the exit code should say: what broke the run, else that it was stopped, else its results."""
        if failure:
            raise failure
        if self._stopping.is_set():
            raise InterruptedRunError(f"interrupted; what was measured is in {self.rundir.path}")
        if deserved:
            raise deserved


def _is_kept(trial: Mapping[str, Any], table: pa.Table) -> None:
    """What Ray Data does with rows that are in their part already."""
