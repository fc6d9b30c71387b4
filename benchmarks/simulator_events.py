"""How many token events per second one simulator process carries: CPU per event, and how late it gets.

A bare client on the other core only counts bytes, so that what is seen is the server. Prints one line a rate:
asked, sent (truth log), CPU share, events per CPU second, and the p99 lag of the server's own timetable.
"""

import asyncio
import json
import sys
from pathlib import Path

import uvloop
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from simulated import Simulator, simulator

STREAMS, TOKENS, SECONDS = 256, 400, 5.0
RATES = (5_000, 10_000, 20_000, 40_000, 60_000)


def signed(server: Simulator, endpoint: str) -> bytes:
    """A streamed request as bytes; good for five minutes."""
    keys, path = server.credentials, f"/endpoints/{endpoint}/invocations-response-stream"
    body = json.dumps({"inputs": "hello", "stream": True, "parameters": {"details": True}}).encode()
    request = AWSRequest("POST", server.url + path, data=body, headers={"Content-Type": "application/json"})
    SigV4Auth(Credentials(keys.access_key, keys.secret_key), "sagemaker", keys.region).add_auth(request)
    headers = {**request.headers, "Host": server.url[7:], "Content-Length": str(len(body))}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode() + body


class Sink(asyncio.Protocol):
    """Repeats one request for as long as it is told to."""

    def __init__(self, request: bytes) -> None:
        self.request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"0\r\n\r\n"):
            self.transport.write(self.request)  # type: ignore[attr-defined]


async def load(server: Simulator, endpoint: str) -> dict[str, float]:
    host, port = server.url[7:].split(":")
    loop = asyncio.get_running_loop()
    request = signed(server, endpoint)
    sinks = []
    for _ in range(STREAMS):
        sinks.append(await loop.create_connection(lambda: Sink(request), host, int(port)))
        await asyncio.sleep(0.001)
    await asyncio.sleep(1)
    server.health()
    await asyncio.sleep(SECONDS)
    health = await loop.run_in_executor(None, server.health)
    for transport, _ in sinks:
        transport.abort()
    await asyncio.sleep(0.5)
    return health


def main() -> None:
    for rate in RATES:
        spec = {"profile": "fixed", "overrides": {"ttft_s": 0.01, "itl_s": STREAMS / rate, "tokens": TOKENS}}
        with simulator({"fixed": spec}) as server:
            health = uvloop.run(load(server, "fixed"))
            last = server.truth()
            stamps = sorted(ns for row in last for ns, _ in row["chunks"])
        middle = stamps[len(stamps) // 4 : -len(stamps) // 4]
        seen = (len(middle) - 1) / (middle[-1] - middle[0]) * 1e9
        share = health["cpu_share"]
        print(
            f"asked {rate:6d}/s  sent {seen:8.0f}/s  cpu {share:5.1%}  "
            f"{seen / share:8.0f} events per CPU second  lag p99 {health['lag_p99_ms']:.1f} ms"
        )


if __name__ == "__main__":
    main()
