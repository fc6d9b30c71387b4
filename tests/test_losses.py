"""What lost actors leave behind: known schedules, rows that are made up; `test_faults_virtual.py` has them played."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from made import row

from raybench.client.target import Target
from raybench.cluster.losses import Lost, complete, once
from raybench.cluster.part import Post
from raybench.load.arrivals import Constant
from raybench.plan import Trial
from raybench.rows import requests_table
from raybench.rundir import RunDir

TRIAL = Trial("t", 0, "e", "p", Constant(10.0), 0, 0, 0.0, 1.0, None, 0, None)


def lost(index: int) -> Lost:
    return Lost(Post("e", index, 2, Target("http://a:80", "e", "r"), {}, Path()), "h", True)


def test_what_is_recovered_of_a_lost_actor_is_of_its_own_sitting(tmp_path: Path) -> None:
    from raybench.cluster.collecting import spooled

    first = replace(lost(0).post, run_dir=tmp_path)
    second = replace(first, sitting=1)
    for post, seqs in ((first, range(10)), (second, range(4))):
        with closing(RunDir(tmp_path).segment("t", post.name, post.sitting)) as segment:
            for seq in seqs:
                segment.append(row(seq, request_id=f"{post.sitting}-{seq}"))
    assert spooled(second, "t")["request_id"].to_pylist() == ["1-0", "1-1", "1-2", "1-3"]


def rows(*seqs: int) -> pa.Table:
    return requests_table([row(seq, seq / 10) for seq in seqs])


@pytest.mark.parametrize(
    ("there", "gone", "missing"),
    [
        (range(10), [0, 1], []),
        ([0, 1, 2, 4, 6, 8], [1], [3, 5, 7, 9]),
        ([0, 1, 2, 4, 6, 8], [0], []),
        ([0, 1, 3, 5, 7, 9], [0, 1], [2, 4, 6, 8]),
        ([], [0], [0, 2, 4, 6, 8]),
    ],
    ids=["all is there", "one stopped", "the other did", "both are gone", "before it sent anything"],
)
def test_every_request_that_a_lost_actor_planned_has_one_row(
    there: list[int], gone: list[int], missing: list[int]
) -> None:
    found = complete(TRIAL, [lost(index) for index in gone], [rows(*there), rows(*there)])
    assert found.rows["seq"].to_pylist() == sorted(there) + missing
    assert found.known == len(missing)
    assert found.rows.slice(len(there))["outcome"].to_pylist() == ["lost"] * len(missing)
    assert found.rows.slice(0, len(there)).equals(once([rows(*there)]))
