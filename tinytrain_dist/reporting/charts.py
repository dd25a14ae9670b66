"""The charts of the page: their place, what they show and how to read them. ``static/`` draws them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One chart; its title, a sentence about what is seen, is written by the page for what is chosen."""

    name: str
    section: str
    caption: str


_FRONT = (
    "Up and left is better. Colour: on the front, no other shown choice that fits is as accurate and as cheap. "
    "Grey: another one is at least as good in both. Ring: the knee, farthest above the line between the front's ends. "
    "Hollow: a task failed or does not certainly fit its device. Bars: 95 % interval over tasks{}."
)
_ENDS = "; horizontally the price model's own interval"
_PHASES = (
    "Means over tasks, so that the parts add up. Over several devices each bar is the whole, its size and the price "
    "model's interval beside it; on one device the bar is the {} itself, with the price model's interval."
)

CHARTS = (
    Chart(
        name="devices",
        section="devices",
        caption="Mean over tasks with its 95 % interval. Hollow: a task failed or does not certainly fit the device.",
    ),
    Chart(name="front-energy", section="fronts", caption=_FRONT.format(_ENDS)),
    Chart(name="front-time", section="fronts", caption=_FRONT.format(_ENDS)),
    Chart(name="front-memory", section="fronts", caption=_FRONT.format("")),
    Chart(
        name="spread",
        section="domains",
        caption="Ridge: how many tasks reach which accuracy, each ridge of the same height; marker: the mean with its "
        "95 % interval. raw_pixels (nearest class mean of the pixels) and none (no update) are the baselines. Over "
        "several devices each task is averaged first.",
    ),
    Chart(
        name="curves",
        section="curves",
        caption="Mean accuracy over tasks, at the median time the device needs to get there: loading, selection, and "
        "the iterations so far. Bars: 95 % interval over tasks.",
    ),
    Chart(name="phases-time", section="costs", caption=_PHASES.format("time")),
    Chart(name="phases-energy", section="costs", caption=_PHASES.format("energy")),
    Chart(
        name="plans",
        section="plans",
        caption="Each row a method on a device (on a domain, once a device is chosen); the colour is the share of a "
        "layer's channels that are updated, on average over the tasks.",
    ),
    Chart(
        name="fisher",
        section="plans",
        caption="Bars: each layer's part of the task's Fisher potential, mean over tasks with its 95 % interval; it is "
        "measured on the task, so no device changes it. Marks: what the plans shown update of the layer.",
    ),
)

SECTIONS = (
    ("headlines", "In short"),
    ("devices", "Devices compared"),
    ("fronts", "What accuracy costs"),
    ("domains", "Accuracy per domain"),
    ("curves", "Accuracy over time on the device"),
    ("costs", "Where time and energy go"),
    ("plans", "What is updated, and what matters"),
    ("failures", "What fits and what failed"),
    ("provenance", "Provenance"),
)
"""Anchors and headings, in order."""


def charts_of(section: str) -> list[Chart]:
    """Return the charts of one section."""
    return [chart for chart in CHARTS if chart.section == section]
