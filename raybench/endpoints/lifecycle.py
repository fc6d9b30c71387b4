"""An endpoint's life: three creates, a wait, three deletes."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from raybench.endpoints.ledger import KINDS, Entry, Kind, Ledger
from raybench.errors import EndpointError, InfrastructureError, InputError, StorageError

RUN_TAG, EXPIRES_TAG = "raybench:run", "raybench:expires"
VARIANT = "AllTraffic"
LIFE_S = 2 * 3600
"""How long a deployed endpoint lives before `raybench gc` may delete it."""

_POLL_S = 10.0
_EXISTS = "already existing"
"""What the service says of a create whose name is taken."""

_PARAMETER: dict[Kind, str] = {
    "endpoint": "EndpointName", "endpoint-config": "EndpointConfigName", "model": "ModelName",
}  # fmt: skip
_CALL: dict[Kind, str] = {"endpoint": "endpoint", "endpoint-config": "endpoint_config", "model": "model"}
_ARN: dict[Kind, str] = {"endpoint": "EndpointArn", "endpoint-config": "EndpointConfigArn", "model": "ModelArn"}


def endpoint_name(run: str, experiment: str) -> str:
    """The name of the endpoint, its config and its model: the same for the same config and experiment, ≤ 63 long."""
    readable = re.sub(r"[^a-z0-9]+", "-", f"{run}-{experiment}".lower()).strip("-")[:45].strip("-")
    digest = blake2b(f"{run} {experiment}".encode(), digest_size=4).hexdigest()
    return f"raybench-{readable}-{digest}"


@dataclass(frozen=True, slots=True)
class Deployment:
    """An endpoint as it shall be; `model` is an s3:// address or a Hugging Face id, `usd_per_hour` per instance."""

    run: str
    name: str
    image: str
    role: str
    instance_type: str
    instances: int = 1
    model: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    usd_per_hour: str | None = None


def client(region: str | None) -> Any:
    """boto3's `sagemaker` client, found by botocore's rules; InputError when there is no region."""
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        return boto3.client("sagemaker", region_name=region)
    except (BotoCoreError, ValueError) as error:
        raise InputError(" ".join(str(error).split()), key="aws") from error


def call(function: Callable[..., Any], **asked: Any) -> dict[str, Any]:
    """Calls AWS; EndpointError with the service's own words when it refuses."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        answer: dict[str, Any] = function(**asked)
    except (BotoCoreError, ClientError) as error:
        raise EndpointError(" ".join(str(error).split())) from error
    return answer


def pages(function: Callable[..., Any], key: str, **asked: Any) -> Iterator[dict[str, Any]]:
    """The items of every page of a listing; EndpointError."""
    token: dict[str, str] = {}
    while True:
        page = call(function, MaxResults=100, **asked, **token)
        yield from page[key]
        if not page.get("NextToken"):
            return
        token = {"NextToken": page["NextToken"]}


def describe(aws: Any, kind: Kind, name: str) -> dict[str, Any] | None:
    """What the service says of a resource; None if it isn't there."""
    try:
        return call(getattr(aws, f"describe_{_CALL[kind]}"), **{_PARAMETER[kind]: name})
    except EndpointError as error:
        if "could not find" in str(error).lower():  # a ValidationException like any other, told by its words
            return None
        raise


def tags(aws: Any, arn: str) -> dict[str, str]:
    """The tags of a resource; empty if it went away meanwhile."""
    try:
        return {tag["Key"]: tag["Value"] for tag in pages(aws.list_tags, "Tags", ResourceArn=arn)}
    except EndpointError as error:
        if "could not find" in str(error).lower() or "does not exist" in str(error).lower():
            return {}
        raise


@dataclass(frozen=True, slots=True)
class Life:
    """Creates and deletes in one region, each create in the ledger first; clocks are given by tests."""

    aws: Any
    ledger: Ledger
    now_ns: Callable[[], int] = time.time_ns
    pause: Callable[[float], None] = time.sleep
    poll_s: float = _POLL_S

    @property
    def region(self) -> str:
        """Where all of it happens."""
        return str(self.aws.meta.region_name)

    def deploy(self, wanted: Deployment, life_s: int = LIFE_S, wait_s: float = 3600.0) -> Entry:
        """Creates model, config and endpoint and waits until it serves; what failed is deleted again.

        Returns the endpoint's line of the ledger. EndpointError tells the service's FailureReason.
        """
        if describe(self.aws, "endpoint", wanted.name) is not None:
            raise EndpointError(f"{wanted.name} is there already; `raybench run` measures it, `teardown` ends it")
        expires_s = self.now_ns() // 10**9 + life_s
        tried: list[Kind] = []
        try:
            for kind in reversed(KINDS):
                tried.append(kind)  # before the call: an answer that was lost may have been a yes
                entry = self._create(kind, wanted, expires_s)
            self._await_service(wanted.name, wait_s)
        except (Exception, KeyboardInterrupt) as error:
            if _EXISTS in str(error) or isinstance(error, StorageError):  # somebody's, or never asked for
                tried.pop()
            self._undo(list(reversed(tried)), wanted, error)
            raise
        return entry

    def _undo(self, kinds: list[Kind], wanted: Deployment, cause: BaseException) -> None:
        """Deletes what a failed deployment made; EndpointError if something of it may still be there."""
        left = []
        for kind in kinds:
            try:
                self.delete(kind, wanted.name, wanted.run)
            except InfrastructureError as error:
                left.append(f"{kind} may be left: {error}")
                break  # what it stands on must stay too
        if left:
            told = "; ".join([str(cause) or "interrupted", *left])
            raise EndpointError(f"{told}; then: raybench gc --run {wanted.run} --yes") from cause

    def _create(self, kind: Kind, wanted: Deployment, expires_s: int) -> Entry:
        entry = Entry(
            "create", kind, wanted.name, self.region, wanted.run, self.now_ns(), expires_s,
            wanted.instances if kind == "endpoint" else 0, wanted.usd_per_hour if kind == "endpoint" else None,
        )  # fmt: skip
        self.ledger.write(entry)
        marks = [{"Key": RUN_TAG, "Value": wanted.run}, {"Key": EXPIRES_TAG, "Value": utc(expires_s)}]
        create = getattr(self.aws, f"create_{_CALL[kind]}")
        try:
            call(create, **{_PARAMETER[kind]: wanted.name}, **_asked(kind, wanted), Tags=marks)
        except EndpointError as error:
            if _EXISTS in str(error):
                raise EndpointError(
                    f"{error}; `raybench gc --run {wanted.run} --yes` removes what a crash left"
                ) from error
            raise
        return entry

    def _await_service(self, name: str, wait_s: float) -> None:
        deadline = self.now_ns() + int(wait_s * 1e9)
        while True:
            found = describe(self.aws, "endpoint", name)
            status = found["EndpointStatus"] if found else "gone"
            if status == "InService":
                return
            if status in ("Failed", "gone", "Deleting", "OutOfService"):
                reason = (found or {}).get("FailureReason", "the service gives no reason")
                raise EndpointError(f"{name} is {status}: {reason}")
            if self.now_ns() >= deadline:
                raise EndpointError(f"{name} is still {status} after {wait_s:.0f} s")
            self.pause(self.poll_s)

    def delete(self, kind: Kind, name: str, run: str | None = None, wait_s: float = 3600.0) -> Entry | None:
        """Deletes what carries our tags (and belongs to `run`) and waits until it is gone, whatever its status.

        What isn't there is gone: asking twice is asking once. What isn't ours is an EndpointError. Returns the line
        of the ledger that created it, None if there is none.
        """
        deadline = self.now_ns() + int(wait_s * 1e9)
        ours = False
        while (found := describe(self.aws, kind, name)) is not None:
            if not ours:
                self._refuse_foreign(kind, name, found[_ARN[kind]], run)
                ours = True
            if found.get("EndpointStatus") != "Deleting":
                self._ask_to_delete(kind, name)
            if kind != "endpoint":
                break
            if self.now_ns() >= deadline:
                raise EndpointError(f"{name} is still {found['EndpointStatus']} after {wait_s:.0f} s, and may cost")
            self.pause(self.poll_s)
        created = self.ledger.open().get((self.region, kind, name))
        if created is not None:
            self.ledger.write(Entry("gone", kind, name, self.region, created.run, self.now_ns()))
        return created

    def _refuse_foreign(self, kind: Kind, name: str, arn: str, run: str | None) -> None:
        marks = tags(self.aws, arn)
        if not {RUN_TAG, EXPIRES_TAG} <= marks.keys():
            raise EndpointError(f"{kind} {name} does not carry raybench's tags: left alone")
        if run is not None and marks[RUN_TAG] != run:
            raise EndpointError(f"{kind} {name} belongs to the run {marks[RUN_TAG]}: left alone")

    def _ask_to_delete(self, kind: Kind, name: str) -> None:
        try:
            call(getattr(self.aws, f"delete_{_CALL[kind]}"), **{_PARAMETER[kind]: name})
        except EndpointError as error:
            words = str(error).lower()
            if "in-progress" not in words and "could not find" not in words:  # Creating: ask again later
                raise


def _asked(kind: Kind, wanted: Deployment) -> dict[str, Any]:
    """What a create asks for besides its name and tags."""
    if kind == "endpoint":
        return {"EndpointConfigName": wanted.name}
    if kind == "endpoint-config":
        variant = {
            "VariantName": VARIANT, "ModelName": wanted.name, "InstanceType": wanted.instance_type,
            "InitialInstanceCount": wanted.instances, "ContainerStartupHealthCheckTimeoutInSeconds": 3600,
        }  # fmt: skip
        return {"ProductionVariants": [variant]}
    container: dict[str, Any] = {"Image": wanted.image, "Environment": dict(wanted.environment)}
    if wanted.model is not None and wanted.model.startswith("s3://"):
        packed = wanted.model.endswith(".tar.gz")
        source = {
            "S3Uri": wanted.model, "S3DataType": "S3Object" if packed else "S3Prefix",
            "CompressionType": "Gzip" if packed else "None",
        }  # fmt: skip
        container["ModelDataSource"] = {"S3DataSource": source}
    elif wanted.model is not None:
        container["Environment"] = {"HF_MODEL_ID": wanted.model, **wanted.environment}
    return {"ExecutionRoleArn": wanted.role, "PrimaryContainer": container}


def utc(seconds: int) -> str:
    """An instant as text, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
