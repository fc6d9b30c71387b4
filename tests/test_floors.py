"""Imports point down only, and foreign packages stay behind their fences."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "raybench"

FLOORS = [
    ["errors", "rows", "states", "counting", "clock", "prices"],
    [
        *("virtual", "load", "client", "payloads", "rundir", "s3", "signals", "analysis.columns", "analysis.metrics"),
        "analysis.stats",
        *("simulator.engine", "simulator.faults", "simulator.profiles", "simulator.wire", "simulator.auth"),
    ],
    ["analysis", "simulator", "endpoints", "mirror"],
    ["report"],
    ["yamlfile"],
    ["strict"],
    ["specs", "datasets", "loads"],
    ["config"],
    ["plan"],
    ["cluster", "plan_text"],
    ["deploying"],
    ["manifest", "targets", "selftest"],
    ["searching", "publish", "sizing", "practice", "watching", "selftest_text"],
    ["muster"],
    ["run", "rehearsal", "starter", "comparing", "fetching"],
    ["rehearsal_text", "comparing_text", "resume"],
    ["cli"],
    ["__main__"],
]
"""Lowest first; a room may import rooms of lower floors, and its own."""

FENCES = {
    "ray": ["cluster", "analysis.reduce"],
    "boto3": ["endpoints"],
    "botocore": ["client.credentials", "endpoints"],
    "pyarrow.fs": ["s3"],
    "altair": ["report.charts"],
    "vl_convert": ["report"],
    "typer": ["cli"],
    "yaml": ["yamlfile"],
    "uvloop": ["cluster", "simulator"],
}


def modules() -> dict[str, Path]:
    names = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(p for p in parts if p != "__init__")] = path
    return names


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they point"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return found


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


def place(module: str) -> tuple[int, str]:
    """The floor and room of a module: the longest room name that holds it."""
    rooms = [(len(room), floor, room) for floor, rooms in enumerate(FLOORS) for room in rooms if within(module, room)]
    assert rooms, f"{module} stands on no floor: give it one"
    _, floor, room = max(rooms)
    return floor, room


MODULES = modules()
OURS = {name for name in MODULES if name}


@pytest.mark.parametrize("module", sorted(OURS))
def test_imports_point_down_only(module: str) -> None:
    if MODULES[module].name == "__init__.py":
        assert not {i for i in imports(MODULES[module]) if within(i, "raybench")}, "packages re-export nothing"
        return
    floor, room = place(module)
    for name in imports(MODULES[module]):
        target = name.removeprefix("raybench.")
        if not within(name, "raybench") or target not in OURS or MODULES[target].name == "__init__.py":
            continue
        their_floor, their_room = place(target)
        beside = their_floor == floor and their_room.split(".")[0] == room.split(".")[0]
        assert their_floor < floor or beside, f"{module} (floor {floor}) imports {target} ({their_floor})"


def test_imports_run_in_no_circle() -> None:
    """Within a room too, and those inside functions count."""
    ours = {name: {i.removeprefix("raybench.") for i in imports(MODULES[name])} & OURS - {name} for name in OURS}
    assert len(list(TopologicalSorter(ours).static_order())) == len(OURS)


@pytest.mark.parametrize("module", sorted(OURS))
def test_foreign_packages_stay_behind_their_fences(module: str) -> None:
    for name in imports(MODULES[module]):
        for package, rooms in FENCES.items():
            if within(name, package):
                assert any(within(module, room) for room in rooms), f"{module} imports {package}"


def test_nothing_reads_the_wall_clock_in_the_hot_path() -> None:
    for module, path in MODULES.items():
        if within(module, "client") or within(module, "load"):
            source = path.read_text("utf-8")
            allowed = module == "client.sigv4" or module == "client.sagemaker" or module == "client.credentials"
            assert allowed or "time.time" not in source, f"{module} reads the wall clock"
