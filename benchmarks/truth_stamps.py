"""What this machine's own stamps are worth: `raybench selftest`, held against what is promised of them.

One load actor measures the simulator, whose truth is known, at 1 to 256 streams of 50 chunks a second.
"""

from raybench.cluster.calibration import ERROR_MS
from raybench.cluster.monitor import Screen
from raybench.selftest import Selftest, selftest
from raybench.selftest_text import text

STREAMS = 64
"""How many streams a core carries, as is promised, with first tokens stamped at most ERROR_MS late (p99)."""


def broken(found: Selftest) -> list[str]:
    """Why the promise is not kept, a line for each actor; nothing if it is."""
    lines = []
    for each in found.actors:
        rung = next((rung for rung in each.rungs if rung.streams == STREAMS), None)
        late_ms = None if rung is None else rung.ttft.p99_ms
        if rung is None or late_ms is None:
            lines.append(f"{each.actor}: {STREAMS} streams were not measured")
        elif late_ms > ERROR_MS:
            why = "" if rung.simulator_kept_up else "; its simulator did not keep up, so this machine cannot tell"
            lines.append(
                f"{each.actor}: first tokens of {STREAMS} streams are stamped {late_ms:.1f} ms late (p99){why}"
            )
    return lines


def main() -> None:
    """Prints the figures; exits 1 where the promise is broken."""
    found = selftest(1, "local", Screen())
    print(text(found))
    print(f"\npromised: first tokens of {STREAMS} streams stamped at most {ERROR_MS:g} ms late (p99)")
    lines = broken(found)
    print("\n".join(lines or ["every promise kept"]))
    if lines:
        print("A PROMISE IS BROKEN")
    raise SystemExit(1 if lines else 0)


if __name__ == "__main__":
    main()
