"""The fixture that writes synthetic runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from synthetic_run import Row, grid_rows, write_run


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes the given rows (by default a small grid) as a run directory."""

    def make(rows: list[Row] | None = None, *, name: str = "run", **options: Any) -> Path:
        return write_run(tmp_path / name, grid_rows() if rows is None else rows, **options)

    return make
