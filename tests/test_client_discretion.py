"""What a server quotes of our credentials is kept from rows and messages."""

import asyncio
import re

import pytest

from raybench.client.discretion import HIDDEN, without
from raybench.client.sagemaker import SageMakerClient
from raybench.client.sigv4 import Credentials
from raybench.client.target import Target
from raybench.rows import ERROR_MESSAGE_CHARS, Exchange, Prompt, Request

SECRET = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("nothing to hide", "nothing to hide"),
        (f"token:{SECRET} and {SECRET}.", f"token:{HIDDEN} and {HIDDEN}."),
        (f"token:{SECRET[:-1]}", f"token:{HIDDEN}"),
        (f"token:{SECRET[:8]}", f"token:{HIDDEN}"),
        (f"token:{SECRET[:7]}", f"token:{SECRET[:7]}"),
        (f"token:{SECRET[:30]} is not it", f"token:{SECRET[:30]} is not it"),
        (f"{SECRET[:8]}, token:{SECRET[:20]}", f"{SECRET[:8]}, token:{HIDDEN}"),
    ],
    ids=["none", "whole", "cut", "cut short", "too little to tell", "in the middle", "after a false start"],
)
def test_a_secret_is_hidden_whole_and_where_the_text_was_cut_in_it(text: str, left: str) -> None:
    assert without(text, ["", SECRET]) == left


def test_of_secrets_that_hold_each_other_the_longest_goes_first() -> None:
    assert without(f"a {SECRET} b", [SECRET[:20], SECRET]) == f"a {HIDDEN} b"


@pytest.mark.parametrize("route", ["invoke", "openai"])
@pytest.mark.parametrize("before", [0, 300, ERROR_MESSAGE_CHARS - 20])
def test_an_error_that_quotes_our_credentials_is_kept_without_them(route: str, before: int) -> None:
    keys = Credentials("AKIDTESTTESTTEST", "secret-key-of-ours", SECRET)
    request = Request(b"{}", "p", Prompt("p", 1, "estimate"))

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        (quoted,) = re.findall(rb"(?i)(?:authorization: Bearer|x-amz-security-token:) (\S+)", head)
        body = b'{"Message": "%b %b"}' % (b"." * before, quoted)
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    async def main() -> Exchange:
        async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            client = SageMakerClient(Target(f"http://127.0.0.1:{port}", "e", "us-west-2", route, credentials=keys))
            await client.open(1)
            exchange = await client.read(request, await client.send(request))
            await client.close()
            return exchange

    exchange = asyncio.run(main())
    assert exchange.error_message == ("." * before + f" {HIDDEN}")
    assert exchange.http_status == 403
