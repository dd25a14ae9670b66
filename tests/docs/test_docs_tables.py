"""The documentation's tables say what the code says."""

from __future__ import annotations

from pathlib import Path

from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.simulation.schema import COLUMNS

DOCS = Path(__file__).parents[2] / "docs"


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
