"""Paths, headers and addresses, as the service's own model has them."""

from typing import Any

import pytest

from raybench.client.sigv4 import Credentials
from raybench.client.target import Target
from raybench.errors import InputError

URL = "https://runtime.sagemaker.us-west-2.amazonaws.com"


def test_each_route_has_its_path() -> None:
    paths = [Target(URL, "my-endpoint", "us-west-2", route).path for route in ("invoke", "stream", "openai")]
    assert paths == [
        "/endpoints/my-endpoint/invocations",
        "/endpoints/my-endpoint/invocations-response-stream",
        "/endpoints/my-endpoint/openai/v1/chat/completions",
    ]


def test_an_inference_component_stands_in_the_header_or_in_the_openai_path() -> None:
    invoke = Target(URL, "e", "us-west-2", "invoke", inference_component="ic")
    openai = Target(URL, "e", "us-west-2", "openai", "openai", inference_component="ic")
    assert invoke.headers["X-Amzn-SageMaker-Inference-Component"] == "ic"
    assert openai.path == "/endpoints/e/inference-components/ic/openai/v1/chat/completions"
    assert not any("Inference-Component" in name for name in openai.headers)


def test_the_inner_type_of_a_stream_is_asked_for_by_its_own_header() -> None:
    assert Target(URL, "e", "r", "stream").headers["X-Amzn-SageMaker-Accept"] == "application/json"
    assert Target(URL, "e", "r", "invoke").headers["Accept"] == "application/json"


def test_a_variant_is_named_in_its_header() -> None:
    headers = Target(URL, "e", "r", variant="blue").headers
    assert headers["X-Amzn-SageMaker-Target-Variant"] == "blue"


@pytest.mark.parametrize(
    ("url", "host", "port", "named"),
    [
        (URL, "runtime.sagemaker.us-west-2.amazonaws.com", 443, "runtime.sagemaker.us-west-2.amazonaws.com"),
        ("http://127.0.0.1:8080", "127.0.0.1", 8080, "127.0.0.1:8080"),
        ("https://a.example:443/", "a.example", 443, "a.example"),
        ("http://[::1]:8080", "::1", 8080, "[::1]:8080"),
    ],
)
def test_address_and_host_header_agree(url: str, host: str, port: int, named: str) -> None:
    target = Target(url, "e", "us-west-2")
    assert (target.address.host, target.address.port) == (host, port)
    assert (target.address.tls is not None) == url.startswith("https")
    assert target.headers["Host"] == named


def test_a_path_before_the_service_is_kept() -> None:
    assert Target("http://proxy/aws/", "e", "r").path == "/aws/endpoints/e/invocations"


def test_only_streams_stream() -> None:
    assert [Target(URL, "e", "r", route).streams for route in ("invoke", "stream", "openai")] == [False, True, True]
    assert not Target(URL, "e", "r", "openai", stream=False).streams


@pytest.mark.parametrize(
    "wrong", [{"route": "async"}, {"dialect": "tgl"}, {"url": "runtime.sagemaker"}, {"url": "http://a:99999"}]
)
def test_a_target_that_cannot_be_is_refused_when_it_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Target(**{"url": URL, "endpoint": "e", "region": "r", **wrong})


def test_a_url_with_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(InputError, match=r"url: is not an endpoint's URL") as refused:
        Target("http://me:very-secret@a:80", "e", "r")
    assert "very-secret" not in str(refused.value)


def test_secrets_never_show_in_its_repr() -> None:
    shown = repr(Target(URL, "e", "r", credentials=Credentials("AKID", "very-secret", "session-token")))
    assert "very-secret" not in shown
    assert "session-token" not in shown
