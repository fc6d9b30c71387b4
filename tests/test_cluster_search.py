"""A search being played: against a queue whose answers are arithmetic, and over loopback against the simulator."""

import heapq
from bisect import bisect_right
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from simulated import simulator
from test_search import row

from raybench.client.sigv4 import Credentials
from raybench.client.target import Target
from raybench.clock import monotonic_ns
from raybench.cluster import environment
from raybench.cluster.part import Post
from raybench.cluster.search import LOOK_S, PlayedProbe, Seen, play_search, probe_trial
from raybench.cluster.search_text import sentence
from raybench.load.arrivals import Closed, Poisson
from raybench.load.probe import Step
from raybench.load.search import Offered, Search, SearchVerdict
from raybench.plan import Trial
from raybench.rows import REQUESTS, Prompt, Row, requests_table
from raybench.rundir import RunDir


def trial(search: Search) -> Trial:
    return Trial(
        trial_id=f"e~p~{search.label}~0",
        index=0,
        experiment="e",
        payload="p",
        load=Poisson(1.0),
        repeat=0,
        lot=3,
        warmup_s=0.0,
        duration_s=None,
        requests=None,
        seed=7,
        expected_s=None,
    )


def _end_s(row: Row) -> float:
    return (row.end_ns or 0) / 1e9


class Queue:
    """An endpoint that answers in `service_s`, `servers` at a time, and the time in which it does."""

    def __init__(self, service_s: float, servers: int, interrupted_at: int | None = None) -> None:
        self.service_s, self.servers, self.interrupted_at = service_s, servers, interrupted_at
        self.now_ns, self.stops, self.stopped = 0, 0, False
        self.played: dict[str, pa.Table] = {}

    def clock(self) -> int:
        return self.now_ns

    def stop(self) -> None:
        self.stops, self.stopped = self.stops + 1, True

    def past(self, trial: Trial) -> pa.Table | None:
        return self.played.get(trial.trial_id)

    def play(self, trial: Trial, seen: Seen) -> pa.Table | None:
        if len(self.played) == self.interrupted_at:
            return None
        self.stopped = False
        rows, began_ns = self._rows(trial), self.now_ns
        seen(REQUESTS.empty_table())
        rows.sort(key=_end_s)
        stopped_s, given = np.inf, 0
        for now_s in np.arange(LOOK_S, _end_s(rows[-1]) + 2 * LOOK_S, LOOK_S).tolist():
            self.now_ns = began_ns + round(now_s * 1e9)
            ended = bisect_right(rows, now_s, key=_end_s)
            seen(requests_table(rows[given:ended]))
            given = ended
            if self.stopped:
                stopped_s = now_s
                break
        table = requests_table([r for r in rows if r.planned_ns <= stopped_s * 1e9])
        self.played[trial.trial_id] = table
        return table

    def _rows(self, trial: Trial) -> list[Row]:
        if isinstance(trial.load, Closed):
            ends = [(seq + 1) * self.service_s for seq in range(trial.requests or 0)]
            return [row(seq, end - self.service_s, self.service_s, self.service_s) for seq, end in enumerate(ends)]
        assert isinstance(trial.load, Offered)
        until_s = trial.warmup_s + (trial.duration_s or 0.0)
        free = [0.0] * self.servers
        rows = []
        for seq, planned_s in enumerate(
            (trial.load.offsets_ns(trial.seed, duration_ns=round(until_s * 1e9)) / 1e9).tolist()
        ):
            end_s = max(planned_s, free[0]) + self.service_s
            heapq.heapreplace(free, end_s)
            phase = "warmup" if planned_s < trial.warmup_s else "measure"
            rows.append(row(seq, planned_s, end_s - planned_s, end_s - planned_s, phase))
        return rows


SEARCH = Search("latency_p99", 1.0, start=4.0, certify_s=120.0)


def test_a_queue_is_loaded_as_far_as_its_waits_allow_and_no_further() -> None:
    queue, told = Queue(0.4, servers=4), list[PlayedProbe]()
    found = play_search(trial(SEARCH), SEARCH, queue.play, queue.stop, queue.clock, told=told.append)
    assert isinstance(found.verdict, SearchVerdict)
    assert found.verdict.rate is not None
    assert 5.0 < found.verdict.rate < 10.0, "four servers of 0.4 s answer ten a second"
    assert found.verdict.failing is not None
    assert found.verdict.rate < found.verdict.failing
    assert list(found.probes) == told
    assert queue.stops >= 1
    overloaded = next(each for each in told if each.probe.rate == 8.0)
    assert not overloaded.passed
    assert overloaded.seen.requests < 8 * 140, "an overload is stopped early"
    assert "requests/s certified for latency_p99 <= 1 s" in sentence(found)
    assert f"({found.verdict.probes} probes, " in sentence(found)
    assert "(1 probe, " in sentence(replace(found, verdict=replace(found.verdict, probes=1)))
    assert found.as_dict()["verdict"]["state"] == "certified"


def test_every_probe_is_a_trial_with_a_name_arrivals_and_prompts_of_its_own() -> None:
    queue = Queue(0.4, servers=4)
    found = play_search(trial(SEARCH), SEARCH, queue.play, queue.stop, queue.clock)
    trials = [each.trial for each in found.probes]
    for name in ("trial_id", "seed", "lot"):
        assert len({getattr(each, name) for each in trials}) == len(trials)
    assert len({each.load.label for each in trials}) == len(trials)
    assert trials[0].requests == 30
    assert found.probes[0].probe.step is Step.SANITY


@pytest.mark.parametrize("interrupted_at", [0, 4])
def test_a_search_that_was_interrupted_goes_on_from_the_rows_of_its_probes(interrupted_at: int) -> None:
    queue = Queue(0.4, servers=4)
    whole = play_search(trial(SEARCH), SEARCH, queue.play, queue.stop, queue.clock)
    halted = Queue(0.4, servers=4, interrupted_at=interrupted_at)
    first = play_search(trial(SEARCH), SEARCH, halted.play, halted.stop, halted.clock)
    assert first.verdict is None
    assert "interrupted" in sentence(first)
    assert len(first.probes) == interrupted_at
    halted.interrupted_at = None
    second = play_search(trial(SEARCH), SEARCH, halted.play, halted.stop, halted.clock, past=halted.past)
    assert second == whole
    third = play_search(trial(SEARCH), SEARCH, lambda trial, seen: None, halted.stop, halted.clock, past=halted.past)
    assert third == whole, "nothing is played again"


def test_a_trial_that_cannot_be_trusted_ends_the_search() -> None:
    queue = Queue(0.4, servers=4)
    found = play_search(
        trial(SEARCH),
        SEARCH,
        queue.play,
        queue.stop,
        queue.clock,
        distrust=lambda trial, rows: "client_lag" if trial.requests is None else None,
    )
    assert found.verdict is not None
    assert found.verdict.reason == "probe-03-bracket: client_lag", "it was played three times"
    assert "no rate certified for latency_p99 <= 1 s: probe-03-bracket: client_lag" in sentence(found)


PROMPTS = [Prompt(f"{n} hello world", 4, "estimate") for n in range(500)]
SERIAL = {
    "profile": "llama2-70b-p4d-tgi",
    "overrides": {
        "prefill_ms": 0.0, "prefill_ms2": 0.0, "step_ms": 1.0, "sequence_ms": 5.0,
        "tokens": 2, "steps_before_prefill": 1,
    },
}  # fmt: skip
"""A server that takes 5 ms for each request, one after another: never more than 200 a second."""


@pytest.mark.ray
def test_the_fleet_plays_a_search_and_leaves_each_probe_on_the_disk(tmp_path: Path) -> None:
    environment.prepare(local=True)
    from raybench.cluster.fleet import Crew, cluster

    search = Search("latency_p99", 0.25, start=100.0, certify_s=2.0, warmup_s=0.5, max_s=400.0)
    parent, done = trial(search), list[PlayedProbe]()
    with simulator({"serial": SERIAL}) as running, cluster("local", cpus=2):
        keys = Credentials(running.credentials.access_key, running.credentials.secret_key)
        target = Target(running.url, "serial", "us-west-2", route="stream", dialect="tgi", credentials=keys)
        crew = Crew([Post("e", 0, 1, target, {}, tmp_path)])
        crew.gather()
        crew.arm({"p": PROMPTS})

        def play(one: Trial, seen: Seen) -> pa.Table:
            return crew.play(one, 7, seen).rows

        found = play_search(parent, search, play, crew.stop, monotonic_ns, told=done.append)
        crew.close()
    print(sentence(found))
    assert found.verdict is not None
    assert found.verdict.failing is not None, "no server of 5 ms a request takes more than 200 a second"
    assert found.verdict.rate is None or found.verdict.rate < 200
    rundir = RunDir(tmp_path)

    def past(one: Trial) -> pa.Table | None:
        names = {"experiment": "e", "payload": "p", "load": one.load.label}
        rows = rundir.requests({"trial_id": one.trial_id, "repeat": 0, **names})
        return rows if len(rows) else None

    again = play_search(parent, search, lambda one, seen: None, lambda: None, monotonic_ns, past=past)
    assert again.verdict == found.verdict, "the rows on the disk tell the same search"
    assert probe_trial(parent, search, done[0].probe) == done[0].trial
