"""How late a replay of a recorded trace sends on this machine: lateness p99, sent minus planned, over loopback.

One load actor plays ours, and the public traces where they lie beside the project, against a simulator: real sockets
in real time. There is no seed: the schedule is the trace's own. None may be early, missing or out of turn.
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raybench.client.sigv4 import Credentials
from raybench.client.target import Target
from raybench.clock import NS_PER_S
from raybench.cluster.actor import LoadActor, Share
from raybench.cluster.part import Post
from raybench.load.arrivals import Replay
from raybench.plan import Trial
from raybench.rows import Prompt
from raybench.simulator.process import simulated

MOST_MS = 10.0
LASTS_S, LEAD_S = 15.0, 0.2
SPEED = 10.0
"""So many times as fast as it was recorded, or a quarter of a minute would hold too few arrivals for a p99."""

HERE = Path(__file__).parents[1]
PUBLIC = HERE.parent / "shared" / "data" / "traces"
PROMPTS = [Prompt(f"prompt number {n}", 4, "estimate") for n in range(1000)]
QUICK = {"ttft_s": 0.02, "itl_s": 0.01, "tokens": 8}


def traces() -> list[Path]:
    """Our own trace, and the public ones that are here."""
    found = sorted(path for kind in ("*.csv", "*.jsonl") for path in PUBLIC.rglob(kind))
    return [HERE / "configs" / "replay.jsonl", *found]


def played(actor: LoadActor, load: Replay, number: int) -> pa.Table:
    """The rows of the first seconds of a trace."""
    trial = Trial(f"replay-{number}", number, "e", "p", load, 0, number, 0.0, LASTS_S, None, 0, None)
    actor.connect(trial)
    tables = list(actor.play(Share(trial, 0, time.time_ns() + round(LEAD_S * NS_PER_S))))
    return pa.concat_tables(table.replace_schema_metadata() for table in tables)


def judged(load: Replay, rows: pa.Table) -> str | None:
    """Why the promise is not kept, None if it is; prints the figures."""
    measured = rows.filter(pc.equal(rows["phase"], "measure")).sort_by("seq")
    wanted_ns = load.offsets_ns(0, duration_ns=round(LASTS_S * NS_PER_S))
    if measured["planned_ns"].to_pylist() != wanted_ns.tolist() or measured["sent_ns"].null_count:
        return f"{load.trace.name}: not every request at its own instant"
    late_ms = (measured["sent_ns"].to_numpy() - wanted_ns) / 1e6
    p99_ms = float(np.quantile(late_ms, 0.99, method="higher"))
    rate = len(wanted_ns) / (int(wanted_ns[-1]) / NS_PER_S)
    print(f"{load.trace.name:<30} {len(wanted_ns):>6} requests, {rate:6.1f}/s, lateness p99 {p99_ms:6.2f} ms")
    if late_ms.min() < 0:
        return f"{load.trace.name}: sent before it was planned"
    return f"{load.trace.name}: lateness p99 {p99_ms:.1f} ms" if p99_ms > MOST_MS else None


def main() -> None:
    """Prints a line for each trace; exits 1 where the promise is broken."""
    broken = []
    with TemporaryDirectory() as folder, simulated({"e": {"profile": "fixed", "overrides": QUICK}}) as simulator:
        keys = Credentials(simulator.access_key, simulator.secret_key)
        target = Target(simulator.url, "e", simulator.region, "stream", "tgi", keys)
        actor = LoadActor(Post("e", 0, 1, target, {}, Path(folder)))
        list(actor.warm())
        actor.arm("p", PROMPTS)
        for number, trace in enumerate(traces()):
            load = Replay(trace, SPEED)
            broken.append(judged(load, played(actor, load, number)))
        actor.close()
    print(f"promised: lateness p99 of at most {MOST_MS:g} ms")
    lines = [line for line in broken if line]
    print("\n".join(lines or ["every promise kept"]))
    sys.exit(1 if lines else 0)


if __name__ == "__main__":
    main()
