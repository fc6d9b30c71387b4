"""Asks every port of this host for everything Ray serves, without a token; prints what answered, as JSON.

Called with `ADDRESS:PORT ...`; the answer is a list of [port, method, path, status], of HTTP/1 and of gRPC. With a
token in PROBE_TOKEN it asks with that: what is refused to strangers has then to be there.
"""

import importlib.util
import json
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc  # type: ignore[import-untyped]

PAGES = Path(importlib.util.find_spec("ray").origin).parent / "dashboard" / "client" / "build"  # type: ignore
GETS = (
    "/",
    "/favicon.ico",
    *(f"/{path.relative_to(PAGES)}" for path in sorted(PAGES.glob("static/js/*.js"))[:1]),
    "/-/healthz",
    "/api/version",
    "/api/jobs/",
    "/api/cluster_status",
    "/api/authentication_mode",
    "/api/healthz",
    "/api/gcs_healthz",
    "/api/local_raylet_healthz",
    "/api/v0/actors",
    "/api/v0/nodes",
    "/api/v0/logs",
    "/api/serve/applications/",
    "/api/job_agent/jobs/",
    "/api/grafana_health",
    "/api/prometheus_health",
    "/api/snapshot",
    "/api/data/datasets/1",
    "/nodes?view=summary",
    "/logical/actors",
    "/events",
    "/logs",
    "/logs/",
    "/metrics",
    "/worker/traceback?pid=1",
    "/task/traceback",
    "/memory_profile",
)
POSTS = ("/api/jobs/", "/api/job_agent/jobs/", "/api/authenticate", "/get_or_create_runtime_env")
CALLS = (
    "/grpc.health.v1.Health/Check",
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.NodeInfoGcsService/GetClusterId",
    "/ray.rpc.InternalKVGcsService/InternalKVKeys",
    "/ray.rpc.InternalKVGcsService/GetInternalConfig",
    "/ray.rpc.JobInfoGcsService/GetAllJobInfo",
    "/ray.rpc.ActorInfoGcsService/GetAllActorInfo",
    "/ray.rpc.autoscaler.AutoscalerStateService/GetClusterStatus",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.NodeManagerService/GetSystemConfig",
    "/ray.rpc.NodeManagerService/GetWorkerPIDs",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.CoreWorkerService/NumPendingTasks",
    "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "/ray.rpc.RayletDriver/ClusterInfo",
    "/ray.rpc.ReporterService/HealthCheck",
    "/ray.rpc.LogService/ListLogs",
    "/ray.rpc.events.EventAggregatorService/AddEvents",
)
"""Calls that an empty message is good enough for, and that change nothing: one service of each kind of process."""
WAIT_S = 20.0
"""Long enough for a busy machine: an answer that is not waited for looks like silence."""
TOKEN = os.environ.get("PROBE_TOKEN", "")
BEARER = f"Bearer {TOKEN}"


def status(asked: tuple[str, int, str, str]) -> int:
    """The HTTP status of one request (address, port, method, path); 0 from what does not speak HTTP."""
    address, port, method, path = asked
    body = b'{"entrypoint": "true"}' if method == "POST" else b""
    head = f"{method} {path} HTTP/1.1\r\nHost: {address}:{port}\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    head += f"Authorization: {BEARER}\r\n\r\n" if TOKEN else "\r\n"
    with suppress(OSError, ValueError), socket.create_connection((address, port), timeout=WAIT_S) as there:
        there.sendall(head.encode() + body)
        line = there.recv(64).split(b" ")
        if line[0].startswith(b"HTTP/1"):
            return int(line[1][:3])
    return 0


def answers(place: tuple[str, int]) -> list[tuple[int, str, str, int]]:
    """What a port says to each gRPC call, in HTTP's words: 200, 401, or 0 for any other refusal and for silence."""
    words = {grpc.StatusCode.OK: 200, grpc.StatusCode.UNAUTHENTICATED: 401}
    found = []
    with grpc.insecure_channel(f"{place[0]}:{place[1]}", [("grpc.enable_http_proxy", 0)]) as channel:
        for path in CALLS:
            call = channel.unary_unary(path, lambda message: message, lambda message: message)
            code = grpc.StatusCode.OK
            try:
                call(b"", timeout=WAIT_S, metadata=[("authorization", BEARER)] if TOKEN else [])
            except grpc.RpcError as refused:
                code = refused.code()
            if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                break  # no gRPC here
            found.append((place[1], "GRPC", path, words.get(code, 0)))
    return found


def main() -> None:
    ports = [(place.rpartition(":")[0], int(place.rpartition(":")[2])) for place in sys.argv[1:]]
    with ThreadPoolExecutor(16) as threads:
        first = list(threads.map(status, ((*place, "GET", "/") for place in ports)))
        asked = [
            (address, port, method, path)
            for (address, port), answered in zip(ports, first, strict=True)
            if answered
            for method, paths in (("GET", GETS), ("POST", POSTS))
            for path in paths
        ]
        said = list(threads.map(status, asked))
        others = [place for place, answered in zip(ports, first, strict=True) if not answered]
        called = [answer for found in threads.map(answers, others) for answer in found]
    print(json.dumps([(*asked[1:], code) for asked, code in zip(asked, said, strict=True)] + called))


if __name__ == "__main__":
    main()
