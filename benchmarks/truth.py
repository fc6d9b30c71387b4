"""The table of figures behind the numbers: every `truth_*` benchmark, this machine's own stamps included.

    python -m benchmarks.truth

Each names its seeds and is a process of its own; exit 1 where one of them breaks a promise.
"""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path


def names() -> list[str]:
    """Every benchmark of the table, as modules."""
    return [f"benchmarks.{path.stem}" for path in sorted(Path(__file__).parent.glob("truth_*.py"))]


def broken(modules: Iterable[str]) -> list[str]:
    """Runs modules one after another; those that did not end well."""
    found = []
    for module in modules:
        print(f"\n=== {module}", flush=True)
        if subprocess.run([sys.executable, "-m", module], check=False).returncode:
            found.append(module)
    return found


def main(modules: Iterable[str]) -> int:
    """0 if every promise is kept."""
    found = broken(modules)
    print(f"\n{'every promise kept' if not found else 'A PROMISE IS BROKEN: ' + ', '.join(found)}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(names()))
