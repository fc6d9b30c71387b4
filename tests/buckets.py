"""S3 for tests: one in memory that can refuse or die at any write, and moto's, which can be in a bad mood."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from raybench.errors import StorageError

BUCKET = "results"
MOODS = {"503": ("503 Slow Down", "SlowDown"), "403": ("403 Forbidden", "AccessDenied")}
ERROR = "<?xml version='1.0'?><Error><Code>{0}</Code><Message>{0}, says the test</Message></Error>"


class DiedError(Exception):
    """The machine that wrote is gone in the middle of it."""


@dataclass
class MemoryStore:
    """Objects by key; `meanwhile` is what the world does while each is on its way, and may raise."""

    objects: dict[str, bytes] = field(default_factory=dict)
    meanwhile: Callable[[], None] = lambda: None
    puts: dict[str, int] = field(default_factory=dict)
    """Which put, counted from 1, an object is of; the store's clock is a second for each."""

    def __str__(self) -> str:
        return "s3://in/memory"

    def put(self, key: str, data: bytes) -> None:
        self.meanwhile()
        self.objects[key] = data
        self.puts[key] = max(self.puts.values(), default=0) + 1

    def get(self, key: str) -> bytes:
        return self.objects[key]

    def listed(self) -> Mapping[str, datetime]:
        return {key: datetime.fromtimestamp(self.puts.get(key, 0), UTC) for key in self.objects}


def refusal() -> StorageError:
    return StorageError("s3://in/memory: PutObject: SLOW_DOWN")


class StandIn:
    """moto's S3 with one bucket; `mood` is None, or how it answers all that is asked: "503" or "403"."""

    def __init__(self) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.mood: str | None = None
        self.refused = 0
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if self.mood is None:
            answer: Iterable[bytes] = self._moto(environ, start)
            return answer
        self.refused += 1
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        status, code = MOODS[self.mood]
        body = ERROR.format(code).encode()
        start(status, [("content-type", "application/xml"), ("content-length", str(len(body)))])
        return [body]

    @contextmanager
    def serving(self) -> Iterator[None]:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


@contextmanager
def bucket() -> Iterator[StandIn]:
    """A stand-in with the bucket in it, and an environment that leads there and nowhere else."""
    from pyarrow import fs

    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIDTEST")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-the-test")
        patch.setenv("AWS_REGION", "us-east-1")
        standin = StandIn()
        patch.setenv("AWS_ENDPOINT_URL_S3", standin.url)
        with standin.serving():
            made = fs.S3FileSystem(endpoint_override=standin.url, region="us-east-1", allow_bucket_creation=True)
            made.create_dir(BUCKET)
            yield standin
