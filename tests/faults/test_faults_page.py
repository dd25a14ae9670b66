"""The page of faults names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "faults.md"


def functions_in(file: Path) -> set[str]:
    return {node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)}


def test_every_test_on_the_page_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE.read_text())
    assert len(named) > 40
    missing = [f"{file}::{name}" for file, name in named if name not in functions_in(REPOSITORY / file)]
    assert missing == []


def test_every_test_of_real_faults_is_on_the_page() -> None:
    text = PAGE.read_text()
    files = sorted(Path(__file__).parent.glob("test_faults_*.py"))
    found = {
        name
        for file in files
        for name in functions_in(file)
        if name.startswith("test_") and file.name != Path(__file__).name
    }
    left_out = {"test_what_a_task_holds_itself_stops_it", "test_stages_that_need_a_local_folder_say_so"}
    left_out |= {"test_the_job_in_a_bucket_equals_the_local_one"}
    assert {name for name in found if name not in text} == left_out
