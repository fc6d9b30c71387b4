"""A run directory that is copied while it grows: whatever died or was refused, what was shipped is there again.

Nothing here waits: the world goes on between two writes of the copy, as far as a seed has it.
"""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
from buckets import DiedError, MemoryStore, refusal
from made import row, told

from raybench.errors import InputError, StorageError
from raybench.mirror import Mirror, Sittings, fetch, glimpse
from raybench.rundir import MANIFEST, RunDir, Segment

TRIALS, ACTORS, ROWS = ("e~p~one", "e~p~two", "e~p~three"), ("e-0", "e-1"), 24
Key = tuple[str, str]
"""A trial and a request id, which no two requests share."""


def of_trial(trial_id: str) -> dict[str, Any]:
    return {"experiment": "e /=é", "payload": "p", "load": trial_id.rpartition("~")[2], "trial_id": trial_id}


class World:
    """A run that goes on a step at a time: a row, or a trial that ends, as a seed has it."""

    def __init__(self, path: Path, random: Random, *, alone: bool) -> None:
        self.run, self.random, self.alone = RunDir(path), random, alone
        self.written = Counter[Key]()
        if not (path / "run.json").is_file():
            trials = [{**of_trial(name), "repeat": 0, "state": "planned", "sitting": None} for name in TRIALS]
            self.run.write_manifest(told(run_id="r", state="running", resumed_utc=[], trials=trials))
        self.manifest = self.run.manifest()
        self._begin()

    @property
    def trial(self) -> dict[str, Any] | None:
        return next((trial for trial in self.manifest["trials"] if trial["state"] != "done"), None)

    @property
    def sitting(self) -> int:
        return len(self.manifest["resumed_utc"])

    def _begin(self) -> None:
        self.seq = 0
        if self.trial:
            self.trial["sitting"] = self.sitting
            self.segments = [self.run.segment(self.trial["trial_id"], actor, self.sitting) for actor in ACTORS]

    def step(self) -> None:
        trial = self.trial
        if trial is None:
            return
        if self.seq < ROWS:
            self._write(self.random.choice(self.segments), trial)
        else:
            for segment in self.segments:
                segment.close()
            if not self.alone:
                self.run.write_part(trial, self.run.requests(trial))
            trial["state"] = "done"
            self.run.write_manifest(self.manifest)
            self._begin()

    def _write(self, segment: Segment, trial: Mapping[str, Any]) -> None:
        name = f"{self.sitting}-{trial['trial_id']}-{self.seq}"
        segment.append(row(self.seq, request_id=name, **of_trial(trial["trial_id"])))
        self.written[trial["trial_id"], name] += 1
        self.seq += 1

    def interrupt(self) -> None:
        """What a first Ctrl-C does: the run ends with a part of each trial that has rows, whole or not."""
        for trial in self.manifest["trials"]:
            if self.run.spool(trial["trial_id"]):
                self.run.write_part(trial, self.run.requests(trial))
        self.manifest["state"] = "interrupted"
        self.run.write_manifest(self.manifest)

    def resume(self) -> None:
        """What `raybench resume` does to the directory before it plays."""
        for trial in self.manifest["trials"]:
            if trial["state"] != "done":
                self.run.set_aside(trial, f"sitting-{self.sitting}")
                trial |= {"state": "planned", "sitting": None}
        self.manifest["resumed_utc"].append("now")
        self.run.write_manifest(self.manifest)
        self._begin()


def kept(path: Path) -> Counter[Key]:
    run = RunDir(path)
    return Counter(
        (trial["trial_id"], name)
        for trial in run.manifest()["trials"]
        for name in run.requests(trial)["request_id"].to_pylist()
    )


def aside(path: Path) -> Counter[Key]:
    found = Counter[Key]()
    for place in (path / "abandoned").glob("*"):
        for trial_id in TRIALS:
            names = RunDir(place).requests({**of_trial(trial_id), "repeat": 0})["request_id"].to_pylist()
            found.update((trial_id, name) for name in names)
    return found


def live_until_death(world: World, store: MemoryStore, deadline: int, *, stopped: bool) -> Counter[Key]:
    """Copies round by round until the machine dies at its `deadline`-th write; the rows that were shipped by then.

    If it is `stopped` first, the run ends well there, and the machine dies afterwards.
    """
    puts, playing, random, copy = 0, False, world.random, Mirror(world.run.path, store)

    def meanwhile() -> None:
        nonlocal puts
        puts += 1
        for _ in range(random.choice((0, 0, 1, 9)) if playing else 0):
            world.step()
        if puts == deadline:
            raise DiedError

    store.meanwhile = meanwhile
    shipped = Counter[Key]()
    try:
        copy.round()
        playing = True
        while True:
            for _ in range(random.randrange(12)):
                world.step()
            before = +world.written
            copy.round()
            shipped = before
    except DiedError:
        if stopped and playing:
            store.meanwhile = lambda: None
            world.interrupt()
            copy.round()
            shipped = +world.written
        return shipped


@pytest.mark.parametrize("seed", range(24))
def test_head_death_at_any_write_loses_no_row_that_was_shipped(seed: int, tmp_path: Path) -> None:
    random, store = Random(seed), MemoryStore()
    path, written, promised = tmp_path / "0", Counter[Key](), Counter[Key]()
    path.mkdir()
    world = World(path, random, alone=bool(seed % 2))
    for death in range(3):
        promised += live_until_death(world, store, random.randrange(2, 40), stopped=random.random() < 0.4)
        written += world.written
        path = tmp_path / f"{death + 1}"
        if MANIFEST not in store.objects:
            assert not promised
            return
        fetch(store, path)
        manifest, rows, left = RunDir(path).manifest(), kept(path), aside(path)
        assert len(manifest["resumed_utc"]) <= death
        assert max((rows + left).values(), default=1) == 1, "every row once, in the run or aside"
        assert rows + left <= written, "no row that nobody wrote"
        assert promised <= rows + left, "0 shipped rows lost"
        for trial in manifest["trials"]:
            if trial["state"] == "done":
                assert sum(name == trial["trial_id"] for name, _ in rows) == ROWS, "a finished trial is whole"
        world = World(path, random, alone=world.alone)
        world.resume()


@pytest.mark.parametrize("seed", range(24))
def test_refused_writes_wait_on_the_disk_and_nothing_is_lost(seed: int, tmp_path: Path) -> None:
    random, store = Random(seed), MemoryStore()
    world, refuses, waited = World(tmp_path, random, alone=bool(seed % 2)), [False], list[int]()

    def meanwhile() -> None:
        world.step()
        if random.random() < 0.1:
            refuses[0] = not refuses[0]
        if refuses[0]:
            raise refusal()

    store.meanwhile = meanwhile
    copy = Mirror(tmp_path, store)
    while world.trial:
        for _ in range(random.randrange(8)):
            world.step()
        try:
            copy.round()
        except StorageError:
            waited.append(copy.backlog_bytes())
    assert waited
    assert max(waited) > 0
    store.meanwhile = lambda: None
    copy.round()
    assert copy.backlog_bytes() == 0
    fetch(store, tmp_path / "back")
    assert kept(tmp_path / "back") == kept(tmp_path) == world.written
    assert len(world.written) == ROWS * len(TRIALS)


def test_what_waits_is_what_was_not_taken(tmp_path: Path) -> None:
    store = MemoryStore()
    copy, run = Mirror(tmp_path, store), RunDir(tmp_path)
    segment = run.segment("t", "a")
    segment.append(row(0))
    size = segment.path.stat().st_size
    run.write("report.md", b"12345")
    assert copy.backlog_bytes() == size + 5
    copy.round()
    assert copy.backlog_bytes() == 0
    segment.append(row(1))
    segment.close()
    run.write("report.md", b"123456")
    assert copy.backlog_bytes() == segment.path.stat().st_size - size + 6


def test_of_a_worker_only_what_is_of_this_sitting_is_copied_and_counts_as_waiting(tmp_path: Path) -> None:
    store, run = MemoryStore(), RunDir(tmp_path)
    for sitting in range(3):
        run.segment("t", "a", sitting).append(row(sitting))
    copy = Mirror(tmp_path, store, sitting=2)
    assert copy.backlog_bytes() == run.segment("t", "a", 2).path.stat().st_size
    copy.spools(Sittings({"resumed_utc": ["a", "b"]}))
    assert list(store.objects) == [f"spool/t/a@2.rows.2.{0:012d}"]
    assert copy.backlog_bytes() == 0


def test_a_disk_that_does_not_say_what_it_holds_is_an_error_of_ours(tmp_path: Path) -> None:
    copy, endless = Mirror(tmp_path, MemoryStore()), tmp_path / "spool" / "t" / "a.rows"
    endless.parent.mkdir(parents=True)
    endless.symlink_to(endless)
    for ask in (copy.backlog_bytes, copy.round, lambda: copy.spools(Sittings({}))):
        with pytest.raises(StorageError, match=f"{endless}: Too many levels of symbolic links"):
            ask()


def test_only_what_is_new_is_copied_and_run_json_each_time_as_a_sign_of_life(tmp_path: Path) -> None:
    store, run = MemoryStore(), RunDir(tmp_path)
    world = World(tmp_path, Random(0), alone=True)
    copy, puts = Mirror(tmp_path, store), list[str]()
    world.step()
    copy.round()
    run.write("report.md", b"new")
    before = set(store.objects)
    store.objects = {key: b"" for key in before}
    copy.round()
    assert {key for key, data in store.objects.items() if data} == {"run.json", "report.md"}, "no spool again"
    store.meanwhile = lambda: puts.append("")
    copy.round()
    assert len(puts) == 1


def test_a_large_piece_is_cut_and_put_together_again(tmp_path: Path) -> None:
    store, world = MemoryStore(), World(tmp_path, Random(0), alone=True)
    for _ in range(ROWS):
        world.step()
    Mirror(tmp_path, store, piece_bytes=100).round()
    assert max(len(data) for key, data in store.objects.items() if key.startswith("spool/")) == 100
    fetch(store, tmp_path / "back")
    assert kept(tmp_path / "back") == world.written


def test_a_copier_that_starts_again_in_the_middle_does_no_harm(tmp_path: Path) -> None:
    store, world = MemoryStore(), World(tmp_path, Random(0), alone=True)
    for _ in range(3):
        world.step()
        Mirror(tmp_path, store).round()
        copy = Mirror(tmp_path, store)
        copy.round()
        world.step()
        copy.round()
    fetch(store, tmp_path / "back")
    assert kept(tmp_path / "back") == world.written


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    store, world = MemoryStore(), World(tmp_path, Random(0), alone=True)
    for _ in range(5):
        world.step()
    Mirror(tmp_path, store).round()
    key = next(key for key in store.objects if key.startswith("spool/"))
    store.objects[key] = store.objects[key][:-7]
    fetch(store, tmp_path / "back")
    assert sum((world.written - kept(tmp_path / "back")).values()) == 1


def test_what_is_not_whole_yet_and_the_truth_of_a_simulator_stay_here(tmp_path: Path) -> None:
    store = MemoryStore()
    for name in ("truth.jsonl", ".report.md.1.tmp", ".writable", "charts/a.svg", "live.json", ".x.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    RunDir(tmp_path).write_manifest({"trials": []})
    Mirror(tmp_path, store).round()
    assert list(store.objects) == [".sitting-0", ".x.yaml", "charts/a.svg", "live.json", "run.json"]
    fetch(store, tmp_path / "back")
    assert sorted(path.name for path in (tmp_path / "back").rglob("*.*")) == [".x.yaml", "a.svg", "run.json"]
    glimpse(store, tmp_path / "charts")
    assert (tmp_path / "charts" / "live.json").is_file()


def test_a_trial_that_is_done_is_not_the_part_of_it_that_an_interrupted_sitting_left(tmp_path: Path) -> None:
    store, world = MemoryStore(), World(tmp_path, Random(0), alone=True)
    copy = Mirror(tmp_path, store)
    copy.round()
    world.step()
    world.interrupt()
    copy.round()
    world.resume()
    copy = Mirror(tmp_path, store)
    copy.round()
    for _ in range(ROWS + 1):
        world.step()
    copy.round()
    fetch(store, tmp_path / "back")
    assert {name[0] for _, name in kept(tmp_path / "back")} == {"1"}, "all are of the second sitting"
    assert sum(kept(tmp_path / "back").values()) == ROWS


def test_parts_that_are_copied_again_in_their_own_sitting_still_count(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    store, world = MemoryStore(), World(tmp_path / "run", Random(0), alone=False)
    Mirror(world.run.path, store).round()
    for _ in range(ROWS + 1):
        world.step()
    for place in ("once", "twice"):
        Mirror(world.run.path, store).round()
        store.objects = {key: data for key, data in store.objects.items() if not key.startswith("spool/")}
        fetch(store, tmp_path / place)
        assert kept(tmp_path / place) == world.written


@pytest.mark.parametrize("key", ["../up", "/etc/x", "requests/../../up", "a/\0"])
def test_a_name_that_leads_out_is_refused_and_nothing_is_left(key: str, tmp_path: Path) -> None:
    store = MemoryStore({"run.json": b'{"trials": []}', key: b"x"})
    with pytest.raises(InputError, match="leads out"):
        fetch(store, tmp_path / "back")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("said", [b"", b"[]", b"{}x", b'{"trials": [1]}', b'{"trials": [{"trial_id": "t"}]}', b"{}"])
def test_a_run_json_that_is_none_is_one_line(said: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"s3://in/memory: run\.json cannot be read"):
        fetch(MemoryStore({"run.json": said}), tmp_path / "back")
    assert not list(tmp_path.iterdir())


def test_where_no_run_is_nothing_is_fetched(tmp_path: Path) -> None:
    for bring in (fetch, glimpse):
        with pytest.raises(InputError, match=r"no run\.json here"):
            bring(MemoryStore({"other": b""}), tmp_path / "back")


def test_a_trial_is_of_the_sitting_it_was_played_in_and_of_the_latest_while_it_is_not_known() -> None:
    sittings = Sittings(
        {"resumed_utc": ["a", "b"], "trials": [{"trial_id": "old", "sitting": 1}, {"trial_id": "new"}]}
    )
    assert [sittings.of(name) for name in ("old", "new", "probe")] == [1, 2, 2]
    assert json.dumps(sittings.latest) == "2"
