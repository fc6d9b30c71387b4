"""`ray up cluster.yaml` as it is shipped, against moto: each instance that EC2 is asked for is a host of the lab.

Only what the file says must be set is set. Ray's own autoscaler, on the head, launches the workers; every node gets
its credentials from the metadata service; raybench is installed on each by the file's own commands. `make
test-cluster-aws` runs this file; it skips, and says so, where it may not make namespaces.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cloud import BUCKET, METADATA, URL
from lab import ACCESS_KEY, HOME, HOSTS, ROOT, SECRET_KEY, Lab, lab, why_not
from standing import HERE, JOBS, Cluster, answers_to_strangers, rows_of, serve, told, wait_for_nodes

LAPTOP = {
    "AWS_ENDPOINT_URL": URL,
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "RAY_UP_enable_autoscaler_v2": "1",  # as it is for whoever sets nothing
}
BASHRC = f"export AWS_ENDPOINT_URL={URL} PATH={HOME}/bin:$PATH\n"
SUDO = '#!/bin/sh\necho "$@" >> ~/sudo.log\n'
"""What a node of the lab has instead of sudo, so that no machine is shut down: it writes down what it was asked."""


@dataclass
class Cloud:
    """The stand-in, the machines it was asked for, and what it wrote down."""

    lab: Lab
    process: "subprocess.Popen[str]"
    memory: Path
    placeholders: dict[str, str]
    machines: dict[str, str] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def follow(self) -> None:
        """Brings a host for each instance that begins, and takes it away when the instance ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if not line.startswith("{"):
                self.said.append(line)
                continue
            one = json.loads(line)
            self.states[one["id"]] = one["state"]
            if one["state"] == "running":
                name = f"n{one['address'].rpartition('.')[2]}"
                self.machines[one["id"]] = name
                image(self.lab.home(name) / "bin")
                self.lab.add(name, one["address"], one["key"], BASHRC, own=sys.prefix)
            elif one["id"] in self.machines:
                self.lab.vanish(self.machines.pop(one["id"]))

    def calls(self, action: str = "") -> list[dict[str, Any]]:
        """What was asked for so far, in order."""
        whole, _, _ = self.memory.read_text().rpartition("\n")
        asked = [json.loads(line) for line in whole.splitlines()]
        return [call for call in asked if action in ("", call["action"])]


def image(programs: Path) -> None:
    """What Ubuntu brings along, where a host of the lab must not or need not have it."""
    programs.mkdir(parents=True)
    for name, script in (("sudo", SUDO), ("pip3", "#!/bin/sh\n")):
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)


@contextmanager
def cloud(made: Lab) -> Iterator[Cloud]:
    """The stand-in in this lab, followed for the length of the block."""
    made.call("ctl", "ip", "addr", "add", f"{METADATA}/32", "dev", "br0")
    memory = made.folder / "calls.jsonl"
    process = made.start("ctl", sys.executable, str(HERE / "cloud.py"), str(memory))
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first.startswith("{"), first + process.communicate(timeout=10)[0]
    stands = Cloud(made, process, memory, json.loads(first))
    follower = Thread(target=stands.follow, daemon=True)
    follower.start()
    try:
        yield stands
    finally:
        made.holders["ctl"].kill()  # and with it the stand-in
        follower.join(timeout=30)
        print("the stand-in said:", *stands.said)


@dataclass(frozen=True)
class Launched(Cluster):
    """The cluster that `ray up cluster.yaml` made, and the cloud that it is in."""

    cloud: Cloud
    head: str
    workers: tuple[str, ...]


@pytest.fixture(scope="module")
def launched(request: pytest.FixtureRequest) -> Iterator[Launched]:
    if reason := why_not():
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print(f"\nNO CLUSTER TEST: {reason}; cluster.yaml was not launched")
        pytest.skip(reason)
    with lab(hosts=()) as made, cloud(made) as stands:
        file = made.folder / "cluster.yaml"
        file.write_text(shipped(stands.placeholders))
        truth = serve(made)
        said = made.call("ctl", "ray", "up", str(file), "-y", timeout_s=240, environ=LAPTOP)
        tunnel = made.start("ctl", "ray", "dashboard", str(file), "-p", "8265", environ=LAPTOP)
        wait_for_nodes(made, 3, wait_s=180)
        head, *workers = stands.machines.values()
        yield Launched(made, file, truth, said, stands, head, tuple(workers))
        assert tunnel.poll() is None or not stands.machines


def shipped(placeholders: dict[str, str]) -> str:
    """cluster.yaml, with what it says must be set."""
    text = (ROOT / "cluster.yaml").read_text()
    assert set(re.findall(r"[a-z]+-SET-ME", text)) == set(placeholders)
    for placeholder, value in placeholders.items():
        text = text.replace(placeholder, value)
    return text


def test_a_head_and_the_two_workers_that_it_launched_itself_stand(launched: Launched) -> None:
    assert len(launched.workers) == 2
    first, *rest = launched.cloud.calls("RunInstances")
    assert (first["from"], first["role"]) == (HOSTS["ctl"], "")
    head = (launched.lab.addresses[launched.head], "raybench-head")
    assert {(call["from"], call["role"]) for call in rest} == {head}


def test_ec2_was_asked_for_hardened_nodes_only(launched: Launched) -> None:
    group, subnet = (launched.cloud.placeholders[name] for name in ("sg-SET-ME", "subnet-SET-ME"))
    for kind, call in zip(("head", "worker", "worker"), launched.cloud.calls("RunInstances"), strict=False):
        asked = call["parameters"]
        assert asked["IamInstanceProfile.Name"] == f"raybench-{kind}"
        assert asked["MetadataOptions.HttpTokens"] == "required"
        assert asked["MetadataOptions.HttpPutResponseHopLimit"] == "1"
        assert asked["InstanceInitiatedShutdownBehavior"] == "terminate"
        assert asked["BlockDeviceMapping.1.Ebs.Encrypted"] == "true"
        assert asked["BlockDeviceMapping.1.Ebs.DeleteOnTermination"] == "true"
        assert (asked["SecurityGroupId.1"], asked["SubnetId"]) == (group, subnet)
        assert not [key for key in asked if key.startswith(("SecurityGroupId.2", "NetworkInterface", "UserData"))]
        assert {tags["raybench:cluster"] for tags in tags_of(asked).values()} == {"raybench"}
        assert {"raybench:expires"} <= set(tags_of(asked)["volume"])
        assert tags_of(asked)["instance"]["ray-cluster-name"] == "raybench"


def tags_of(asked: dict[str, str]) -> dict[str, dict[str, str]]:
    """The tags that a launch asks for, by the kind of thing they are for."""
    tags: dict[str, dict[str, str]] = {}
    for key, value in asked.items():
        if found := re.fullmatch(r"(TagSpecification\.\d+)\.(Tag\.\d+)\.Key", key):
            kind = asked[f"{found[1]}.ResourceType"]
            tags.setdefault(kind, {})[value] = asked[f"{found[1]}.{found[2]}.Value"]
    return tags


def test_nobody_made_a_group_a_rule_or_a_role_beside_ours(launched: Launched) -> None:
    made = {"CreateSecurityGroup", "AuthorizeSecurityGroupIngress", "CreateRole", "AttachRolePolicy", "PutRolePolicy"}
    first = launched.cloud.calls().index(launched.cloud.calls("RunInstances")[0])
    assert [call["action"] for call in launched.cloud.calls()[first:] if call["action"] in made] == []
    (rule,) = launched.cloud.calls("AuthorizeSecurityGroupIngress")
    assert not [value for value in rule["parameters"].values() if "/" in value], "a group's members, no addresses"


@pytest.mark.parametrize("kind", ["head", "worker"])
def test_a_role_calls_nothing_that_its_policy_does_not_name(launched: Launched, kind: str) -> None:
    called = {
        f"{call['service']}:{call['action']}"
        for call in launched.cloud.calls()
        if call["role"] == f"raybench-{kind}" and call["service"] != "s3"
    }
    statements = json.loads((ROOT / "deploy" / "iam" / f"{kind}.json").read_text())["Statement"]
    named = {action for one in statements for action in ([one["Action"]], one["Action"])[type(one["Action"]) is list]}
    print(f"{kind}: {sorted(called)}")
    assert called <= named
    assert bool(called) == (kind == "head")


def test_every_node_was_told_to_end_itself_and_has_what_the_file_installs(launched: Launched) -> None:
    where = "import raybench, sys; print(raybench.__file__.startswith(sys.prefix))"
    for name in (launched.head, *launched.workers):
        assert (launched.lab.home(name) / "sudo.log").read_text().splitlines() == ["shutdown -P +720"]
        assert launched.lab.call(name, sys.executable, "-I", "-c", where) == "True\n"
        token = launched.lab.home(name) / ".ray" / "auth_token"
        assert (token.stat().st_mode & 0o777, token.read_text()) == (0o600, launched.lab.token)


def test_no_port_answers_anybody_without_the_token(launched: Launched) -> None:
    for name in (launched.head, *launched.workers):
        assert told(answers_to_strangers(launched.lab, name)) == []


def test_a_submitted_run_measures_from_the_workers_with_their_role(launched: Launched, tmp_path: Path) -> None:
    code, said, run_dir = launched.submit(tmp_path, "5s")
    print(said)
    assert code in (0, 3), said
    rows = rows_of(run_dir)
    assert {row["host"] for row in rows} == {f"rb-{name}" for name in launched.workers}
    assert {row["outcome"] for row in rows} == {"ok"}
    assert {row["request_id"] for row in rows} <= set(launched.arrived())
    assert (run_dir / "report.html").is_file()


WRITE = f"""
import ray
numbers = ray.data.range(1000, override_num_blocks=4).map_batches(lambda batch: batch, num_cpus=1)
numbers.write_parquet("s3://{BUCKET}/raybench/runs/lab/numbers", try_create_dir=False)
"""


READ = f"""
import pyarrow.dataset
rows = pyarrow.dataset.dataset("s3://{BUCKET}/raybench/runs/lab/numbers", format="parquet").to_table()
print(rows["id"].to_numpy().sum())
"""


def test_a_job_leaves_parquet_in_the_bucket(launched: Launched) -> None:
    launched.lab.call("ctl", "ray", "job", "submit", "--address", JOBS, "--", "python", "-c", WRITE, timeout_s=180)
    assert launched.lab.call("ctl", sys.executable, "-c", READ, environ=LAPTOP) == f"{sum(range(1000))}\n"


def test_after_ray_down_no_instance_is_left(launched: Launched) -> None:
    launched.lab.call("ctl", "ray", "down", str(launched.file), "-y", timeout_s=180, environ=LAPTOP)
    assert len(launched.cloud.states) == 3
    assert set(launched.cloud.states.values()) <= {"shutting-down", "terminated"}
