"""What a study says: tables of words, numbers and means with their interval, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tinytrain_dist.reporting.formatting import UNKNOWN, one_line
from tinytrain_dist.reporting.intervals import Estimate

Unit = Literal["per cent", "points", "correlation"]
_FORMS: dict[Unit, str] = {"per cent": ".1f", "points": "+.1f", "correlation": "+.2f"}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A mean over tasks with its 95 % interval, in ``unit``; nothing where there is no task."""

    unit: Unit
    estimate: Estimate | None

    @property
    def text(self) -> str:
        """Mean and half width, such as ``+2.3 ±0.7``; one task has no interval."""
        if self.estimate is None:
            return UNKNOWN
        form, found = _FORMS[self.unit], self.estimate
        half = "?" if found.high is None else format(found.high - found.mean, form.lstrip("+"))
        return f"{found.mean:{form}} ±{half}"

    def to_dict(self) -> dict[str, Any]:
        """Return mean, low, high, number of tasks and unit; the four are null without a task."""
        values = dict.fromkeys(("mean", "low", "high", "num")) if self.estimate is None else asdict(self.estimate)
        return {**values, "unit": self.unit}


Cell = Measured | str | int | float | None


@dataclass(frozen=True, kw_only=True)
class StudyTable:
    """One table; every row has a cell per column."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), self.title

    def to_markdown(self) -> str:
        """Return heading and table."""
        lines = [_line(self.columns), _line(["---"] * len(self.columns))]
        lines += [_line([_text(cell) for cell in row]) for row in self.rows]
        return "\n".join([f"## {_plain(self.title)}", "", *lines])

    def to_dict(self) -> dict[str, Any]:
        """Return the table as JSON values; a mean is an object with its interval."""
        rows = [[cell.to_dict() if isinstance(cell, Measured) else cell for cell in row] for row in self.rows]
        return {"title": self.title, "columns": list(self.columns), "rows": rows}


@dataclass(frozen=True, kw_only=True)
class StudyReport:
    """The tables of a study, and what must be known to read them."""

    tables: tuple[StudyTable, ...]
    notes: tuple[str, ...] = ()

    def to_markdown(self, *, title: str) -> str:
        """Return the whole page; equal rows give equal text."""
        notes = [f"- {_plain(note)}" for note in self.notes]
        parts = [f"# {_plain(title)}", *(table.to_markdown() for table in self.tables), "\n".join(notes)]
        return "\n\n".join(part for part in parts if part) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return tables and notes as JSON values."""
        return {"tables": [table.to_dict() for table in self.tables], "notes": list(self.notes)}


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_plain(cell) for cell in cells) + " |"


def _text(cell: Cell) -> str:
    if isinstance(cell, Measured):
        return cell.text
    if cell is None:
        return UNKNOWN
    return f"{cell:,.0f}" if isinstance(cell, int | float) else cell


def _plain(text: str) -> str:
    """Return text that stays in its cell and builds no HTML: names of methods and domains come from outside."""
    return one_line(text, limit=2000).replace("|", "\\|").replace("<", "&lt;")
