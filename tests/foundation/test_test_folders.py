"""Any folders of tests can be named on one command line: what a test imports is found whatever else is there."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1]
FILES = sorted(TESTS.rglob("*.py"))
HOMES = {path.stem: path.parent for path in FILES if path.stem != "conftest"}


def imported(path: Path) -> set[str]:
    """Return the top-level modules a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_no_two_modules_of_the_tests_have_one_name() -> None:
    """Folders of tests are no packages: a name belongs to whoever is imported first. pytest itself knows conftest."""
    counts = Counter(path.stem for path in FILES)
    assert {name for name, count in counts.items() if count > 1} == {"conftest"}
    assert [path for path in FILES if "conftest" in imported(path)] == [], "which one that is depends on the order"


def test_a_module_of_another_folder_is_put_on_the_path_by_who_imports_it() -> None:
    foreign = [
        (str(path.relative_to(TESTS)), name)
        for path in FILES
        for name in imported(path) & HOMES.keys()
        if HOMES[name] not in (path.parent, TESTS) and not says(path, HOMES[name].name)
    ]
    assert foreign == []


def says(path: Path, folder: str) -> bool:
    """Say whether a file, or its folder's conftest, names ``folder`` for the path."""
    texts = [file.read_text() for file in (path, path.with_name("conftest.py")) if file.is_file()]
    return any("sys.path" in text and f'"{folder}"' in text for text in texts)
