"""Plotly figures as plain dictionaries, one per chart and device: a few numbers per adaptation, never raw rows."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tinytrain_dist.reporting.comparison import ComparisonRow
from tinytrain_dist.reporting.distributions import Box
from tinytrain_dist.reporting.labels import adaptation_key
from tinytrain_dist.reporting.palette import GREY, Style

Figure = dict[str, Any]
Labels = dict[tuple[str | None, ...], str]
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
_GRID = "#dcdcdc"


@dataclass(frozen=True, kw_only=True)
class CostAxis:
    """One cost: names of the row's fields, the factor to the axis' unit, and the axis' words."""

    name: str
    title: str
    axis: str
    median: str
    low: str | None
    high: str | None
    scale: float


COST_AXES = (
    CostAxis(
        name="energy", title="Accuracy against energy per task", axis="median energy per task (J, log scale)",
        median="energy_p50_mj", low="energy_low_mj", high="energy_high_mj", scale=1e-3,
    ),
    CostAxis(
        name="latency", title="Accuracy against time per task", axis="median time per task (s, log scale)",
        median="latency_p50_ms", low="latency_low_ms", high="latency_high_ms", scale=1e-3,
    ),
    CostAxis(
        name="memory", title="Accuracy against peak memory", axis="median peak memory (KiB, log scale)",
        median="peak_p50_bytes", low=None, high=None, scale=2**-10,
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart of the page; ``figures`` maps a device to its figure and the sentence under it."""

    name: str
    title: str
    caption: str
    figures: dict[str, Figure] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def cost_chart(rows: Sequence[ComparisonRow], axis: CostAxis, labels: Labels, looks: dict[str, Style]) -> Chart:
    """Return accuracy (mean, 95 % interval) over the median of one cost, one figure per device."""
    interval = "; the horizontal bar is the price model's own interval" if axis.low else ""
    chart = Chart(
        name=f"cost-{axis.name}",
        title=axis.title,
        caption=f"Up and left is better. The vertical bar is the 95 % interval over tasks{interval}. "
        "A hollow marker does not fit the device on every task.",
    )
    free = [row for row in rows if row.device is None and row.accuracy_mean is not None]
    for device in sorted({row.device for row in rows if row.device is not None}):
        here = [row for row in rows if row.device == device]
        drawn = [row for row in here if getattr(row, axis.median) and row.accuracy_mean is not None]
        traces = [_point(row, axis, labels[adaptation_key(row)], looks) for row in drawn]
        left_out = [labels[adaptation_key(row)] for row in here if row not in drawn]
        chart.figures[device] = {
            "data": traces,
            "layout": _layout(axis.axis, "query accuracy after adaptation (%)", height=430)
            | {"shapes": [_level(row) for row in free], "annotations": [_level_name(row, labels) for row in free]},
        }
        chart.figures[device]["layout"]["xaxis"] |= {"type": "log", "dtick": "D2"}
        chart.figures[device]["layout"]["yaxis"]["range"] = _span([*drawn, *free])
        chart.notes[device] = _finding(drawn, labels) + (f" No price: {', '.join(left_out)}." if left_out else "")
    return chart


def box_chart(boxes: Sequence[Box], devices: Sequence[str], labels: Labels, looks: dict[str, Style]) -> Chart:
    """Return the accuracy of every adaptation per domain as boxes, one figure per device."""
    chart = Chart(
        name="domains",
        title="Accuracy per domain",
        caption="Box: quartiles over tasks; line: median; dashed: mean; whiskers: smallest and largest task. "
        "raw_pixels and none are the baselines.",
    )
    for device in devices:
        here = [box for box in boxes if box.device in (device, None)]
        used = [key for key in labels if any(box.key == key for box in here)]
        domains = sorted({box.domain for box in here}, reverse=True)
        height = max(320, 130 + len(domains) * (24 + 17 * len(used)))
        layout = _layout("query accuracy after adaptation (%)", "", height=height) | {"boxmode": "group"}
        layout["xaxis"]["range"] = [0, 100]
        layout["legend"]["traceorder"] = "reversed"
        traces = [_boxes([b for b in here if b.key == key], domains, labels[key], looks) for key in reversed(used)]
        chart.figures[device] = {"data": traces, "layout": layout}
        num = sum(box.num for box in here)
        chart.notes[device] = f"{num:,} rows, all of them summarised (no sampling)."
    return chart


def shown(text: str, *, limit: int = 60) -> str:
    """Return a name as chart text: Plotly reads markup, so it is escaped; long names are cut."""
    return html.escape(text if len(text) <= limit else text[: limit - 3] + "...", quote=False)


def _point(row: ComparisonRow, axis: CostAxis, label: str, looks: dict[str, Style]) -> Figure:
    look, middle = looks[label], getattr(row, axis.median) * axis.scale
    mean = 100 * (row.accuracy_mean or 0.0)
    half = 100 * (row.accuracy_high - row.accuracy_mean) if row.accuracy_high is not None and row.accuracy_mean else 0.0
    fits = row.fits_share == 1.0
    trace: Figure = {
        "type": "scatter", "mode": "markers", "name": shown(label), "x": [_short(middle)], "y": [_short(mean)],
        "error_y": {"type": "data", "array": [_short(half)], "thickness": 1.5, "width": 4},
        "marker": {
            "color": look.colour, "symbol": look.symbol + ("" if fits else "-open"), "size": 13,
            "line": {"width": 2, "color": look.colour},
        },
        "text": [f"fits {100 * (row.fits_share or 0):.0f} % of {row.num_tasks} tasks"],
        "hovertemplate": "%{fullData.name}<br>%{x:.4g}<br>%{y:.1f} %<br>%{text}<extra></extra>",
    }  # fmt: skip
    low, high = (getattr(row, name) if name else None for name in (axis.low, axis.high))
    if low is not None and high is not None:
        trace["error_x"] = {
            "type": "data", "symmetric": False, "array": [_short(max(0.0, high * axis.scale - middle))],
            "arrayminus": [_short(max(0.0, middle - low * axis.scale))], "thickness": 1, "width": 4,
        }  # fmt: skip
    return trace


def _finding(rows: Sequence[ComparisonRow], labels: Labels) -> str:
    fitting = [row for row in rows if row.fits_share == 1.0]
    if not fitting:
        return "No method fits every task here."
    top = max(fitting, key=lambda row: row.accuracy_mean or 0.0)
    return (
        f"Most accurate of what fits every task: {labels[adaptation_key(top)]}, {100 * (top.accuracy_mean or 0):.1f} %."
    )


def _span(rows: Sequence[ComparisonRow]) -> list[float]:
    """Return the limits of the accuracy axis in per cent: every interval and a margin."""
    lows = [row.accuracy_low if row.accuracy_low is not None else row.accuracy_mean or 0.0 for row in rows]
    highs = [row.accuracy_high if row.accuracy_high is not None else row.accuracy_mean or 0.0 for row in rows]
    return [_short(100 * min(lows, default=0.0) - 4), _short(100 * max(highs, default=1.0) + 4)]


def _boxes(boxes: Sequence[Box], domains: Sequence[str], label: str, looks: dict[str, Style]) -> Figure:
    found = {box.domain: box for box in boxes}
    ordered = [found[name] for name in domains if name in found]
    columns = ("q1", "median", "q3", "lowerfence", "upperfence", "mean")
    values = {
        name: [_short(100 * value) for value in column]
        for name, column in zip(columns, zip(*(box.summary for box in ordered), strict=True), strict=True)
    }
    return {
        "type": "box", "orientation": "h", "name": shown(label), "y": [shown(box.domain) for box in ordered],
        "boxmean": True, "boxpoints": False, "line": {"width": 1.5, "color": looks[label].colour},
        "fillcolor": looks[label].colour + "40", **values,
    }  # fmt: skip


def _layout(x_title: str, y_title: str, *, height: int) -> Figure:
    axis: Figure = {"gridcolor": _GRID, "linecolor": "#555", "zeroline": False, "automargin": True, "ticks": "outside"}
    return {
        "height": height,
        "font": {"family": _FONT, "size": 14, "color": "#1a1a1a"},
        "paper_bgcolor": "#fff",
        "plot_bgcolor": "#fff",
        "margin": {"l": 56, "r": 16, "t": 12, "b": 56},
        "showlegend": True,
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1.02,
            "yanchor": "bottom",
            "traceorder": "normal",
        },
        "xaxis": axis | {"title": {"text": x_title}},
        "yaxis": axis | {"title": {"text": y_title}},
    }


def _level(row: ComparisonRow) -> Figure:
    height = _short(100 * (row.accuracy_mean or 0.0))
    line = {"dash": "dash", "width": 1.5, "color": GREY}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": height, "y1": height, "line": line}


def _level_name(row: ComparisonRow, labels: Labels) -> Figure:
    return {
        "xref": "paper", "x": 1, "xanchor": "right", "y": _short(100 * (row.accuracy_mean or 0.0)),
        "yanchor": "bottom", "showarrow": False, "text": shown(labels[adaptation_key(row)]) + " (no device)",
        "font": {"size": 12, "color": GREY},
    }  # fmt: skip


def _short(value: float) -> float:
    """Return six significant digits: a page is read, not computed with."""
    return float(f"{value:.6g}")
