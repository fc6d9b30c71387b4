"""What is called: which endpoint, by which route and in which dialect, as whom, and how long to wait for it."""

from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from raybench.client.dialects import dialect_named
from raybench.client.http import Address, tls_context
from raybench.client.sigv4 import Credentials
from raybench.errors import InputError

ROUTES = ("invoke", "stream", "openai")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait, in seconds: for a connection, between bytes of a response, and for all of one.

    SageMaker ends a whole reply after 60 s and a stream after 480 s, and must be the first to say so.
    """

    connect_s: float = 10.0
    idle_s: float = 60.0
    invoke_s: float = 75.0
    stream_s: float = 500.0


@dataclass(frozen=True, slots=True)
class Target:
    """What is called: an endpoint at a base URL, by which route, in which dialect, as whom.

    Without `credentials` botocore's chain finds them. `stream` says whether a request of the OpenAI route asks for a
    stream; the other routes say so themselves.
    """

    url: str
    endpoint: str
    region: str
    route: str = "invoke"
    dialect: str = "tgi"
    credentials: Credentials | None = None
    variant: str | None = None
    inference_component: str | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    stream: bool = True
    ca_bundle: str | None = None

    def __post_init__(self) -> None:
        if self.route not in ROUTES:
            raise InputError(f"no route {self.route!r}", key="route", allowed=", ".join(ROUTES))
        dialect_named(self.dialect)
        try:
            parts = urlsplit(self.url)
            fits = (
                parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and "@" not in parts.netloc
            )
        except ValueError:
            fits = False
        if not fits:  # never shown: it may hold a password
            raise InputError("is not an endpoint's URL", key="url", allowed="http(s)://HOST[:PORT], no credentials")

    @property
    def streams(self) -> bool:
        """Whether a reply is a stream: what `dialects.body` wants to know."""
        return self.route == "stream" or (self.route == "openai" and self.stream)

    @property
    def address(self) -> Address:
        """Where to connect; over TLS the peer is verified."""
        parts = urlsplit(self.url)
        tls = tls_context(self.ca_bundle) if parts.scheme == "https" else None
        return Address(parts.hostname or "", parts.port or (443 if tls else 80), tls)

    @property
    def path(self) -> str:
        """The path of the request line."""
        base = f"{urlsplit(self.url).path.rstrip('/')}/endpoints/{quote(self.endpoint, safe='')}"
        if self.route == "invoke":
            return f"{base}/invocations"
        if self.route == "stream":
            return f"{base}/invocations-response-stream"
        part = f"/inference-components/{quote(self.inference_component, safe='')}" if self.inference_component else ""
        return f"{base}{part}/openai/v1/chat/completions"

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every request to it, without signature and length."""
        parts = urlsplit(self.url)
        usual = {"http": 80, "https": 443}.get(parts.scheme)
        port = f":{parts.port}" if parts.port not in (None, usual) else ""
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        headers = {"Host": f"{host}{port}", "Content-Type": "application/json"}
        if self.route == "openai":
            return headers
        headers["Accept" if self.route == "invoke" else "X-Amzn-SageMaker-Accept"] = "application/json"
        for name, value in (
            ("Target-Variant", self.variant),
            ("Inference-Component", self.inference_component),
        ):
            if value:
                headers[f"X-Amzn-SageMaker-{name}"] = value
        return headers
