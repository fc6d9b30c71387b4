"""Endpoints of our own: what is made is found again after any crash, billed whole, and nobody else's is touched."""

import json
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pyarrow as pa
import pytest
import reported
from botocore.exceptions import ConnectionClosedError
from botocore.stub import Stubber
from moto import mock_aws

from raybench import deploying
from raybench.analysis.decide import decide
from raybench.client.credentials import surroundings
from raybench.client.target import Target
from raybench.config import Config, load_config
from raybench.datasets import load_pools
from raybench.endpoints.aws import client
from raybench.endpoints.bill import bill_usd
from raybench.endpoints.gc import Left, left_behind
from raybench.endpoints.ledger import KINDS, Entry, Kind, Ledger
from raybench.endpoints.lifecycle import EXPIRES_TAG, RUN_TAG, Deployment, Doomed, Life, endpoint_name
from raybench.errors import EndpointError, InputError, InterruptedRunError, StorageError
from raybench.plan import Trial, plan
from raybench.report import spent
from raybench.report.page import page
from raybench.report.view import look
from raybench.rows import REQUESTS
from raybench.run import Conductor
from raybench.rundir import RunDir
from raybench.signals import Ear
from raybench.specs import DeployedEndpoint
from raybench.targets import target

REGION, ACCOUNT = "us-west-2", "123456789012"
ROLE = "arn:aws:iam::123456789012:role/endpoint"
START_NS = 1_790_000_000 * 10**9
WANTED = Deployment(
    run="mine", name=endpoint_name("mine", "p3"), image="image:1", role=ROLE, instance_type="ml.p3.2xlarge",
    instances=2, model="s3://bucket/model.tar.gz", usd_per_hour="20.36",
)  # fmt: skip
CONFIG = """
name: mine
region: us-west-2
experiments:
  - name: p3
    instance_type: ml.p3.2xlarge
    instance_count: 2
    price_per_hour: 20.36
    endpoint: {deploy: {image: "image:1", role: "arn:aws:iam::123456789012:role/endpoint", model: org/model}}
payloads:
  - {name: short, dataset: {synthetic: {prompts: 4}}, tokens: [10, 20]}
loads:
  - {kind: closed, concurrency: 1, duration: 10s}
"""


class Crash(BaseException):
    """The process ends here; nothing catches it."""


class Time:
    """A clock that a pause moves."""

    def __init__(self, now_ns: int = START_NS) -> None:
        self.ns = now_ns

    def __call__(self) -> int:
        return self.ns

    def pause(self, seconds: float) -> None:
        self.ns += int(seconds * 1e9)


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("RAYBENCH_LEDGER", str(tmp_path / "ledger.jsonl"))
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield


def sagemaker(region: str = REGION) -> Any:
    return boto3.client("sagemaker", region_name=region)


def life(folder: Path, now: Time | None = None, aws: Any = None) -> Life:
    now = now or Time()
    return Life(aws or sagemaker(), ACCOUNT, Ledger(folder / "ledger.jsonl"), now, now.pause)


def names(aws: Any) -> set[tuple[str, str]]:
    """Everything that the account has, by kind and name."""
    return (
        {("endpoint", each["EndpointName"]) for each in aws.list_endpoints()["Endpoints"]}
        | {("endpoint-config", each["EndpointConfigName"]) for each in aws.list_endpoint_configs()["EndpointConfigs"]}
        | {("model", each["ModelName"]) for each in aws.list_models()["Models"]}
    )


def plant(aws: Any, name: str, tags: dict[str, str]) -> None:
    """An endpoint of somebody else's."""
    marks = [{"Key": key, "Value": value} for key, value in tags.items()]
    variant = {
        "VariantName": "a", "ModelName": name, "InitialInstanceCount": 1, "InstanceType": "ml.p3.2xlarge",
    }  # fmt: skip
    aws.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "i"}, Tags=marks)
    aws.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], Tags=marks)
    aws.create_endpoint(EndpointName=name, EndpointConfigName=name, Tags=marks)


FAR, LONG_AGO = "2100-01-01T00:00:00Z", "2020-01-01T00:00:00Z"
FOREIGN = {
    "somebody-elses": {},
    WANTED.name + "-copy": {},
    "raybench-untagged": {"team": "b"},
    "raybench-only-run": {RUN_TAG: "mine"},
    "raybench-only-expires": {EXPIRES_TAG: LONG_AGO},
    "raybench-other": {RUN_TAG: "other", EXPIRES_TAG: FAR},
    "raybench-other-mined": {RUN_TAG: "mine-too", EXPIRES_TAG: FAR},
}
"""What others have beside us, none of it expired under both our tags."""


def crowd(aws: Any) -> set[tuple[str, str]]:
    for name, tags in FOREIGN.items():
        plant(aws, name, tags)
    return names(aws)


def crashing(at: int, when: str) -> Any:
    """A client whose call number `at` (from 0) ends the process right before or right after it."""
    aws, count = sagemaker(), iter(range(10_000))

    def hook(**_: Any) -> None:
        if next(count) == at:
            raise Crash

    aws.meta.events.register("before-call.sagemaker" if when == "before" else "after-call.sagemaker", hook)
    return aws


def calls_of(verb: str, folder: Path) -> int:
    """How many AWS calls a verb makes when nothing goes wrong."""
    aws, seen = sagemaker(), []
    aws.meta.events.register("before-call.sagemaker", lambda **_: seen.append(1))
    if verb == "teardown":
        life(folder).deploy(WANTED, life_s=7200)
    play(verb, life(folder, aws=aws))
    return len(seen)


def end(being: Life, kinds: Sequence[Kind] = KINDS) -> list[str]:
    """Deletes the endpoint of these tests, or only some of its resources, and tells what went wrong."""
    return [str(why) for _, why in being.end([Doomed(kind, WANTED.name, WANTED.run) for kind in kinds])]


def play(verb: str, being: Life) -> None:
    if verb == "deploy":
        being.deploy(WANTED, life_s=7200)
    else:
        end(being)


CALLS = {"deploy": 5, "teardown": 10}
POINTS = [(verb, k, when) for verb, most in CALLS.items() for k in range(most) for when in ("before", "after")]


@pytest.mark.parametrize("verb", CALLS)
def test_the_crash_points_are_all_the_calls_there_are(verb: str, tmp_path: Path) -> None:
    assert calls_of(verb, tmp_path) == CALLS[verb]


@pytest.mark.parametrize("by", ["run", "expiry"])
@pytest.mark.parametrize(("verb", "k", "when"), POINTS)
def test_a_crash_at_an_aws_call_leaves_nothing_that_gc_does_not_remove(
    verb: str, k: int, when: str, by: str, tmp_path: Path
) -> None:
    others = crowd(sagemaker())
    if verb == "teardown":
        life(tmp_path).deploy(WANTED, life_s=7200)
    with pytest.raises(Crash):
        play(verb, life(tmp_path, aws=crashing(k, when)))
    fresh = life(tmp_path, Time(START_NS + 3 * 3600 * 10**9))
    run = "mine" if by == "run" else None
    assert fresh.end(left_behind(fresh, run)) == []
    assert left_behind(fresh, run) == []
    assert names(sagemaker()) == others


def sweep_on(being: Life) -> None:
    while True:
        being.end(left_behind(being, "mine"))


def test_a_gc_that_crashes_itself_is_finished_by_the_next(tmp_path: Path) -> None:
    others, random_ = crowd(sagemaker()), random.Random(7)
    for _ in range(20):
        life(tmp_path).deploy(WANTED, life_s=7200)
        broken = life(tmp_path, aws=crashing(random_.randrange(12, 36), random_.choice(["before", "after"])))
        with pytest.raises(Crash):
            sweep_on(broken)
        life(tmp_path).end(left_behind(life(tmp_path), "mine"))
        assert names(sagemaker()) == others


def test_a_foreign_endpoint_is_never_deleted_by_gc_whatever_it_is_called(tmp_path: Path) -> None:
    aws, deleted = sagemaker(), []
    others = crowd(aws)
    aws.meta.events.register("before-call.sagemaker", lambda model, **_: deleted.append(model.name))
    being = life(tmp_path, aws=aws)
    for name in FOREIGN:  # not even when the ledger names it
        being.ledger.write(Entry("create", "endpoint", name, ACCOUNT, REGION, "mine", START_NS))
    for run in (None, "mine", "nobody"):
        found = left_behind(being, run)
        assert (found, being.end(found)) == ([], [])
    assert names(aws) == others
    assert not [name for name in deleted if name.startswith("Delete")]


def test_a_foreign_endpoint_that_took_a_name_between_finding_and_deleting_stays(tmp_path: Path) -> None:
    plant(sagemaker(), "taken", {})
    failures = life(tmp_path).end([Left("endpoint", "taken", "mine", LONG_AGO, "expired")])
    assert [str(why) for _, why in failures] == ["endpoint taken does not carry raybench's tags: left alone"]
    assert ("endpoint", "taken") in names(sagemaker())


def test_teardown_leaves_an_endpoint_of_another_run_alone(tmp_path: Path) -> None:
    plant(sagemaker(), WANTED.name, {RUN_TAG: "other", EXPIRES_TAG: FAR})
    assert end(life(tmp_path)) == [f"endpoint {WANTED.name} belongs to the run other: left alone"]
    assert ("endpoint", WANTED.name) in names(sagemaker())


def test_gc_waits_for_expiry_unless_the_run_is_named(tmp_path: Path) -> None:
    life(tmp_path).deploy(WANTED, life_s=7200)
    before, after = Time(START_NS + 7199 * 10**9), Time(START_NS + 7200 * 10**9)
    assert left_behind(life(tmp_path, before)) == []
    assert [each.kind for each in left_behind(life(tmp_path, before), "mine")] == list(KINDS)
    assert [each.kind for each in left_behind(life(tmp_path, after))] == list(KINDS)


def test_an_expiry_that_cannot_be_read_is_never_past(tmp_path: Path) -> None:
    for index, text in enumerate(("yesterday", "2020-01-01", "2020-13-01T00:00:00Z", "")):
        plant(sagemaker(), f"odd-{index}", {RUN_TAG: "x", EXPIRES_TAG: text})
    assert left_behind(life(tmp_path)) == []


def test_each_create_is_in_the_ledger_before_it_is_asked_for(tmp_path: Path) -> None:
    aws, seen = sagemaker(), []
    being = life(tmp_path, aws=aws)

    def hook(model: Any, **_: Any) -> None:
        if model.name.startswith("Create"):
            seen.append((model.name, [entry.kind for entry in being.ledger.entries()]))

    aws.meta.events.register("before-call.sagemaker", hook)
    being.deploy(WANTED, life_s=7200)
    assert seen == [
        ("CreateModel", ["model"]),
        ("CreateEndpointConfig", ["model", "endpoint-config"]),
        ("CreateEndpoint", ["model", "endpoint-config", "endpoint"]),
    ]


def test_a_ledger_that_cannot_be_written_creates_nothing(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").mkdir()
    with pytest.raises(StorageError, match="cannot keep the ledger"):
        life(tmp_path).deploy(WANTED, life_s=7200)
    assert names(sagemaker()) == set()


def test_a_torn_line_of_the_ledger_costs_no_other_line(tmp_path: Path) -> None:
    whole = Entry("create", "model", "a", ACCOUNT, REGION, "mine", 1)
    for cut in range(1, len(json.dumps({"event": "create"}))):
        ledger = Ledger(tmp_path / f"{cut}.jsonl")
        ledger.write(whole)
        with ledger.path.open("ab") as file:
            file.write(b'{"event": "create"'[:cut])
        assert list(ledger.entries()) == [whole]
        ledger.write(whole)
        assert list(ledger.entries()) == [whole, whole]


def test_a_name_is_the_same_for_the_same_experiment_and_fits_sagemaker() -> None:
    long = endpoint_name("a" * 80, "b_." * 26)
    assert len(long) <= 63
    assert long == endpoint_name("a" * 80, "b_." * 26) != endpoint_name("a" * 80, "b_." * 25)
    assert endpoint_name("My.Run", "g5+tgi").startswith("raybench-my-run-g5-tgi-")


def described(status: str, **more: Any) -> dict[str, Any]:
    then = datetime(2026, 1, 1, tzinfo=UTC)
    return {
        "EndpointName": WANTED.name, "EndpointArn": f"arn:aws:sagemaker:{REGION}:123456789012:endpoint/{WANTED.name}",
        "EndpointStatus": status, "CreationTime": then, "LastModifiedTime": then, **more,
    }  # fmt: skip


OURS = {"Tags": [{"Key": RUN_TAG, "Value": "mine"}, {"Key": EXPIRES_TAG, "Value": FAR}]}


def expect_deletion(stub: Stubber, status: str) -> None:
    """An endpoint of ours in this status is asked to go, and is gone."""
    stub.add_response("describe_endpoint", described(status))
    stub.add_response("list_tags", OURS)
    stub.add_response("delete_endpoint", {})
    stub.add_client_error("describe_endpoint", "ValidationException", "Could not find endpoint")


def expect_the_rest_deleted(stub: Stubber) -> None:
    stub.add_client_error("describe_endpoint_config", "ValidationException", "Could not find endpoint configuration")
    stub.add_client_error("describe_model", "ValidationException", "Could not find model")


def expect_creates(stub: Stubber) -> None:
    arn = described("Creating")["EndpointArn"]
    stub.add_client_error("describe_endpoint", "ValidationException", "Could not find endpoint")
    stub.add_response("create_model", {"ModelArn": arn})
    stub.add_response("create_endpoint_config", {"EndpointConfigArn": arn})
    stub.add_response("create_endpoint", {"EndpointArn": arn})


def test_an_endpoint_that_fails_is_named_with_its_reason_and_deleted(tmp_path: Path) -> None:
    aws = sagemaker()
    with Stubber(aws) as stub:
        expect_creates(stub)
        stub.add_response("describe_endpoint", described("Creating"))
        stub.add_response("describe_endpoint", described("Failed", FailureReason="Unable to provision capacity"))
        expect_deletion(stub, "Failed")
        expect_the_rest_deleted(stub)
        with pytest.raises(EndpointError, match="is Failed: Unable to provision capacity"):
            life(tmp_path, aws=aws).deploy(WANTED, life_s=7200)
        stub.assert_no_pending_responses()


def test_an_endpoint_that_never_serves_is_given_up_at_the_deadline_and_deleted(tmp_path: Path) -> None:
    aws = sagemaker()
    with Stubber(aws) as stub:
        expect_creates(stub)
        for _ in range(4):
            stub.add_response("describe_endpoint", described("Creating"))
        expect_deletion(stub, "Creating")
        expect_the_rest_deleted(stub)
        with pytest.raises(EndpointError, match="does not serve after 30 s"):
            life(tmp_path, aws=aws).deploy(WANTED, life_s=7200, wait_s=30)
        stub.assert_no_pending_responses()


@pytest.mark.parametrize("status", ["Creating", "Failed", "InService", "OutOfService", "RollingBack"])
def test_an_endpoint_is_deleted_in_any_status(status: str, tmp_path: Path) -> None:
    aws = sagemaker()
    with Stubber(aws) as stub:
        expect_deletion(stub, status)
        assert end(life(tmp_path, aws=aws), ["endpoint"]) == []
        stub.assert_no_pending_responses()


def test_a_deletion_that_is_refused_while_creating_is_asked_again(tmp_path: Path) -> None:
    aws = sagemaker()
    with Stubber(aws) as stub:
        stub.add_response("describe_endpoint", described("Creating"))
        stub.add_response("list_tags", OURS)
        stub.add_client_error("delete_endpoint", "ValidationException", "Cannot update in-progress endpoint")
        stub.add_response("describe_endpoint", described("InService"))
        stub.add_response("delete_endpoint", {})
        stub.add_response("describe_endpoint", described("Deleting"))
        stub.add_client_error("describe_endpoint", "ValidationException", "Could not find endpoint")
        assert end(life(tmp_path, aws=aws), ["endpoint"]) == []
        stub.assert_no_pending_responses()


def test_a_deletion_that_is_denied_is_an_error_and_not_taken_for_gone(tmp_path: Path) -> None:
    aws = sagemaker()
    with Stubber(aws) as stub:
        stub.add_client_error("describe_endpoint", "AccessDeniedException", "no")
        [why] = end(life(tmp_path, aws=aws))
        assert "AccessDenied" in why


def test_an_endpoint_that_cannot_be_deleted_keeps_its_config_and_model(tmp_path: Path) -> None:
    being = life(tmp_path)
    being.deploy(WANTED, life_s=7200)

    def refused(model: Any, **of: Any) -> None:
        raise ConnectionClosedError(endpoint_url="x")

    being.aws.meta.events.register("before-call.sagemaker.DeleteEndpoint", refused)
    failures = being.end(left_behind(being, "mine"))
    assert [one.kind for one, _ in failures] == ["endpoint"]
    assert {kind for kind, _ in names(sagemaker())} == {"endpoint", "endpoint-config", "model"}


@pytest.mark.parametrize("lost", ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"])
def test_a_create_whose_answer_is_lost_is_deleted_again(lost: str, tmp_path: Path) -> None:
    aws = sagemaker()

    def lose(**_: Any) -> None:
        raise ConnectionClosedError(endpoint_url="https://somewhere")

    aws.meta.events.register(f"after-call.sagemaker.{lost}", lose)
    with pytest.raises(EndpointError, match="Connection was closed"):
        life(tmp_path, aws=aws).deploy(WANTED, life_s=7200)
    assert names(sagemaker()) == set()


def test_what_a_failed_deployment_could_not_delete_is_told_with_the_way_out(tmp_path: Path) -> None:
    aws = sagemaker()
    with Stubber(aws) as stub:
        expect_creates(stub)
        stub.add_response("describe_endpoint", described("Failed", FailureReason="no capacity"))
        stub.add_client_error("describe_endpoint", "AccessDeniedException", "no")
        with pytest.raises(EndpointError, match=r"no capacity; endpoint .* may be left: .*gc --run mine --yes"):
            life(tmp_path, aws=aws).deploy(WANTED, life_s=7200)
        stub.assert_no_pending_responses()


def test_a_model_of_that_name_that_somebody_has_stays(tmp_path: Path) -> None:
    aws = sagemaker()
    with Stubber(aws) as stub:
        stub.add_client_error("describe_endpoint", "ValidationException", "Could not find endpoint")
        stub.add_client_error("create_model", "ValidationException", "Cannot create already existing model")
        with pytest.raises(EndpointError, match="removes what a crash left"):
            life(tmp_path, aws=aws).deploy(WANTED, life_s=7200)
        stub.assert_no_pending_responses()


def test_deleting_twice_is_deleting_once(tmp_path: Path) -> None:
    being = life(tmp_path)
    being.deploy(WANTED, life_s=7200)
    play("teardown", being)
    play("teardown", being)
    assert (names(sagemaker()), being.ledger.open()) == (set(), {})


def test_an_endpoint_that_is_there_already_is_not_deployed_over_nor_deleted(tmp_path: Path) -> None:
    life(tmp_path).deploy(WANTED, life_s=7200)
    with pytest.raises(EndpointError, match="is there already"):
        life(tmp_path).deploy(WANTED, life_s=7200)
    assert len(names(sagemaker())) == 3


def test_21_the_bill_runs_from_create_to_delete_exactly(tmp_path: Path) -> None:
    now = Time()
    being = life(tmp_path, now)
    being.deploy(WANTED, life_s=7200)
    now.pause(5400)
    [created] = [entry for entry in being.ledger.open().values() if entry.kind == "endpoint"]
    assert end(being, ["endpoint"]) == []
    assert created.at_ns == START_NS
    assert now.ns == START_NS + 5_410 * 10**9  # until it is seen to be gone
    assert bill_usd(created, START_NS + 5400 * 10**9) == Decimal("61.08")
    draw = random.Random(21)
    for _ in range(200):
        ns, hourly = draw.randrange(10**15), Decimal(draw.randrange(1, 10**6)) / 10**4
        one = Entry(
            "create",
            "endpoint",
            "e",
            ACCOUNT,
            REGION,
            "r",
            0,
            instances=draw.randrange(1, 99),
            usd_per_hour=str(hourly),
        )
        found = bill_usd(one, ns * 9)
        assert found is not None
        assert Fraction(found) == one.instances * Fraction(hourly) * ns * 9 / (3600 * 10**9) or len(str(found)) > 55


def test_21_a_bill_of_test_time_alone_is_caught(tmp_path: Path) -> None:
    created = Entry("create", "endpoint", "e", ACCOUNT, REGION, "r", START_NS, instances=1, usd_per_hour="20.36")
    whole, tested = bill_usd(created, START_NS + 3600 * 10**9), Decimal("20.36") * 60 / 3600
    assert whole == Decimal("20.36")
    assert whole != tested


def test_an_endpoint_without_a_price_has_no_bill() -> None:
    assert bill_usd(Entry("create", "endpoint", "e", ACCOUNT, REGION, "r", 0, instances=1), 10**15) is None


def configured(folder: Path, text: str = CONFIG) -> Config:
    path = folder / "deploy.yaml"
    path.write_text(text)
    return load_config(path)


def test_a_config_that_deploys_is_made_measured_and_ended_under_one_name(tmp_path: Path) -> None:
    config, said = configured(tmp_path), list[str]()
    assert isinstance(config.experiments[0].endpoint, DeployedEndpoint)
    name = endpoint_name("mine", "p3")
    with pytest.raises(
        EndpointError, match=f"p3: endpoint {name} is not there; `raybench deploy .*deploy.yaml` first"
    ):
        deploying.found(config, "p3")
    deploying.deploy(config, 7200, said.append)
    assert f"{name}: deploying 2 × ml.p3.2xlarge, $40.72 per hour" in said
    assert deploying.found(config, "p3") == name
    model = sagemaker().describe_model(ModelName=name)
    assert model["PrimaryContainer"]["Environment"] == {"HF_MODEL_ID": "org/model"}
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for kind in KINDS[1:]:
        assert (ACCOUNT, REGION, kind, name) in ledger.open()


def lives(folder: Path, now: Time | None = None, aws: Any = None) -> deploying.LifeIn:
    """Lifecycles for the verbs, whose waits cost no time."""
    return lambda region, _: life(folder, now, aws or sagemaker(region or REGION))


def test_aws_region_is_heard_before_what_botocore_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert client(None).meta.region_name == surroundings().region == "eu-west-1"
    assert client("us-west-2").meta.region_name == "us-west-2"


def test_gc_tells_first_deletes_when_told_and_counts_again(tmp_path: Path) -> None:
    life(tmp_path).deploy(WANTED, life_s=7200)
    looked, said, life_in = list[str](), list[str](), lives(tmp_path)
    deploying.gc("other", REGION, True, looked.append, life_in=life_in)
    assert looked == [f"0 billable resources left in {REGION} of account {ACCOUNT}"]
    deploying.gc("mine", REGION, False, said.append, life_in=life_in)
    assert len(said) == 4
    assert said[-1] == f"1 billable resources left in {REGION} of account {ACCOUNT}; --yes deletes them"
    assert len(names(sagemaker())) == 3
    deploying.gc("mine", REGION, True, said.append, life_in=life_in)
    assert said[-1] == f"0 billable resources left in {REGION} of account {ACCOUNT}"
    assert names(sagemaker()) == set()


def test_gc_looks_in_every_region_of_the_ledger(tmp_path: Path) -> None:
    life(tmp_path, aws=sagemaker("eu-west-1")).deploy(WANTED, life_s=7200)
    said = list[str]()
    deploying.gc("mine", None, True, said.append, life_in=lives(tmp_path))
    assert said[-1] == f"0 billable resources left in {REGION}, eu-west-1 of account {ACCOUNT}"
    assert names(sagemaker("eu-west-1")) == set()


def test_teardown_tells_what_it_cost_from_create_to_delete(tmp_path: Path) -> None:
    config, said, now = configured(tmp_path), list[str](), Time()
    life_in = lives(tmp_path, now)
    deploying.deploy(config, 7200, said.append, life_in=life_in)
    now.pause(5390)  # and 10 s until it is seen to be gone
    deploying.teardown(config, said.append, life_in=life_in)
    name = endpoint_name("mine", "p3")
    assert said[-1] == f"{name}: gone; 1.50 h from create to delete, $61.0800"
    assert names(sagemaker()) == set()
    deploying.teardown(config, said.append, life_in=life_in)
    assert said[-1] == f"{name}: gone; the ledger has no open create of it, so no bill"


def test_teardown_ends_only_what_was_deployed_from_here(tmp_path: Path) -> None:
    told: list[str] = []
    being = life(tmp_path / "somebody else's")
    config = configured(tmp_path)
    being.deploy(deploying.deployments(config)[0], life_s=7200)
    with pytest.raises(EndpointError, match="was not deployed from here; `raybench gc --run mine --yes`"):
        deploying.teardown(config, told.append, life_in=lives(tmp_path))
    assert ("endpoint", endpoint_name("mine", "p3")) in names(sagemaker())


def test_a_run_on_what_is_not_deployed_says_so_and_one_that_is_calls_it(tmp_path: Path) -> None:
    config = configured(tmp_path)
    with pytest.raises(EndpointError, match="is not there; `raybench deploy") as caught:
        target(config, config.experiments[0], None)
    assert caught.value.exit_code == 5
    deploying.deploy(config, 7200, print, life_in=lives(tmp_path))
    assert target(config, config.experiments[0], None).endpoint == endpoint_name("mine", "p3")


def test_an_interrupt_while_waiting_deletes_what_was_made(tmp_path: Path) -> None:
    aws = sagemaker()

    def interrupt(**_: Any) -> None:
        if names(sagemaker()):
            aws.meta.events.unregister("before-call.sagemaker.DescribeEndpoint", interrupt)
            raise KeyboardInterrupt

    aws.meta.events.register("before-call.sagemaker.DescribeEndpoint", interrupt)
    with pytest.raises(InterruptedRunError, match=r"interrupted; nothing is left of raybench-mine-p3"):
        deploying.deploy(configured(tmp_path), 7200, print, life_in=lives(tmp_path, aws=aws))
    assert names(sagemaker()) == set()


def test_a_config_without_an_endpoint_to_deploy_is_refused(tmp_path: Path) -> None:
    start, end = CONFIG.index("endpoint:"), CONFIG.index("payloads:")
    config = configured(tmp_path, CONFIG[:start] + "endpoint: {name: there}\n" + CONFIG[end:])
    with pytest.raises(InputError, match=r"deploy\.yaml:\d+: experiments: no endpoint to deploy"):
        deploying.deploy(config, 7200, print)


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("arn:aws:iam::123456789012:role/endpoint", "some-role-of-some-account", "role: .* is not a role's ARN"),
        ("model: org/model", "environment: {HF_TOKEN: abc}", "environment.HF_TOKEN: looks like a secret"),
        ("model: org/model", "modle: org/model", "did you mean model"),
    ],
)
def test_what_cannot_be_deployed_is_named(old: str, new: str, wanted: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=wanted):
        configured(tmp_path, CONFIG.replace(old, new))


def as_account(monkeypatch: pytest.MonkeyPatch, account: str) -> None:
    """From here on our credentials are a role's of another account."""
    role = f"arn:aws:iam::{account}:role/other"
    found = boto3.client("sts", region_name=REGION).assume_role(RoleArn=role, RoleSessionName="other")["Credentials"]
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", found["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", found["SecretAccessKey"])
    monkeypatch.setenv("AWS_SESSION_TOKEN", found["SessionToken"])


OTHER = "210987654321"


def test_what_another_accounts_credentials_do_not_find_is_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, said, name = configured(tmp_path), list[str](), endpoint_name("mine", "p3")
    deploying.deploy(config, 7200, print)
    with monkeypatch.context() as there:
        as_account(there, OTHER)
        assert deploying.life_in(REGION, Ear("")).account == OTHER
        before = (tmp_path / "ledger.jsonl").read_bytes()
        wanted = f"{name} was made in {REGION} by account {ACCOUNT}, and this is {REGION} as account {OTHER}"
        with pytest.raises(EndpointError, match=wanted):
            deploying.teardown(config, said.append)
        deploying.gc("mine", REGION, True, said.append)
        assert said == [
            f"{REGION}: {name}: run mine, made by account {ACCOUNT}: not to be seen as {OTHER}, and may be there",
            f"0 billable resources left in {REGION} of account {OTHER}",
        ]
        assert (tmp_path / "ledger.jsonl").read_bytes() == before
    assert len(names(sagemaker())) == 3


def test_the_same_endpoint_in_two_accounts_is_ended_in_each_by_itself(tmp_path: Path) -> None:
    being = life(tmp_path)
    being.deploy(WANTED, life_s=7200)
    for kind in KINDS:
        being.ledger.write(Entry("create", kind, WANTED.name, OTHER, REGION, "mine", START_NS))
    play("teardown", being)
    assert set(being.ledger.open()) == {(OTHER, REGION, kind, WANTED.name) for kind in KINDS}


def test_what_is_not_in_this_region_is_not_gone_from_another(tmp_path: Path) -> None:
    life(tmp_path, aws=sagemaker("eu-west-1")).deploy(deploying.deployments(configured(tmp_path))[0], life_s=7200)
    with pytest.raises(EndpointError, match=f"was made in eu-west-1 by account {ACCOUNT}, and this is {REGION} as"):
        deploying.teardown(configured(tmp_path), print, life_in=lives(tmp_path))
    assert len(names(sagemaker("eu-west-1"))) == 3


class Waiting:
    """A screen and a crew of nobody: each trial takes so long, and sends nothing."""

    def __init__(self, aim: Target, now: Time, trial_s: float) -> None:
        self.posts = [SimpleNamespace(target=aim)]
        self.said: list[str] = []
        self.now, self.trial_s = now, trial_s

    def play(self, *_: object) -> SimpleNamespace:
        self.now.pause(self.trial_s)
        return SimpleNamespace(
            rows=REQUESTS.empty_table(), actors=(), lost=(), loss=None, failure=None, t0_bound_ms=0.2
        )

    def begin(self, trial: Trial) -> None:
        """Nobody looks."""

    def end(self, trial: Trial, rows: pa.Table) -> None:
        """Nobody looks."""

    def say(self, text: str) -> None:
        self.said.append(text)

    def close(self) -> None:
        """Nothing is open."""


def sat(folder: Path, now: Time, load_s: float = 0.0) -> dict[str, Any]:
    """The experiment in run.json of a run that puts its endpoint under load for so long."""
    config = configured(folder)
    matrix, aim = plan(config), target(config, config.experiments[0], None)
    rundir = RunDir.create(folder / f"run-{now.ns}")
    crew: Any = Waiting(aim, now, load_s)
    conductor = Conductor(config, matrix, load_pools(config.payloads, 1, folder), rundir, crew, wall_ns=now)
    conductor._play(crew, config.experiments[0])
    conductor.record()
    [about] = rundir.manifest()["experiments"]
    assert crew.said == []
    return dict(about)


def test_deploying_and_idling_are_counted_once_each_and_the_report_says_what_they_cost(tmp_path: Path) -> None:
    aws, now = sagemaker(), Time()
    statuses = iter(["Creating", "Creating", "InService"])
    aws.meta.events.register(
        "after-call.sagemaker.DescribeEndpoint",
        lambda parsed, **_: parsed.update(EndpointStatus=next(statuses)) if "EndpointName" in parsed else None,
    )
    deploying.deploy(configured(tmp_path), 7200, print, life_in=lives(tmp_path, now, aws))
    now.pause(60.0)
    first = sat(tmp_path, now, load_s=600.0)
    assert (first["deploy_s"], first["idle_s"]) == (20.0, 60.0)
    now.pause(30.0)
    second = sat(tmp_path, now)
    assert (second.get("deploy_s"), second["idle_s"]) == (None, 30.0)
    findings, manifest = reported.small_run()
    told = {key: first[key] for key in ("deploy_s", "idle_s", "price_per_hour", "instance_count")}
    manifest["experiments"][0] |= told
    answer = decide(findings.trials, manifest["criteria"], manifest["report"]["payload"])
    costs = {one.what: (one.seconds, one.usd) for one in spent.lines(look(findings, answer, manifest))}
    assert costs["deploying"] == (20.0, 40.72 * 20.0 / 3600)
    assert costs["idle"] == (60.0, 40.72 * 60.0 / 3600)
    assert "under load, $0.226 deploying and $0.679 idle" in page(findings, answer, manifest)


def test_an_endpoint_that_the_ledger_does_not_know_has_no_deploy_and_no_idle_time(tmp_path: Path) -> None:
    life(tmp_path / "somebody else's").deploy(deploying.deployments(configured(tmp_path))[0], life_s=7200)
    assert not {"deploy_s", "idle_s"} & sat(tmp_path, Time()).keys()
    assert not (tmp_path / "ledger.jsonl").exists()


def test_an_endpoint_of_that_name_in_two_accounts_has_no_history(tmp_path: Path) -> None:
    being = life(tmp_path)
    being.deploy(WANTED, life_s=7200)
    assert [entry.event for entry in being.ledger.history(REGION, WANTED.name)] == ["create", "serves"]
    being.ledger.write(Entry("create", "endpoint", WANTED.name, OTHER, REGION, "mine", START_NS))
    assert being.ledger.history(REGION, WANTED.name) == []
