"""Inside the simulator's process: it reads what endpoints to be, serves until told to end, and says how it did."""

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import uvloop

from raybench.errors import InfrastructureError, InputError, RaybenchError
from raybench.simulator.auth import Credentials
from raybench.simulator.faults import Faults
from raybench.simulator.profiles import profile
from raybench.simulator.server import EndpointSpec, Running, serve

ACCESS_KEY = "AKIDRAYBENCHSIMULATED"
SECRET_KEY = "raybench-simulated-secret"  # noqa: S105
REGION = "us-west-2"


@dataclass(frozen=True, slots=True)
class Setup:
    """All that a simulator process needs to know."""

    endpoints: Mapping[str, EndpointSpec]
    credentials: Credentials
    port: int = 0
    truth: Path | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Setup":
        """From the JSON file's values; unknown keys are InputErrors."""
        _check(values, "", "endpoints", "port", "truth", "access_key", "secret_key", "region", "session_token")
        credentials = Credentials(
            values.get("access_key", ACCESS_KEY),
            values.get("secret_key", SECRET_KEY),
            values.get("region", REGION),
            values.get("session_token"),
        )
        truth = values.get("truth")
        endpoints = {name: _endpoint(name, spec) for name, spec in values.get("endpoints", {}).items()}
        return cls(endpoints, credentials, values.get("port", 0), None if truth is None else Path(truth))


def _endpoint(name: str, values: Mapping[str, Any]) -> EndpointSpec:
    _check(values, f"endpoints.{name}.", "profile", "overrides", "faults", "seed")
    return EndpointSpec(
        profile(values.get("profile", "fixed"), **values.get("overrides", {})),
        Faults.of(values.get("faults", {})),
        values.get("seed", 0),
    )


def _check(values: Mapping[str, Any], where: str, *allowed: str) -> None:
    if unknown := set(values) - set(allowed):
        raise InputError("unknown key", key=where + min(unknown), allowed=", ".join(allowed))


async def _run(setup: Setup, announce: Callable[[Running], None], *, until_eof: bool) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        # whoever stops a Ray job signals its children too, and requests in flight are still to be answered
        loop.add_signal_handler(number, (lambda: None) if until_eof else stop.set)
    if until_eof:
        threading.Thread(target=_wait_for_eof, args=(loop, stop), daemon=True).start()
    try:
        running = await serve(setup.endpoints, credentials=setup.credentials, port=setup.port, truth=setup.truth)
    except OSError as error:
        raise InfrastructureError(f"the simulator cannot start: {error}") from None
    gc.freeze()
    announce(running)
    await stop.wait()
    await running.close()


def _wait_for_eof(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    while os.read(0, 4096):
        pass
    loop.call_soon_threadsafe(stop.set)


def main(argv: Sequence[str]) -> int:
    """`--config FILE`: serves until stdin ends, whatever signals come; prints one line, {"url", "pid"}."""
    if len(argv) != 2 or argv[0] != "--config":
        print("usage: python -m raybench.simulator --config FILE", file=sys.stderr)
        return InputError.exit_code
    try:
        try:
            setup = Setup.of(orjson.loads(Path(argv[1]).read_bytes()))
        except (OSError, orjson.JSONDecodeError) as error:
            raise InputError(str(error), where=argv[1]) from None
        uvloop.run(_run(setup, _announce, until_eof=True))
    except RaybenchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _announce(running: Running) -> None:
    print(orjson.dumps({"url": running.url, "pid": os.getpid()}).decode(), flush=True)


def simulate(name: str, port: int = 0) -> None:
    """Serves one endpoint, named after its profile, until interrupted; prints how to reach it."""
    setup = Setup({name: EndpointSpec(profile(name))}, Credentials(ACCESS_KEY, SECRET_KEY, REGION), port)
    uvloop.run(_run(setup, lambda running: print(_instructions(running.url, name), flush=True), until_eof=False))


def _instructions(url: str, endpoint: str) -> str:
    body = r'"{\"inputs\": \"Hello\"}"'
    invoke = f'invoke_endpoint(EndpointName="{endpoint}", ContentType="application/json", Body={body})'
    return f"""{url}
export AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME={url} AWS_REGION={REGION} AWS_DEFAULT_REGION={REGION}
export AWS_ACCESS_KEY_ID={ACCESS_KEY} AWS_SECRET_ACCESS_KEY={SECRET_KEY}
python -c 'import boto3; print(boto3.client("sagemaker-runtime").{invoke}["Body"].read().decode())'"""
