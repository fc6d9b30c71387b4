"""run.json: what was asked for, with what, and how far it got; the report reads nothing else besides the rows."""

import os
import platform
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from importlib.metadata import version
from typing import Any

from raybench import __version__
from raybench.cluster.search import Searched
from raybench.cluster.search_text import sentence
from raybench.config import Config
from raybench.load.arrivals import Closed, Load, Replay
from raybench.load.search import Search
from raybench.payloads.pool import Pool
from raybench.plan import Plan, Trial
from raybench.rows import SCHEMA_VERSION
from raybench.specs import Experiment, SimulatedEndpoint
from raybench.states import RunState, TrialState

PACKAGES = ("ray", "numpy", "scipy", "pyarrow", "altair", "vl-convert-python", "uvloop", "httptools", "botocore")

Manifest = dict[str, Any]


def begin(config: Config, plan: Plan, pools: Mapping[str, Pool], run_id: str) -> Manifest:
    """The manifest of a run that is about to start."""
    return {
        "schema": SCHEMA_VERSION,
        "raybench": __version__,
        "name": config.name,
        "run_id": run_id,
        "region": config.region,
        "started_utc": utc(),
        "resumed_utc": [],
        "finished_utc": None,
        "state": RunState.RUNNING,
        "simulated": any(simulated(experiment) for experiment in config.experiments),
        "seed": config.seed,
        "config_file": config.file.name if config.file else None,
        "config_folder": None,
        "on_cluster": False,
        "config_text": config.text,
        "config": config.model_dump(mode="json", by_alias=True, serialize_as_any=True, warnings=False),
        "model": config.model,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "hosts": [{"host": socket.gethostname(), "cpus": os.cpu_count()}],
        "experiments": [_experiment(experiment) for experiment in config.experiments],
        "payloads": [_payload(config, name, pool) for name, pool in pools.items()],
        "trials": [entry(trial) for trial in plan.trials if not isinstance(trial.load, Search)],
        "searches": [planned(trial, trial.load) for trial in plan.trials if isinstance(trial.load, Search)],
        "criteria": dict(config.criteria.limits),
        "enforce": False,
        "report": {"payload": config.report.payload},
        "simulator": None,
    }


def simulated(experiment: Experiment) -> bool:
    """Whether the endpoint is one of our own making."""
    return isinstance(experiment.endpoint, SimulatedEndpoint)


def utc() -> str:
    """Now, for people: UTC to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def age_s(manifest: Manifest) -> float:
    """Seconds since the run was started, by the wall clock, whole ones as it was written down."""
    return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(manifest["started_utc"])).total_seconds())


def _experiment(experiment: Experiment) -> Manifest:
    return {
        "name": experiment.name,
        "instance_type": experiment.instance_type,
        "instance_count": experiment.instance_count,
        "price_per_hour": experiment.price_per_hour,
        "price_source": None if experiment.price_per_hour is None else "config",
        "simulated": simulated(experiment),
        "route": experiment.route,
        "dialect": experiment.dialect,
        "parameters": experiment.parameters,
        "duration_s": None,
        "cost_usd": None,
        "actors": [],
    }


def _payload(config: Config, name: str, pool: Pool) -> Manifest:
    spec = next(payload for payload in config.payloads if payload.name == name)
    return {
        "name": name,
        "datasets": list(pool.datasets),
        "tokens": list(spec.tokens) if spec.tokens else None,
        "language": spec.language,
        "payload_hash": prompts_hash(pool),
        "kept": pool.kept,
        "dropped": dict(pool.dropped),
        "tokens_source": pool.tokens_source,
        "prompt_tokens_mean": pool.prompt_tokens_mean,
    }


def prompts_hash(pool: Pool) -> str:
    """BLAKE2b over the prompts in their order, each after its length: equal where two runs sent the same texts."""
    digest = blake2b(digest_size=16)
    for prompt in pool.prompts:
        text = prompt.text.encode()
        digest.update(b"%d:" % len(text) + text)
    return digest.hexdigest()


def load_hash(load: Load | Search) -> str | None:
    """BLAKE2b over the instants that a replay plays, its slice at its speed: equal where two runs sent alike.

    None for a load that its label says all of.
    """
    if not isinstance(load, Replay):
        return None
    return blake2b(load.offsets_ns(0).astype("<i8").tobytes(), digest_size=16).hexdigest()


def planned(trial: Trial, search: Search) -> Manifest:
    """A search that is still to be played."""
    found = Searched(trial, search, None, ())
    return found.as_dict() | {"sentence": sentence(found)}


def entry(trial: Trial) -> Manifest:
    """A trial that is still to be played."""
    load = trial.load
    return {
        "trial_id": trial.trial_id,
        "experiment": trial.experiment,
        "payload": trial.payload,
        "load": load.label,
        "kind": load.kind,
        "load_hash": load_hash(load),
        "concurrency": load.concurrency if isinstance(load, Closed) else None,
        "rate": load.rate,
        "think_time_s": load.think_time_s if isinstance(load, Closed) else None,
        "repeat": trial.repeat,
        "warmup_s": trial.warmup_s,
        "duration_s": trial.duration_s,
        "requests": trial.requests,
        **unplayed(),
    }


def unplayed() -> Manifest:
    """What a trial says before it is played."""
    nothing: Manifest = dict.fromkeys(("started_s", "sitting", "crew", "rows", "lost_rows", "t0_bound_ms"))
    return {"state": TrialState.PLANNED, **nothing, "actors": [], "lost": []}
