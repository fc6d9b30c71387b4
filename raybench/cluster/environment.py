"""What the environment must say before Ray is imported, in one place."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

SETTINGS = {
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}
"""Workers at nice 0 (Ray's own 15 adds milliseconds to every stamp), and no telemetry."""

AUTH_MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"

JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets this for the command of a job; its workers do not have it."""


def prepare(*, local: bool) -> None:
    """Sets what is not set yet; a local cluster asks for a token, which only this process and its children know."""
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    if local and not _has_token():
        os.environ[TOKEN] = secrets.token_hex(32)
    if _has_token():
        os.environ.setdefault(AUTH_MODE, "token")


def hurry() -> None:
    """Brings every thread of this process to nice 0 where we may: Ray started by hand has its workers at 15."""
    for thread in Path("/proc/self/task").glob("*"):  # Linux has a niceness for each; new ones inherit it
        with suppress(OSError):
            if os.getpriority(os.PRIO_PROCESS, int(thread.name)) > 0:
                os.setpriority(os.PRIO_PROCESS, int(thread.name), 0)


def home() -> str:
    """The cluster of a command that is told none: as a Ray job it is the job's, else one of the command's own."""
    return "auto" if JOB in os.environ else "local"


def arrival(address: str) -> str:
    """What is said before Ray is started (`local`) or joined at an address, which takes a while."""
    return "starting Ray" if address == "local" else f"joining Ray at {address}"


def _has_token() -> bool:
    path = Path(os.environ.get(TOKEN_PATH, Path.home() / ".ray" / "auth_token"))
    return TOKEN in os.environ or path.is_file()
