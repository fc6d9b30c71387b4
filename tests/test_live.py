"""The live view: what known batches make of it, that it stays whole, and that it is seldom and cheap."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from made import failed, row, unsent
from rich.console import Console

from raybench.cluster.actor import SENDER
from raybench.cluster.live import Buckets, Live, Snapshot
from raybench.cluster.monitor import Screen
from raybench.cluster.view import clock, duration, headline, line, view
from raybench.load.arrivals import Closed
from raybench.plan import Forecast, Plan, Trial
from raybench.rows import Row, requests_table


class Hands:
    """A clock whose hands are moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def trial(index: int, experiment: str = "e", *, requests: int | None = 76, duration_s: float | None = None) -> Trial:
    return Trial(
        trial_id=f"{experiment}~p~{index}",
        index=index,
        experiment=experiment,
        payload="p",
        load=Closed(index + 1),
        repeat=0,
        lot=0,
        warmup_s=1.0,
        duration_s=duration_s,
        requests=requests,
        seed=7,
        expected_s=60.0,
    )


def plan(*trials: Trial) -> Plan:
    names = dict.fromkeys(each.experiment for each in trials)
    of = {name: sum(each.experiment == name for each in trials) for name in names}
    return Plan(
        "bench", trials, tuple(Forecast(name, "1 x ml.g5.xlarge", of[name], 120, 0.5, False) for name in names)
    )


def batch(rows: Sequence[Row] = (), actor: str = "e-0") -> pa.Table:
    table = requests_table(rows)
    return table.replace_schema_metadata({**(table.schema.metadata or {}), SENDER: actor})


def one(live: Live) -> Snapshot:
    (experiment,) = live.snapshot()["experiments"]
    assert isinstance(experiment, dict)
    return experiment


@pytest.fixture
def hands() -> Hands:
    return Hands()


def test_a_spread_gives_quantiles_within_half_a_percent() -> None:
    seconds = np.exp(np.random.default_rng(7).normal(0, 1, 20_000))
    spread = Buckets()
    for part in np.split(seconds, 20):
        spread.add(part)
    for q in (0.5, 0.95, 0.99):
        assert spread.quantile(q) == pytest.approx(np.quantile(seconds, q), rel=0.006)


def test_what_never_finished_is_slower_than_everything() -> None:
    spread = Buckets()
    spread.add(np.array([1.0] * 90 + [np.nan] * 10))
    assert spread.quantile(0.5) == pytest.approx(1.0, rel=0.006)
    assert spread.quantile(0.95) is None
    assert Buckets().quantile(0.5) is None


def test_percentiles_say_how_many_requests_they_still_need(hands: Hands) -> None:
    live = Live(plan(trial(0)), {}, hands)
    live.begin(trial(0))
    live.seen(trial(0), batch([row(seq) for seq in range(5)]))
    assert (one(live)["latency_p50_needs"], one(live)["latency_p50_s"]) == (1, None)
    live.seen(trial(0), batch([row(5), row(6, phase="warmup")]))
    found = one(live)
    assert (found["latency_p50_needs"], found["latency_p95_needs"]) == (0, 66)
    assert found["latency_p50_s"] == pytest.approx(1.0, rel=0.006)
    assert (found["measured"], found["requests"]) == (6, 7)
    live.seen(trial(0), batch([row(seq) for seq in range(7, 73)]))
    assert one(live)["latency_p95_needs"] == 0


def test_failed_and_unsent_requests_are_counted_and_rank_last(hands: Hands) -> None:
    live = Live(plan(trial(0)), {}, hands)
    live.begin(trial(0))
    live.seen(trial(0), batch([row(0), failed(1), failed(2), unsent(3), failed(4), failed(5)]))
    found = one(live)
    assert (found["failed"], found["requests"]) == (5, 6)
    assert found["latency_p50_s"] is None
    assert "p50 never finished" in line(found)


def test_lateness_is_what_the_rows_say(hands: Hands) -> None:
    live = Live(plan(trial(0)), {}, hands)
    live.begin(trial(0))
    live.seen(trial(0), batch([row(seq, 0.0, 0.004) for seq in range(100)]))
    assert one(live)["lateness_p99_s"] == pytest.approx(0.004, rel=0.006)
    assert "sent 4.0 ms late (p99)" in line(one(live))


def test_the_rate_is_that_of_the_last_ten_seconds(hands: Hands) -> None:
    live = Live(plan(trial(0)), {}, hands)
    live.begin(trial(0))
    for _ in range(40):
        hands.now_s += 0.5
        live.seen(trial(0), batch([row(0), row(1)]))
    assert one(live)["requests_per_s"] == 4.0
    hands.now_s += 11
    assert one(live)["requests_per_s"] == 0


def test_time_left_comes_from_the_requests_measured_so_far_and_the_plan_of_the_rest(hands: Hands) -> None:
    live = Live(plan(trial(0), trial(1)), {}, hands)
    assert one(live)["left_s"] == 120
    live.begin(trial(0))
    hands.now_s += 1 + 10
    assert one(live)["trial_left_s"] == 49
    live.seen(trial(0), batch([row(seq) for seq in range(19)]))
    assert one(live)["trial_left_s"] == pytest.approx(30)
    assert one(live)["left_s"] == pytest.approx(90)
    live.end(trial(0))
    assert one(live)["left_s"] == 60
    live.begin(trial(1))
    live.end(trial(1))
    assert one(live)["left_s"] == 0


def test_the_time_of_a_trial_with_a_duration_is_what_is_left_of_it(hands: Hands) -> None:
    timed = trial(0, requests=None, duration_s=59.0)
    live = Live(plan(timed), {}, hands)
    live.begin(timed)
    hands.now_s += 50
    assert one(live)["trial_left_s"] == 10
    hands.now_s += 50
    assert one(live)["trial_left_s"] == 0


def test_dollars_run_from_the_first_trial_to_the_end_of_the_last(hands: Hands) -> None:
    live = Live(plan(trial(0), trial(1)), {"e": 36.0}, hands)
    hands.now_s += 500
    assert one(live)["spent_usd"] == 0
    for each in (trial(0), trial(1)):
        live.begin(each)
        hands.now_s += 100
        live.end(each)
    hands.now_s += 1000
    assert one(live)["spent_usd"] == pytest.approx(2.0)
    assert headline(live.snapshot()).endswith("$2.00 of $0.50 planned")


def test_no_price_is_no_dollars(hands: Hands) -> None:
    live = Live(plan(trial(0)), {"e": None}, hands)
    live.begin(trial(0))
    assert live.snapshot()["spent_usd"] is None
    assert "$" not in headline(live.snapshot())


def test_an_empty_batch_is_a_sign_of_life_and_silence_is_named(hands: Hands) -> None:
    live = Live(plan(trial(0)), {}, hands)
    live.begin(trial(0))
    live.seen(trial(0), batch(actor="e-0"))
    live.seen(trial(0), batch(actor="e-1"))
    hands.now_s += 4
    live.seen(trial(0), batch(actor="e-1"))
    hands.now_s += 0.5
    assert one(live)["heard_s_ago"] == {"e-0": 4.5, "e-1": 0.5}
    assert "e-0 SILENT for 4 s" in line(one(live))
    assert "heard from actor 0 SILENT for 4.5 s, 1 0.5 s ago" in view(live.snapshot()).plain


def test_an_actor_that_was_lost_is_not_expected_in_the_next_trial(hands: Hands) -> None:
    live = Live(plan(trial(0), trial(1)), {}, hands)
    live.begin(trial(0))
    live.seen(trial(0), batch(actor="e-0"))
    live.seen(trial(0), batch(actor="e-1"))
    hands.now_s += 10
    live.seen(trial(0), batch(actor="e-1"))
    live.end(trial(0))
    live.begin(trial(1))
    hands.now_s += 4
    live.seen(trial(1), batch(actor="e-0b"))
    assert one(live)["heard_s_ago"] == {"e-0b": 0.0, "e-1": 4.0}


def test_a_probe_of_a_search_counts_as_the_trial_it_belongs_to(hands: Hands) -> None:
    live = Live(plan(trial(3), trial(8), trial(9)), {}, hands)
    probe = trial(8)
    for _ in range(5):
        live.begin(probe)
        live.end(probe)
    assert (one(live)["trial"], one(live)["trials"]) == (2, 3)
    assert one(live)["left_s"] == 60


def test_a_new_trial_starts_counting_anew(hands: Hands) -> None:
    live = Live(plan(trial(0), trial(1)), {}, hands)
    live.begin(trial(0))
    live.seen(trial(0), batch([row(0), failed(1)]))
    live.end(trial(0))
    live.begin(trial(1))
    found = one(live)
    assert (found["requests"], found["failed"], found["measured"], found["lateness_p99_s"]) == (0, 0, 0, None)


def screen(hands: Hands, *, terminal: bool) -> tuple[Screen, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, height=30, record=True, highlight=False)
    return Screen(console, hands), out


def test_a_terminal_shows_every_experiment_and_what_is_said_stands_above(hands: Hands) -> None:
    shown, _ = screen(hands, terminal=True)
    shown.expect(plan(trial(0, "a"), trial(1, "b")), {"a": 36.0, "b": 72.0}, tick=False)
    shown.begin(trial(0, "a"))
    hands.now_s += 50
    shown.seen(trial(0, "a"), batch([row(seq) for seq in range(38)], "a-0"))
    shown.tick()
    shown.say("[something] was said")
    text = shown.console.export_text(clear=False)
    assert "50.0 s  [something] was said\n" in text, "markup is shown as it is"
    after = text[text.rindex("was said") :].splitlines()[1:]
    assert after[0] == "bench, 0:50 so far, about 1:00 left, $0.50 of $1.00 planned"
    assert [each.strip() for each in after[1:7]] == [
        "a",
        "[1/1] p closed-1, $0.50 of $0.50 planned",
        "━━━━━━━━━━────────── 38 of 76 measured, about 0:49 left",
        "3.8 requests/s, 0 of 38 failed, p50 1 s, p95 needs 34 more, sent 0.0 ms late (p99)",
        "heard from actor 0 0.0 s ago",
        "b",
    ]
    shown.close()


def test_more_experiments_than_the_terminal_is_high_have_a_line_each(hands: Hands) -> None:
    many = [trial(index, f"e{index}") for index in range(7)]
    live = Live(plan(*many), {}, hands)
    live.begin(many[0])
    shown = view(live.snapshot(), 29).plain.splitlines()
    assert len(shown) == 8
    assert shown[1].startswith("[1/1] e0 p closed-1, 0 of 76 measured")
    assert shown[2] == "e1: waiting"
    assert len(view(live.snapshot()).plain.splitlines()) == 1 + 5 + 6 * 2


def test_the_view_is_gone_once_closed_and_lines_go_on(hands: Hands) -> None:
    shown, out = screen(hands, terminal=True)
    shown.expect(plan(trial(0)), tick=False)
    shown.tick()
    shown.close()
    shown.close()
    out.truncate(0)
    shown.say("done")
    shown.tick()
    assert out.getvalue().strip("\0") == "   0.0 s  done\n"


def test_elsewhere_a_finished_trial_is_a_line_and_a_long_one_has_a_line_each_30_s(hands: Hands) -> None:
    shown, out = screen(hands, terminal=False)
    shown.expect(plan(trial(0), trial(1)), tick=False)
    shown.begin(trial(0))
    for _ in range(2 * 70):
        hands.now_s += 0.5
        shown.seen(trial(0), batch([row(0)]))
        shown.tick()
    shown.end(trial(0), requests_table([row(0), failed(1), row(2, phase="drain")]))
    lines = out.getvalue().splitlines()
    assert [each.split(",")[0] for each in lines] == [
        "  30.0 s  [1/2] e p closed-1",
        "  60.0 s  [1/2] e p closed-1",
        "  70.0 s  [1/2] e p closed-1: 2 requests measured",
    ]
    assert lines[0].split(", ")[1:4] == ["60 of 76 measured", "2 requests/s", "0 of 60 failed"]
    shown.close()


def test_live_json_is_whole_written_at_most_once_a_second_and_gone_at_the_end(hands: Hands, tmp_path: Path) -> None:
    shown, _ = screen(hands, terminal=False)
    shown.expect(plan(trial(0)), run_dir=tmp_path, tick=False)
    shown.begin(trial(0))
    written = set()
    for _ in range(20):
        shown.tick()
        hands.now_s += 0.25
        written.add((tmp_path / "live.json").read_text())
    assert len(written) == 5
    assert all(json.loads(text)["experiments"][0]["trial"] == 1 for text in written)
    shown.close()
    assert list(tmp_path.iterdir()) == []


def test_a_run_directory_that_takes_nothing_stops_nobody(hands: Hands, tmp_path: Path) -> None:
    shown, _ = screen(hands, terminal=False)
    shown.expect(plan(trial(0)), run_dir=tmp_path / "gone", tick=False)
    shown.tick()
    shown.close()


def test_a_batch_costs_no_arithmetic_when_it_comes(hands: Hands) -> None:
    class Untouched:
        """A batch that may be asked for its sender and its length, and nothing else."""

        schema = batch().schema

        def __len__(self) -> int:
            return 1

    live = Live(plan(trial(0)), {}, hands)
    live.begin(trial(0))
    live.seen(trial(0), Untouched())


def test_times_are_said_in_three_digits() -> None:
    assert [duration(seconds) for seconds in (0.00042, 0.24, 1.0, 12.345, 4321.0)] == [
        "0.42 ms",
        "240 ms",
        "1 s",
        "12.3 s",
        "4321 s",
    ]
    assert [clock(seconds) for seconds in (0.2, 65, 3725)] == ["0:00", "1:05", "1:02:05"]
