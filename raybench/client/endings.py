"""How a request ended, from what the service said: statuses, error bodies and exception frames to outcomes.

| HTTP | the service's code                                    | outcome        |
|------|-------------------------------------------------------|----------------|
| 400  | ThrottlingException                                   | throttled      |
| 429  | ModelNotReadyException and others                     | throttled      |
| 4xx  | ValidationError, AccessDenied…, too large: ours       | rejected       |
| 424  | ModelError, OriginalStatusCode 0: the service's cap   | server_timeout |
| 424  | ModelError: the container's own status                | model_error    |
| 5xx  | ServiceUnavailable, InternalFailure…                  | model_error    |
| 200  | an exception frame in the stream                      | stream_error   |
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from raybench.client.eventstream import Value
from raybench.client.http import Failure, Reply
from raybench.rows import ERROR_MESSAGE_CHARS, Outcome

_CODE_CHARS = 100
_UNNAMED = {
    424: "ModelError",
    429: "ModelNotReadyException",
    500: "InternalFailure",
    503: "ServiceUnavailable",
    530: "InternalDependencyException",
}


class Ending(NamedTuple):
    """An outcome, and for a failure its code, message and the container's own status."""

    outcome: Outcome
    code: str | None = None
    message: str | None = None
    original_status: int | None = None


FINE = Ending(Outcome.OK)


def ending(outcome: Outcome, code: Any, message: Any, original_status: int | None = None) -> Ending:
    """A failure, its texts cut to length; an empty message is none."""
    return Ending(outcome, str(code)[:_CODE_CHARS], str(message or "")[:ERROR_MESSAGE_CHARS] or None, original_status)


def broken(reply: Reply, cut: Outcome) -> Ending:
    """A reply that is not whole; `cut` is what a connection that ends in its body means."""
    assert reply.failure is not None
    outcome = Outcome.CONNECTION_ERROR
    if reply.failure in (Failure.TOTAL_TIMEOUT, Failure.IDLE_TIMEOUT, Failure.GIVEN_UP):
        outcome = Outcome.CLIENT_TIMEOUT
    elif reply.failure in (Failure.MALFORMED, Failure.TOO_LARGE):
        outcome = Outcome.PROTOCOL_ERROR
    elif reply.failure is Failure.CUT:
        outcome = cut
    return ending(outcome, reply.failure, reply.problem)


def refused(reply: Reply) -> Ending:
    """A reply whose status is no success."""
    status = reply.status
    assert status is not None
    text = reply.body
    said = _object(text)
    inner = said["error"] if isinstance(said.get("error"), dict) else {}  # the OpenAI route
    header = (reply.header(b"x-amzn-errortype") or "").partition(":")[0]
    code = (
        header or said.get("__type") or said.get("code") or inner.get("code") or _UNNAMED.get(status, f"HTTP{status}")
    )
    message = said.get("OriginalMessage") or said.get("Message") or said.get("message") or inner.get("message")
    if not said:
        message = excerpt(text)
    original = said.get("OriginalStatusCode")
    original = original if type(original) is int and 0 <= original <= 999 else None
    return ending(_outcome(status, str(code), original, str(message)), code, message, original)


def _outcome(status: int, code: str, original: int | None, message: str) -> Outcome:
    if status == 429 or code.startswith("Throttling"):
        return Outcome.THROTTLED
    if status == 424:
        timed_out = original == 0 or (original is None and "timed out" in message)
        return Outcome.SERVER_TIMEOUT if timed_out else Outcome.MODEL_ERROR
    if status >= 500:
        return Outcome.MODEL_ERROR
    return Outcome.REJECTED if status >= 400 else Outcome.PROTOCOL_ERROR


def unexpected(reply: Reply, kind: str) -> Ending:
    """A success whose body is no stream where one was asked for."""
    text = reply.body
    error = _object(text).get("error")
    if error:
        return ending(Outcome.MODEL_ERROR, "Error", error)
    return ending(Outcome.PROTOCOL_ERROR, "UnexpectedContentType", f"{kind or 'no content type'}: {excerpt(text)}")


def stream_fault(headers: Mapping[str, Value], payload: bytes) -> Ending | None:
    """What an exception or error frame says; None for any other.

    The code is the frame's `ErrorCode` (ModelInvocationTimeExceeded, StreamBroken) before the exception's name.
    """
    kind = headers.get(":message-type")
    if kind == "exception":
        said = _object(payload)
        name = str(headers.get(":exception-type", "Exception"))
        message = said.get("Message") or said.get("message") or ""
        return ending(Outcome.STREAM_ERROR, said.get("ErrorCode") or name, f"{name}: {message}")
    if kind == "error":
        code = headers.get(":error-code", "Error")
        return ending(Outcome.STREAM_ERROR, code, headers.get(":error-message", ""))
    return None


def excerpt(text: bytes) -> str:
    """The beginning of a body, as text whatever it is."""
    return text[:ERROR_MESSAGE_CHARS].decode("utf-8", "replace")


def _object(text: bytes) -> dict[str, Any]:
    """A JSON object, empty for anything else."""
    try:
        said = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}
