"""AWS Signature Version 4: the `Authorization` header of a request, and the bearer token of the OpenAI route.

What does not change between two requests is computed once: the body's hash before the clock runs, the signing key per
day, and all of the text to sign but two hashes per second.
"""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from hmac import digest
from hmac import new as keyed
from posixpath import normpath
from urllib.parse import quote

SERVICE = "sagemaker"
ALGORITHM = "AWS4-HMAC-SHA256"
TOKEN_HOST = "sagemaker.amazonaws.com"  # noqa: S105
TOKEN_PREFIX = "sagemaker-api-key-"  # noqa: S105
TOKEN_LIFE_S = 12 * 3600


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key, frozen; its secrets never show in a repr."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


class Signer:
    """Signs requests that share method, host, path, query and headers, and differ in body and time.

    `path` is as it stands in the request line; `query` likewise, already percent-encoded; `headers` are those to be
    signed, `host` among them, without date and security token, which the signer adds.
    """

    def __init__(
        self,
        credentials: Credentials,
        region: str,
        headers: Mapping[str, str],
        path: str,
        *,
        query: str = "",
        method: str = "POST",
    ) -> None:
        self._credentials = credentials
        self._region = region
        self._request = f"{method.upper()}\n{_canonical_path(path)}\n{_canonical_query(query)}\n"
        self._headers = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
        if credentials.token:
            self._headers["x-amz-security-token"] = " ".join(credentials.token.split())
        self._names = ";".join(sorted([*self._headers, "x-amz-date"]))
        self._day = ""
        self._key = b""
        self._second = -1
        self._canonical = sha256()
        self._to_sign = keyed(b"", digestmod="sha256")
        self._lines = b""

    def lines(self, body_sha256: str, epoch_s: int) -> bytes:
        """The header lines that sign a body, by its hash, at a Unix time: date, token if any, authorization."""
        if epoch_s != self._second:
            self._turn(epoch_s)
        canonical, to_sign = self._canonical.copy(), self._to_sign.copy()
        canonical.update(body_sha256.encode())
        to_sign.update(canonical.hexdigest().encode())
        return self._lines + to_sign.hexdigest().encode() + b"\r\n"

    def _turn(self, epoch_s: int) -> None:
        """Prepares everything that depends on the time and not on the body."""
        stamp = amz_date(epoch_s)
        day = stamp[:8]
        if day != self._day:
            self._day, self._key = day, signing_key(self._credentials, day, self._region)
        scope = f"{day}/{self._region}/{SERVICE}/aws4_request"
        dated = sorted([*self._headers.items(), ("x-amz-date", stamp)])
        signed = "".join(f"{name}:{value}\n" for name, value in dated)
        self._canonical = sha256(f"{self._request}{signed}\n{self._names}\n".encode())
        self._to_sign = keyed(self._key, f"{ALGORITHM}\n{stamp}\n{scope}\n".encode(), "sha256")
        token = self._credentials.token
        self._lines = (
            f"X-Amz-Date: {stamp}\r\n"
            + (f"X-Amz-Security-Token: {token}\r\n" if token else "")
            + f"Authorization: {ALGORITHM} Credential={self._credentials.access_key}/{scope}, "
            f"SignedHeaders={self._names}, Signature="
        ).encode()
        self._second = epoch_s


def bearer_token(credentials: Credentials, region: str, epoch_s: int, life_s: int = TOKEN_LIFE_S) -> str:
    """The bearer token of the OpenAI route: a presigned `CallWithBearerToken`, which dies with its credentials.

    Source: the SageMaker SDK's token generator; the scheme is left out and `Version` comes after the signature.
    """
    stamp = amz_date(epoch_s)
    scope = f"{stamp[:8]}/{region}/{SERVICE}/aws4_request"
    fields = {
        "Action": "CallWithBearerToken",
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{credentials.access_key}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(life_s),
        "X-Amz-SignedHeaders": "host",
    }
    if credentials.token:
        fields["X-Amz-Security-Token"] = credentials.token
    query = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in fields.items())
    empty = sha256(b"").hexdigest()
    canonical = f"POST\n/\n{_canonical_query(query)}\nhost:{TOKEN_HOST}\n\nhost\n{empty}"
    to_sign = f"{ALGORITHM}\n{stamp}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
    key = signing_key(credentials, stamp[:8], region)
    signature = digest(key, to_sign.encode(), "sha256").hex()
    url = f"{TOKEN_HOST}/?{query}&X-Amz-Signature={signature}&Version=1"
    return TOKEN_PREFIX + b64encode(url.encode()).decode()


def signing_key(credentials: Credentials, day: str, region: str) -> bytes:
    """The key of one day (`YYYYMMDD`) and region."""
    key = f"AWS4{credentials.secret_key}".encode()
    for part in (day, region, SERVICE, "aws4_request"):
        key = digest(key, part.encode(), "sha256")
    return key


def amz_date(epoch_s: int) -> str:
    """A Unix time as `YYYYMMDDTHHMMSSZ`."""
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y%m%dT%H%M%SZ")


def _canonical_path(path: str) -> str:
    """Normalised and encoded once more, as every service but S3 wants it."""
    if not path:
        return "/"
    plain = normpath(path).replace("//", "/")
    if path.endswith("/") and plain != "/":
        plain += "/"
    return quote(plain, safe="/~")


def _canonical_query(query: str) -> str:
    pairs = sorted(tuple(pair.partition("=")[::2]) for pair in query.split("&")) if query else []
    return "&".join(f"{name}={value}" for name, value in pairs)
