"""The page of a run in a browser."""

import webbrowser
from pathlib import Path

from raybench.errors import InputError
from raybench.rundir import PAGE, RunDir


def open_page(run_dir: Path) -> tuple[Path, bool]:
    """Opens report.html of a run in the default browser: its path, and whether there was a browser to open it.

    InputError if there is no run, or no report of it yet.
    """
    page = RunDir.open(run_dir).path.absolute() / PAGE
    if not page.is_file():
        allowed = f"`raybench report {run_dir}` makes it from the rows"
        raise InputError(f"no {PAGE} here", where=str(run_dir), allowed=allowed)
    return page, webbrowser.open(page.as_uri())
