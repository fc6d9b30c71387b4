"""The state of a run as any shell can read it: `run.json`, and `live.json` while it is measuring."""

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from raybench.cluster.view import clock, view
from raybench.rundir import LIVE, PAGE, RunDir
from raybench.states import RunState

STALE_S = 5.0
"""`live.json` is written every second; older than this, it says what was."""


def write(run_dir: Path, run: Mapping[str, Any] | None) -> None:
    """Puts a snapshot into the run directory, whole or not at all; None takes it away.

    It may be lost: a disk that refuses it stops nothing.
    """
    path = run_dir / LIVE
    temporary = path.with_name(f".{LIVE}.tmp")
    with suppress(OSError):
        if run is None:
            path.unlink(missing_ok=True)
            temporary.unlink(missing_ok=True)
            return
        who = {"written_s": time.time(), "host": socket.gethostname(), "pid": os.getpid()}
        temporary.write_text(json.dumps({**who, **run}, allow_nan=False) + "\n")
        temporary.replace(path)


def status(run_dir: Path) -> dict[str, Any]:
    """Where a run is, as JSON values: its state, how many trials are in which, and the live figures or None.

    `state` is that of run.json, or `dead` if the process that measured is gone. InputError if there is no run.
    """
    manifest = RunDir.open(run_dir).manifest()
    live = _live(run_dir) if manifest["state"] == RunState.RUNNING else None
    return {
        "run_dir": str(run_dir),
        "name": manifest["name"],
        "state": "dead" if live and _dead(live) else manifest["state"],
        "started_utc": manifest["started_utc"],
        "finished_utc": manifest["finished_utc"],
        "trials": dict(Counter(trial["state"] for trial in manifest["trials"])),
        "report": (run_dir / PAGE).is_file(),
        "live_s_ago": max(0.0, time.time() - live["written_s"]) if live else None,
        "live": live,
    }


def show(found: Mapping[str, Any]) -> None:
    """Prints the state for people, coloured on a terminal."""
    Console(highlight=False, soft_wrap=True).print(text(found))


def text(found: Mapping[str, Any]) -> Text:
    """The state for people."""
    trials = ", ".join(f"{number} {state}" for state, number in sorted(found["trials"].items())) or "none"
    lines = [Text(f"{found['name']}: {_STATES.get(found['state'], found['state'])}; trials: {trials}")]
    if found["live"]:
        ago_s = found["live_s_ago"]
        if ago_s > STALE_S or found["state"] == "dead":
            lines.append(Text(f"these figures are {clock(ago_s)} old", "red"))
        lines.append(view(found["live"]))
    elif found["state"] == RunState.RUNNING:
        lines.append(Text("not measuring now: starting, or making the report"))
    if found["report"]:
        lines.append(Text(f"report: {found['run_dir']}/{PAGE}"))
    return Text("\n").join(lines)


_STATES = {"dead": "its process is gone; `raybench resume` finishes it, `raybench report` reports what there is"}


def _live(run_dir: Path) -> dict[str, Any] | None:
    """What `live.json` holds; None if there is none, or it is not ours."""
    with suppress(OSError, ValueError):
        live = json.loads((run_dir / LIVE).read_text())
        if isinstance(live, dict) and {"written_s", "host", "pid", "experiments"} <= live.keys():
            return live
    return None


def _dead(live: Mapping[str, Any]) -> bool:
    """Whether the process that wrote it is gone, as far as this host can tell."""
    if live["host"] != socket.gethostname() or time.time() - live["written_s"] < STALE_S:
        return False
    try:
        os.kill(int(live["pid"]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
