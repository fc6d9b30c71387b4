"""The same run as a Ray job: package the config and its files, submit, follow the log, bring the run directory back.

Everything goes through the Ray Jobs API, so one address and one token are enough. The run directory comes back in
the job's own log, as framed lines that are not shown.
"""

import asyncio
import base64
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from raybench.cluster import environment
from raybench.cluster.monitor import Screen
from raybench.config import Config
from raybench.errors import ClusterError, InfrastructureError, InputError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

FRAME = "@@raybench "
FRAME_BYTES = 3000
STOP_WAIT_S = 600
"""How long Ray waits between asking a job to stop and killing it: requests in flight, then the report."""


def submit(config: Config, address: str, out: Path, screen: Screen) -> int:
    """Runs `config` as a job of the cluster behind `address` and returns the job's own exit code.

    The run directory is written to `out`. ClusterError if there is no such cluster, or if it does not take the job.
    """
    if out.exists() and any(out.iterdir()):
        raise InputError("is not empty", where=str(out), allowed="name a new or empty directory with --out")
    environment.prepare(local=False)
    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(f"no Ray jobs at {address}: {str(error).splitlines()[0]}") from None
    with tempfile.TemporaryDirectory(prefix="raybench-submit-") as folder:
        entry = pack(config, Path(folder))
        job = _submit(client, folder, entry)
    screen.say(f"submitted {job} to {address}")
    frames = asyncio.run(_follow(client, job, screen))
    if frames:
        unpack(frames, out)
        screen.say(f"fetched the run directory: {out}")
    return _exit_code(client, job)


def pack(config: Config, folder: Path) -> Path:
    """Copies the config and the files it names into `folder`, where they stand to each other as before.

    Returns the config's path inside it. Nothing else is copied: no environment, no credentials.
    """
    assert config.file is not None
    files = [config.file.absolute(), *(path.absolute() for path in _paths(config))]
    root = Path(os.path.commonpath([path.parent for path in files]))
    for path in files:
        copy = folder / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return files[0].relative_to(root)


def ship(run_dir: Path) -> Iterator[str]:
    """The run directory as lines for a log; a spool that is still there goes along, the truth of a simulator not."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path in sorted(run_dir.rglob("*")):
            if path.is_file() and path.name != "truth.jsonl":
                tar.add(path, arcname=str(path.relative_to(run_dir)))
    data = buffer.getvalue()
    for at in range(0, len(data), FRAME_BYTES):
        yield FRAME + base64.b64encode(data[at : at + FRAME_BYTES]).decode()


def unpack(frames: Iterable[str], out: Path) -> None:
    """The inverse of `ship`: writes the run directory to `out`; InfrastructureError if the lines are not whole."""
    try:
        data = b"".join(base64.b64decode(frame.removeprefix(FRAME), validate=True) for frame in frames)
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
            out.mkdir(parents=True, exist_ok=True)
            tar.extractall(out, filter="data")
    except (ValueError, EOFError, tarfile.TarError) as error:
        raise InfrastructureError(f"the run directory did not come back whole: {error}") from None


def _submit(client: "JobSubmissionClient", folder: str, entry: Path) -> str:
    environ = {**environment.SETTINGS, "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}
    try:
        return client.submit_job(
            entrypoint=f"python -m raybench run '{entry}' --address auto --out run --ship",
            runtime_env={"working_dir": folder, "env_vars": environ},
            metadata={"raybench": entry.name},
        )
    except (RuntimeError, ConnectionError) as error:
        raise ClusterError(f"the cluster does not take the job: {str(error).splitlines()[0]}") from None


async def _follow(client: "JobSubmissionClient", job: str, screen: Screen) -> list[str]:
    """Shows the job's log line by line as it grows; returns the framed lines in it."""
    frames, rest = list[str](), ""
    async for text in client.tail_job_logs(job):
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            if line.startswith(FRAME):
                frames.append(line)
            else:
                screen.say(line)
    if rest:
        screen.say(rest)
    return frames


def _exit_code(client: "JobSubmissionClient", job: str) -> int:
    details = client.get_job_info(job)
    if details.driver_exit_code is not None:
        return details.driver_exit_code
    if str(details.status) == "SUCCEEDED":
        return 0
    raise ClusterError(f"job {job} {str(details.status).lower()}: {details.message}")


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
