"""The Ray Jobs API of a cluster: the one address that leads there, and one line for what goes wrong on the way."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from raybench.cluster import environment
from raybench.errors import ClusterError, InputError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

JOBS = "http://127.0.0.1:8265"
"""Where it is if nothing is said."""

ADDRESS = re.compile(r"https?://[^/\s]\S*")
BARE = re.compile(r"[\w.-]+:\d+")

OVERRIDES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Ray goes to these instead of to the address that it is given."""

CHATTER = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""Loggers of Ray that tell each step of a submission; our own lines do."""

ANSWER_S = 10.0


def client(address: str) -> "JobSubmissionClient":
    """A client of the Jobs API at `address`; InputError if that is none, ClusterError if nobody answers."""
    if not ADDRESS.fullmatch(address):
        allowed = f"write http://{address}" if BARE.fullmatch(address) else "write http://HOST:PORT"
        raise InputError("is no Ray Jobs API", where="--address", key=address, allowed=allowed)
    environment.prepare(local=False)
    for name in OVERRIDES:
        os.environ.pop(name, None)
    from ray.job_submission import JobSubmissionClient

    with failures(f"no Ray jobs at {address}"):
        made = JobSubmissionClient(address)
    for name in CHATTER:
        logging.getLogger(name).setLevel(logging.WARNING)
    return made


def is_open(address: str) -> bool:
    """Whether the Jobs API at `address` answers who shows no token."""
    from http.client import HTTPException
    from urllib.request import urlopen

    with suppress(OSError, HTTPException), urlopen(f"{address}/api/version", timeout=ANSWER_S) as answer:  # noqa: S310
        return b"ray_version" in answer.read()  # and not somebody's page to log in
    return False


@contextmanager
def failures(what: str) -> Iterator[None]:
    """Turns what the Jobs API raises into a ClusterError of one line."""
    from aiohttp import ClientError
    from ray.exceptions import AuthenticationError, RayError

    try:
        yield
    except AuthenticationError:
        hint = f"set {environment.AUTH_MODE}=token and {environment.TOKEN_PATH} to the file with the cluster's token"
        raise ClusterError(f"{what}: it wants another token than ours; {hint}") from None
    except (OSError, RuntimeError, ValueError, ClientError, RayError) as error:
        raise ClusterError(f"{what}: {(str(error).strip() or type(error).__name__).splitlines()[0]}") from None


def command(verb: str, job: str, address: str) -> str:
    """What to type to have to do with a job again."""
    return f"`raybench {verb} {job}`" if address == JOBS else f"`raybench {verb} {job} --address {address}`"
