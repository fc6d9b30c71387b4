"""CI runs the cluster's test where it may make namespaces, and says loudly where it may not."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / ".ci" / "run"


def ran(folder: Path, asked: str, made: str = "exit 0") -> tuple[int, str, list[str]]:
    """Runs CI where `python tests/cluster/lab.py` does `asked` and make `made`: exit code, stderr, what was made."""
    (folder / ".ci").mkdir()
    (folder / "programs").mkdir()
    (folder / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(RUN, folder / ".ci" / "run")
    for path, does in ((".venv/bin/python", asked), ("programs/make", f'echo "$@" >> made; {made}')):
        (folder / path).write_text(f"#!/bin/sh\n{does}\n")
        (folder / path).chmod(0o755)
    environ = {**os.environ, "PATH": f"{folder}/programs:{os.environ['PATH']}"}
    done = subprocess.run([folder / ".ci" / "run"], env=environ, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr, (folder / "made").read_text().splitlines()


FIRST = ".venv/dev cluster-tools chromium"


def test_where_namespaces_may_be_made_the_cluster_is_tested_beside_the_rest(tmp_path: Path) -> None:
    code, said, (first, *rest) = ran(tmp_path, "exit 0")
    assert (code, said, first, sorted(rest)) == (0, "", FIRST, ["test", "test-cluster"])


def test_where_they_may_not_one_line_says_why_and_what_was_not_tested(tmp_path: Path) -> None:
    code, said, made = ran(tmp_path, "echo it needs root >&2; exit 1")
    assert (code, made) == (0, [FIRST, "test"])
    assert said.startswith("NO CLUSTER TEST: it needs root;")
    assert said.count("\n") == 1


@pytest.mark.parametrize("fails", ["test", "test-cluster"])
def test_what_fails_is_never_passed_over_nor_keeps_the_other_from_being_played(tmp_path: Path, fails: str) -> None:
    code, _, (first, *rest) = ran(tmp_path, "exit 0", made=f'[ "$1" != {fails} ]')
    assert (code, first, sorted(rest)) == (1, FIRST, ["test", "test-cluster"])


def test_nothing_is_played_where_the_installation_fails(tmp_path: Path) -> None:
    code, _, made = ran(tmp_path, "exit 0", made="exit 2")
    assert (code, made) == (2, [FIRST])
