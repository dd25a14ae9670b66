"""The documentation's tables say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.simulation.schema import COLUMNS

DOCS = Path(__file__).parents[2] / "docs"
SIMULATION = DOCS.parent / "tinytrain_dist" / "simulation"


def table_rows(name: str, *, columns: int) -> list[list[str]]:
    """Return the cells of the last table of a page."""
    lines = (DOCS / name).read_text().splitlines()
    start = max(i for i, line in enumerate(lines) if line.startswith("|---"))
    table = [line for line in lines[start + 1 :] if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert rows and all(len(row) == columns for row in rows)
    return rows


def test_the_result_schema_page_lists_every_column() -> None:
    found = table_rows("results.md", columns=5)
    wanted = [[f"`{c.name}`", str(c.type), c.unit, c.meaning, c.null or "never"] for c in COLUMNS]
    assert found == wanted


def test_the_exit_code_page_lists_every_code() -> None:
    assert table_rows("exit_codes.md", columns=2) == [[str(int(code)), code.describe()] for code in ExitCode]


def test_the_results_page_lists_every_event_of_the_drivers_log() -> None:
    section = (DOCS / "results.md").read_text().partition("## The driver's log")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    documented = [event for row in rows for event in re.findall(r"`(\w+)`", row)]
    code = "\n".join(path.read_text() for path in sorted(SIMULATION.glob("*.py")))
    names = re.findall(r'(?:(?:say|_tell|_say_start|_enter)\(|event =)\s*("[^),\n]*)', code)
    assert sorted(documented) == sorted({event for name in names for event in re.findall(r'(?<!== )"(\w+)"', name)})
