"""Runs every benchmark of this folder as a process of its own, or those named: `python -m benchmarks client_cpu`."""

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """0 if every benchmark ran to its end."""
    here = Path(__file__).parent
    names = sys.argv[1:] or sorted(p.stem for p in here.glob("*.py") if not p.stem.startswith(("_", "truth")))
    failed = 0
    for name in names:
        print(f"\n=== {name}", flush=True)
        failed |= subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode
    return int(failed != 0)


if __name__ == "__main__":
    sys.exit(main())
