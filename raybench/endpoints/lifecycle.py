"""An endpoint's life: three creates, a wait, three deletes."""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from raybench.endpoints.aws import ARN, CALL, PARAMETER, call, describe, tags
from raybench.endpoints.ledger import KINDS, Entry, Kind, Ledger
from raybench.errors import EndpointError, InfrastructureError, InterruptedRunError

RUN_TAG, EXPIRES_TAG = "raybench:run", "raybench:expires"
VARIANT = "AllTraffic"
_POLL_S = 10.0
_EXISTS = "already existing"
"""What the service says of a create whose name is taken."""


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


@dataclass(frozen=True, slots=True)
class Doomed:
    """A resource to be deleted, if it is that run's."""

    kind: Kind
    name: str
    run: str


Told = Callable[[Entry], None]
Gone = Callable[[Doomed, Entry | None], None]
Failure = tuple[Doomed, InfrastructureError]


def _untold(_: Entry) -> None:
    """Nobody asked to be told what serves."""


def _unheard(_: Doomed, __: Entry | None) -> None:
    """Nobody asked to be told what is gone."""


def _unchecked() -> None:
    """Nobody wants it to stop."""


@dataclass(frozen=True, slots=True)
class Life:
    """Creates and deletes in one account and region, each create in the ledger first; clocks are given by tests.

    `check` is asked between calls and raises KeyboardInterrupt if somebody wants it to stop.
    """

    aws: Any
    account: str
    ledger: Ledger
    now_ns: Callable[[], int] = time.time_ns
    pause: Callable[[float], None] = time.sleep
    check: Callable[[], None] = _unchecked
    poll_s: float = _POLL_S

    @property
    def region(self) -> str:
        """Where all of it happens."""
        return str(self.aws.meta.region_name)

    def known(self, kind: Kind, name: str) -> Entry | None:
        """What the ledger says of a resource of this account and region that isn't known to be gone."""
        return self.ledger.open().get((self.account, self.region, kind, name))

    def elsewhere(self) -> list[Entry]:
        """What the ledger says of other accounts' and regions' resources: not finding one here says nothing of it."""
        here = (self.account, self.region)
        return [entry for entry in self.ledger.open().values() if (entry.account, entry.region) != here]

    def deploy(self, *wanted: Deployment, life_s: int, wait_s: float = 3600.0, serving: Told = _untold) -> None:
        """Creates all models, configs and endpoints, then waits until all serve, and tells `serving` of each.

        `raybench gc` may delete them after `life_s`. If one fails, or somebody interrupts, all of them are deleted
        again. EndpointError tells the service's FailureReason, and whatever may still be there; so does
        InterruptedRunError, else it is a KeyboardInterrupt.
        """
        for one in wanted:
            if describe(self.aws, "endpoint", one.name) is not None:
                raise EndpointError(f"{one.name} is there already; `raybench run` measures it, `teardown` ends it")
        expires_s = self.now_ns() // 10**9 + life_s
        tried: list[Doomed] = []
        waiting: list[Entry] = []
        try:
            for one in wanted:
                for kind in reversed(KINDS):
                    self.check()
                    entry = self._announced(kind, one, expires_s)
                    tried.insert(0, Doomed(kind, one.name, one.run))  # a lost answer to the call may have been a yes
                    self._create(kind, one, expires_s)
                waiting.append(entry)
            self._await_service(waiting, wait_s, serving)
        except (Exception, KeyboardInterrupt) as error:
            if _EXISTS in str(error):  # somebody's
                tried.pop(0)
            self._undo(tried, error)
            raise

    def _undo(self, tried: list[Doomed], cause: BaseException) -> None:
        """Deletes what a failed deployment made, whoever signals once; an error if something may still be there."""
        left = [f"{one.kind} {one.name} may be left: {why}" for one, why in self.end(tried, heed=False)]
        if left:
            told = "; ".join([str(cause) or "interrupted", *left])
            kind = InterruptedRunError if isinstance(cause, KeyboardInterrupt) else EndpointError
            raise kind(f"{told}; then: raybench gc --run {tried[0].run} --yes") from cause

    def _announced(self, kind: Kind, wanted: Deployment, expires_s: int) -> Entry:
        entry = Entry(
            "create", kind, wanted.name, self.account, self.region, wanted.run, self.now_ns(), expires_s,
            wanted.instances if kind == "endpoint" else 0, wanted.usd_per_hour if kind == "endpoint" else None,
        )  # fmt: skip
        self.ledger.write(entry)
        return entry

    def _create(self, kind: Kind, wanted: Deployment, expires_s: int) -> None:
        marks = [{"Key": RUN_TAG, "Value": wanted.run}, {"Key": EXPIRES_TAG, "Value": utc(expires_s)}]
        create = getattr(self.aws, f"create_{CALL[kind]}")
        try:
            call(create, **{PARAMETER[kind]: wanted.name}, **_asked(kind, wanted), Tags=marks)
        except EndpointError as error:
            if _EXISTS in str(error):
                raise EndpointError(
                    f"{error}; `raybench gc --run {wanted.run} --yes` removes what a crash left"
                ) from error
            raise

    def _await_service(self, waiting: list[Entry], wait_s: float, serving: Told) -> None:
        deadline = self.now_ns() + int(wait_s * 1e9)
        while True:
            for entry in waiting:
                self.check()
                if self._serves(entry.name):
                    self.ledger.write(replace(entry, event="serves", at_ns=self.now_ns()))
                    serving(entry)
                    waiting = [one for one in waiting if one is not entry]
            self.check()
            if not waiting:
                return
            if self.now_ns() >= deadline:
                raise EndpointError(f"{waiting[0].name} does not serve after {wait_s:.0f} s")
            self.pause(self.poll_s)

    def _serves(self, name: str) -> bool:
        """Whether an endpoint is in service; EndpointError if it never will be."""
        found = describe(self.aws, "endpoint", name)
        status = found["EndpointStatus"] if found else "gone"
        if status in ("Failed", "gone", "Deleting", "OutOfService"):
            reason = (found or {}).get("FailureReason", "the service gives no reason")
            raise EndpointError(f"{name} is {status}: {reason}")
        return bool(status == "InService")

    def end(
        self, doomed: Sequence[Doomed], gone: Gone = _unheard, *, wait_s: float = 3600.0, heed: bool = True
    ) -> list[Failure]:
        """Deletes what carries our tags and belongs to its run, whatever its status, and waits until all is gone.

        All endpoints are asked to go before any is waited for. What isn't there is gone: asking twice is asking once.
        `gone` hears of each, with the line of the ledger that created it. What fails is returned, and keeps what
        comes after it under its name: an endpoint without its config could not be found out about.
        KeyboardInterrupt if somebody wants to stop, unless nobody is to be heeded.
        """
        failures: list[Failure] = []
        names = dict.fromkeys(each.name for each in doomed)
        chains = [[each for each in doomed if each.name == name] for name in names]
        going = [self._ending(chain, gone, wait_s, failures) for chain in chains]
        while going:
            for one in list(going):
                if heed:
                    self.check()
                if next(one, True):
                    going.remove(one)
            if going:
                self.pause(self.poll_s)
        return failures

    def _ending(self, chain: Sequence[Doomed], gone: Gone, wait_s: float, failures: list[Failure]) -> Iterator[None]:
        """Deletes one after the other, and yields where somebody should wait."""
        for each in chain:
            try:
                yield from self._deleting(each, wait_s)
                created = self.known(each.kind, each.name)
                if created is not None:
                    run, now_ns = created.run, self.now_ns()
                    self.ledger.write(Entry("gone", each.kind, each.name, self.account, self.region, run, now_ns))
            except InfrastructureError as error:
                failures.append((each, error))
                return
            gone(each, created)

    def _deleting(self, each: Doomed, wait_s: float) -> Iterator[None]:
        kind, name = each.kind, each.name
        deadline = self.now_ns() + int(wait_s * 1e9)
        ours = False
        while (found := describe(self.aws, kind, name)) is not None:
            if not ours:
                self._refuse_foreign(each, found[ARN[kind]])
                ours = True
            if found.get("EndpointStatus") != "Deleting":
                self._ask_to_delete(kind, name)
            if kind != "endpoint":
                break
            if self.now_ns() >= deadline:
                raise EndpointError(f"{name} is still {found['EndpointStatus']} after {wait_s:.0f} s, and may cost")
            yield

    def _refuse_foreign(self, each: Doomed, arn: str) -> None:
        marks = tags(self.aws, arn)
        if not {RUN_TAG, EXPIRES_TAG} <= marks.keys():
            raise EndpointError(f"{each.kind} {each.name} does not carry raybench's tags: left alone")
        if marks[RUN_TAG] != each.run:
            raise EndpointError(f"{each.kind} {each.name} belongs to the run {marks[RUN_TAG]}: left alone")

    def _ask_to_delete(self, kind: Kind, name: str) -> None:
        try:
            call(getattr(self.aws, f"delete_{CALL[kind]}"), **{PARAMETER[kind]: name})
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
