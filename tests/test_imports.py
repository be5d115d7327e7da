"""Imports go strictly down the floors of the design."""

import ast
from pathlib import Path

import pytest

import sslkit

ROOT = Path(sslkit.__file__).parent
FLOORS = [
    {"losses", "miners", "distributed", "embeddings"},
    {"backbones", "heads", "views", "data"},
    {"training"},
    {"methods", "evaluation"},
    {"callbacks", "dashboard"},
    {"cli"},
    {"__main__"},
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def imported(source: str) -> set[str]:
    """The rooms of sslkit that a source imports from, wherever in it."""
    rooms = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            if parts[0] == "sslkit" and len(parts) > 1 and parts[1] in FLOOR:
                rooms.add(parts[1])
    return rooms


def climbs(room: str, source: str) -> set[str]:
    floor = FLOOR[room]
    return {other for other in imported(source) if other != room and FLOOR[other] >= floor}


FILES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert room in FLOOR, f"{room} stands on no floor"
    # Rooms of one floor may not import each other, but for floor 0, whose losses gather.
    allowed = {0: FLOORS[0]}.get(FLOOR[room], set())
    assert climbs(room, path.read_text()) <= allowed


def test_the_rule_bites():
    assert climbs("losses", "from sslkit.cli import main") == {"cli"}
    assert climbs("methods", "import sslkit.evaluation") == {"evaluation"}
    assert climbs("methods", "def f():\n    from sslkit import dashboard") == {"dashboard"}
    assert climbs("training", "from sslkit.backbones import ResNet") == set()


def test_relative_imports_are_not_used():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.level), path
