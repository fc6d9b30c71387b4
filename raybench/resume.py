"""A run goes on where it stopped: finished trials stay as they are, the others are played anew.

Everything needed stands in the run directory: the config as it was, the folder its paths start from, and how far the
run got. What an unfinished trial left is kept aside, under abandoned/.
"""

import socket
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from raybench import fetching, s3
from raybench import manifest as manifests
from raybench.cluster import environment, status
from raybench.cluster.monitor import Screen
from raybench.cluster.shipping import Shipping
from raybench.config import Config, load_config
from raybench.datasets import load_pools
from raybench.errors import InputError
from raybench.payloads.pool import Pool
from raybench.plan import Plan, plan
from raybench.publish import rebuild
from raybench.run import Conductor, carry_out
from raybench.rundir import SITTING, RunDir
from raybench.states import RunState, TrialState


def resume(
    path: Path,
    address: str | None,
    screen: Screen,
    *,
    selftest: bool = True,
    inputs: Path | None = None,
    to: s3.Prefix | None = None,
) -> None:
    """Plays what is left of the run in `path` and reports all of it; a finished run is only reported, as it was.

    Without an `address` it goes on where it was played, if that was from this host. The config's paths start from
    `inputs`, by default from where they did. The run is copied `to` S3, by default to where it was before. Raises
    what `run` raises; InputError if the run is going on, if another directory was ahead of this one with it, or if it
    is not the one that its files would make now.
    """
    rundir = RunDir.open(path.absolute())
    with rundir.hold():
        manifest = rundir.manifest()
        if not to and manifest.get("s3"):
            to = s3.prefix(manifest["s3"])
            fetching.ahead(manifest, to)
        if to:
            manifest["s3"] = str(to)
        if wanted := left(manifest):
            if inputs:
                manifest["config_folder"] = str(inputs.absolute())
            _play(rundir, manifest, wanted, address or _cluster(manifest), screen, selftest=selftest, to=to)
            return
        if manifest["state"] != RunState.DONE:
            _close(rundir, manifest)
        with Shipping(rundir.path, to, screen.say) if to else nullcontext():
            rebuild(rundir)


def _cluster(manifest: Mapping[str, Any]) -> str:
    """The cluster that this host's run was played by; else a command's own."""
    here = manifest["hosts"][0]["host"] == socket.gethostname()
    return "auto" if here and manifest.get("on_cluster") else environment.home()


def left(manifest: Mapping[str, Any]) -> set[str]:
    """The planned trials that are not done, and the searches without a verdict."""
    trials = {
        trial["trial_id"]
        for trial in manifest["trials"]
        if trial["state"] != TrialState.DONE and not _is_probe(trial)
    }
    return trials | {search["trial_id"] for search in manifest.get("searches", ()) if search["verdict"] is None}


def _is_probe(trial: Mapping[str, Any]) -> bool:
    """Whether a trial came of a search: the config does not have it, and what is not done the search plays anew."""
    return "search" in trial


def _play(
    rundir: RunDir,
    manifest: dict[str, Any],
    wanted: set[str],
    address: str,
    screen: Screen,
    *,
    selftest: bool,
    to: s3.Prefix | None,
) -> None:
    """Plays the `wanted` trials of the plan, from their beginning; a search goes on after its last probe."""
    config = _config(rundir, manifest)
    matrix, pools = plan(config), load_pools(config.payloads, config.seed, Path(manifest["config_folder"]))
    _same(rundir, manifest, matrix, pools)
    rest = replace(matrix, trials=tuple(trial for trial in matrix.trials if trial.trial_id in wanted))
    before = len(manifest.get("resumed_utc", ()))
    cut = [trial for trial in manifest["trials"] if trial["state"] != TrialState.DONE]
    names = [trial["trial_id"] for trial in cut if not rundir.part(trial).exists()]  # a part has all rows already
    for trial in cut:
        rundir.set_aside(trial, f"{SITTING}{before}")
        if _is_probe(trial):
            manifest["trials"].remove(trial)
        else:
            trial.update(manifests.unplayed())
    manifest |= {"state": RunState.RUNNING, "finished_utc": None}
    manifest["resumed_utc"] = [*manifest.get("resumed_utc", ()), manifests.utc()]
    joined = partial(_bring_aside, rundir, manifest, names, before + 1, screen)
    conductor = Conductor(config, rest, pools, rundir, screen, manifest, joined=joined)
    conductor.record()
    done = sum(trial["state"] == TrialState.DONE for trial in manifest["trials"])
    left = len(rest.trials)
    screen.say(f"resuming {manifest['run_id']}: {done} of {done + left} trials done, {left} left")
    carry_out(conductor, address, selftest=selftest, to=to)


def _bring_aside(rundir: RunDir, manifest: Mapping[str, Any], cut: list[str], before: int, screen: Screen) -> None:
    """Fetches what cut trials left on the disks of other nodes: a killed conductor had no time to."""
    from raybench.cluster.collecting import left_elsewhere

    if not cut:
        return
    actors = [actor for experiment in manifest["experiments"] for actor in experiment["actors"]]
    silent, rows = {str(actor["host"]) for actor in actors} - {socket.gethostname()}, 0
    for host, spools in left_elsewhere(rundir.path, cut, before):
        silent.discard(host)
        for name, data in spools:
            rundir.keep_aside(name, data)
            rows += data.count(b"\n")
    if rows:
        screen.say(f"fetched {rows} rows of cut trials from other nodes: {rundir.path / 'abandoned'}")
    if silent:
        screen.say(f"rows of cut trials that are on {', '.join(sorted(silent))} could not be fetched")


def _close(rundir: RunDir, manifest: dict[str, Any]) -> None:
    """Ends a run that stopped after its last trial: the rows become parts."""
    for trial in manifest["trials"]:
        if rundir.spool(trial["trial_id"]):
            rundir.write_part(trial, rundir.requests(trial))
    status.write(rundir.path, None)
    manifest |= {"state": RunState.DONE, "finished_utc": manifests.utc()}
    manifest["resumed_utc"] = [*manifest.get("resumed_utc", ()), manifests.utc()]
    rundir.write_manifest(manifest)


def _config(rundir: RunDir, manifest: Mapping[str, Any]) -> Config:
    """The run's config from its copy, its paths from where they were."""
    if manifest["config_file"] is None or not manifest.get("config_folder"):
        raise InputError(
            "the run does not say what its config was", where=str(rundir.path), allowed="start a new run"
        )
    config = load_config(rundir.path / manifest["config_file"], Path(manifest["config_folder"]))
    if config.text != manifest["config_text"]:
        raise InputError("the config changed since the run began", where=str(config.file), allowed="start a new run")
    return config


def _same(rundir: RunDir, manifest: Mapping[str, Any], matrix: Plan, pools: Mapping[str, Pool]) -> None:
    """Refuses to pool rows with strangers: plan, arrivals and prompts must be those that the run began with."""
    began = [trial["trial_id"] for trial in manifest["trials"] if not _is_probe(trial)]
    began += [search["trial_id"] for search in manifest.get("searches", ())]
    if sorted(trial.trial_id for trial in matrix.trials) != sorted(began):
        raise InputError("its plan would be another now", where=str(rundir.path), allowed="start a new run")
    hashes = {trial["trial_id"]: trial.get("load_hash") for trial in manifest["trials"]}
    for trial in matrix.trials:
        if hashes.get(trial.trial_id) not in (None, manifests.load_hash(trial.load)):
            where, problem = str(rundir.path), "its arrivals would be others now: a trace changed"
            raise InputError(problem, where=where, key=f"load {trial.load.label}", allowed="start a new run")
    for payload in manifest["payloads"]:
        if manifests.prompts_hash(pools[payload["name"]]) != payload["payload_hash"]:
            where, problem = str(rundir.path), "its prompts would be others now: a dataset changed"
            raise InputError(problem, where=where, key=f"payload {payload['name']}", allowed="start a new run")
