"""Experiments of the config file and their endpoints; `datasets.py` has the payloads, `loads.py` the loads."""

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from raybench.client.dialects import DIALECTS
from raybench.counting import MAX_TOKENS, max_tokens
from raybench.errors import InputError
from raybench.simulator.faults import Faults
from raybench.simulator.profiles import PROFILES, Profile, profile
from raybench.strict import Model, Name, nearest, shown, wrong

_ENDPOINT = re.compile(r"[A-Za-z0-9](-*[A-Za-z0-9]){0,62}")
_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?")
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[A-Za-z0-9_+=,.@/-]+")
_SECRET = re.compile(r"TOKEN(?!I|S)|SECRET|PASSWORD|CREDENTIAL|API_?KEY|ACCESS_?KEY", re.IGNORECASE)
_INSTANCE = re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9-]+")


def _endpoint_name(value: str) -> str:
    if not _ENDPOINT.fullmatch(value):
        raise wrong(
            f"{shown(value)} is not a SageMaker name", "1 to 63 of A-Z a-z 0-9 -, not beginning or ending with -"
        )
    return value


def _instance_type(value: str) -> str:
    if not _INSTANCE.fullmatch(value):
        raise wrong(f"{shown(value)} is not an instance type", "ml.FAMILY.SIZE, such as ml.g5.48xlarge")
    return value


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        plain = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        plain = False
    if not plain or not _URL.fullmatch(value):  # never shown: it may hold a password
        raise wrong("is not an endpoint's URL", "http(s)://HOST[:PORT][/PATH], without credentials or query")
    return value.rstrip("/")


EndpointName = Annotated[str, AfterValidator(_endpoint_name)]


class ExistingEndpoint(Model):
    """An endpoint that is there already; `url` replaces the region's own address."""

    name: EndpointName
    url: Annotated[str, AfterValidator(_url)] | None = None
    variant: EndpointName | None = None
    inference_component: EndpointName | None = None


class SimulatedEndpoint(Model):
    """A local simulated endpoint of the profile `simulate`, with some of its numbers replaced."""

    simulate: str
    overrides: dict[str, Any] = Field(default_factory=dict)
    faults: dict[str, Any] = Field(default_factory=dict)

    @property
    def profile(self) -> Profile:
        """What the endpoint is like."""
        return profile(self.simulate, **self.overrides)

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.simulate not in PROFILES:
            raise wrong(f"{shown(self.simulate)} is not a profile", nearest(self.simulate, PROFILES), "simulate")
        _alike(self.overrides, PROFILES[self.simulate], "overrides")
        _alike(self.faults, Faults(), "faults")
        for key, check in (("overrides", lambda: self.profile), ("faults", lambda: Faults.of(self.faults))):
            try:
                check()
            except (InputError, TypeError) as error:
                raise wrong(" ".join(str(error).split())[:200], "what the simulator can do", key) from None
        return self


class Deploy(Model):
    """What `raybench deploy` makes an endpoint of; `model` is an s3:// address, or a Hugging Face id."""

    image: str = Field(min_length=1, max_length=255)
    role: str = Field(min_length=20, max_length=2048)
    model: str | None = Field(default=None, min_length=1, max_length=1000)
    environment: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _can_be_asked_for(self) -> Self:
        if not _ROLE.fullmatch(self.role):
            raise wrong(f"{shown(self.role)} is not a role's ARN", "arn:aws:iam::ACCOUNT_ID:role/NAME", "role")
        for key in self.environment:
            if _SECRET.search(key):
                raise wrong("looks like a secret, and run directories keep the config", "none", "environment", key)
        return self


class DeployedEndpoint(Model):
    """An endpoint that `raybench deploy` makes, under a name of its own."""

    deploy: Deploy


def _alike(values: Mapping[str, Any], default: Profile | Faults, at: str) -> None:
    """Refuses names that `default` does not have, and values that are not like its own."""
    known = [field.name for field in fields(default) if field.name != "name"]
    for key, value in values.items():
        if key not in known:
            raise wrong("unknown key", nearest(key, known), at, key)
        kind = type(getattr(default, key))
        kinds = {float: (int, float), type(None): (int,)}.get(kind, (kind,))
        if type(value) not in kinds or (type(value) in (int, float) and value < 0):
            raise wrong(f"{shown(value)} is not allowed", f"like {getattr(default, key)!r}, not negative", at, key)


def _one_kind_of_endpoint(value: Any) -> Any:
    if isinstance(value, dict) and len({"name", "simulate", "deploy"} & value.keys()) != 1:
        allowed = "exactly one of name:, simulate: and deploy:"
        raise wrong("an endpoint is either there already, simulated or deployed", allowed)
    return value


def _endpoint_kind(value: Any) -> str:
    if "simulate" in value if isinstance(value, dict) else isinstance(value, SimulatedEndpoint):
        return "a simulated endpoint"
    if "deploy" in value if isinstance(value, dict) else isinstance(value, DeployedEndpoint):
        return "a deployed endpoint"
    return "an existing endpoint"


Endpoint = Annotated[
    Annotated[ExistingEndpoint, Tag("an existing endpoint")]
    | Annotated[SimulatedEndpoint, Tag("a simulated endpoint")]
    | Annotated[DeployedEndpoint, Tag("a deployed endpoint")],
    Discriminator(_endpoint_kind),
    BeforeValidator(_one_kind_of_endpoint),
]


def _dialect(name: str) -> str:
    if name not in DIALECTS:
        raise wrong(f"{shown(name)} is not allowed", nearest(name, DIALECTS))
    return name


class Experiment(Model):
    """One endpoint under test: instance type, container and model, with its price in USD per instance and hour."""

    name: Name
    instance_type: Annotated[str, AfterValidator(_instance_type)]
    instance_count: int = Field(default=1, ge=1, le=1000)
    endpoint: Endpoint
    route: Literal["invoke", "stream", "openai"] = "invoke"
    dialect: Annotated[str, AfterValidator(_dialect)] = Field(
        default_factory=lambda data: "openai" if data.get("route") == "openai" else "tgi"
    )
    parameters: dict[str, Any] = Field(default_factory=dict)
    price_per_hour: float | None = Field(default=None, gt=0, le=1_000_000)

    @property
    def usd_per_hour(self) -> float | None:
        """What its instances cost together."""
        return None if self.price_per_hour is None else self.price_per_hour * self.instance_count

    @property
    def streams(self) -> bool:
        """Whether replies come in pieces."""
        return self.route == "stream" or (self.route == "openai" and self.parameters.get("stream") is not False)

    @property
    def max_tokens(self) -> int | None:
        """The most tokens a completion is asked to have."""
        return max_tokens(self.parameters)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.route == "openai" and self.dialect != "openai":
            raise wrong(f"the openai route does not speak {self.dialect}", "dialect: openai", "dialect")
        if self.route == "openai" and isinstance(self.endpoint, ExistingEndpoint) and self.endpoint.variant:
            raise wrong("the openai route reaches no variant of one's choice", "route: invoke or stream", "route")
        if isinstance(self.endpoint, SimulatedEndpoint) and self.dialect not in (
            "openai",
            self.endpoint.profile.dialect,
        ):
            spoken = self.endpoint.profile.dialect
            raise wrong(f"{self.endpoint.simulate} does not speak {self.dialect}", f"{spoken} or openai", "dialect")
        if self.streams and DIALECTS[self.dialect].record is None:
            raise wrong(f"{self.dialect} are not streamed", "route: invoke", "route")
        if self.route == "invoke" and self.dialect == "openai" and self.parameters.get("stream"):
            allowed = "route: stream, or without stream"
            raise wrong(
                "the invoke route reads whole replies, and this asks for a stream", allowed, "parameters", "stream"
            )
        named = [key for key in self.parameters if key in MAX_TOKENS]
        if len(named) > 1:
            raise wrong(f"both {named[0]} and {named[1]} bound a completion", "one of them", "parameters", named[1])
        for key in named:
            most = self.parameters[key]
            if type(most) is not int or most < 1:
                raise wrong(f"{shown(most)} is not allowed", "a whole number, at least 1", "parameters", key)
        return self
