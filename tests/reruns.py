"""How often is the suite red by chance: its tests on sockets and real time, played over and over.

    python tests/reruns.py [RUNS] [MARKS]

MARKS says which tests (`not ray and not browser` if not said; `ray` for those that start clusters). Prints the number
of red runs and which tests were red in how many; exit 1 if any was. Tests in virtual time cannot differ: left out.
"""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
REAL = ("simulator(", "start_server(", "HTTPServer(", "subprocess", "socket.", "pytest.mark.ray", "threading.")
"""What stands in a test file that meets real sockets, processes or clocks."""

MARKS = "not ray and not browser"
AS_MADE = ("-q", "--dist", "loadfile")
"""Files at once, as `make` plays them on two cores."""

NO_TESTS = 5
"""The exit code of pytest where the marks leave nothing."""


def files() -> list[Path]:
    """The test files that are played."""
    sources = {path: path.read_text("utf-8") for path in sorted(HERE.glob("test_*.py"))}
    return [path for path, source in sources.items() if any(word in source for word in REAL)]


def red(output: str) -> Iterator[str]:
    """The names of the tests that pytest says failed, setup and teardown included."""
    for line in output.splitlines():
        if line.startswith(("FAILED ", "ERROR ")):
            yield line.split(" ", 1)[1].partition(" - ")[0]


def main(wanted: str = "50", marks: str = MARKS) -> int:
    """Plays so many runs; 1 if one was red."""
    runs = int(wanted)
    paths, failed, bad = files(), Counter[str](), 0
    print(f"{runs} runs of {len(paths)} files, tests marked: {marks}", flush=True)
    for number in range(1, runs + 1):
        began_s = time.monotonic()
        at_once = ("-n", "2" if marks == MARKS else "3")  # those that start clusters mostly wait
        command = [sys.executable, "-m", "pytest", *AS_MADE, *at_once, "-p", "no:cacheprovider", "-rfE", "--tb=short"]
        played = subprocess.run(
            [*command, "-m", marks, *map(str, paths)], check=False, capture_output=True, text=True
        )
        names = list(red(played.stdout))
        if played.returncode not in (0, NO_TESTS):
            bad += 1
            failed.update(names or [f"pytest ended with {played.returncode}"])
            print(played.stdout[-6000:], flush=True)
        verdict = f"RED: {', '.join(names)}" if names else "green"
        print(f"run {number}: {verdict}, {time.monotonic() - began_s:.0f} s", flush=True)
    print(f"{bad} of {runs} runs were red")
    for name, times in failed.most_common():
        print(f"{times:4}  {name}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
