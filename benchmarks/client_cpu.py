"""What a request costs the client in CPU, beside boto3 in threads: `python benchmarks/client_cpu.py`.

The server is a process of its own with canned replies, so that it is not the limit; both clients sign with a session
token of 800 characters, check every frame and parse every record. CPU is this process's, user and system, in
microseconds. Rounds alternate between the clients; shown are the medians of each and of the rounds' boto3 / raybench.
"""

import asyncio
import gc
import json
import subprocess
import sys
import time
from binascii import crc32
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from struct import pack
from typing import Any

import boto3
import uvloop
from botocore.config import Config

from raybench.client.sagemaker import SageMakerClient
from raybench.client.sigv4 import Credentials
from raybench.client.target import Target
from raybench.rows import Outcome, Prompt, Request

KEY = Credentials("AKIDBENCHMARK", "secret", "t" * 800)
PROMPT = Prompt("word " * 780, 1040, "estimate")
BODY = json.dumps({"inputs": PROMPT.text, "parameters": {"max_new_tokens": 100, "details": True}}).encode()
REQUEST = Request(BODY, "hash", PROMPT, 100)
ROUNDS = 5


# The server


def frame(payload: bytes) -> bytes:
    names = {":message-type": b"event", ":event-type": b"PayloadPart", ":content-type": b"application/octet-stream"}
    headers = b"".join(
        pack(">B", len(name)) + name.encode() + b"\x07" + pack(">H", len(value)) + value
        for name, value in names.items()
    )
    prelude = pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = prelude + pack(">I", crc32(prelude)) + headers + payload
    return message + pack(">I", crc32(message))


def record(index: int, last: bool) -> bytes:
    token = {"id": 1000 + index, "text": " word", "logprob": -0.25, "special": False}
    text = " word" * (index + 1) if last else None
    details = {"finish_reason": "length", "generated_tokens": index + 1, "seed": None} if last else None
    return (
        b"data:" + json.dumps({"index": index, "token": token, "generated_text": text, "details": details}).encode()
    )


def events(count: int) -> list[bytes]:
    """A stream's events as HTTP chunks, the end of the response with the last."""
    framed = [frame(record(index, index == count - 1) + b"\n\n") for index in range(count)]
    chunks = [b"%x\r\n%b\r\n" % (len(each), each) for each in framed]
    return [*chunks[:-1], chunks[-1] + b"0\r\n\r\n"]


COMMON = (
    b"x-amzn-RequestId: 5f0c7f5e-5d6c-4b7e-9e0a-1c2d3e4f5a6b\r\nx-Amzn-Invoked-Production-Variant: AllTraffic\r\n"
)
REPLY = json.dumps([{"generated_text": " word" * 100, "details": {"generated_tokens": 100}}]).encode()
WHOLE = b"HTTP/1.1 200 OK\r\n%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    COMMON,
    len(REPLY),
    REPLY,
)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\n" + COMMON + b"Content-Type: application/vnd.amazon.eventstream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


class Canned(asyncio.Protocol):
    """Answers by endpoint name: `whole`, `burst-N` (N events at once) or `paced-N-MS` (one per MS milliseconds)."""

    prepared: dict[bytes, list[bytes]] = {}  # noqa: RUF012

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.loop = asyncio.get_running_loop()
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, found, body = self.data.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]):
            return
        self.data = b""
        name = head.split(b"/", 3)[2]
        if name == b"whole":
            self.transport.write(WHOLE)
            return
        kind, count, *pace = name.split(b"-")
        chunks = self.prepared.setdefault(count, events(int(count)))
        if kind == b"burst":
            self.transport.write(STREAM_HEAD + b"".join(chunks))
        else:
            self.transport.write(STREAM_HEAD)
            self.pace(chunks, 0, self.loop.time(), int(pace[0]) / 1000)

    def pace(self, chunks: list[bytes], index: int, start: float, every_s: float) -> None:
        self.transport.write(chunks[index])
        if index + 1 < len(chunks):
            self.loop.call_at(start + (index + 1) * every_s, self.pace, chunks, index + 1, start, every_s)


def serve() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Canned, "127.0.0.1", 0, backlog=256)
        print(server.sockets[0].getsockname()[1], flush=True)
        await loop.run_in_executor(None, sys.stdin.read)

    uvloop.run(main())


# The clients


def raybench_cpu_s(url: str, endpoint: str, requests: int, slots: int) -> float:
    """CPU seconds of `requests` requests, `slots` at a time, each read to its Exchange."""
    route = "invoke" if endpoint == "whole" else "stream"

    async def main() -> float:
        client = SageMakerClient(Target(url, endpoint, "us-west-2", route, "tgi", KEY))
        await client.open(slots)

        async def slot(count: int) -> None:
            for _ in range(count):
                exchange = await client.read(REQUEST, await client.send(REQUEST))
                assert exchange.outcome is Outcome.OK, exchange
                assert exchange.connection_reused

        await asyncio.gather(*[slot(1) for _ in range(slots)])
        started = time.process_time()
        await asyncio.gather(*[slot(requests // slots) for _ in range(slots)])
        spent = time.process_time() - started
        await client.close()
        return spent

    return uvloop.run(main())


def boto3_cpu_s(url: str, endpoint: str, requests: int, slots: int) -> float:
    """The same with one boto3 client and `slots` threads."""
    config = Config(
        retries={"total_max_attempts": 1, "mode": "standard"}, max_pool_connections=slots, read_timeout=75
    )
    client = boto3.client(
        "sagemaker-runtime",
        region_name="us-west-2",
        endpoint_url=url,
        aws_access_key_id=KEY.access_key,
        aws_secret_access_key=KEY.secret_key,
        aws_session_token=KEY.token,
        config=config,
    )

    def whole() -> None:
        reply = client.invoke_endpoint(EndpointName=endpoint, Body=BODY, ContentType="application/json")
        assert json.loads(reply["Body"].read())[0]["generated_text"]

    def stream() -> None:
        reply = client.invoke_endpoint_with_response_stream(
            EndpointName=endpoint, Body=BODY, ContentType="application/json"
        )
        stamps, last = [], {}
        for event in reply["Body"]:
            stamps.append(time.monotonic_ns())
            last = json.loads(event["PayloadPart"]["Bytes"].removeprefix(b"data:"))
        assert last["details"]["generated_tokens"] == len(stamps)

    def slot(count: int) -> None:
        for _ in range(count):
            whole() if endpoint == "whole" else stream()

    with ThreadPoolExecutor(slots) as threads:
        list(threads.map(slot, [1] * slots))
        started = time.process_time()
        list(threads.map(slot, [requests // slots] * slots))
        spent = time.process_time() - started
    client.close()
    return spent


def measure(
    client: Callable[[str, str, int, int], float], url: str, endpoint: str, requests: int, slots: int
) -> float:
    gc.collect()
    return client(url, endpoint, requests, slots) / (requests // slots * slots) * 1e6


PARTS = (
    # name, endpoint, requests, how many times fewer of boto3, slots, units a request, least ratio wanted
    ("unary, 4 KB request", "whole", 6400, 10, 16, 1, 10),
    ("64 paced streams, per event", "paced-60-10", 64, 1, 64, 60, 5),
    ("stream of 32 events at once", "burst-32", 1600, 5, 16, 1, 8),
)


def main() -> None:
    command = [sys.executable, __file__, "serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        print(f"{'client CPU, µs':32}{'raybench':>10}{'boto3':>10}{'ratio':>8}{'wanted':>8}{'wall s':>8}")
        for name, endpoint, requests, fewer, slots, units, wanted in PARTS:
            started = time.monotonic()
            rounds = [
                (
                    measure(raybench_cpu_s, url, endpoint, requests, slots) / units,
                    measure(boto3_cpu_s, url, endpoint, requests // fewer, slots) / units,
                )
                for _ in range(ROUNDS)
            ]
            us, them = (median(column) for column in zip(*rounds, strict=True))
            ratio = median(theirs / ours for ours, theirs in rounds)
            wall_s = time.monotonic() - started
            print(f"{name:32}{us:10.1f}{them:10.1f}{ratio:8.1f}{f'≥ {wanted}':>8}{wall_s:8.1f}", flush=True)
        assert server.stdin is not None
        server.stdin.close()


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else main()
