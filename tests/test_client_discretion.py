"""What a server quotes of our credentials is kept from rows and messages."""

import asyncio

import pytest
from canned import reply

from raybench.client.discretion import HIDDEN, without
from raybench.client.sagemaker import SageMakerClient
from raybench.client.sigv4 import Credentials
from raybench.client.target import Target
from raybench.rows import ERROR_MESSAGE_CHARS, Prompt, Request

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
    target = Target("http://a:80", "e", "us-west-2", route, credentials=keys)
    client = SageMakerClient(target)
    asyncio.run(client.open(0))
    quoted = client._token or SECRET
    body = b'{"Message": "%b %b"}' % (b"." * before, quoted.encode())
    request = Request(b"{}", "p", Prompt("p", 1, "estimate"))
    exchange = asyncio.run(client.read(request, reply([body], status=403)))
    assert exchange.error_message == ("." * before + f" {HIDDEN}")
    assert exchange.http_status == 403
