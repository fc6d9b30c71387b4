"""What the environment must say before Ray is imported, in one place."""

import os
import secrets
from pathlib import Path

SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}
"""Workers at nice 0 (Ray's own 15 adds milliseconds to every stamp), token authentication, no telemetry."""


def prepare(local: bool) -> None:
    """Sets what is not set yet; a local cluster gets a token of its own, kept in this process' environment."""
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    if local and not _has_token():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _has_token() -> bool:
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    return "RAY_AUTH_TOKEN" in os.environ or path.is_file()
