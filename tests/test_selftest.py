"""Selftest: made rows against a made truth, with known answers; then real actors against a real simulator."""

import ctypes
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from made import OPEN, failed, loop, manifest, numbers, row, table, trial, unsent
from reported import small_run

from raybench.analysis.decide import decide
from raybench.analysis.reduce import reduce_trial
from raybench.client.target import Target
from raybench.cluster import environment
from raybench.cluster.calibration import Calibration, Errors, Figures, Rung, figures
from raybench.cluster.part import Post
from raybench.load.arrivals import Closed, Load, Poisson
from raybench.plan import Plan, Trial
from raybench.report.trust import checks
from raybench.report.view import look
from raybench.rows import Row
from raybench.selftest import Ceiling, Limit, Measured, Selftest, before, climb, largest, note
from raybench.selftest_text import line, text

MS = 1_000_000
T0_NS = 7_000_000_000
TOLD = {"cpu_share": 0.1, "lag_p99_ms": 1.0, "simulator_cpu_share": 0.2, "simulator_lag_p99_ms": 1.0}


def answered(seq: int, planned: float, **other: Any) -> Row:
    """A stream of three chunks, planned when it was sent, ended 1 ms after its last chunk."""
    chunks = [planned + 0.1, planned + 0.12, planned + 0.14]
    return row(seq, planned, planned, planned + 0.141, chunks=chunks, request_id=f"r{seq}", **other)


def record(one: Row, late_ms: Sequence[float] = (1, 2, 3), end_ms: float = 4) -> dict[str, Any]:
    """What the server wrote of it: it had sent each chunk so many ms before the client stamped it."""
    chunks = [[T0_NS + ns - int(ms * MS), 1] for ns, ms in zip(one.chunk_ns, late_ms, strict=True)]
    return {"request_id": one.request_id, "chunks": chunks, "ended_ns": T0_NS + (one.end_ns or 0) - int(end_ms * MS)}


def measure(rows: Sequence[Row], records: Sequence[dict[str, Any]]) -> Figures:
    return figures(Rung(2, 1.0), table(rows), {one["request_id"]: one for one in records}, T0_NS, TOLD)


def test_an_error_is_the_clients_stamp_less_the_servers() -> None:
    rows = [answered(0, 0.5), answered(1, 0.7)]
    found = measure(rows, [record(rows[0]), record(rows[1], (5, 6, 7), 8)])
    assert (found.requests, found.failed) == (2, 0)
    assert found.ttft == Errors(2, 1.0, 1.0, 5.0, 5.0)
    assert found.chunk == Errors(6, 1.0, 3.0, 7.0, 7.0)
    assert found.end == Errors(2, 4.0, 4.0, 8.0, 8.0)


def test_percentiles_are_the_values_at_their_rank() -> None:
    assert Errors.of([ms * MS for ms in range(100, 0, -1)]) == Errors(100, 1.0, 50.0, 99.0, 100.0)
    assert Errors.of([]) == Errors()


def test_only_what_was_planned_in_the_window_is_held_against_the_truth_but_all_of_it_is_load() -> None:
    rows = [answered(0, 0.45, phase="warmup"), answered(1, 0.6), answered(2, 1.49, phase="drain")]
    found = measure(rows, [record(one, (9, 9, 9) if one.seq != 1 else (1, 1, 1)) for one in rows])
    assert (found.requests, found.ttft.max_ms) == (1, 1.0)
    assert found.sent_per_s == 2.0, "the window is [0.5, 1.5) s"
    assert found.chunks_per_s == 6.0, "three of the first request, three of the second, none of the third"


def test_a_stream_that_failed_or_that_the_server_knows_otherwise_is_counted_and_never_measured() -> None:
    rows = [answered(0, 0.5), answered(1, 0.6), failed(2, 0.7), unsent(3, 0.8), answered(4, 0.9)]
    cut = record(rows[4])
    cut["chunks"] = cut["chunks"][:2]
    found = measure(rows, [record(rows[0]), cut])
    assert (found.requests, found.failed, found.ttft.number) == (5, 4, 1)


def test_planned_and_sent_rates_and_lateness_are_kept_apart() -> None:
    rows = [answered(n, 0.5 + n / 10) for n in range(10)]
    late = [one._replace(planned_ns=one.planned_ns - 3 * MS) for one in rows]
    found = measure(late, [record(one) for one in rows])
    assert (found.planned_per_s, found.sent_per_s) == (9.0, 10.0), "the first was due before the window"
    assert found.lateness_p99_ms == 3.0


def rung(streams: int = 64, p99_ms: float | None = 1.0, **other: Any) -> Figures:
    """A rung that passed, unless told otherwise."""
    errors = Errors() if p99_ms is None else Errors(100, 0.1, 0.2, p99_ms, p99_ms)
    good: dict[str, Any] = {
        "streams": streams,
        "requests": 100,
        "failed": 0,
        "ttft": errors,
        "chunk": errors,
        "end": errors,
        "planned_per_s": 2.0 * streams,
        "sent_per_s": 2.0 * streams,
        "lateness_p99_ms": 0.5,
        "chunks_per_s": 50.0 * streams,
    }
    return Figures(**good | TOLD | other)


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        ({"p99_ms": 5.0}, True),
        ({"p99_ms": 5.01}, False),
        ({"p99_ms": None}, False),
        ({"chunk": Errors(2500, 0.1, 0.2, 180.0, 200.0)}, False),
        ({"failed": 1}, False),
        ({"chunks_per_s": 0.96 * 3200}, True),
        ({"chunks_per_s": 0.94 * 3200}, False),
    ],
)
def test_a_rung_passes_with_good_stamps_whole_streams_and_the_whole_load(
    change: dict[str, Any], passes: bool
) -> None:
    assert rung(**change).passes is passes


def ceiling(*rungs: Figures) -> Ceiling:
    return Measured("e", "e-0", "h", rungs).ceiling


def test_the_ceiling_is_the_highest_rung_that_passes() -> None:
    assert ceiling(rung(16), rung(64), rung(128, 9.0)) == Ceiling(64, 3200.0, Limit.CLIENT, 9.0)
    assert ceiling(rung(16), rung(64)) == Ceiling(64, 3200.0, Limit.UNTESTED)
    assert ceiling(rung(1, 6.0), rung(16)) == Ceiling(16, 800.0, Limit.UNTESTED), "what passed once can be done"
    assert ceiling(rung(16, 7.0), rung(64, 30.0)) == Ceiling(0, 0.0, Limit.CLIENT, 7.0)


@pytest.mark.parametrize("slow", [{"simulator_cpu_share": 0.97}, {"simulator_lag_p99_ms": 12.0}])
def test_a_slow_simulator_is_never_read_as_a_slow_client(slow: dict[str, float]) -> None:
    assert ceiling(rung(64), rung(128, 40.0, **slow)) == Ceiling(64, 3200.0, Limit.SIMULATOR)
    assert ceiling(rung(64, 40.0, **slow), rung(128, 90.0)) == Ceiling(0, 0.0, Limit.CLIENT, 90.0)


def test_the_weakest_actor_is_the_ceiling_of_all() -> None:
    strong, weak = Measured("e", "e-0", "h", (rung(64),)), Measured("e", "e-1", "h", (rung(16), rung(64, 9.0)))
    hidden = Measured("e", "e-2", "h", (rung(64, 9.0, simulator_cpu_share=1.0),))
    assert Selftest((strong, weak)).ceiling.streams == 16
    assert Selftest((hidden, weak, strong)).ceiling.limit is Limit.CLIENT
    assert Selftest((strong, hidden)).ceiling.limit is Limit.SIMULATOR


class Played:
    """Plays rungs from a list and remembers which were asked for."""

    def __init__(self, *answers: Sequence[Figures]) -> None:
        self.answers, self.asked = list(answers), list[int]()

    def __call__(self, asked: Rung) -> Sequence[Figures]:
        self.asked.append(asked.streams)
        return self.answers.pop(0)


def test_a_rung_that_failed_is_tried_again_and_each_actors_best_attempt_counts() -> None:
    play = Played([rung(8, 9.0), rung(8, 1.0)], [rung(8, 2.0), rung(8, 7.0)])
    assert climb(iter([(Rung(8, 1.0), 3)]), play, until_passed=True) == [(rung(8, 2.0),), (rung(8, 1.0),)]
    assert play.asked == [8, 8]


def test_before_a_run_lower_rungs_are_played_only_until_one_passes() -> None:
    way = [(Rung(64, 1.0), 2), (Rung(16, 1.0), 1), (Rung(4, 1.0), 1)]
    play = Played([rung(64, 9.0)], [rung(64, 8.0)], [rung(16)])
    (climbed,) = climb(iter(way), play, until_passed=True)
    assert play.asked == [64, 64, 16]
    assert [each.streams for each in climbed] == [16, 64], "fewest first"
    assert ceiling(*climbed) == Ceiling(16, 800.0, Limit.CLIENT, 8.0)


def planned(*loads: Load) -> Plan:
    def one(load: Load) -> Trial:
        return Trial("t", 0, "e", "p", load, 0, 0, 0.0, 1.0, None, 0, None)

    return Plan("n", tuple(map(one, loads)), ())


@pytest.mark.parametrize(
    ("loads", "actors", "most"),
    [
        ([Closed(8), Closed(3)], 1, 8),
        ([Closed(8), Closed(3)], 3, 3),
        ([Closed(8), Poisson(2.0, max_in_flight=40)], 1, 40),
        ([Poisson(2.0)], 2, 64),
    ],
)
def test_a_run_is_checked_at_the_most_streams_that_an_actor_is_to_hold(
    loads: list[Load], actors: int, most: int
) -> None:
    assert largest(planned(*loads), actors) == most


def found(*rungs: Figures) -> Selftest:
    return Selftest((Measured("e", "e-0", "host-a", rungs),))


def test_run_json_says_what_each_actor_measured_and_by_which_ceiling_its_trials_are_judged() -> None:
    about: dict[str, Any] = {"experiments": [{"name": "e"}]}
    note(found(rung(16), rung(64, 9.0)), about)
    stored = json.loads(json.dumps(about))
    assert stored["experiments"][0]["ceiling"] == {
        "streams": 16,
        "chunks_per_s": 800.0,
        "limit": "client",
        "error_ms": 9.0,
    }
    (actor,) = stored["selftest"]["actors"]
    assert (actor["actor"], actor["host"]) == ("e-0", "host-a")
    assert actor["rungs"][1]["ttft"] == {
        "number": 100,
        "least_ms": 0.1,
        "p50_ms": 0.2,
        "p99_ms": 9.0,
        "max_ms": 9.0,
    }


def test_the_figures_read_as_sentences() -> None:
    said = text(found(rung(16), rung(64, 9.0)))
    assert "client too slow" in said
    assert said.endswith(
        "e-0 carries 16 streams with tokens stamped at most 5 ms late (p99); "
        "more are too many for one actor here: use more actors."
    )
    assert line(found(rung(64, 1.26))).endswith("1.3 ms late (p99), 64 streams of 50 chunks/s an actor")
    assert "simulator too slow to tell" in line(found(rung(64, 9.0, simulator_cpu_share=1.0)))


@pytest.mark.parametrize(
    ("top", "state", "says"),
    [
        (rung(8, 1.26), "pass", "TTFT 1.26 ms late (p99)"),
        (rung(8, 9.0), "warn", "TTFT 9.00 ms late (p99)"),
        (rung(8, None, failed=9, simulator_cpu_share=1.0), "missing", "none was stamped"),
    ],
)
def test_the_report_shows_the_figures_beside_the_results(top: Figures, state: str, says: str) -> None:
    tables, about = small_run()
    about["selftest"] = found(top).as_dict()
    view = look(tables, decide(tables.trials, about["criteria"], None), about)
    (check,) = (check for check in checks(view) if "stamps" in check.name)
    assert (check.state, check.found) == (state, says)
    assert "with 8 streams of 50 chunks/s" in check.evidence


def streamed(slots: int, chunks: int, seconds: float = 1.0, waits: float = 0.0) -> list[Row]:
    """So many slots, never idle for ten seconds, whose replies are of so many chunks each, after a wait."""
    rows = []
    for start in loop(round(10 / seconds), seconds):
        at = start.planned_ns / 1e9
        instants = [at + seconds * (waits + (1 - waits) * (n + 1) / chunks) for n in range(chunks)]
        rows += [row(slots * start.seq + n, at, at, at + seconds, chunks=instants) for n in range(slots)]
    return rows


def judged(rows: Sequence[Row], known: dict[str, Any] | None, actors: int = 1, **other: Any) -> dict[str, Any]:
    """The trial's row of TRIALS after a selftest that found this ceiling."""
    one = trial(**{"concurrency": 4} | other)
    about = manifest(one)
    about["experiments"][0] |= {"ceiling": known, "actors": [{}] * actors}
    summary: dict[str, Any] = reduce_trial(table(rows), one, about).trials.to_pylist()[0]
    return summary


def limit(streams: int, kind: str = "client", error_ms: float | None = 30.0) -> dict[str, Any]:
    return {"streams": streams, "chunks_per_s": 50.0 * streams, "limit": kind, "error_ms": error_ms}


def test_what_an_actor_carried_is_counted_from_the_rows() -> None:
    alone, shared = judged(streamed(4, 10), None), judged(streamed(4, 10), None, actors=2)
    assert (alone["streams"], alone["chunks_per_s"]) == (4.0, 40.0)
    assert (shared["streams"], shared["chunks_per_s"]) == (2.0, 20.0)
    assert alone["ceiling_streams"] is None
    whole = numbers([row(0, 0, 0, 5)])
    assert (whole["streams"], whole["chunks_per_s"]) == (1.0, 0.0)


def climbing(most: int) -> list[Row]:
    """Ten seconds that begin with none and end with so many streams of 50 chunks/s, as many more each second."""
    each = [at for at in range(10) for _ in range(round(at * most / 9))]
    return [
        row(seq, at, at, at + 1, chunks=[at + chunk / 50 for chunk in range(1, 51)]) for seq, at in enumerate(each)
    ]


def test_a_ramp_that_ends_above_the_ceiling_is_invalid_though_its_mean_is_below() -> None:
    found = judged(climbing(9), limit(6), **OPEN)
    assert (found["streams"], found["chunks_per_s"]) == (9.0, 450.0)
    assert (found["valid"], found["reasons"]) == ("INVALID", ["client_lag"])
    assert judged(climbing(9), limit(9), **OPEN)["reasons"] == []


def test_streams_that_wait_in_one_tenth_and_chunks_that_come_in_another_are_no_load_above_the_ceiling() -> None:
    waiting = [row(seq, 0, 0, 1) for seq in range(9)]
    fast = [row(9, 1, 1, 2, chunks=[1 + chunk / 900 for chunk in range(1, 901)])]
    found = judged([*waiting, *fast], limit(6), **OPEN)
    assert found["reasons"] == []


@pytest.mark.parametrize("known", [limit(3), limit(3, "untested", None), limit(0, error_ms=None)])
def test_a_load_above_the_calibrated_ceiling_is_invalid(known: dict[str, Any]) -> None:
    summary = judged(streamed(4, 100), known)
    assert summary["valid"] == "INVALID"
    assert "client_lag" in summary["reasons"]
    assert f"vouches for {known['streams']}" in " ".join(summary["reason_texts"])


@pytest.mark.parametrize(
    ("known", "actors"),
    [
        (None, 1),
        (limit(4), 1),
        (limit(2), 2),
        (limit(1, "simulator", None), 1),
    ],
    ids=["no selftest", "at the ceiling", "shared by two", "a slow simulator hid it"],
)
def test_a_load_within_the_ceiling_is_not_objected_to(known: dict[str, Any] | None, actors: int) -> None:
    assert "client_lag" not in judged(streamed(4, 100), known, actors)["reasons"]


def test_many_streams_of_few_chunks_are_no_load_above_the_ceiling() -> None:
    assert "client_lag" not in judged(streamed(4, 10), limit(1))["reasons"]


def test_an_error_that_is_small_beside_a_request_is_a_remark() -> None:
    small, large = (judged(streamed(4, 100, waits=0.3), limit(3, error_ms=ms)) for ms in (19.0, 21.0))
    assert "client_lag" in small["reasons"]
    assert (small["valid"], large["valid"]) != ("INVALID", "INVALID")
    assert large["valid"] == "INVALID"


def test_a_client_that_blocks_its_loop_is_found_out() -> None:
    over, sleep_us = threading.Event(), ctypes.PyDLL(None).usleep  # which does not let go of the interpreter

    def block() -> None:
        while not over.wait(0.05):
            sleep_us(200_000)

    blocking, calibration = threading.Thread(target=block), Calibration()
    try:
        blocking.start()
        found = calibration.play(Rung(4, 0.75))
    finally:
        over.set()
        calibration.close()
    blocking.join()
    assert not found.passes
    assert found.chunk.max_ms is not None
    assert found.chunk.max_ms > 100
    assert found.lag_p99_ms > 100


@pytest.fixture(scope="module")
def measured() -> Iterator[tuple[Selftest, Selftest]]:
    """What two actors of two experiments measured together at 4 streams, and one alone at 64."""
    environment.prepare(local=True)
    from raybench.cluster.fleet import Crew, cluster

    nobody = Target("http://127.0.0.1:9", "nobody", "us-west-2")
    with cluster("local", cpus=2):
        crews = [Crew([Post(name, 0, 1, nobody, {}, Path())]) for name in ("a", "b")]
        yield before(crews, planned(Closed(4))), before(crews[:1], planned(Closed(64)))


@pytest.mark.ray
def test_no_actor_reads_what_the_simulator_has_not_written(measured: tuple[Selftest, Selftest]) -> None:
    for each in (actor for found in measured for actor in found.actors):
        for played in each.rungs:
            whole = played.requests - played.failed
            assert played.ttft.number == played.end.number == whole > 0
            assert played.chunk.number == 25 * whole
            for errors in (played.ttft, played.chunk, played.end):
                assert errors.least_ms is not None
                assert errors.least_ms >= 0


@pytest.mark.ray
def test_every_actor_measures_itself_on_its_host_at_the_load_that_the_run_has(
    measured: tuple[Selftest, Selftest],
) -> None:
    both, busy = measured
    assert [(each.experiment, each.actor) for each in both.actors] == [("a", "a-0"), ("b", "b-0")]
    assert all(each.host and each.rungs[-1].streams == 4 for each in both.actors)
    assert busy.actors[0].rungs[-1].streams == 64
    assert busy.actors[0].rungs[-1].requests == 64, "0.5 s of 128 requests a second"
