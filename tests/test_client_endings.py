"""What the service says, and what we write down."""

import pytest
from canned import exception, frame, header, part, reply

from raybench.client.endings import Ending, broken, refused, stream_fault, unexpected
from raybench.client.eventstream import runs
from raybench.client.http import Failure
from raybench.rows import Outcome

MODEL_ERROR = b'{"ErrorCode":"CLIENT_ERROR_FROM_MODEL","Message":"m","OriginalMessage":"o","OriginalStatusCode":%d}'


@pytest.mark.parametrize(
    ("status", "errortype", "body", "outcome", "code", "original"),
    [
        (400, "ThrottlingException", b'{"message":null}', Outcome.THROTTLED, "ThrottlingException", None),
        (400, "ThrottlingException:http://a/", b'{"message":null}', Outcome.THROTTLED, "ThrottlingException", None),
        (429, "ModelNotReadyException", b'{"Message":"x"}', Outcome.THROTTLED, "ModelNotReadyException", None),
        (429, "", b"", Outcome.THROTTLED, "ModelNotReadyException", None),
        (424, "ModelError", MODEL_ERROR % 0, Outcome.SERVER_TIMEOUT, "ModelError", 0),
        (424, "ModelError", MODEL_ERROR % 500, Outcome.MODEL_ERROR, "ModelError", 500),
        (424, "ModelError", MODEL_ERROR % 429, Outcome.MODEL_ERROR, "ModelError", 429),
        (424, "", b'{"error":{"message":"m","code":"model_error"}}', Outcome.MODEL_ERROR, "model_error", None),
        (424, "", b'{"error":{"message":"Your invocation timed out"}}', Outcome.SERVER_TIMEOUT, "ModelError", None),
        (400, "ValidationError", b'{"message":"not found"}', Outcome.REJECTED, "ValidationError", None),
        (403, "", b'{"message":"no","code":"AccessDenied"}', Outcome.REJECTED, "AccessDenied", None),
        (413, "", b"<html>", Outcome.REJECTED, "HTTP413", None),
        (503, "ServiceUnavailable", b"{}", Outcome.MODEL_ERROR, "ServiceUnavailable", None),
        (500, "", b"", Outcome.MODEL_ERROR, "InternalFailure", None),
        (530, "", b"\xff", Outcome.MODEL_ERROR, "InternalDependencyException", None),
        (302, "", b"", Outcome.PROTOCOL_ERROR, "HTTP302", None),
    ],
)
def test_a_refusal_is_told_by_status_code_and_body(
    status: int, errortype: str, body: bytes, outcome: Outcome, code: str, original: int | None
) -> None:
    said = refused(reply([body], status=status, headers={"x-amzn-errortype": errortype}))
    assert (said.outcome, said.code, said.original_status) == (outcome, code, original)


def test_a_message_is_the_containers_own_and_cut_at_500_characters() -> None:
    assert refused(reply([MODEL_ERROR % 500], status=424)).message == "o"
    long = refused(reply([b'{"message":"' + b"x" * 900 + b'"}'], status=400)).message
    assert long == "x" * 500
    assert refused(reply([b'{"message":null}'], status=400)).message is None


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (Failure.UNREACHABLE, Outcome.CONNECTION_ERROR),
        (Failure.UNTRUSTED, Outcome.CONNECTION_ERROR),
        (Failure.RESET, Outcome.CONNECTION_ERROR),
        (Failure.CUT, Outcome.TRUNCATED),
        (Failure.TOTAL_TIMEOUT, Outcome.CLIENT_TIMEOUT),
        (Failure.IDLE_TIMEOUT, Outcome.CLIENT_TIMEOUT),
        (Failure.MALFORMED, Outcome.PROTOCOL_ERROR),
        (Failure.TOO_LARGE, Outcome.PROTOCOL_ERROR),
    ],
)
def test_every_failure_of_the_wire_has_an_outcome_and_its_name(failure: Failure, outcome: Outcome) -> None:
    said = broken(reply([], status=None, failure=failure, problem="why"), Outcome.TRUNCATED)
    assert (said.outcome, said.code, said.message) == (outcome, failure.value, "why")


def faults(stream: bytes) -> list[Ending | None]:
    """What is made of each frame of a stream."""
    return [stream_fault(run.headers, payload) for run in runs(stream) for payload in run.payloads]


def test_an_exception_frame_keeps_its_error_code() -> None:
    body = b'{"Message":"stream broke","ErrorCode":"StreamBroken"}'
    [fault] = faults(exception("ModelStreamError", body))
    assert fault is not None
    assert (fault.outcome, fault.code) == (Outcome.STREAM_ERROR, "StreamBroken")
    assert fault.message == "ModelStreamError: stream broke"


def test_an_exception_frame_without_error_code_is_known_by_its_name() -> None:
    [fault] = faults(exception("InternalStreamFailure", b""))
    assert fault is not None
    assert fault.code == "InternalStreamFailure"


def test_an_error_frame_is_a_fault_and_a_part_is_none() -> None:
    headers = header(":message-type", "error") + header(":error-code", "E") + header(":error-message", "m")
    [fault, none] = faults(frame(headers, b"") + part(b"{}"))
    assert fault is not None
    assert (fault.code, fault.message) == ("E", "m")
    assert none is None


def test_a_success_that_is_no_stream_is_a_failure() -> None:
    assert unexpected(reply([b'{"error":"boom"}']), "application/json").outcome is Outcome.MODEL_ERROR
    said = unexpected(reply([b"<html>"]), "text/html")
    assert (said.outcome, said.message) == (Outcome.PROTOCOL_ERROR, "text/html: <html>")
