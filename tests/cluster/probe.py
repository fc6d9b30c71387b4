"""Asks every port of this host for everything Ray serves, without a token; prints what answered, as JSON.

Called with `ADDRESS:PORT ...`; the answer is a list of [port, method, path, status].
"""

import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

GETS = (
    "/",
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
WAIT_S = 2.0


def status(asked: tuple[str, int, str, str]) -> int:
    """The HTTP status of one request (address, port, method, path); 0 from what does not speak HTTP."""
    address, port, method, path = asked
    body = b'{"entrypoint": "true"}' if method == "POST" else b""
    head = f"{method} {path} HTTP/1.1\r\nHost: {address}:{port}\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with suppress(OSError, ValueError), socket.create_connection((address, port), timeout=WAIT_S) as there:
        there.sendall(head.encode() + body)
        line = there.recv(64).split(b" ")
        if line[0].startswith(b"HTTP/1"):
            return int(line[1][:3])
    return 0


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
    print(json.dumps([[port, method, path, code] for (_, port, method, path), code in zip(asked, said, strict=True)]))


if __name__ == "__main__":
    main()
