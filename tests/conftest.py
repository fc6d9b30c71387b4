"""What every test may use: nothing here patches what is measured."""

import signal
import sys

import pytest
from hypothesis import settings

settings.register_profile("raybench", deadline=None)  # a busy machine is slow: no test is red for that
settings.load_profile("raybench")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kill-points", type=int, default=0, help="at least so many for the faults of whole runs")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test marked `kill_points(n)` is played with n seeds, or as many as are asked for."""
    if mark := metafunc.definition.get_closest_marker("kill_points"):
        metafunc.parametrize("seed", range(max(mark.args[0], metafunc.config.getoption("--kill-points"))))


def pytest_configure(config: pytest.Config) -> None:
    """A shell that starts pytest beside other things has it, and so our commands, ignore SIGINT: tests send some."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Ray reads its environment when it is imported, the token too: only what prepares that may bring it in."""
    if "ray" in sys.modules:
        raise pytest.UsageError("a test file imports Ray when it is collected: import it in the test")
