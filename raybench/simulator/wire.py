"""Bytes of the SageMaker Runtime wire: event-stream frames with both checksums, HTTP/1.1 heads, chunks and errors.

A frame is `total u32 | headers u32 | crc32(these 8 bytes) | headers | payload | crc32(all before)`, big-endian.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from zlib import crc32

import orjson

EVENT_STREAM = "application/vnd.amazon.eventstream"
LAST_CHUNK = b"0\r\n\r\n"
STRING_TYPE = 7

_PRELUDE = struct.Struct(">II")
_U32 = struct.Struct(">I")
_FRAME_OVERHEAD = 16


def frame_headers(headers: Mapping[str, str]) -> bytes:
    """Frame headers, all of them strings: name length u8, name, type 7, value length u16, value."""
    return b"".join(
        struct.pack(f">B{len(n)}sBH", len(n), n, STRING_TYPE, len(v)) + v
        for n, v in ((name.encode(), value.encode()) for name, value in headers.items())
    )


PAYLOAD_PART = frame_headers(
    {":event-type": "PayloadPart", ":content-type": "application/octet-stream", ":message-type": "event"}
)


def frame(payload: bytes, headers: bytes = PAYLOAD_PART) -> bytes:
    """One event-stream message around `payload`."""
    prelude = _PRELUDE.pack(_FRAME_OVERHEAD + len(headers) + len(payload), len(headers))
    message = b"".join((prelude, _U32.pack(crc32(prelude)), headers, payload))
    return message + _U32.pack(crc32(message))


def exception_frame(kind: str, fields: Mapping[str, str]) -> bytes:
    """The frame by which a stream that began well reports its failure; `kind` is `ModelStreamError`, for one."""
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return frame(orjson.dumps(dict(fields)), frame_headers(headers))


def chunk(data: bytes) -> bytes:
    """One HTTP/1.1 chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def head(status: int, headers: Sequence[tuple[str, str]], length: int | None) -> bytes:
    """Status line and headers; `length` None says the body comes in chunks."""
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    reason = _REASONS.get(status) or HTTPStatus(status).phrase
    lines = (f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers), framing, "", "")
    return "\r\n".join(lines).encode("latin-1")


_REASONS = {424: "Failed Dependency", 530: "Internal Dependency"}


@dataclass(frozen=True, slots=True)
class ServiceError:
    """An error reply: status, code (in `x-amzn-ErrorType`) and JSON body, as the real service shapes them."""

    status: int
    code: str
    message: str | None
    more: Mapping[str, str | int] = field(default_factory=dict)
    key: str = "Message"

    def body(self) -> bytes:
        return orjson.dumps({self.key: self.message, **self.more})

    def openai_body(self) -> bytes:
        """The same as the OpenAI route says it."""
        code = "model_error" if self.code == "ModelError" else "validation_error"
        kind = "server_error" if self.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
        return orjson.dumps({"error": {"message": self.message, "type": kind, "code": code}})


def model_error(endpoint: str, region: str, original_status: int, original_message: str) -> ServiceError:
    """424: the container answered `original_status`; 0 says that it did not answer within the cap."""
    log = f"https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}#logEventViewer:group=" + (
        f"/aws/sagemaker/Endpoints/{endpoint}"
    )
    where = f"See {log} in account 000000000000 for more information."
    if original_status == 0:
        message = f"Your invocation timed out while waiting for a response from container primary. {where}"
        code = "MODEL_INVOCATION_TIMEOUT"
    else:
        party = "client" if original_status < HTTPStatus.INTERNAL_SERVER_ERROR else "server"
        message = (
            f'Received {party} error ({original_status}) from primary with message "{original_message}". {where}'
        )
        code = f"{party.upper()}_ERROR_FROM_MODEL"
    more: dict[str, str | int] = {
        "ErrorCode": code,
        "LogStreamArn": f"arn:aws:logs:{region}:000000000000:log-group:/aws/sagemaker/Endpoints/{endpoint}",
        "OriginalMessage": original_message,
        "OriginalStatusCode": original_status,
    }
    return ServiceError(HTTPStatus.FAILED_DEPENDENCY, "ModelError", message, more)


def throttled() -> ServiceError:
    """400 whose body names nothing: the code stands in the header alone."""
    return ServiceError(HTTPStatus.BAD_REQUEST, "ThrottlingException", None, key="message")


def unavailable() -> ServiceError:
    """503 of the platform, not of the container."""
    return ServiceError(HTTPStatus.SERVICE_UNAVAILABLE, "ServiceUnavailable", "Service Unavailable")


def internal_failure() -> ServiceError:
    """500 of the platform, not of the container."""
    return ServiceError(HTTPStatus.INTERNAL_SERVER_ERROR, "InternalFailure", "Internal failure")


def not_found(endpoint: str) -> ServiceError:
    """400: there is no such endpoint."""
    message = f"Endpoint {endpoint} of account 000000000000 not found."
    return ServiceError(HTTPStatus.BAD_REQUEST, "ValidationError", message)


def too_large() -> ServiceError:
    """413: the body is over the service's limit of 25 MB."""
    return ServiceError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "RequestEntityTooLargeException", "Request size exceeds the limit."
    )


def refused(code: str, message: str) -> ServiceError:
    """403: the caller is not who it says, or may not."""
    return ServiceError(HTTPStatus.FORBIDDEN, code, message, key="message")
