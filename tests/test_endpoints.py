"""Endpoints of our own: what is made is found again after any crash, billed whole, and nobody else's is touched."""

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ConnectionClosedError
from botocore.stub import Stubber
from moto import mock_aws

from raybench import deploying
from raybench.config import Config, load_config
from raybench.endpoints.bill import bill_usd
from raybench.endpoints.gc import Left, collect, left_behind
from raybench.endpoints.ledger import KINDS, Entry, Ledger
from raybench.endpoints.lifecycle import EXPIRES_TAG, RUN_TAG, Deployment, Life, endpoint_name
from raybench.errors import EndpointError, InputError, InterruptedRunError, StorageError
from raybench.specs import DeployedEndpoint
from raybench.targets import target

REGION = "us-west-2"
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
    return Life(aws or sagemaker(), Ledger(folder / "ledger.jsonl"), now, now.pause)


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
        life(folder).deploy(WANTED)
    play(verb, life(folder, aws=aws))
    return len(seen)


def play(verb: str, being: Life) -> None:
    if verb == "deploy":
        being.deploy(WANTED)
    else:
        for kind in KINDS:
            being.delete(kind, WANTED.name, WANTED.run)


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
        life(tmp_path).deploy(WANTED)
    with pytest.raises(Crash):
        play(verb, life(tmp_path, aws=crashing(k, when)))
    fresh = life(tmp_path, Time(START_NS + 3 * 3600 * 10**9))
    run = "mine" if by == "run" else None
    assert collect(fresh, left_behind(fresh, run)) == []
    assert left_behind(fresh, run) == []
    assert names(sagemaker()) == others


def sweep_on(being: Life) -> None:
    while True:
        collect(being, left_behind(being, "mine"))


def test_a_gc_that_crashes_itself_is_finished_by_the_next(tmp_path: Path) -> None:
    others, random_ = crowd(sagemaker()), random.Random(7)
    for _ in range(20):
        life(tmp_path).deploy(WANTED)
        broken = life(tmp_path, aws=crashing(random_.randrange(12, 36), random_.choice(["before", "after"])))
        with pytest.raises(Crash):
            sweep_on(broken)
        collect(life(tmp_path), left_behind(life(tmp_path), "mine"))
        assert names(sagemaker()) == others


def test_a_foreign_endpoint_is_never_deleted_by_gc_whatever_it_is_called(tmp_path: Path) -> None:
    aws, deleted = sagemaker(), []
    others = crowd(aws)
    aws.meta.events.register("before-call.sagemaker", lambda model, **_: deleted.append(model.name))
    being = life(tmp_path, aws=aws)
    for name in FOREIGN:  # not even when the ledger names it
        being.ledger.write(Entry("create", "endpoint", name, REGION, "mine", START_NS))
    for run in (None, "mine", "nobody"):
        found = left_behind(being, run)
        assert (found, collect(being, found)) == ([], [])
    assert names(aws) == others
    assert not [name for name in deleted if name.startswith("Delete")]


def test_a_foreign_endpoint_that_took_a_name_between_finding_and_deleting_stays(tmp_path: Path) -> None:
    plant(sagemaker(), "taken", {})
    failures = collect(life(tmp_path), [Left("endpoint", "taken", "mine", LONG_AGO, "expired")])
    assert [str(failure) for failure in failures] == ["endpoint taken does not carry raybench's tags: left alone"]
    assert ("endpoint", "taken") in names(sagemaker())


def test_teardown_leaves_an_endpoint_of_another_run_alone(tmp_path: Path) -> None:
    plant(sagemaker(), WANTED.name, {RUN_TAG: "other", EXPIRES_TAG: FAR})
    with pytest.raises(EndpointError, match="belongs to the run other: left alone"):
        life(tmp_path).delete("endpoint", WANTED.name, "mine")
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
    being.deploy(WANTED)
    assert seen == [
        ("CreateModel", ["model"]),
        ("CreateEndpointConfig", ["model", "endpoint-config"]),
        ("CreateEndpoint", ["model", "endpoint-config", "endpoint"]),
    ]


def test_a_ledger_that_cannot_be_written_creates_nothing(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").mkdir()
    with pytest.raises(StorageError, match="cannot keep the ledger"):
        life(tmp_path).deploy(WANTED)
    assert names(sagemaker()) == set()


def test_a_torn_line_of_the_ledger_costs_no_other_line(tmp_path: Path) -> None:
    whole = Entry("create", "model", "a", REGION, "mine", 1)
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
            life(tmp_path, aws=aws).deploy(WANTED)
        stub.assert_no_pending_responses()


def test_an_endpoint_that_never_serves_is_given_up_at_the_deadline_and_deleted(tmp_path: Path) -> None:
    aws = sagemaker()
    with Stubber(aws) as stub:
        expect_creates(stub)
        for _ in range(4):
            stub.add_response("describe_endpoint", described("Creating"))
        expect_deletion(stub, "Creating")
        expect_the_rest_deleted(stub)
        with pytest.raises(EndpointError, match="is still Creating after 30 s"):
            life(tmp_path, aws=aws).deploy(WANTED, wait_s=30)
        stub.assert_no_pending_responses()


@pytest.mark.parametrize("status", ["Creating", "Failed", "InService", "OutOfService", "RollingBack"])
def test_an_endpoint_is_deleted_in_any_status(status: str, tmp_path: Path) -> None:
    aws = sagemaker()
    with Stubber(aws) as stub:
        expect_deletion(stub, status)
        life(tmp_path, aws=aws).delete("endpoint", WANTED.name, "mine")
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
        life(tmp_path, aws=aws).delete("endpoint", WANTED.name, "mine")
        stub.assert_no_pending_responses()


def test_a_deletion_that_is_denied_is_an_error_and_not_taken_for_gone(tmp_path: Path) -> None:
    aws = sagemaker()
    with Stubber(aws) as stub:
        stub.add_client_error("describe_endpoint", "AccessDeniedException", "no")
        with pytest.raises(EndpointError, match="AccessDenied"):
            life(tmp_path, aws=aws).delete("endpoint", WANTED.name, "mine")


def test_an_endpoint_that_cannot_be_deleted_keeps_its_config_and_model(tmp_path: Path) -> None:
    being = life(tmp_path)
    being.deploy(WANTED)

    def refused(model: Any, **of: Any) -> None:
        raise ConnectionClosedError(endpoint_url="x")

    being.aws.meta.events.register("before-call.sagemaker.DeleteEndpoint", refused)
    failures = collect(being, left_behind(being, "mine"))
    assert len(failures) == 1
    assert {kind for kind, _ in names(sagemaker())} == {"endpoint", "endpoint-config", "model"}


@pytest.mark.parametrize("lost", ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"])
def test_a_create_whose_answer_is_lost_is_deleted_again(lost: str, tmp_path: Path) -> None:
    aws = sagemaker()

    def lose(**_: Any) -> None:
        raise ConnectionClosedError(endpoint_url="https://somewhere")

    aws.meta.events.register(f"after-call.sagemaker.{lost}", lose)
    with pytest.raises(EndpointError, match="Connection was closed"):
        life(tmp_path, aws=aws).deploy(WANTED)
    assert names(sagemaker()) == set()


def test_what_a_failed_deployment_could_not_delete_is_told_with_the_way_out(tmp_path: Path) -> None:
    aws = sagemaker()
    with Stubber(aws) as stub:
        expect_creates(stub)
        stub.add_response("describe_endpoint", described("Failed", FailureReason="no capacity"))
        stub.add_client_error("describe_endpoint", "AccessDeniedException", "no")
        with pytest.raises(EndpointError, match=r"no capacity; endpoint may be left: .*gc --run mine --yes"):
            life(tmp_path, aws=aws).deploy(WANTED)
        stub.assert_no_pending_responses()


def test_a_model_of_that_name_that_somebody_has_stays(tmp_path: Path) -> None:
    aws = sagemaker()
    with Stubber(aws) as stub:
        stub.add_client_error("describe_endpoint", "ValidationException", "Could not find endpoint")
        stub.add_client_error("create_model", "ValidationException", "Cannot create already existing model")
        with pytest.raises(EndpointError, match="removes what a crash left"):
            life(tmp_path, aws=aws).deploy(WANTED)
        stub.assert_no_pending_responses()


def test_deleting_twice_is_deleting_once(tmp_path: Path) -> None:
    being = life(tmp_path)
    being.deploy(WANTED)
    play("teardown", being)
    play("teardown", being)
    assert (names(sagemaker()), being.ledger.open()) == (set(), {})


def test_an_endpoint_that_is_there_already_is_not_deployed_over_nor_deleted(tmp_path: Path) -> None:
    life(tmp_path).deploy(WANTED)
    with pytest.raises(EndpointError, match="is there already"):
        life(tmp_path).deploy(WANTED)
    assert len(names(sagemaker())) == 3


def test_21_the_bill_runs_from_create_to_delete_exactly(tmp_path: Path) -> None:
    now = Time()
    being = life(tmp_path, now)
    being.deploy(WANTED)
    now.pause(5400)
    created = being.delete("endpoint", WANTED.name, "mine")
    assert created is not None
    assert created.at_ns == START_NS
    assert now.ns == START_NS + 5_410 * 10**9  # until it is seen to be gone
    assert bill_usd(created, START_NS + 5400 * 10**9) == Decimal("61.08")
    draw = random.Random(21)
    for _ in range(200):
        ns, hourly = draw.randrange(10**15), Decimal(draw.randrange(1, 10**6)) / 10**4
        one = Entry(
            "create", "endpoint", "e", REGION, "r", 0, instances=draw.randrange(1, 99), usd_per_hour=str(hourly)
        )
        found = bill_usd(one, ns * 9)
        assert found is not None
        assert Fraction(found) == one.instances * Fraction(hourly) * ns * 9 / (3600 * 10**9) or len(str(found)) > 55


def test_21_a_bill_of_test_time_alone_is_caught(tmp_path: Path) -> None:
    created = Entry("create", "endpoint", "e", REGION, "r", START_NS, instances=1, usd_per_hour="20.36")
    whole, tested = bill_usd(created, START_NS + 3600 * 10**9), Decimal("20.36") * 60 / 3600
    assert whole == Decimal("20.36")
    assert whole != tested


def test_an_endpoint_without_a_price_has_no_bill() -> None:
    assert bill_usd(Entry("create", "endpoint", "e", REGION, "r", 0, instances=1), 10**15) is None


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
        assert (REGION, kind, name) in ledger.open()


@pytest.fixture
def given_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Time:
    """A clock for the verbs, whose waits cost no time."""
    now = Time()
    monkeypatch.setattr(
        deploying, "life_in", lambda region: life(tmp_path, now, sagemaker(region) if region else sagemaker())
    )
    return now


@pytest.mark.usefixtures("given_time")
def test_gc_tells_first_deletes_when_told_and_counts_again(tmp_path: Path) -> None:
    life(tmp_path).deploy(WANTED)
    looked, said = list[str](), list[str]()
    deploying.gc("other", REGION, True, looked.append)
    assert looked == [f"0 billable resources left in {REGION}"]
    deploying.gc("mine", REGION, False, said.append)
    assert len(said) == 4
    assert said[-1] == f"1 billable resources left in {REGION}; --yes deletes them"
    assert len(names(sagemaker())) == 3
    deploying.gc("mine", REGION, True, said.append)
    assert said[-1] == f"0 billable resources left in {REGION}"
    assert names(sagemaker()) == set()


def test_gc_looks_in_every_region_of_the_ledger(tmp_path: Path, given_time: Time) -> None:
    Life(sagemaker("eu-west-1"), Ledger(tmp_path / "ledger.jsonl"), given_time, given_time.pause).deploy(WANTED)
    said = list[str]()
    deploying.gc("mine", None, True, said.append)
    assert said[-1] == f"0 billable resources left in {REGION}, eu-west-1"
    assert names(sagemaker("eu-west-1")) == set()


def test_teardown_tells_what_it_cost_from_create_to_delete(tmp_path: Path, given_time: Time) -> None:
    config, said = configured(tmp_path), list[str]()
    deploying.deploy(config, 7200, said.append)
    given_time.pause(5390)  # and 10 s until it is seen to be gone
    deploying.teardown(config, said.append)
    name = endpoint_name("mine", "p3")
    assert said[-1] == f"{name}: gone; 1.50 h from create to delete, $61.0800"
    assert names(sagemaker()) == set()
    deploying.teardown(config, said.append)
    assert said[-1] == f"{name}: gone; the ledger has no open create of it, so no bill"


def test_teardown_ends_only_what_was_deployed_from_here(tmp_path: Path, given_time: Time) -> None:
    told: list[str] = []
    being = life(tmp_path / "somebody else's", given_time)
    config = configured(tmp_path)
    being.deploy(deploying.deployments(config)[0])
    with pytest.raises(EndpointError, match="was not deployed from here; `raybench gc --run mine --yes`"):
        deploying.teardown(config, told.append)
    assert ("endpoint", endpoint_name("mine", "p3")) in names(sagemaker())


def test_a_run_on_what_is_not_deployed_says_so_and_one_that_is_calls_it(tmp_path: Path, given_time: Time) -> None:
    config = configured(tmp_path)
    with pytest.raises(EndpointError, match="is not there; `raybench deploy") as caught:
        target(config, config.experiments[0], None)
    assert caught.value.exit_code == 5
    deploying.deploy(config, 7200, print)
    assert target(config, config.experiments[0], None).endpoint == endpoint_name("mine", "p3")


def test_an_interrupt_while_waiting_deletes_what_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, aws = Time(), sagemaker()

    def interrupt(**_: Any) -> None:
        if names(sagemaker()):
            aws.meta.events.unregister("before-call.sagemaker.DescribeEndpoint", interrupt)
            raise KeyboardInterrupt

    aws.meta.events.register("before-call.sagemaker.DescribeEndpoint", interrupt)
    monkeypatch.setattr(deploying, "life_in", lambda region: life(tmp_path, now, aws))
    with pytest.raises(InterruptedRunError, match=r"interrupted; .* is deleted"):
        deploying.deploy(configured(tmp_path), 7200, print)
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
