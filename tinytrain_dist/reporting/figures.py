"""Figures for notebooks: a few numbers per line of the planner's table, with their uncertainty and their notices."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

import plotly.graph_objects as go

from tinytrain_dist.reporting.comparison import ComparisonRow
from tinytrain_dist.reporting.labels import adaptation_key, adaptation_labels
from tinytrain_dist.reporting.pareto import choices
from tinytrain_dist.reporting.views import BASELINE

Rows = Sequence[ComparisonRow]
_GREY = "#b0b0b0"


def accuracy_figure(rows: Rows, notes: Sequence[str]) -> go.Figure:
    """Return mean accuracy with its 95 % interval, a bar per adaptation, a group per device."""
    labels = adaptation_labels(rows)
    figure = go.Figure()
    for label in dict.fromkeys(labels.values()):
        here = [row for row in rows if labels[adaptation_key(row)] == label and row.accuracy_mean is not None]
        means = [100 * (row.accuracy_mean or 0.0) for row in here]
        ends = [_half(row.accuracy_low, row.accuracy_high, 100.0) for row in here]
        figure.add_bar(
            name=_shown(label), x=[_shown(row.device or "no device needed") for row in here], y=means,
            error_y={"type": "data", "array": ends}, customdata=[row.num_tasks for row in here],
            hovertemplate="%{x}: %{y:.1f} %, %{customdata} tasks",
        )  # fmt: skip
    return _finished(figure, "Accuracy after adaptation", "device", "query accuracy (%), 95 % interval", notes)


def gain_figure(rows: Rows, notes: Sequence[str]) -> go.Figure:
    """Return the paired gain over no update in points with its 95 % interval."""
    labels = adaptation_labels(rows)
    figure = go.Figure()
    for label in dict.fromkeys(labels.values()):
        here = [row for row in rows if labels[adaptation_key(row)] == label and row.gain_points is not None
                and row.method != BASELINE]  # fmt: skip
        if here:
            figure.add_bar(
                name=_shown(label), x=[_shown(row.device or "no device needed") for row in here],
                y=[row.gain_points for row in here],
                error_y={"type": "data",
                         "array": [_half(row.gain_low_points, row.gain_high_points, 1.0) for row in here]},
            )  # fmt: skip
    return _finished(figure, "Gain over no update, same tasks", "device", "points, 95 % interval", notes)


def pareto_figure(rows: Rows, notes: Sequence[str]) -> go.Figure:
    """Return accuracy over median energy per task of what certainly fits: the front in colour, the rest grey."""
    found = choices(rows, "energy")
    figure = go.Figure()
    for name, some, colour in (
        ("dominated", [c for c in found if not c.on_front], _GREY),
        ("front", [c for c in found if c.on_front], "#0072b2"),
        ("knee", [c for c in found if c.knee], "#d55e00"),
    ):
        figure.add_scatter(
            name=name, mode="markers+lines" if name == "front" else "markers", marker={"color": colour, "size": 10},
            x=[c.value / 1e3 for c in some], y=[100 * c.accuracy_mean for c in some],
            error_x=_ends(1e-3, [(c.value, c.value_low, c.value_high) for c in some]),
            error_y=_ends(100.0, [(c.accuracy_mean, c.accuracy_low, c.accuracy_high) for c in some]),
            text=[_shown(f"{c.label} on {c.device}, {c.standing}") for c in some],
            hovertemplate="%{text}: %{y:.1f} %, %{x:.3g} J",
        )  # fmt: skip
    figure.update_xaxes(type="log")
    return _finished(figure, "Accuracy against energy", "median energy per task (J)", "query accuracy (%)", notes)


FIGURES: dict[str, Callable[[Rows, Sequence[str]], go.Figure]] = {
    "accuracy": accuracy_figure, "gain": gain_figure, "pareto": pareto_figure,
}  # fmt: skip


def _half(low: float | None, high: float | None, scale: float) -> float | None:
    return None if low is None or high is None else scale * (high - low) / 2


def _ends(scale: float, values: Sequence[tuple[float, float | None, float | None]]) -> dict[str, object]:
    """Return the error bars of (middle, low, high); none where an end is not known."""
    return {
        "type": "data", "symmetric": False,
        "array": [0.0 if high is None else scale * (high - middle) for middle, _, high in values],
        "arrayminus": [0.0 if low is None else scale * (middle - low) for middle, low, _ in values],
    }  # fmt: skip


def _shown(text: str) -> str:
    """Return a name as text: Plotly reads markup."""
    return html.escape(text, quote=False)


def _finished(figure: go.Figure, title: str, across: str, up: str, notes: Sequence[str]) -> go.Figure:
    figure.update_layout(title=title, xaxis_title=across, yaxis_title=up, barmode="group", template="plotly_white")
    for place, note in enumerate(notes):
        figure.add_annotation(
            text=_shown(note), xref="paper", yref="paper", x=0, y=-0.2 - 0.06 * place, showarrow=False,
            xanchor="left", font={"size": 10},
        )  # fmt: skip
    return figure
