"""Verifies what callers sign: SigV4 headers and `sagemaker-api-key-` bearer tokens, both recomputed.

Written from the published Signature Version 4 rules, apart from the client's signer, so the two check each other.
"""

import base64
import binascii
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from urllib.parse import parse_qsl, quote, unquote

ALGORITHM = "AWS4-HMAC-SHA256"
SERVICE = "sagemaker"
TOKEN_PREFIX = "sagemaker-api-key-"  # noqa: S105
TOKEN_HOST = "sagemaker.amazonaws.com"  # noqa: S105
LONGEST_TOKEN_S = 12 * 3600
CLOCK_SKEW = timedelta(minutes=5)


class RefusedError(Exception):
    """The request is not signed by a key we know: answered with 403, the code and the message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Credentials:
    """The one key pair that may call, and the region its signatures must name; a session token if there is one."""

    access_key: str
    secret_key: str
    region: str
    session_token: str | None = None


def verify_signature(
    credentials: Credentials,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes,
    now: datetime,
) -> None:
    """Raises RefusedError unless `headers` (lower-case names) carry a good SigV4 signature of this very request."""
    authorization = headers.get("authorization", "")
    if not authorization.startswith(ALGORITHM + " "):
        raise RefusedError("MissingAuthenticationTokenException", "Missing Authentication Token")
    fields = dict(part.strip().split("=", 1) for part in authorization[len(ALGORITHM) :].split(",") if "=" in part)
    if missing := [name for name in ("Credential", "SignedHeaders", "Signature") if name not in fields]:
        raise RefusedError("IncompleteSignatureException", f"Authorization header requires '{missing[0]}' parameter.")
    signed = fields["SignedHeaders"].split(";")
    if "host" not in signed or "x-amz-date" not in signed:
        raise RefusedError("IncompleteSignatureException", "'Host' and 'X-Amz-Date' must be signed headers.")
    stamp = headers.get("x-amz-date", "")
    signed_at = _instant(stamp)
    scope = _scope(credentials, fields["Credential"], stamp)
    _check_session(credentials, headers.get("x-amz-security-token"))
    path, _, query = target.partition("?")
    canonical = "\n".join(
        (
            method,
            quote(_canonical_path(path), safe="/~"),
            _canonical_query(parse_qsl(query, keep_blank_values=True)),
            *(f"{name}:{' '.join(headers.get(name, '').split())}" for name in signed),
            "",
            fields["SignedHeaders"],
            sha256(body).hexdigest(),
        )
    )
    _compare(_signature(credentials, stamp, scope, canonical), fields["Signature"])
    if abs(now - signed_at) > CLOCK_SKEW:
        raise RefusedError(
            "InvalidSignatureException",
            f"Signature expired: {stamp} is now earlier than {now - CLOCK_SKEW:%Y%m%dT%H%M%SZ} "
            f"({now:%Y%m%dT%H%M%SZ} - 5 min.)",
        )


def verify_bearer(credentials: Credentials, headers: Mapping[str, str], now: datetime) -> None:
    """Raises RefusedError unless `Authorization: Bearer` holds a presigned CallWithBearerToken that has not expired.

    The token is base64 of the presigned URL without its scheme; `Version=1` follows the signature, unsigned.
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.startswith(TOKEN_PREFIX):
        raise RefusedError("AccessDeniedException", "A bearer token is required.")
    try:
        url = base64.b64decode(token[len(TOKEN_PREFIX) :], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise RefusedError("AccessDeniedException", "The bearer token is malformed.") from None
    host, _, query = url.removeprefix("https://").partition("/?")
    pairs = parse_qsl(query, keep_blank_values=True)
    values = dict(pairs)
    if host != TOKEN_HOST or values.get("Action") != "CallWithBearerToken":
        raise RefusedError("AccessDeniedException", "The bearer token is malformed.")
    stamp = values.get("X-Amz-Date", "")
    signed_at = _instant(stamp)
    scope = _scope(credentials, values.get("X-Amz-Credential", ""), stamp)
    _check_session(credentials, values.get("X-Amz-Security-Token"))
    names = [name for name, _ in pairs]
    unsigned = pairs[names.index("X-Amz-Signature") :] if "X-Amz-Signature" in names else pairs
    canonical = "\n".join(
        (
            "POST",
            "/",
            _canonical_query(pair for pair in pairs if pair not in unsigned),
            f"host:{TOKEN_HOST}",
            "",
            "host",
            sha256(b"").hexdigest(),
        )
    )
    _compare(_signature(credentials, stamp, scope, canonical), values.get("X-Amz-Signature", ""))
    lifetime = values.get("X-Amz-Expires", "")
    if not lifetime.isdecimal() or not 0 < int(lifetime) <= LONGEST_TOKEN_S:
        raise RefusedError("AccessDeniedException", "The bearer token's lifetime must be at most 12 hours.")
    if not -CLOCK_SKEW <= now - signed_at <= timedelta(seconds=int(lifetime)):
        raise RefusedError("ExpiredTokenException", "The security token included in the request is expired")


def _instant(stamp: str) -> datetime:
    try:
        return datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise RefusedError("IncompleteSignatureException", "Date must be in ISO-8601 'basic format'.") from None


def _scope(credentials: Credentials, credential: str, stamp: str) -> str:
    """The credential scope, if it names our key, that day, our region and this service."""
    access_key, _, scope = credential.partition("/")
    if access_key != credentials.access_key:
        raise RefusedError("UnrecognizedClientException", "The security token included in the request is invalid.")
    expected = f"{stamp[:8]}/{credentials.region}/{SERVICE}/aws4_request"
    if scope != expected:
        raise RefusedError(
            "InvalidSignatureException", f"Credential should be scoped to '{expected}', not '{scope}'."
        )
    return scope


def _check_session(credentials: Credentials, token: str | None) -> None:
    if credentials.session_token is not None and token != credentials.session_token:
        raise RefusedError("UnrecognizedClientException", "The security token included in the request is invalid.")


def _canonical_path(path: str) -> str:
    """The path without empty, `.` and `..` segments."""
    segments: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            segments = segments[:-1]
        elif segment not in ("", "."):
            segments.append(segment)
    return "/" + "/".join(segments) + ("/" if segments and path.endswith("/") else "")


def _canonical_query(pairs: Iterable[tuple[str, str]]) -> str:
    return "&".join(sorted(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs))


def _signature(credentials: Credentials, stamp: str, scope: str, canonical: str) -> str:
    key = f"AWS4{credentials.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = "\n".join((ALGORITHM, stamp, scope, sha256(canonical.encode()).hexdigest()))
    return hmac.digest(key, text.encode(), "sha256").hex()


def _compare(expected: str, given: str) -> None:
    if not hmac.compare_digest(expected.encode(), unquote(given).encode()):
        raise RefusedError(
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
            "Access Key and signing method. Consult the service documentation for details.",
        )
