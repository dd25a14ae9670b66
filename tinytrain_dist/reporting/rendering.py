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
_WRAPS = ("method", "standing", "why")
_MIN_METHOD = 14
_MIN_WRAPPED = 20  # a wrapped column keeps its longest word up to this, such as "calibrated+estimate,"
_GAP = 2
Labels = dict[tuple[str | None, ...], str]


def render_table(rows: Sequence[ComparisonRow]) -> str:
    """Return a table per place (rows as ``comparison_table`` orders them), one of its costs, then the notices."""
    parts: list[RenderableType] = []
    labels = adaptation_labels(rows)
    for _, group in groupby(rows, key=place_of):
        lines = list(group)
        parts += [Text(_title(lines)), *_accuracy_tables(lines, labels)]
        parts += ["", *_cost_tables(lines, labels)] if any(row.num_priced for row in lines) else []
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
        table.add_column(
            name,
            justify="left" if name in left else "right",
            overflow="fold",
            no_wrap=name not in _WRAPS,
            min_width=_MIN_METHOD if name == "method" else None,
        )
    for row in rows:
        table.add_row(*(Text(one_line(value)) for value in row))
    return table


def text_tables(
    names: Sequence[str], rows: Iterable[Sequence[str]], *, repeat: int, left: Sequence[str] = _LEFT
) -> list[RenderableType]:
    """Return the table, or where ``WIDTH`` would cut cells off several, each with the first ``repeat`` columns.

    Between two of them stands an empty line.
    """
    lines = [[one_line(value) for value in row] for row in rows]
    widths = [_least_width(name, [line[at] for line in lines]) + _GAP for at, name in enumerate(names)]
    fixed = list(range(repeat))
    parts, room = [list(fixed)], WIDTH + _GAP - sum(widths[:repeat])
    for at in range(repeat, len(names)):
        if widths[at] > room and len(parts[-1]) > repeat:
            parts.append(list(fixed))
            room = WIDTH + _GAP - sum(widths[:repeat])
        parts[-1].append(at)
        room -= widths[at]
    tables: list[RenderableType] = []
    for part in parts:
        table = text_table([names[at] for at in part], [[line[at] for at in part] for line in lines], left=left)
        tables += [*([""] if tables else []), table]
    return tables


def _least_width(name: str, cells_below: Sequence[str]) -> int:
    longest = max((len(cell) for cell in (name, *cells_below)), default=0)
    if name not in _WRAPS:
        return longest
    words = [len(word) for cell in (name, *cells_below) for word in cell.split()]
    return max(_MIN_METHOD if name == "method" else 0, min(_MIN_WRAPPED, max(words)))


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


def _accuracy_tables(rows: Sequence[ComparisonRow], labels: Labels) -> list[RenderableType]:
    runs, versus = any(row.run for row in rows), any(row.versus_run for row in rows)
    columns = [*cells.ACCURACY_COLUMNS, *cells.DOMAIN_COLUMNS, *cells.LAST_COLUMNS]
    if versus:  # what the runs differ by, in place of the domains' averages
        columns = [*cells.ACCURACY_COLUMNS, *cells.LAST_COLUMNS, "versus the first run, pts", "pairs", "p (Holm)"]
    lines = []
    for row in rows:
        middle = [] if versus else cells.domain_cells(row)
        last = cells.last_cells(row) + (cells.versus_cells(row) if versus else [])
        lines.append([*_run(row, runs), *cells.accuracy_cells(row, labels[adaptation_key(row)]), *middle, *last])
    return text_tables([*(["run"] if runs else []), *columns], lines, repeat=2 if runs else 1)


def _cost_tables(rows: Sequence[ComparisonRow], labels: Labels) -> list[RenderableType]:
    runs = any(row.run for row in rows)
    fits = [] if runs else [*cells.FIT_COLUMNS]  # several runs: what they cost; the width holds no more
    lines = [
        [*_run(row, runs), labels[adaptation_key(row)], *(cells.fit_cells(row) if fits else []), *cells.cost_cells(row)]
        for row in rows
    ]
    names = [*(["run"] if runs else []), "method", *fits, *cells.COST_COLUMNS]
    return text_tables(names, lines, repeat=2 if runs else 1)


def _run(row: ComparisonRow, runs: bool) -> list[str]:
    return [one_line(row.run or "", limit=24)] if runs else []
