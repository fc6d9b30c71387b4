"""A signal to deploy, teardown or gc, at any AWS call: real processes, against moto on 127.0.0.1."""

import logging
import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from raybench.config import load_config
from raybench.deploying import deployments
from raybench.endpoints.gc import left_behind
from raybench.endpoints.ledger import Ledger
from raybench.endpoints.lifecycle import Life
from raybench.signals import SIGNALS, heard

REGION, ACCOUNT = "us-west-2", "123456789012"
DEPLOY = 'endpoint: {deploy: {image: "image:1", role: "arn:aws:iam::123456789012:role/endpoint"}}'
CONFIG = f"""
name: mine
region: {REGION}
experiments:
  - {{name: one, instance_type: ml.p3.2xlarge, {DEPLOY}}}
  - {{name: two, instance_type: ml.p3.2xlarge, {DEPLOY}}}
payloads:
  - {{name: short, dataset: {{synthetic: {{prompts: 4}}}}, tokens: [10, 20]}}
loads:
  - {{kind: closed, concurrency: 1, duration: 10s}}
"""
FAST = """
from dataclasses import replace
from functools import partial
from raybench import cli, deploying

def life_in(*asked):
    return replace(deploying.life_in(*asked), poll_s=0.05)

deploying.deploy = partial(deploying.deploy, life_in=life_in)
deploying.teardown = partial(deploying.teardown, life_in=life_in)
deploying.gc = partial(deploying.gc, life_in=life_in)
cli.main()
"""
"""The program as it is, but for how long it waits between two looks."""


class Cloud:
    """moto, which at given calls of SageMaker signals the process that calls, before or after it does as asked."""

    def __init__(self) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self.server = make_server("127.0.0.1", 0, self, threaded=True)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.calls: list[str] = []
        self.at: dict[int, tuple[str, signal.Signals]] = {}
        self.process: subprocess.Popen[str] | None = None
        self.started = threading.Event()
        self.creating = False

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        target = str(environ.get("HTTP_X_AMZ_TARGET", ""))
        if not target.startswith("SageMaker."):
            answer: Iterable[bytes] = self._moto(environ, start)
            return answer
        when, number = self.at.get(len(self.calls), ("", signal.SIGTERM))
        self.calls.append(target.removeprefix("SageMaker."))
        self.started.wait(30)
        assert self.process
        if when == "before":
            self.process.send_signal(number)
        body = b"".join(self._moto(environ, start))
        if when == "after":
            self.process.send_signal(number)
        if self.creating and target == "SageMaker.DescribeEndpoint":
            body = body.replace(b"InService", b"Creating ")
        return [body]

    def play(self, at: Mapping[int, tuple[str, signal.Signals]], *verb: str) -> tuple[int, str, str]:
        """Runs a verb, with signals at those calls: its exit code, and what it said on stdout and stderr."""
        self.calls, self.at = [], dict(at)
        self.started.clear()
        arguments = [sys.executable, "-c", FAST, *verb]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.started.set()
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cloud]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with mock_aws():
        found = Cloud()
        monkeypatch.setenv("RAYBENCH_LEDGER", str(tmp_path / "ledger.jsonl"))
        monkeypatch.setenv("AWS_ENDPOINT_URL", found.url)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        (tmp_path / "deploy.yaml").write_text(CONFIG)
        thread = threading.Thread(target=found.server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield found
        finally:
            found.server.shutdown()
            found.server.server_close()
            thread.join()


def sagemaker() -> Any:
    return boto3.client("sagemaker", region_name=REGION, endpoint_url=f"https://api.sagemaker.{REGION}.amazonaws.com")


def life(folder: Path) -> Life:
    return Life(sagemaker(), ACCOUNT, Ledger(folder / "ledger.jsonl"), pause=lambda _: None)


def deployed(folder: Path) -> Life:
    being = life(folder)
    being.deploy(*deployments(load_config(folder / "deploy.yaml")), life_s=7200)
    return being


def there() -> set[str]:
    """Everything that the account has, as `raybench` says it."""
    aws = sagemaker()
    return (
        {f"endpoint {each['EndpointName']}" for each in aws.list_endpoints()["Endpoints"]}
        | {f"endpoint-config {each['EndpointConfigName']}" for each in aws.list_endpoint_configs()["EndpointConfigs"]}
        | {f"model {each['ModelName']}" for each in aws.list_models()["Models"]}
    )


def named(line: str) -> set[str]:
    """The resources that a sentence says may be left."""
    return set(re.findall(r"(?:endpoint|endpoint-config|model) raybench-[a-z0-9-]+", line))


DRAW = random.Random(30)
FIRST = [(k, DRAW.choice(["before", "after"]), DRAW.choice([signal.SIGTERM, signal.SIGINT])) for k in range(1, 12, 2)]


@pytest.mark.parametrize(("k", "when", "number"), [*FIRST, (8, "before", signal.SIGHUP)])
def test_a_signal_to_deploy_undoes_all_that_it_made(
    k: int, when: str, number: signal.Signals, cloud: Cloud, tmp_path: Path
) -> None:
    cloud.creating = True
    code, _, err = cloud.play({k: (when, number)}, "deploy", str(tmp_path / "deploy.yaml"))
    assert (code, there(), life(tmp_path).ledger.open()) == (130, set(), {})
    first, last = err.splitlines()
    assert first == "raybench: stopping: deleting what was made (again to stop at once)"
    assert re.fullmatch("raybench: interrupted; nothing is left of raybench-mine-one-.*, raybench-mine-two-.*", last)


def test_all_endpoints_are_asked_for_before_any_is_waited_for(cloud: Cloud, tmp_path: Path) -> None:
    code, out, _ = cloud.play({}, "deploy", str(tmp_path / "deploy.yaml"))
    assert (code, out.count("in service; costs until")) == (0, 2)
    assert cloud.calls[2:] == ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"] * 2 + ["DescribeEndpoint"] * 2


@pytest.mark.parametrize(("k", "again"), [(5, 6), (9, 10), (9, 12)])
def test_a_second_signal_to_deploy_says_what_may_be_left_and_gc_removes_it(
    k: int, again: int, cloud: Cloud, tmp_path: Path
) -> None:
    cloud.creating = True
    at = {k: ("after", signal.SIGTERM), again: ("before", signal.SIGTERM)}
    code, _, err = cloud.play(at, "deploy", str(tmp_path / "deploy.yaml"))
    assert code == 130
    assert len(cloud.calls) == again + 1
    assert there() <= named(err)
    assert there()
    assert err.endswith("; `raybench gc --run mine --yes` removes it\n")
    being = life(tmp_path)
    assert being.end(left_behind(being, "mine")) == []
    assert there() == set()


@pytest.mark.parametrize("verb", ["teardown", "gc"])
@pytest.mark.parametrize("signals", [1, 2])
@pytest.mark.parametrize("seed", range(2))
def test_a_signal_to_a_deletion_tells_what_it_leaves_and_the_next_one_ends_it(
    verb: str, signals: int, seed: int, cloud: Cloud, tmp_path: Path
) -> None:
    being = deployed(tmp_path)
    asked = (
        [verb, str(tmp_path / "deploy.yaml")]
        if verb == "teardown"
        else ["gc", "--run", "mine", "--region", REGION, "--yes"]
    )
    k = random.Random(seed).randrange(*{"teardown": (0, 12), "gc": (10, 20)}[verb])
    at = {k + n: ("before", signal.SIGTERM) for n in range(signals)}
    code, _, err = cloud.play(at, *asked)
    assert code == 130, err
    assert there() <= named(err)
    assert there()
    assert "`raybench gc --run mine --yes`" in err
    assert being.end(left_behind(being, "mine")) == []
    assert there() == set()


def test_what_a_process_ignores_stays_ignored_and_its_handlers_come_back() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        handlers = [signal.getsignal(number) for number in SIGNALS]
        with heard("stopping") as ear:
            os.kill(os.getpid(), signal.SIGHUP)
            ear.check()
            os.kill(os.getpid(), signal.SIGTERM)
            ear.pause(0.0)
            with pytest.raises(KeyboardInterrupt):
                ear.check()
            ear.close()
            os.kill(os.getpid(), signal.SIGTERM)
        assert [signal.getsignal(number) for number in SIGNALS] == handlers
    finally:
        signal.signal(signal.SIGHUP, before)
