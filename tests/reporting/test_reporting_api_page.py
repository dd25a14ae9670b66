"""The lines of ``docs/python_api.md`` run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from planner_rows import MakeRun, rows_with_ram

PAGE = Path(__file__).parents[2] / "docs" / "python_api.md"


def test_the_snippet_of_the_page_runs(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_run(rows_with_ram(), name="elsewhere")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(made)
    monkeypatch.chdir(tmp_path)
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert found is not None
    names: dict[str, Any] = {}
    exec(found.group(1), names)
    assert names["table"].num_rows == 9
    assert "plotly" in (tmp_path / "accuracy.html").read_text()
    assert len([line for line in found.group(1).splitlines() if line.strip()]) <= 5


def test_the_page_names_what_there_is() -> None:
    from tinytrain_dist.reporting.api import Run

    named = set(re.findall(r"`run\.(\w+)", PAGE.read_text())) - {"json"}  # run.json is a file
    assert named == {name for name in vars(Run) if not name.startswith("_")} | {"notes"}
