"""Ray's own guard of its pages, in a process of its own, with a node's folder in PYTHONPATH and without."""

import json
import os
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import pytest

NODE = Path(__file__).parents[1] / "raybench" / "cluster" / "node"
TOKEN = "c0ffee" * 8
ASKED = {
    "nothing": {},
    "the token": {"Authorization": f"Bearer {TOKEN}"},
    "another token": {"Authorization": "Bearer tea"},
    "the token for proxies": {"X-Ray-Authorization": f"Bearer {TOKEN}"},
    "the token as password": {"Authorization": f"Basic {b64encode(f'any:{TOKEN}'.encode()).decode()}"},
    "another password": {"Authorization": f"Basic {b64encode(b'any:tea').decode()}"},
    "no password": {"Authorization": "Basic %"},
}
SERVED = """
import asyncio, json, sys
import aiohttp
from aiohttp import web
from ray._private.authentication.http_token_authentication import get_token_auth_middleware

async def page(request):
    return web.Response(text="page")

async def main():
    app = web.Application(middlewares=[get_token_auth_middleware(aiohttp, {"/", "/api/healthz"}, ("/static/",))])
    app.router.add_get("/{path:.*}", page)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    said = {}
    async with aiohttp.ClientSession() as session:
        for name, headers in json.loads(sys.argv[1]).items():
            for path in ("/", "/api/healthz", "/static/a.js", "/api/jobs/"):
                async with session.get(f"http://127.0.0.1:{port}{path}", headers=headers) as answer:
                    said.setdefault(name, []).append([answer.status, answer.headers.get("WWW-Authenticate", "")[:5]])
    await runner.cleanup()
    print(json.dumps(said))

asyncio.run(main())
"""


def said(mode: str, folder: str) -> dict[str, list[tuple[int, str]]]:
    """What is answered to each of `ASKED` on three paths that Ray holds to be public and one that it does not."""
    environ = os.environ | {"RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": TOKEN, "PYTHONPATH": folder}
    words = [sys.executable, "-c", SERVED, json.dumps(ASKED)]
    done = subprocess.run(words, env=environ, check=True, capture_output=True, text=True)
    return {name: [(one, two) for one, two in answers] for name, answers in json.loads(done.stdout).items()}


@pytest.fixture(scope="module")
def closed() -> dict[str, list[tuple[int, str]]]:
    return said("token", str(NODE))


@pytest.mark.parametrize("name", ["the token", "the token for proxies", "the token as password"])
def test_the_token_opens_every_path(closed: dict[str, list[tuple[int, str]]], name: str) -> None:
    assert closed[name] == [(200, "")] * 4


@pytest.mark.parametrize("name", ["nothing", "another password", "no password"])
def test_who_has_no_token_is_told_nothing_and_a_browser_asks_for_a_password(
    closed: dict[str, list[tuple[int, str]]], name: str
) -> None:
    assert closed[name] == [(401, "Basic")] * 4


def test_another_token_is_refused_on_every_path(closed: dict[str, list[tuple[int, str]]]) -> None:
    assert closed["another token"] == [(403, "")] * 4


def test_ray_alone_answers_strangers_on_paths_that_it_holds_to_be_public() -> None:
    assert said("token", "")["nothing"] == [(200, ""), (200, ""), (200, ""), (401, "")]


def test_a_ray_that_asks_for_no_token_answers_as_ever() -> None:
    assert {tuple(answers) for answers in said("disabled", str(NODE)).values()} == {((200, ""),) * 4}
