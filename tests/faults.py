"""The fault matrix: `python tests/faults.py [ROW …]` plays the tests of each row and prints what came of it.

A row holds where every one of its tests passed; one that nothing tests, or whose tests are skipped, does not count.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KILL_POINTS = 20
"""The least seeds that the faults of whole runs are played with."""

TWO_AT_ONCE = ("-n", "2")
ONE_LAB = "/cluster/"
"""In the path of the tests that stand on three nodes: they are played first, one after another."""


@dataclass(frozen=True)
class Fault:
    """A row: what happens, what is promised then, and the tests that hold it, by file and how their names begin."""

    name: str
    promise: str
    tests: tuple[str, ...] = ()


VIRTUAL, ACTOR, FLEET, RUN = (f"test_faults_{name}.py::test_" for name in ("virtual", "actor", "fleet", "run"))
CLIENT = "test_client_sagemaker.py::test_"
FRAMES = "test_client_eventstream.py::test_"
HTTP = "test_client_http.py::test_"
ENDPOINTS = "test_endpoints.py::test_"
MIRROR, S3 = "test_mirror.py::test_", "test_faults_s3.py::test_"

MATRIX = (
    Fault(
        "actor SIGKILL",
        "0 written rows lost; INVALID lost_rows; a new actor next",
        (f"{VIRTUAL}actor", f"{ACTOR}actor", f"{FLEET}actor"),
    ),
    Fault(
        "node stop",
        "the others go on; INVALID; at most 5 s of rows",
        (
            "cluster/live.py::test_a_run_that_loses_a_worker",
            "cluster/live.py::test_a_vanished",
            "cluster/live.py::test_what_the_run_says",
            "test_placement.py::test_a_worker_that_dies",
            "test_placement.py::test_the_disks_of_lost",
        ),
    ),
    Fault(
        "driver SIGKILL",
        "0 completed rows lost; actors end in 10 s; resume",
        (f"{RUN}driver", "cluster/live.py::test_what_a_killed_conductor"),
    ),
    Fault("head death", "0 shipped rows lost, from S3", (f"{MIRROR}head_death", f"{S3}head_death")),
    Fault("resume twice", "byte-identical, 0 trials played", (f"{RUN}driver", "test_resume.py::test_")),
    Fault(
        "SIGINT",
        "drain of 30 s at most, report, exit 130",
        ("test_run.py::test_an_interrupt", f"{RUN}stopped", f"{VIRTUAL}stopped_load"),
    ),
    Fault("second SIGINT", "at once, one line, rows kept", (f"{RUN}second",)),
    Fault(
        "disk full", "named error, no corrupt file", ("test_run.py::test_a_full_disk", "test_rundir.py::test_a_full")
    ),
    Fault(
        "S3 503 or denied",
        "buffer to the cap, then stop",
        (
            f"{MIRROR}refused",
            f"{S3}a_refusal",
            f"{S3}s3_that_refuses",
            "test_s3.py::test_more_than_may_wait",
            "test_s3.py::test_a_place_that_takes_nothing",
            "test_couriers.py::test_",
        ),
    ),
    Fault(
        "endpoint 500/429/503 (30 %)",
        "counts exact, no hidden retry",
        (f"{VIRTUAL}endpoint_that_fails", "test_errors_on_loopback.py::test_19"),
    ),
    Fault(
        "reset in a stream", "truncated, tokens kept", (f"{VIRTUAL}endpoint_that_cuts", f"{CLIENT}a_broken_stream")
    ),
    Fault(
        "ModelStreamError, InternalStreamFailure",
        "typed outcome",
        (f"{VIRTUAL}endpoint_that_fails", f"{CLIENT}an_exception_frame"),
    ),
    Fault(
        "hang after the first token", "idle timeout", (f"{VIRTUAL}endpoint_that_hangs", f"{HTTP}a_stream_that_stalls")
    ),
    Fault(
        "malformed, bad CRC, too large",
        "protocol_error, memory bounded",
        (
            f"{CLIENT}a_malformed",
            f"{FRAMES}a_frame_with",
            f"{FRAMES}a_frame_too",
            f"{HTTP}what_is_no",
            f"{HTTP}a_response_without_end",
        ),
    ),
    Fault("200 with an error body", "a failure, not 0 tokens", (f"{CLIENT}a_success_",)),
    Fault(
        "credentials expire",
        "refreshed between trials, else named",
        (f"{VIRTUAL}credentials", f"{CLIENT}credentials", "test_errors_on_loopback.py::test_22"),
    ),
    Fault("wall clock +-1 h", "no instant changes", (f"{VIRTUAL}wall_clock", "test_errors_of_load.py::test_6")),
    Fault("CPU hog", "INVALID client_lag", (f"{VIRTUAL}cpu_hog", f"{VIRTUAL}no_cpu_hog")),
    Fault("straggler actor", "rate shortfall shown, +-1 %", (f"{VIRTUAL}straggler",)),
    Fault(
        "crash at each AWS call",
        "gc removes all of it",
        (f"{ENDPOINTS}a_crash", f"{ENDPOINTS}the_crash_points", f"{ENDPOINTS}a_gc_that_crashes"),
    ),
    Fault("gc and foreign endpoints", "untouched", (f"{ENDPOINTS}a_foreign",)),
)


class Watched:
    """A pytest plugin that finds the tests of the matrix, and then keeps how each ended."""

    def __init__(self, matrix: Sequence[Fault]) -> None:
        self.matrix, self.found, self.ended = matrix, list[str](), dict[str, str]()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        wanted = [prefix for fault in self.matrix for prefix in fault.tests]
        ids = [item.nodeid for item in session.items]
        self.found = [one for one in ids if any(name_of(one).startswith(prefix) for prefix in wanted)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = name_of(report.nodeid)
        if report.when == "call" or report.outcome != "passed":
            self.ended[name] = "failed" if self.ended.get(name) == "failed" else report.outcome

    def of(self, fault: Fault) -> Iterator[str]:
        """How the tests of a row ended; `absent` where a prefix has none."""
        for prefix in fault.tests:
            yield from [how for name, how in self.ended.items() if name.startswith(prefix)] or ["absent"]


def name_of(nodeid: str) -> str:
    """A test's name from this folder on."""
    return nodeid.removeprefix("tests/")


def main(*names: str) -> int:
    """0 if every row holds."""
    matrix = [fault for fault in MATRIX if not names or fault.name in names]
    if unknown := set(names) - {fault.name for fault in matrix}:
        print(f"no row {', '.join(sorted(unknown))}; {', '.join(fault.name for fault in MATRIX)}", file=sys.stderr)
        return 2
    watched = Watched(matrix)
    files = sorted({prefix.partition("::")[0] for fault in matrix for prefix in fault.tests})
    points = f"--kill-points={KILL_POINTS}"
    with redirect_stdout(StringIO()) as said:
        pytest.main(["--collect-only", points, *(str(HERE / file) for file in files)], plugins=[watched])
    assert watched.found, said.getvalue()
    first = [one for one in watched.found if ONE_LAB in one]
    rest = [one for one in watched.found if ONE_LAB not in one]
    turns = [(how, played) for how, played in (((), first), (TWO_AT_ONCE, rest)) if played]
    codes = [pytest.main([*how, "--tb=short", points, *played], plugins=[watched]) for how, played in turns]
    held = 0
    print(f"\n{'fault':<40}{'promised':<58}{'tests':>5}  held")
    for fault in matrix:
        ended = list(watched.of(fault))
        holds = bool(ended) and set(ended) == {"passed"}
        held += holds
        worst = next((how for how in ("failed", "absent", "skipped") if how in ended), "not built")
        print(f"{fault.name:<40}{fault.promise:<58}{len(ended):>5}  {'yes' if holds else worst}")
    print(f"{held}/{len(matrix)}")
    return int(any(codes) or held < len(matrix))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
