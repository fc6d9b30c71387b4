"""What every test may use: nothing here patches what is measured."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kill-points", type=int, default=0, help="at least so many for the faults of whole runs")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test marked `kill_points(n)` is played with n seeds, or as many as are asked for."""
    if mark := metafunc.definition.get_closest_marker("kill_points"):
        metafunc.parametrize("seed", range(max(mark.args[0], metafunc.config.getoption("--kill-points"))))
