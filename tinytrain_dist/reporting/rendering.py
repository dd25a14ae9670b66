"""The comparison as plain text: at most 160 columns, no colours, readable in a pipe."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tinytrain_dist.reporting import cells
from tinytrain_dist.reporting.comparison import ComparisonRow, joined
from tinytrain_dist.reporting.formatting import one_line
from tinytrain_dist.reporting.labels import adaptation_key, adaptation_labels
from tinytrain_dist.reporting.notices import notices

WIDTH = 160


def render_table(rows: Sequence[ComparisonRow]) -> str:
    """Return one table per device or domain (rows as ``comparison_table`` orders them), then the notices."""
    out = io.StringIO()
    console = Console(file=out, width=WIDTH, color_system=None, force_terminal=False, legacy_windows=False)
    labels = adaptation_labels(rows)
    for (device, domain), group in groupby(rows, key=lambda row: (row.device, row.domain)):
        lines = list(group)
        console.print(Text(_title(device, domain, lines)))
        console.print(_table(lines, labels))
        console.print()
    for text in (cells.EXPLANATION, *notices(rows)):
        console.print(Text(one_line(text, limit=2000)))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def place_title(device: str | None, domain: str | None, rows: Sequence[ComparisonRow]) -> str:
    """Return the heading of one group of rows: where they were measured and what their prices rest on."""
    if domain is not None:
        return f"domain {domain} (each task averaged over its devices)"
    if device is None:
        return "no device needed" if all(row.backbone is None for row in rows) else "all devices and domains"
    numerics, counter, batch = (joined(rows, name) or "-" for name in ("price_numerics", "fit_counter", "batch"))
    return f"{device} (priced in {numerics}, memory by {counter}, batch {batch})"


def _title(device: str | None, domain: str | None, rows: Sequence[ComparisonRow]) -> str:
    return one_line(place_title(device, domain, rows), limit=WIDTH)


def _table(rows: Sequence[ComparisonRow], labels: dict[tuple[str | None, ...], str]) -> Table:
    priced = any(row.num_priced for row in rows)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    names = cells.ACCURACY_COLUMNS + (cells.COST_COLUMNS if priced else ()) + cells.LAST_COLUMNS
    for name in names:
        left = name in ("method", "standing")
        table.add_column(
            name,
            justify="left" if left else "right",
            overflow="fold",
            no_wrap=name != "method",
            min_width=14 if name == "method" else None,
        )
    for row in rows:
        values = cells.accuracy_cells(row, labels[adaptation_key(row)])
        values += (cells.cost_cells(row) if priced else []) + cells.last_cells(row)
        table.add_row(*(Text(one_line(value)) for value in values))
    return table
