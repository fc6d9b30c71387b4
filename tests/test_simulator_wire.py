"""Frames and signatures against botocore, which here plays the independent reader and the independent signer."""

import base64
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlsplit

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials
from botocore.eventstream import EventStreamBuffer
from hypothesis import given, settings
from hypothesis import strategies as st

from raybench.simulator import wire
from raybench.simulator.auth import Credentials, RefusedError, verify_bearer, verify_signature

OURS = Credentials("AKIDEXAMPLE", "secret", "us-west-2")


def today() -> datetime:
    return datetime.now(UTC)


names = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=40)


@given(st.binary(max_size=3000), st.dictionaries(names, st.text(max_size=50), max_size=5))
def test_botocore_decodes_every_frame(payload: bytes, headers: dict[str, str]) -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(wire.frame(payload, wire.frame_headers(headers)))
    (event,) = buffer
    assert event.payload == payload
    assert event.headers == headers


def test_an_exception_frame_carries_its_type_and_its_fields() -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(wire.exception_frame("ModelStreamError", {"Message": "m", "ErrorCode": "StreamBroken"}))
    (event,) = buffer
    assert event.headers[":message-type"] == "exception"
    assert event.headers[":exception-type"] == "ModelStreamError"
    assert event.payload == b'{"Message":"m","ErrorCode":"StreamBroken"}'


def signed(
    path: str, body: bytes, more: dict[str, str], secret: str = "secret", access: str = "AKIDEXAMPLE"
) -> tuple[str, dict[str, str]]:
    """What botocore sends for this request: its target and headers, names in lower case."""
    url = f"http://127.0.0.1:8000{path}"
    request = AWSRequest("POST", url, data=body, headers=more)
    SigV4Auth(BotoCredentials(access, secret), "sagemaker", "us-west-2").add_auth(request)
    headers = {name.lower(): value for name, value in request.headers.items()}
    return path, {"host": urlsplit(url).netloc, **headers}


@settings(max_examples=200, deadline=None)
@given(
    st.text("abcXYZ019-_.~%é /", max_size=30),
    st.binary(max_size=500),
    st.dictionaries(names.map("x-amzn-".__add__), st.text("abc  09=,;", max_size=30), max_size=4),
)
def test_what_botocore_signs_is_accepted_and_what_was_changed_since_is_not(
    name: str, body: bytes, more: dict[str, str]
) -> None:
    target, headers = signed(f"/endpoints/n{quote(name)}/invocations", body, more)
    verify_signature(OURS, "POST", target, headers, body, today())
    for method, path, data in (("PUT", target, body), ("POST", target + "x", body), ("POST", target, body + b"x")):
        with pytest.raises(RefusedError, match="does not match"):
            verify_signature(OURS, method, path, headers, data, today())


def test_refusals_name_their_reason() -> None:
    target, good = signed("/endpoints/n/invocations", b"{}", {})

    def code(headers: dict[str, str], credentials: Credentials = OURS, later: timedelta = timedelta()) -> str:
        with pytest.raises(RefusedError) as refusal:
            verify_signature(credentials, "POST", target, headers, b"{}", today() + later)
        return refusal.value.code

    assert code({}) == "MissingAuthenticationTokenException"
    assert code({**good, "authorization": "Bearer x"}) == "MissingAuthenticationTokenException"
    assert code({**good, "authorization": "AWS4-HMAC-SHA256 Credential=x"}) == "IncompleteSignatureException"
    assert code({**good, "x-amz-date": "yesterday"}) == "IncompleteSignatureException"
    assert code(good, Credentials("OTHER", "secret", "us-west-2")) == "UnrecognizedClientException"
    assert code(good, Credentials("AKIDEXAMPLE", "secret", "us-west-2", "t")) == "UnrecognizedClientException"
    assert code(good, Credentials("AKIDEXAMPLE", "other", "us-west-2")) == "InvalidSignatureException"
    assert code(good, Credentials("AKIDEXAMPLE", "secret", "eu-west-1")) == "InvalidSignatureException"
    assert code(good, later=timedelta(minutes=6)) == "InvalidSignatureException"


def bearer(
    secret: str = "secret",
    action: str = "CallWithBearerToken",
    expires_s: int = 3600,
    scheme: str = "",
    session: str | None = None,
) -> dict[str, str]:
    """A token as SageMaker's own generator makes it: presigned by botocore, without scheme, version appended."""
    host = {"host": "sagemaker.amazonaws.com"}
    request = AWSRequest("POST", "https://sagemaker.amazonaws.com/", headers=host, params={"Action": action})
    credentials = BotoCredentials("AKIDEXAMPLE", secret, session)
    SigV4QueryAuth(credentials, "sagemaker", "us-west-2", expires=expires_s).add_auth(request)
    url = request.url.replace("https://", scheme) + "&Version=1"
    return {"authorization": "Bearer sagemaker-api-key-" + base64.b64encode(url.encode()).decode()}


@pytest.mark.parametrize("scheme", ["", "https://"])
def test_a_presigned_token_is_accepted_until_it_expires(scheme: str) -> None:
    verify_bearer(OURS, bearer(scheme=scheme), today())
    verify_bearer(OURS, bearer(), today() + timedelta(minutes=59))
    with pytest.raises(RefusedError) as refusal:
        verify_bearer(OURS, bearer(), today() + timedelta(minutes=61))
    assert refusal.value.code == "ExpiredTokenException"


def test_a_token_of_a_session_names_it() -> None:
    credentials = Credentials("AKIDEXAMPLE", "secret", "us-west-2", "s/+=")
    verify_bearer(credentials, bearer(session="s/+="), today())
    with pytest.raises(RefusedError, match="invalid"):
        verify_bearer(credentials, bearer(session="other"), today())


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer sagemaker-api-key-!!!"},
        {"authorization": "Bearer sagemaker-api-key-" + base64.b64encode(b"\xff\xfe").decode()},
        {"authorization": "Bearer sagemaker-api-key-" + base64.b64encode(b"evil.example/?Action=x").decode()},
        bearer(secret="other"),
        bearer(action="ListEndpoints"),
        bearer(expires_s=13 * 3600),
    ],
)
def test_any_other_token_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(RefusedError):
        verify_bearer(OURS, headers, today())


def test_a_token_changed_since_it_was_signed_is_refused() -> None:
    token = bearer()["authorization"].removeprefix("Bearer sagemaker-api-key-")
    url = base64.b64decode(token).decode().replace("X-Amz-Expires=3600", "X-Amz-Expires=9999")
    forged = "Bearer sagemaker-api-key-" + base64.b64encode(url.encode()).decode()
    with pytest.raises(RefusedError, match="does not match"):
        verify_bearer(OURS, {"authorization": forged}, today())
