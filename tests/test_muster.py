"""Raising load actors on a real local Ray cluster, for an endpoint of a real simulator; most ceilings are given."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from test_sizing import carrying

from raybench import manifest as manifests
from raybench import targets
from raybench.cluster import environment
from raybench.cluster.monitor import Screen
from raybench.config import Config, load_config
from raybench.datasets import load_pools
from raybench.errors import ClusterError
from raybench.muster import Muster
from raybench.plan import plan
from raybench.selftest import Selftest

pytestmark = pytest.mark.ray

CONFIG = """\
name: big
experiments:
  - name: e
    instance_type: ml.g5.xlarge
    endpoint: {simulate: fixed, overrides: {ttft_s: 0.01, itl_s: 0.01}}
    route: stream
payloads:
  - {name: p, dataset: {synthetic: {prompts: 5, tokens: [10, 30]}}}
loads:
  - {kind: closed, concurrency: 4000, requests: 10}
"""


def config(folder: Path, more: str = "") -> Config:
    path = folder / "big.yaml"
    path.write_text(CONFIG + more)
    return load_config(path)


@pytest.fixture
def muster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Muster, list[Any]]]:
    """A muster of one endpoint, and the crew that it raised at first."""
    environment.prepare(local=True)
    wanted = config(tmp_path, getattr(request, "param", ""))
    matrix, pools = plan(wanted), load_pools(wanted.payloads, wanted.seed, tmp_path)
    about = manifests.begin(wanted, matrix, pools, "run")
    with ExitStack() as stack:
        simulator = stack.enter_context(targets.simulator(wanted, tmp_path / "truth.jsonl"))
        raising = Muster(wanted, matrix, pools, tmp_path / "run", about, Screen())
        raising.check(simulator)
        raising.join("local", stack)
        yield raising, raising.raised()


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_actors_are_added_up_to_the_cores_that_are_there_and_then_the_run_ends(
    muster: tuple[Muster, list[Any]],
) -> None:
    raising, crews = muster
    asked: list[int] = []

    def measured(crews: Any, matrix: Any) -> Selftest:
        asked.append(sum(len(crew.posts) for crew in crews))
        return carrying(2000, 4000)

    (crew,) = raising.enough(crews, measured)
    assert asked == [1, 2], "they measure themselves again, for now they share the cores"
    assert [(post.index, post.actors) for post in crew.posts] == [(0, 2), (1, 2)]
    (noted,) = raising.manifest["experiments"]
    assert [actor["actor"] for actor in noted["actors"]] == ["e-0", "e-1"]
    assert len({actor["pid"] for actor in (*noted["actors"], *crews[0].about)}) == 3
    assert noted["ceiling"]["streams"] == 2000

    with pytest.raises(ClusterError, match=r"2 load actors for closed-4000.*at least 4000, .* 4000 cores for all"):
        raising.enough([crew], lambda crews, matrix: carrying(1, 4000))


@pytest.mark.parametrize("muster", ["fleet: {actors: 1}\n"], indirect=True)
def test_actors_that_the_config_counts_are_not_added_and_too_few_end_the_run(
    muster: tuple[Muster, list[Any]],
) -> None:
    raising, crews = muster
    with pytest.raises(ClusterError, match=r"big\.yaml:11: fleet\.actors: 1 load actor for .*at least 2, "):
        raising.enough(crews, lambda crews, matrix: carrying(2000, 4000))
    assert raising.enough(crews, lambda crews, matrix: carrying(4000)) == crews


CARRIES_ONE = """\
import sys
from functools import partialmethod
from raybench.muster import Muster
from test_sizing import carrying
Muster.enough = partialmethod(Muster.enough, measure=lambda crews, matrix: carrying(1, 4000))
sys.argv[0] = "raybench"
from raybench.cli import main
main()
"""
"""The command on a machine whose load actors carry one stream each: how many they really carry, each machine says."""


def test_a_run_whose_load_is_too_big_ends_with_one_line_before_any_trial_begins(tmp_path: Path) -> None:
    path, run_dir = tmp_path / "big.yaml", tmp_path / "run"
    path.write_text(CONFIG + "fleet: {actors: 1}\n")
    command = [sys.executable, "-c", CARRIES_ONE, "run", str(path), "--out", str(run_dir)]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=180, check=False)
    about = json.loads((run_dir / "run.json").read_text())
    assert ended.returncode == 5
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith(f"raybench: {path}:11: fleet.actors: 1 load actor for closed-4000 on 'e'")
    assert about["experiments"][0]["ceiling"]["streams"] == 1
    assert about["state"] == "failed"
    assert [trial["state"] for trial in about["trials"]] == ["planned"]
    assert not (run_dir / "requests").exists()
