"""The HTML page of a run: one file that opens from disk, without network, with everything inside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from tinytrain_dist.foundation.hashing import bytes_hash
from tinytrain_dist.foundation.paths import atomic_write
from tinytrain_dist.reporting import cells
from tinytrain_dist.reporting.charts import COST_AXES, Chart, Labels, box_chart, cost_chart, shown
from tinytrain_dist.reporting.comparison import ComparisonRow, comparison_table
from tinytrain_dist.reporting.distributions import boxes
from tinytrain_dist.reporting.failures import Trouble, troubles
from tinytrain_dist.reporting.formatting import UNKNOWN, percent, percent_interval
from tinytrain_dist.reporting.headlines import headlines
from tinytrain_dist.reporting.labels import adaptation_key, adaptation_labels
from tinytrain_dist.reporting.notices import notices
from tinytrain_dist.reporting.palette import styles
from tinytrain_dist.reporting.rendering import place_title
from tinytrain_dist.reporting.runs import RunResults

PAGE_NAME = "report.html"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the page: heading, column names, rows of printed cells (the first cell names the row)."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def write_page(run: RunResults) -> Path:
    """Write ``report.html`` into the run directory, all or nothing, and return its path.

    Raises
    ------
    StorageError
        The run directory cannot be written.
    """
    target = run.path / PAGE_NAME
    atomic_write(target, render_page(run).encode())
    return target


def render_page(run: RunResults) -> str:
    """Return the page; the same results give the same text."""
    by_device = comparison_table(run, by="device")
    labels = adaptation_labels(by_device)
    charts = _charts(run, by_device, labels)
    data = json_for_script([_chart_data(chart) for chart in charts])
    values = {
        "title": run.run_id,
        "status": str(run.record.get("status", "unknown")),
        "headlines": headlines(run, by_device, comparison_table(run, by="method")),
        "notices": notices(by_device),
        "device_tables": device_tables(by_device, labels),
        "domain_table": domain_table(comparison_table(run, by="domain"), labels),
        "fits_table": fits_table(by_device, labels),
        "trouble_table": trouble_table(troubles(run), labels),
        "explanation": cells.EXPLANATION,
        "charts": charts,
        "devices": sorted({row.device for row in by_device if row.device is not None}),
        "provenance": provenance(run),
        "data": Markup(data),  # escaped by json_for_script
        "plotly": Markup(get_plotlyjs()),  # part of the installed plotly package
        "nonce": bytes_hash(data.encode(), length=24),
    }
    environment = Environment(
        loader=PackageLoader("tinytrain_dist.reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html.j2").render(values)


def json_for_script(value: Any) -> str:
    """Return JSON that can stand inside a script element whatever names it holds."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))  # ASCII only: no U+2028 either
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def device_tables(rows: Sequence[ComparisonRow], labels: Labels) -> list[Table]:
    """Return the comparison, one table per device."""
    tables = []
    for device, group in groupby(rows, key=lambda row: row.device):
        lines = list(group)
        columns = cells.ACCURACY_COLUMNS + (cells.COST_COLUMNS if device else ()) + cells.LAST_COLUMNS
        body = [
            cells.accuracy_cells(row, labels[adaptation_key(row)])
            + (cells.cost_cells(row) if device else [])
            + cells.last_cells(row)
            for row in lines
        ]
        tables.append(Table(title=place_title(device, None, lines), columns=columns, rows=body))
    return tables


def domain_table(rows: Sequence[ComparisonRow], labels: Labels) -> Table:
    """Return the mean accuracy of every adaptation on every domain."""
    domains = sorted({str(row.domain) for row in rows})
    found = {(adaptation_key(row), row.domain): row for row in rows}
    body = []
    for key, label in labels.items():
        here = [found.get((key, domain)) for domain in domains]
        body.append([label] + [percent_interval(r.accuracy_mean, r.accuracy_high) if r else UNKNOWN for r in here])
    title = "accuracy %, mean over tasks ± half of the 95 % interval, each task averaged over its devices"
    return Table(title=title, columns=["method", *domains], rows=body)


def fits_table(rows: Sequence[ComparisonRow], labels: Labels) -> Table:
    """Return, per device and adaptation, the share of tasks that fit, with what is infeasible or failed."""
    priced = [row for row in rows if row.device is not None]
    used = {adaptation_key(row) for row in priced}
    keys = [key for key in labels if key in used]
    found = {(row.device, adaptation_key(row)): row for row in priced}
    devices = sorted({str(row.device) for row in priced})
    body = [[device] + [_fits_cell(found.get((device, key))) for key in keys] for device in devices]
    return Table(title="share of tasks that fit", columns=["device", *(labels[key] for key in keys)], rows=body)


def _fits_cell(row: ComparisonRow | None) -> str:
    if row is None:
        return UNKNOWN
    text = percent(row.fits_share, digits=0) + (" %" if row.fits_share is not None else "")
    text += f", {percent(row.uncertain_share, digits=0)} % uncertain" if row.uncertain_share else ""
    text += f", {row.num_infeasible} infeasible" if row.num_infeasible else ""
    return text + (f", {row.num_failed} failed" if row.num_failed else "")


def trouble_table(found: Sequence[Trouble], labels: Labels) -> Table:
    """Return the failures, infeasible plans and warning signs with one example each."""
    body = [[t.device or UNKNOWN, labels[t.key], t.kind, f"{t.num} of {t.of}", t.example or UNKNOWN] for t in found]
    return Table(title="what did not work", columns=["device", "method", "kind", "rows", "for example"], rows=body)


def provenance(run: RunResults) -> list[tuple[str, str]]:
    """Return the record of the run as (heading, JSON text), redacted."""
    plain = {name: run.record.get(name) for name in ("run_id", "status", "exit_code", "created", "command")}
    rest = {name: run.record[name] for name in ("versions", "identity", "config") if run.record.get(name)}
    shown_parts = {"run": plain | {"rows": run.num_rows, "result_files": len(run.result_files())}, **rest}
    return [(name, json.dumps(value, indent=2, ensure_ascii=False)) for name, value in shown_parts.items()]


def _charts(run: RunResults, rows: Sequence[ComparisonRow], labels: Labels) -> list[Chart]:
    looks = styles(labels.values())
    devices = sorted({row.device for row in rows if row.device is not None})
    charts = [cost_chart(rows, axis, labels, looks) for axis in COST_AXES]
    return [*charts, box_chart(boxes(run), devices, labels, looks)]


def _chart_data(chart: Chart) -> dict[str, Any]:
    places = [
        {"device": shown(device, limit=200), "figure": figure, "note": chart.notes[device]}
        for device, figure in chart.figures.items()
    ]
    return {"name": chart.name, "places": places}
