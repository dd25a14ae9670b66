"""What a W&B run of a simulation holds, as plain values: aggregated, bounded in size, redacted."""

from __future__ import annotations

from typing import Any

from tinytrain_dist.reporting.comparison import ComparisonRow, comparison_table
from tinytrain_dist.reporting.distributions import NUM_BINS, histograms
from tinytrain_dist.reporting.labels import adaptation_key, adaptation_labels
from tinytrain_dist.reporting.runs import RunResults

MAX_SAMPLE_ROWS = 5000
MAX_TAG_LENGTH = 64
SUMMARY_FIELDS = (
    "num_tasks", "fits_share", "accuracy_mean", "accuracy_where_fits_mean", "gain_points", "gain_low_points",
    "gain_high_points", "latency_p50_ms", "energy_p50_mj", "peak_p50_bytes", "failed_share",
)  # fmt: skip
DOMAIN_FIELDS = ("num_tasks", "accuracy_mean", "gain_points")
MAX_SUMMARY_DEVICES = 200
SAMPLE_COLUMNS = (
    "task_id", "domain", "device", "backbone", "initialization", "method", "variant", "status", "plan_status", "fits",
    "accuracy_before", "accuracy_after", "gain_points", "latency_ms", "energy_mj", "peak_bytes", "standing",
    "extrapolated", "accuracy_numerics", "price_numerics", "batch", "signature",
)  # fmt: skip


def group(run: RunResults) -> str:
    """Return the experiment's name from the configuration, else ``simulate``."""
    for name in ("experiment", "experiment_name", "name"):
        value = run.config.get(name)
        if isinstance(value, dict):
            value = value.get("name")
        if isinstance(value, str) and value:
            return value[:128]
    return "simulate"


def tags(run: RunResults) -> list[str]:
    """Return the backbones and device profiles of the run."""
    found = run.select("SELECT DISTINCT unnest([backbone, device]) AS name FROM rows ORDER BY name")
    return [row["name"][:MAX_TAG_LENGTH] for row in found if row["name"]]


def config(run: RunResults) -> dict[str, Any]:
    """Return the resolved configuration with versions and identity; secrets are already replaced."""
    return run.config | {name: run.record.get(name) for name in ("run_id", "status", "created", "versions", "identity")}


def summary(run: RunResults) -> dict[str, float | int]:
    """Return the headline figures per adaptation: over everything, per device, and per domain."""
    by_device = comparison_table(run, by="device")
    labels = adaptation_labels(by_device)
    values: dict[str, float | int] = {"rows": run.num_rows}
    for row in comparison_table(run, by="method"):
        values |= _figures(f"all/{labels[adaptation_key(row)]}", row)
    devices = sorted({row.device for row in by_device if row.device})[:MAX_SUMMARY_DEVICES]
    for row in by_device:
        if row.device in devices:
            values |= _figures(f"{row.device}/{labels[adaptation_key(row)]}", row)
    for row in comparison_table(run, by="domain"):
        values |= _figures(f"domain/{row.domain}/{labels[adaptation_key(row)]}", row, DOMAIN_FIELDS)
    return values


def tables(run: RunResults) -> dict[str, tuple[list[str], list[list[Any]]]]:
    """Return columns and rows of a table per device, a table per domain, and the accuracy by method and domain."""
    by_domain = comparison_table(run, by="domain")
    return {
        **_grouped("devices", comparison_table(run, by="device"), "device"),
        **_grouped("domains", by_domain, "domain"),
        "accuracy_by_domain": _method_by_domain(by_domain),
    }


def _grouped(prefix: str, rows: list[ComparisonRow], field: str) -> dict[str, tuple[list[str], list[list[Any]]]]:
    found: dict[str, tuple[list[str], list[list[Any]]]] = {}
    for row in rows:
        values = row.to_dict()
        _, data = found.setdefault(f"{prefix}/{getattr(row, field) or 'no_device'}", (list(values), []))
        data.append(list(values.values()))
    return found


def _method_by_domain(rows: list[ComparisonRow]) -> tuple[list[str], list[list[Any]]]:
    """Return a row per adaptation, a column per domain: the mean accuracy as a share."""
    labels = adaptation_labels(rows)
    domains = sorted({str(row.domain) for row in rows})
    found = {(adaptation_key(row), row.domain): row.accuracy_mean for row in rows}
    data = [[label, *(found.get((key, domain)) for domain in domains)] for key, label in labels.items()]
    return ["method", *domains], data


def task_sample(run: RunResults) -> tuple[list[list[Any]], int, list[str]]:
    """Return at most ``MAX_SAMPLE_ROWS`` rows chosen by a hash of their key, how many there are, and the columns."""
    key = "task_id || coalesce(checkpoint, '') || method || variant || coalesce(device, '')"
    columns = ", ".join(SAMPLE_COLUMNS)
    found = run.select(f"SELECT {columns} FROM paired ORDER BY md5({key}) LIMIT {MAX_SAMPLE_ROWS}")
    total = run.select("SELECT count(*) AS num FROM paired")[0]["num"]
    return [list(row.values()) for row in found], total, list(SAMPLE_COLUMNS)


def accuracy_histograms(run: RunResults) -> list[tuple[str, list[int], list[float]]]:
    """Return (domain/label, counts, bin edges) of the accuracies, per domain and adaptation."""
    labels = adaptation_labels(comparison_table(run, by="method"))
    edges = [place / NUM_BINS for place in range(NUM_BINS + 1)]
    return [(f"{item.domain}/{labels[item.key]}", list(item.counts), edges) for item in histograms(run)]


def _figures(prefix: str, row: ComparisonRow, fields: tuple[str, ...] = SUMMARY_FIELDS) -> dict[str, float | int]:
    values = {name: getattr(row, name) for name in fields}
    return {f"{prefix}/{name}": value for name, value in values.items() if value is not None}
