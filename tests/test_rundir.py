"""What is on disk survives: segments, parts and the manifest."""

import resource
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from made import told

from raybench.errors import InputError, StorageError
from raybench.rows import REQUESTS, Row, requests_table
from raybench.rundir import RunDir, Segment, read_segment

TRIAL: dict[str, Any] = {
    "trial_id": "t-1",
    "experiment": "a/b =é",
    "payload": "en_1-500",
    "load": "closed-8",
    "repeat": 0,
}


def row(seq: int, **changed: Any) -> Row:
    values: dict[str, Any] = dict.fromkeys(Row._fields)
    values |= {k: TRIAL[k] for k in ("trial_id", "experiment", "payload", "load", "repeat")}
    values |= {"seq": seq, "attempt": 0, "actor": "x-0", "host": "h", "phase": "measure", "planned_ns": seq * 10}
    values |= {"outcome": "ok", "chunk_ns": [seq, seq + 1], "request_bytes": 4, "response_bytes": 9}
    return Row(**(values | changed))


def test_the_schema_and_the_row_have_the_same_columns_in_the_same_order() -> None:
    assert tuple(REQUESTS.names) == Row._fields


def test_a_segment_gives_back_the_rows_it_took(tmp_path: Path) -> None:
    segment = Segment(tmp_path / "s" / "a.rows")
    rows = [row(n, error_message='naïve \u2028 \x00 "quoted"\n') for n in range(3)]
    for one in rows:
        segment.append(one)
    segment.close()
    assert list(read_segment(segment.path)) == rows


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 3000))
def test_a_segment_cut_anywhere_gives_its_whole_lines(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.rows"
    segment = Segment(path)
    for n in range(5):
        segment.append(row(n))
    segment.close()
    data = path.read_bytes()
    path.write_bytes(data[:cut])
    assert [r.seq for r in read_segment(path)] == list(range(data[:cut].count(b"\n")))


def test_a_line_whose_crc_is_wrong_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.rows"
    segment = Segment(path)
    segment.append(row(0))
    segment.append(row(1))
    segment.close()
    path.write_bytes(path.read_bytes().replace(b'"x-0"', b'"y-0"', 1))
    assert [r.seq for r in read_segment(path)] == [1]
    assert zlib.crc32(b"") == 0


@pytest.mark.parametrize("line", [b"", b"12345678", b"not hexa []", b"+0000000 ", b"\xff" * 20])
def test_a_line_that_is_no_row_is_left_out(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.rows"
    path.write_bytes(line + b"\n")
    with closing(Segment(path)) as segment:
        segment.append(row(1))
    assert [r.seq for r in read_segment(path)] == [1]


def test_a_part_reads_back_as_the_table_it_was_and_ends_the_spool(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run")
    segment = run.segment("t-1", "x-0")
    for n in (1, 0):
        segment.append(row(n))
    segment.close()
    from_spool = run.requests(TRIAL)
    run.write_part(TRIAL, requests_table([row(1), row(0)]))
    assert run.requests(TRIAL).equals(from_spool)
    assert run.spool("t-1") == []
    assert (run.path / "requests" / "experiment=a%2Fb%20%3D%C3%A9" / "payload=en_1-500" / "load=closed-8").is_dir()


def test_what_an_earlier_sitting_left_is_neither_appended_to_nor_read_as_of_this_one(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run")
    for sitting, seqs in ((0, range(10)), (1, range(4))):
        with closing(run.segment("t-1", "x-0", sitting)) as segment:
            for n in seqs:
                segment.append(row(n))
    assert [each.seq for each in run.spooled("t-1", "x-0", 1)] == [0, 1, 2, 3]
    assert len(list(run.spooled("t-1", "x-0"))) == 10


def test_rows_that_two_segments_hold_count_once(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run")
    for actor in ("x-0", "x-1"):
        segment = run.segment("t-1", actor)
        segment.append(row(7))
        segment.close()
    assert run.requests(TRIAL)["seq"].to_pylist() == [7]


def test_a_trial_without_files_is_an_empty_table(tmp_path: Path) -> None:
    assert len(RunDir.create(tmp_path / "run").requests(TRIAL)) == 0


def test_a_full_disk_is_a_named_error(tmp_path: Path) -> None:
    path = tmp_path / "a.rows"
    path.symlink_to("/dev/full")
    segment = Segment(path)
    with pytest.raises(StorageError, match=rf"{path}: No space left"):
        segment.append(row(0))
    segment.close()


def test_a_disk_that_fills_up_inside_a_line_is_a_named_error_and_leaves_whole_rows(tmp_path: Path) -> None:
    segment = Segment(tmp_path / "a.rows")
    segment.append(row(0))
    line_bytes = segment.path.stat().st_size
    with largest_file(line_bytes + 10):
        with pytest.raises(StorageError, match=rf"{segment.path}: the disk took 10 of \d+ bytes; is it full"):
            segment.append(row(1))
        with pytest.raises(StorageError, match=rf"{segment.path}: File too large"):
            segment.append(row(2))
    assert segment.path.stat().st_size == line_bytes + 10
    assert [each.seq for each in read_segment(segment.path)] == [0]
    segment.append(row(3))
    segment.close()
    assert [each.seq for each in read_segment(segment.path)] == [0, 3], "a disk that has room again"


@settings(max_examples=60, deadline=None)
@example(cut=211)
@given(cut=st.integers(0, 3000))
def test_a_row_after_a_torn_line_is_a_line_of_its_own(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("torn") / "a.rows"
    with closing(Segment(path)) as segment:
        for n in range(5):
            segment.append(row(n))
    whole = path.read_bytes()
    data = whole[:cut]
    path.write_bytes(data)
    with closing(Segment(path)) as segment:
        segment.append(row(8))
        segment.append(row(9))
    assert path.read_bytes().startswith(data), "it only grows"
    ends = [at for at, byte in enumerate(whole) if byte == ord("\n")]  # a line that only lacks its end is given one
    assert [each.seq for each in read_segment(path)] == [*range(sum(end <= cut for end in ends)), 8, 9]


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """Lets this process write no file longer than that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_taken_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is not empty"):
        RunDir.create(tmp_path)


def test_a_directory_without_a_manifest_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run\.json"):
        RunDir.open(tmp_path)


@pytest.mark.parametrize("said", [b"", b'{"trials": [', b"[]", b"{}", b'{"schema": 99}', b'{"name": "\xff"}'])
def test_a_damaged_manifest_is_one_line_that_names_the_file(said: bytes, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(said)
    with pytest.raises(InputError, match=rf"^{tmp_path}/run\.json: .*; what a raybench run says of itself, in JSON$"):
        RunDir.open(tmp_path).manifest()


def test_the_manifest_reads_back_and_is_replaced_whole(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run")
    run.write_manifest(told(name="é", n=1))
    run.write_manifest(told(name="é", n=2))
    assert run.manifest() == told(name="é", n=2)
    assert [p.name for p in run.path.iterdir()] == ["run.json"]
