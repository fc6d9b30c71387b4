"""The cluster files as they are shipped: Ray takes them, EC2's own API model takes them, and nothing is left open."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "cluster.yaml", ROOT / "configs" / "cluster-local.yaml"]
POLICIES = sorted((ROOT / "deploy" / "iam").glob("*.json"))
BOTH = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
NODE_TYPES = pytest.mark.parametrize("kind", ["head", "worker"])

FORBIDDEN = {
    "open to the world": r"0\.0\.0\.0/0|::/0",
    "a port on every address": r"(dashboard-host|node-ip-address)[= ]+(0\.0\.0\.0|::)|debugger-external",
    "a managed policy that allows all": r"FullAccess|AdministratorAccess|PowerUser",
    "a secret": r"AKIA[0-9A-Z]{16}|aws_secret|secret_access_key|AUTH_TOKEN\s*[=:]\s*\S|PRIVATE KEY|password",
    "authentication switched off": r"AUTH_MODE=disabled|StrictHostKeyChecking",
    "packages without hashes": r"pip install (?!.*(--require-hashes|--no-deps))",
}
"""What must not stand in a cluster file, and why."""

WITHOUT_RESOURCES = {
    *("ec2:DescribeInstances", "ec2:DescribeInstanceTypes"),
    *("sagemaker:ListModels", "sagemaker:ListEndpointConfigs", "sagemaker:ListEndpoints"),
}
"""Actions for which IAM knows no resource, so that `*` is all one can write."""


def loaded(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return value


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from (str(key), *strings(each))
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)
    else:
        yield str(value)


def node_config(kind: str) -> dict[str, Any]:
    config: dict[str, Any] = loaded(FILES[0])["available_node_types"][kind]["node_config"]
    return config


def wrong(text: str) -> list[str]:
    return [what for what, pattern in FORBIDDEN.items() if re.search(pattern, text, re.IGNORECASE)]


@BOTH
def test_nothing_forbidden_stands_in_a_cluster_file(path: Path) -> None:
    assert [(what, text) for text in strings(loaded(path)) for what in wrong(text)] == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("CidrIp: 0.0.0.0/0", "open to the world"),
        ("ray start --head --dashboard-host=0.0.0.0", "a port on every address"),
        ("arn:aws:iam::aws:policy/AmazonEC2FullAccess", "a managed policy that allows all"),
        ("export RAY_AUTH_TOKEN=abc", "a secret"),
        ("AKIAIOSFODNN7EXAMPLE", "a secret"),
        ("export RAY_AUTH_MODE=disabled", "authentication switched off"),
        ("pip install raybench", "packages without hashes"),
    ],
)
def test_the_scan_finds_what_it_looks_for(text: str, what: str) -> None:
    assert wrong(text) == [what]


@BOTH
def test_ray_takes_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    monkeypatch.chdir(ROOT)
    config = loaded(path)
    validate_config(prepare_config(config) if config["provider"]["type"] == "local" else filled(config))


def filled(config: dict[str, Any]) -> dict[str, Any]:
    """What `prepare_config` does without asking EC2 what its instance types hold; the file says that itself."""
    from ray.autoscaler._private.util import fill_node_type_min_max_workers, fillout_defaults

    config = fillout_defaults(config)
    fill_node_type_min_max_workers(config)  # type: ignore[no-untyped-call]
    return config | {"cluster_synced_files": [], "file_mounts_sync_continuously": False}


@BOTH
def test_every_node_asks_for_the_token_whose_value_is_in_no_file(path: Path) -> None:
    config = loaded(path)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.raybench/token"
    exports = [command for command in config["setup_commands"] if "export " in command]
    assert any("RAY_AUTH_MODE=token" in command and "RAY_worker_niceness=0" in command for command in exports)
    assert not [text for text in strings(config) if re.search(r"[0-9a-f]{32}", text)]


def starts(config: dict[str, Any]) -> list[str]:
    """The commands that start Ray, the head's first."""
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    return [command for command in commands if "ray start" in command]


METRICS = r"^ *export RAY_enable_metrics.*\n"


@BOTH
def test_the_dashboard_listens_on_loopback_and_no_metrics_port_is_opened(path: Path) -> None:
    head, worker = starts(loaded(path))
    assert "ray start --head" in head
    assert "--dashboard-host=127.0.0.1" in head
    assert "export RAY_enable_metrics_collection=0 DASHBOARD_METRIC_PORT=-1 AUTOSCALER_METRIC_PORT=-1;" in head
    assert "export RAY_enable_metrics_collection=0;" in worker


@BOTH
def test_a_cluster_has_metrics_once_the_two_lines_that_forbid_them_are_deleted(path: Path) -> None:
    text, lines = re.subn(METRICS, "", path.read_text("utf-8"), flags=re.MULTILINE)
    assert lines == 2
    opened, shut = yaml.safe_load(text), loaded(path)
    for left, before in zip(starts(opened), starts(shut), strict=True):
        assert left == re.sub(r"export RAY_enable_metrics[^;]*; ", "", before)
        assert subprocess.run(["bash", "-n", "-c", left], capture_output=True, check=True).stderr == b""
    assert not [text for text in strings(opened) if "METRIC" in text.upper()]
    assert opened | {key: shut[key] for key in shut if key.endswith("_start_ray_commands")} == shut


@BOTH
def test_every_ray_is_started_with_what_closes_its_open_paths(path: Path) -> None:
    config = loaded(path)
    assert len(starts(config)) == 2
    for start in starts(config):
        said = re.search(
            r"export PYTHONPATH=\$HOME/(raybench/raybench)/(\S+)\$\{PYTHONPATH:\+:\$PYTHONPATH\}; ray start", start
        )
        assert said is not None
        assert config["file_mounts"][f"~/{said[1]}"] == "./raybench"
        assert (ROOT / "raybench" / said[2] / "sitecustomize.py").is_file()


@BOTH
def test_the_versions_are_those_of_the_lock(path: Path) -> None:
    config = loaded(path)
    assert config["file_mounts"]["~/raybench/requirements.lock"] == "./requirements.lock"
    installs = [command for command in config["setup_commands"] if "pip install" in command]
    assert "--require-hashes --only-binary :all: -r ~/raybench/requirements.lock" in installs[0]
    assert "--no-deps --no-build-isolation ~/raybench" in installs[1]
    locked = re.search(r"^ray(?:\[.*\])?==(\d+)\.(\d+)\.", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked is not None
    assert (int(locked[1]), int(locked[2])) >= (2, 52), "older Rays know no token"


@BOTH
def test_what_is_copied_to_the_nodes_exists_and_is_no_more_than_an_installation_needs(path: Path) -> None:
    mounts = loaded(path)["file_mounts"]
    ours = {local for local in mounts.values() if local.startswith("./")}
    assert ours == {"./requirements.lock", "./pyproject.toml", "./README.md", "./LICENSE", "./raybench"}
    assert all((ROOT / local).exists() for local in ours)


BUILD = "import sys; from flit_core.buildapi import build_wheel; print(build_wheel(sys.argv[1]))"


@BOTH
def test_what_is_copied_is_enough_to_install_from(path: Path, tmp_path: Path) -> None:
    for remote, local in loaded(path)["file_mounts"].items():
        copy = tmp_path / Path(remote).name
        if local == "./raybench":
            shutil.copytree(ROOT / local, copy, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        elif local.startswith("./"):
            shutil.copyfile(ROOT / local, copy)
    built = subprocess.run(
        [sys.executable, "-c", BUILD, "."], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert built.stdout.endswith("-py3-none-any.whl\n")


def test_the_cluster_is_bounded_in_size_and_in_time() -> None:
    config = loaded(FILES[0])
    assert config["max_workers"] <= 8
    assert config["idle_timeout_minutes"] <= 15
    assert config["provider"]["cache_stopped_nodes"] is False
    assert config["initialization_commands"] == ["sudo shutdown -P +720"]


def test_the_nodes_are_reached_inside_the_network_only() -> None:
    provider = loaded(FILES[0])["provider"]
    assert provider["use_internal_ips"] is True
    assert "security_group" not in provider, "Ray would add SSH from everywhere to a group of its own"


@NODE_TYPES
def test_every_node_is_hardened(kind: str) -> None:
    config = node_config(kind)
    assert config["IamInstanceProfile"] == {"Name": f"raybench-{kind}"}
    assert config["SecurityGroupIds"], "else Ray makes a group that lets the world in on port 22"
    assert config["MetadataOptions"] == {
        "HttpEndpoint": "enabled",
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
    }
    for disk in config["BlockDeviceMappings"]:
        assert disk["Ebs"]["Encrypted"] is True
        assert disk["Ebs"]["VolumeType"] == "gp3"
        assert disk["Ebs"]["DeleteOnTermination"] is True
    assert config["InstanceInitiatedShutdownBehavior"] == "terminate"
    for resource in config["TagSpecifications"]:
        assert {tag["Key"] for tag in resource["Tags"]} == {"raybench:cluster", "raybench:expires"}
    assert "KeyName" not in config
    assert "UserData" not in config


@NODE_TYPES
def test_ec2_would_take_what_the_node_asks_for(kind: str) -> None:
    assert complaints(node_config(kind)) == ""


def test_a_misspelt_key_would_be_seen() -> None:
    config = node_config("worker")
    config["MetadataOptions"]["HttpTokenz"] = "required"
    assert "HttpTokenz" in complaints(config)


def complaints(config: dict[str, Any]) -> str:
    """What botocore's model of RunInstances says against a node's config, as Ray would send it."""
    request = {key: value for key, value in config.items() if key != "SubnetIds"}
    request |= {"SubnetId": config["SubnetIds"][0], "MinCount": 1, "MaxCount": 1}
    service = botocore.session.Session().get_service_model("ec2")
    shape = service.operation_model("RunInstances").input_shape
    return str(ParamValidator().validate(request, shape).generate_report())


def statements(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["Statement"]
    return found


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def test_there_is_a_policy_for_each_node_type_and_for_who_deploys() -> None:
    assert [path.stem for path in POLICIES] == ["driver", "head", "trust", "worker"]


def test_a_driver_creates_and_deletes_only_what_carries_the_tags() -> None:
    for statement in statements(ROOT / "deploy/iam/driver.json"):
        for action in listed(statement["Action"]):
            if re.match("sagemaker:(Create|Delete|AddTags)", action):
                wanted = statement["Condition"]["Null"]
                assert "false" in wanted.values()
                assert all(re.match(r"aws:(Request|Resource)Tag/raybench:(run|expires)$", key) for key in wanted)
                assert all(each.endswith("/raybench-*") for each in listed(statement["Resource"]))


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_no_policy_allows_more_than_it_names(path: Path) -> None:
    for statement in statements(path):
        assert statement["Effect"] == "Allow"
        assert not {"NotAction", "NotResource", "NotPrincipal"} & set(statement)
        actions = listed(statement["Action"])
        assert not [action for action in actions if "*" in action]
        if listed(statement.get("Resource", [])) == ["*"]:
            assert set(actions) <= WITHOUT_RESOURCES
            assert "aws:RequestedRegion" in statement["Condition"]["StringEquals"]
        else:
            assert not [r for r in listed(statement.get("Resource", [])) if not re.match(r"arn:aws:[a-z0-9]+:\S+", r)]


def test_a_worker_may_call_the_endpoint_and_write_rows_and_nothing_else() -> None:
    allowed = {
        action for statement in statements(ROOT / "deploy/iam/worker.json") for action in listed(statement["Action"])
    }
    assert allowed == {"sagemaker:InvokeEndpoint", "sagemaker:InvokeEndpointWithResponseStream", "s3:PutObject"}


def test_a_head_launches_ends_and_passes_roles_to_workers_of_its_cluster_only() -> None:
    cluster = loaded(FILES[0])
    by_action = {
        action: statement
        for statement in statements(ROOT / "deploy/iam/head.json")
        for action in listed(statement["Action"])
        if "Condition" in statement or action == "iam:PassRole"
    }
    tag = by_action["ec2:TerminateInstances"]["Condition"]["StringEquals"]["aws:ResourceTag/ray-cluster-name"]
    assert tag == cluster["cluster_name"]
    launch = by_action["ec2:RunInstances"]["Condition"]["StringEquals"]
    assert launch["ec2:InstanceType"] == node_config("worker")["InstanceType"]
    assert by_action["iam:PassRole"]["Resource"].endswith(":role/raybench-worker")


def test_the_files_name_no_home_of_anybody() -> None:
    for path in (*FILES, *POLICIES):
        text = path.read_text()
        assert not re.search(r"/(home|Users|root)/", text)
        assert os.fspath(ROOT) not in text
