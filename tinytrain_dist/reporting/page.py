"""The HTML page of a run: one file that opens from disk, without network, with everything inside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from tinytrain_dist.foundation.hashing import bytes_hash
from tinytrain_dist.foundation.paths import atomic_write
from tinytrain_dist.foundation.redaction import redact_text
from tinytrain_dist.reporting import cells
from tinytrain_dist.reporting.charts import SECTIONS, charts_of
from tinytrain_dist.reporting.headlines import headlines
from tinytrain_dist.reporting.notices import notices, numerics_notice
from tinytrain_dist.reporting.page_data import ALL, PageData
from tinytrain_dist.reporting.runs import RunResults

PAGE_NAME = "report.html"
SCRIPTS = ("state.js", "accuracy.js", "cost.js", "plans.js", "tables.js", "start.js")


def write_page(run: RunResults, *, notes: Sequence[str] = ()) -> Path:
    """Write ``report.html`` into the run directory, all or nothing, and return its path.

    Of a run in an object store this is the local copy's; ``run.folder.publish`` brings it there.

    Parameters
    ----------
    notes
        What has to be said about the run before its figures, such as that it is unfinished.

    Raises
    ------
    StorageError
        The run directory cannot be written.
    """
    target = run.path / PAGE_NAME
    atomic_write(target, render_page(run, notes=notes).encode())
    return target


def render_page(run: RunResults, *, notes: Sequence[str] = ()) -> str:
    """Return the page; the same results give the same text."""
    data = PageData(run)
    document = data.document()
    values = {
        "title": redact_text(run.run_id),
        "status": str(run.record.get("status", "unknown")),
        "headlines": [redact_text(text) for text in headlines(run, data.by_device, data.by_method)],
        "notices": [redact_text(text) for text in [*notes, *notices(data.by_device)]],
        "apart": redact_text(numerics_notice(data.by_device) or ""),
        "explanation": cells.EXPLANATION,
        "provenance": provenance(run),
        "sections": SECTIONS,
        "charts_of": charts_of,
        "all": ALL,
    }
    return render("report.html.j2", document, values, scripts=SCRIPTS)


def render(template: str, document: dict[str, Any], values: dict[str, Any], *, scripts: tuple[str, ...]) -> str:
    """Return a page of ``template`` with the embedded ``document``, the chart library and our ``scripts``."""
    data = json_for_script(document)
    environment = Environment(
        loader=PackageLoader("tinytrain_dist.reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    own = {
        "data": document,
        "json": Markup(data),  # escaped by json_for_script
        "css": Markup(_static("page.css")),
        "plotly": Markup(get_plotlyjs()),  # part of the installed plotly package
        "scripts": Markup("\n".join(_static(name) for name in scripts)),
        "nonce": bytes_hash(data.encode(), length=24),
    }
    return environment.get_template(template).render(values | own)


def json_for_script(value: Any) -> str:
    """Return JSON that can stand inside a script element whatever names it holds."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))  # ASCII only: no U+2028 either
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def provenance(run: RunResults) -> list[tuple[str, str]]:
    """Return the record of the run as (heading, JSON text), redacted."""
    names = ("run_id", "kind", "status", "exit_code", "created", "updated", "command", "result_hash")
    plain = {name: run.record[name] for name in names if name in run.record}
    plain |= {"rows": run.num_rows, "result_files": len(run.result_files())}
    rest = {name: run.record[name] for name in ("versions", "identity", "grid", "config") if run.record.get(name)}
    return [(name, json.dumps(value, indent=2, ensure_ascii=False)) for name, value in ({"run": plain} | rest).items()]


def _static(name: str) -> str:
    return files("tinytrain_dist.reporting").joinpath("static", name).read_text(encoding="utf-8")
