"""The table of figures behind the numbers: every `truth_*` benchmark, then what this machine's own stamps are worth.

    python -m benchmarks.truth

Each names its seeds and is a process of its own; exit 1 where one of them breaks a promise.
"""

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """0 if every promise is kept."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("truth_*.py"))
    commands = [("-m", f"benchmarks.{name}") for name in names] + [("-m", "raybench", "selftest")]
    failed = 0
    for command in commands:
        print(f"\n=== {' '.join(command[1:])}", flush=True)
        failed |= subprocess.run([sys.executable, *command], check=False).returncode
    return int(failed != 0)


if __name__ == "__main__":
    sys.exit(main())
