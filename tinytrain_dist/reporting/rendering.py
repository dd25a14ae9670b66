"""The comparison as plain text: at most 160 columns, no colours, readable in a pipe."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from itertools import groupby

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from tinytrain_dist.reporting import cells
from tinytrain_dist.reporting.comparison import ComparisonRow, joined, place_of
from tinytrain_dist.reporting.formatting import one_line
from tinytrain_dist.reporting.labels import adaptation_key, adaptation_labels
from tinytrain_dist.reporting.notices import notices

WIDTH = 160
MAX_PARAGRAPH = 2000
_LEFT = ("method", "standing", "decided by", "run")
Labels = dict[tuple[str | None, ...], str]


def render_table(rows: Sequence[ComparisonRow]) -> str:
    """Return a table per place (rows as ``comparison_table`` orders them), one of its costs, then the notices."""
    parts: list[RenderableType] = []
    labels = adaptation_labels(rows)
    for _, group in groupby(rows, key=place_of):
        lines = list(group)
        parts += [Text(_title(lines)), _accuracy_table(lines, labels)]
        parts += ["", _cost_table(lines, labels)] if any(row.num_priced for row in lines) else []
        parts.append("")
    parts += paragraphs([cells.EXPLANATION, cells.statistics_note(list(rows)), *notices(rows)])
    return plain_text(parts)


def plain_text(parts: Iterable[RenderableType]) -> str:
    """Return tables and texts as lines without colours, at most ``WIDTH`` wide."""
    out = io.StringIO()
    console = Console(file=out, width=WIDTH, color_system=None, force_terminal=False, legacy_windows=False)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text) and part.no_wrap is True)  # a command stays one line
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def paragraphs(texts: Iterable[str]) -> list[RenderableType]:
    """Return texts that may hold names from outside: no markup, no control characters."""
    return [Text(one_line(text, limit=MAX_PARAGRAPH)) for text in texts]


def text_table(names: Sequence[str], rows: Iterable[Sequence[str]], *, left: Sequence[str] = _LEFT) -> Table:
    """Return a rich table of plain cells; columns not named in ``left`` are right-aligned."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        wraps = name in ("method", "standing", "why")
        table.add_column(
            name,
            justify="left" if name in left else "right",
            overflow="fold",
            no_wrap=not wraps,
            min_width=14 if name == "method" else None,
        )
    for row in rows:
        table.add_row(*(Text(one_line(value)) for value in row))
    return table


def place_title(device: str | None, domain: str | None, rows: Sequence[ComparisonRow]) -> str:
    """Return the heading of one group of rows: where they were measured and what their prices rest on."""
    if domain is not None and device is None:
        return f"domain {domain} (each task averaged over its devices)"
    if device is None:
        return "no device needed" if all(row.backbone is None for row in rows) else "all devices and domains"
    numerics, counter, batch = (joined(rows, name) or "-" for name in ("price_numerics", "fit_counter", "batch"))
    where = f", domain {domain}" if domain is not None else ""
    return f"{device}{where} (priced in {numerics}, memory by {counter}, batch {batch})"


def _title(rows: Sequence[ComparisonRow]) -> str:
    first = rows[0]
    further = [f"{name} {getattr(first, name)}" for name in ("way", "shot", "resolution", "mode")
               if getattr(first, name) is not None]  # fmt: skip
    plain = first.device is None and first.domain is None
    words = further if plain and further else [place_title(first.device, first.domain, rows), *further]
    return one_line(", ".join(words), limit=WIDTH)


def _accuracy_table(rows: Sequence[ComparisonRow], labels: Labels) -> Table:
    runs, versus = any(row.run for row in rows), any(row.versus_run for row in rows)
    columns = [*cells.ACCURACY_COLUMNS, *cells.DOMAIN_COLUMNS, *cells.LAST_COLUMNS]
    if versus:  # what the runs differ by, in place of the domains' averages
        columns = [*cells.ACCURACY_COLUMNS, *cells.LAST_COLUMNS, "versus the first run, pts", "pairs", "p (Holm)"]
    lines = []
    for row in rows:
        middle = [] if versus else cells.domain_cells(row)
        last = cells.last_cells(row) + (cells.versus_cells(row) if versus else [])
        lines.append([*_run(row, runs), *cells.accuracy_cells(row, labels[adaptation_key(row)]), *middle, *last])
    return text_table([*(["run"] if runs else []), *columns], lines)


def _cost_table(rows: Sequence[ComparisonRow], labels: Labels) -> Table:
    runs = any(row.run for row in rows)
    fits = [] if runs else [*cells.FIT_COLUMNS]  # several runs: what they cost; the width holds no more
    lines = [
        [*_run(row, runs), labels[adaptation_key(row)], *(cells.fit_cells(row) if fits else []), *cells.cost_cells(row)]
        for row in rows
    ]
    return text_table([*(["run"] if runs else []), "method", *fits, *cells.COST_COLUMNS], lines)


def _run(row: ComparisonRow, runs: bool) -> list[str]:
    return [one_line(row.run or "", limit=24)] if runs else []
