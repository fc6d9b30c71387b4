"""The same run as a Ray job: package the config and its files, submit, follow the log, bring the run directory back.

Everything goes through the Ray Jobs API, so one address and one token are enough. The run directory comes back from
S3 where the run was told to go there; else, and if S3 did not take all of it, in the job's own log, as framed lines
that are not shown (`frames.py`), so `attach` finds it there long after the job has ended.
"""

import asyncio
import json
import os
import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from raybench.cluster import environment, jobs
from raybench.cluster.frames import FRAME, unpack
from raybench.cluster.monitor import Screen
from raybench.config import Config, load_config
from raybench.errors import ClusterError, InputError, InterruptedRunError, RaybenchError
from raybench.mirror import fetch
from raybench.rundir import PAGE, free
from raybench.s3 import Prefix, Store, prefix

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

PLACE = "raybench-s3"
"""The job's metadata say under this where in S3 its run directory is."""

ALWAYS = ("--address", "auto", "--ship")
STOP_WAIT = {"RAY_JOB_STOP_WAIT_TIME_S": "600"}
"""How long Ray waits between asking a job to stop and killing it: requests in flight, then the report."""
LOOK_S, LOOK_EVERY_S = 10.0, 0.5
"""How long and how often we look whether a job has ended after its log has."""

SHELL, SIGNALS = 128, 64
"""What a shell adds to the number of the signal that ended a command of its, and how many signals there are."""


def submit(config: Config, address: str, out: Path, screen: Screen, to: Prefix | None = None) -> int:
    """Runs `config` as a job of the cluster behind `address`, brings its run directory to `out`, by `to` if given.

    Returns the job's own exit code. ClusterError if there is no such cluster, or if it does not take the job;
    InterruptedRunError if we are interrupted, and then the job goes on.
    """
    free(out)
    client = jobs.client(address)
    with tempfile.TemporaryDirectory(prefix="raybench-submit-") as folder:
        entry = pack(config, Path(folder))
        job = _submit(client, folder, entry, to)
        screen.say(f"submitted {job} to {address}")
    with _left_alone(job, address):
        if jobs.is_open(client.get_address()):
            screen.say(f"{address} asks for no token: whoever reaches it runs code there (docs/cluster.md: A token)")
    return _fetch(client, job, address, out, screen, to)


def attach(job: str, address: str, out: Path, screen: Screen) -> int:
    """Follows a job that was submitted before, from its first line, and ends as `submit` does."""
    free(out)
    client = jobs.client(address)
    with jobs.failures(f"no job {job!r} at {address}"):
        about = client.get_job_info(job).metadata or {}
    return _fetch(client, job, address, out, screen, prefix(about[PLACE]) if PLACE in about else None)


def stop(job: str, address: str, screen: Screen) -> None:
    """Asks a job to drain and report what there is; it goes on until it has. Says so where it will not."""
    client = jobs.client(address)
    with jobs.failures(f"cannot stop {job}"):
        was_running = client.stop_job(job)
        details = client.get_job_info(job)
    environ = (details.runtime_env or {}).get("env_vars") or {}
    if not was_running:
        screen.say(f"{job} was not running; its state is {details.status.value}")
    elif not STOP_WAIT.keys() & environ.keys():
        hint = f"--runtime-env-json '{json.dumps({'env_vars': STOP_WAIT})}'"
        screen.say(f"Ray by default kills {job} in 3 s, drained or not; `ray job submit {hint} …` leaves it the time")


def pack(config: Config, folder: Path) -> Path:
    """Copies the config and the files it names into `folder`, where they stand to each other as before.

    Returns the config's path inside it. Nothing else is copied: no environment, no credentials. InputError if the
    config would find its files only on this machine.
    """
    assert config.file is not None
    sources = [config.file, *_paths(config)]
    places = [Path(os.path.abspath(source)) for source in sources]
    root = Path(os.path.commonpath([place.parent for place in places]))
    for source, place in zip(sources, places, strict=True):
        copy = folder / place.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
    entry = places[0].relative_to(root)
    for path in _paths(load_config(folder / entry)):
        if not path.resolve().is_relative_to(folder.resolve()):
            allowed = "a path relative to the config file, so that it is found on the cluster too"
            raise InputError("is a path of this machine", where=str(config.file), key=str(path), allowed=allowed)
    return entry


def _submit(client: "JobSubmissionClient", folder: str, entry: Path, to: Prefix | None) -> str:
    environ = environment.SETTINGS | STOP_WAIT
    out = str(to or f"run-{secrets.token_hex(4)}")  # Ray unpacks what it was sent before where it is already
    words = ["python", "-m", "raybench", "run", str(entry), *ALWAYS, "--out", out]
    with jobs.failures("the cluster does not take the job"):
        return client.submit_job(
            entrypoint=shlex.join(words),
            runtime_env={"working_dir": folder, "env_vars": environ},
            metadata={"raybench": entry.name} | ({PLACE: str(to)} if to else {}),
        )


def _fetch(
    client: "JobSubmissionClient", job: str, address: str, out: Path, screen: Screen, to: Prefix | None
) -> int:
    """Follows a job to its end, brings its run directory, and returns its exit code."""
    lost_sight = f"lost sight of {job}, which {jobs.command('attach', job, address)} follows again"
    with _left_alone(job, address), jobs.failures(lost_sight):
        frames = asyncio.run(_follow(client, job, screen))
        details = _ended(client, job)
    if not details.status.is_terminal():
        raise ClusterError(lost_sight)
    if to and not frames and details.driver_exit_code == InputError.exit_code:
        to = None  # nothing was started: what is there is another run
    try:
        code = _exit_code(job, details)
    except RaybenchError:
        try:
            _bring(frames, to, out, screen)
        except RaybenchError as error:
            screen.say(str(error))  # how the job ended says why
        raise
    _bring(frames, to, out, screen)
    return code


@contextmanager
def _left_alone(job: str, address: str) -> Iterator[None]:
    """Turns Ctrl-C into what can be done with a job that goes on without us."""
    try:
        yield
    except KeyboardInterrupt:
        attach, stop = (jobs.command(verb, job, address) for verb in ("attach", "stop"))
        raise InterruptedRunError(f"{job} goes on without us: {attach} follows it again, {stop} ends it") from None


def _ended(client: "JobSubmissionClient", job: str) -> "JobDetails":
    """What there is to say of a job whose log has ended; the job itself may take a moment more."""
    until_s = time.monotonic() + LOOK_S
    while not (details := client.get_job_info(job)).status.is_terminal() and time.monotonic() < until_s:
        time.sleep(LOOK_EVERY_S)
    return details


def _bring(frames: list[str], to: Prefix | None, out: Path, screen: Screen) -> None:
    """The run directory from the log if it is there, else from S3, as far as we may read it."""
    try:
        if frames:
            unpack(frames, out)
        elif to:
            fetch(Store(to), out)
        else:
            return
    except RaybenchError as error:
        if not to:
            raise
        screen.say(f"the run directory is in {to} and does not come from here: {error}")
        return
    screen.say(f"fetched the run directory: {out}")
    if (out / PAGE).is_file():
        print(f"report: {out / PAGE}")


async def _follow(client: "JobSubmissionClient", job: str, screen: Screen) -> list[str]:
    """Shows the job's log line by line as it grows; returns the framed lines in it."""
    frames, rest = list[str](), ""
    async for text in client.tail_job_logs(job):
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            if line.startswith(FRAME):
                frames.append(line)
            else:
                screen.console.print(line, markup=False)
    if rest and not rest.startswith(FRAME):
        screen.console.print(rest, markup=False)
    return frames


def _signal(code: int) -> int:
    """The signal that ended a job's process, as Ray or the shell between them says it; 0 if none did."""
    if code < 0:
        return -code
    return code - SHELL if SHELL < code <= SHELL + SIGNALS and code != InterruptedRunError.exit_code else 0


def _exit_code(job: str, details: "JobDetails") -> int:
    """What the job's process returned; Ray keeps no code for one that it was asked to stop."""
    code = details.driver_exit_code
    if code is not None and (killed_by := _signal(code)):
        raise ClusterError(
            f"{job} was killed (signal {killed_by}): what it measured is in its run directory on the head and on the "
            "workers' disks; `raybench resume` of that directory, there and with `--address auto`, goes on"
        )
    if code is not None:
        return code
    status = str(details.status.value)
    if status == "SUCCEEDED":
        return 0
    if status == "STOPPED":
        raise InterruptedRunError(f"{job} was stopped")
    said = (details.message or "").strip().splitlines()
    raise ClusterError(f"{job} {status.lower()}: {said[0] if said else 'no reason given'}")


def _paths(value: Any) -> Iterator[Path]:
    """Every path inside a config."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _paths(getattr(value, name))
    elif isinstance(value, tuple):
        for each in value:
            yield from _paths(each)
