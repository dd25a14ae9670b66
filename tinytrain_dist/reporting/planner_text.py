"""The planner's document as plain text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from tinytrain_dist.reporting import formatting
from tinytrain_dist.reporting.rendering import paragraphs, plain_text, text_table, text_tables

Document = dict[str, Any]
_SHOW = {
    "energy": ("energy_p50_mj", formatting.energy), "latency": ("latency_p50_ms", formatting.duration),
    "memory": ("peak_p50_bytes", formatting.memory),
}  # fmt: skip
MAX_METHODS_ACROSS = 7


def render_plan(document: Document) -> str:
    """Return every section of the document, in the order a reader needs them, then the notes."""
    parts: list[RenderableType] = []
    for name, section in (
        ("what_if", _what_if), ("fits", _fits), ("runner_up", _runner_up), ("pareto", _pareto),
        ("smallest", _smallest), ("within_time", _within), ("within_energy", _within), ("fleet", _fleet),
    ):  # fmt: skip
        if name in document and not (name == "fits" and _is_beside(document)):
            parts += [*section(document[name]), ""]
    return plain_text([*parts, *paragraphs(document["notes"])])


def _is_beside(document: Document) -> bool:
    """Return whether only budgets or a fleet were asked for: the matrix of fits is then in the JSON alone."""
    asked = {"within_time", "within_energy", "fleet"} & document.keys()
    return bool(asked) and not {"what_if", "smallest", "pareto"} & document.keys()


def _what_if(section: Document) -> list[RenderableType]:
    lines = [f"What if: {section['num_cells']:,} cells on {', '.join(section['devices'])}, priced without tuning."]
    for entry in section["needs_tuning"]:
        lines.append(f"  {entry['tasks']} tasks of {entry['method']} ({entry['variant']}) on {entry['device']} would "
                     "need tuning and are left out.")  # fmt: skip
    if section["commands"]:
        lines.append("  To tune them, in the same run:")
        return [*paragraphs(lines), *(Text("    " + command, overflow="ignore", no_wrap=True)
                                      for command in section["commands"])]  # fmt: skip
    return paragraphs(lines)


def _fits(entries: Sequence[Document]) -> list[RenderableType]:
    labels = list(dict.fromkeys(entry["label"] for entry in entries))
    cells = {(entry["device"], entry["label"]): entry["cell"] for entry in entries}
    devices = list(dict.fromkeys(entry["device"] for entry in entries))
    title = Text("Fits: % of the tasks that certainly fit (+n? uncertain), and what decides where not all do")
    tables: list[RenderableType] = []
    for start in range(0, len(labels), MAX_METHODS_ACROSS):
        some = labels[start : start + MAX_METHODS_ACROSS]
        rows = [[device, *(cells.get((device, label), "-") for label in some)] for device in devices]
        tables.append(text_table(["device", *some], rows, left=("device",)))
    return [title, *tables]


def _runner_up(entries: Sequence[Document]) -> list[RenderableType]:
    return [Text("What would have to change for the runner-up to win"),
            *paragraphs("  " + entry["sentence"] for entry in entries)]  # fmt: skip


def _pareto(entries: Sequence[Document]) -> list[RenderableType]:
    if not entries:
        return [Text("No front: nothing that certainly fits every task has a price in this cost.")]
    parts: list[RenderableType] = []
    for (cost, scope), group in groupby(entries, key=lambda entry: (entry["cost"], entry["scope"])):
        field, show = _SHOW[cost]
        rows = [
            ["knee" if e["knee"] else "front" if e["on_front"] else "", e["label"], e["device"],
             formatting.percent(e["accuracy_mean"]), show(e[field]),
             f"dominated by {e['dominated_by']}" if e["dominated_by"] else ""]
            for e in group
        ]  # fmt: skip
        where = "all devices" if scope == "all" else scope
        parts.append(Text(formatting.one_line(f"Accuracy against {cost} per task (median), {where}")))
        names = ["choice", "method", "device", "accuracy %", cost, "why"]
        parts += [text_table(names, rows, left=("choice", "method", "device", "why")), ""]
    return parts[:-1]


def _smallest(entries: Sequence[Document]) -> list[RenderableType]:
    chosen = next((entry for entry in entries if entry["verdict"] != "no"), None)
    target = any(entry["min_accuracy"] is not None for entry in entries)
    meets = "that meets the targets" if target else "on which a method fits every task"
    text = f"There is no device {meets}." if chosen is None else (
        f"Smallest device {meets}: {chosen['device']} ({formatting.memory(chosen['ram_bytes'])} RAM), "
        f"with {chosen['label']}, {chosen['verdict']}."
    )  # fmt: skip
    rows = [
        [e["device"], formatting.memory(e["ram_bytes"]), e["verdict"], e["label"] or "-",
         formatting.percent(e["accuracy_mean"]), formatting.percent(e["accuracy_low"]), e["why"]]
        for e in entries
    ]  # fmt: skip
    names = ["device", "RAM", "meets" if target else "fits", "method", "accuracy %", "low end %", "why"]
    return [Text(formatting.one_line(text)), text_table(names, rows, left=("device", "meets", "fits", "method", "why"))]


def _within(entries: Sequence[Document]) -> list[RenderableType]:
    if not entries:
        return [Text("Nothing of the run is priced in this resource.")]
    show = formatting.duration if entries[0]["resource"] == "time" else formatting.energy
    rows = [
        [e["device"], e["method"], e["variant"], str(e["num_tasks"]),
         formatting.percent_interval(e["accuracy_mean"], e["accuracy_high"]),
         f"{formatting.percent(e['accuracy_if_dear'])} to {formatting.percent(e['accuracy_if_cheap'])}",
         f"{formatting.percent(e['accuracy_common_mean'])} ({e['num_common']})", formatting.percent(e["share_done"]),
         formatting.UNKNOWN if e["iteration_p50"] is None else f"{e['iteration_p50']:.0f}", e["standing"] or "-"]
        for e in entries
    ]  # fmt: skip
    names = [
        "device", "method", "variant", "tasks", "accuracy %", "prices high to low", "common tasks (n)", "finished %",
        "iteration", "standing",
    ]  # fmt: skip
    return [Text(f"Reached within {show(entries[0]['limit'])} on the device, from the learning curves"),
            *text_tables(names, rows, repeat=3, left=("device", "method", "variant", "standing"))]  # fmt: skip


def _fleet(entries: Sequence[Document]) -> list[RenderableType]:
    rows = [
        [e["device"], f"{e['count']:,}", e["method"] or "", _per_day(e),
         _span(e, "energy{}_wh_per_day", "Wh"), _span(e, "battery{}_days", "d"),
         formatting.UNKNOWN if e["utilisation"] is None else f"{100 * e['utilisation']:.1f}", _backlog(e),
         e["standing"]]
        for e in entries
    ]  # fmt: skip
    names = [
        "device",
        "count",
        "method",
        "per day",
        "energy per day",
        "battery life",
        "busy %",
        "backlog p99",
        "standing",
    ]
    return [Text("Fleet (low to high end of the prices in brackets)"),
            *text_tables(names, rows, repeat=3, left=("device", "method", "standing"))]  # fmt: skip


def _per_day(entry: Document) -> str:
    asked, done = entry["adaptations_per_day"], entry["adaptations_done_per_day"]
    return f"{asked:,.3g}" if done >= asked else f"{asked:,.3g} asked, {done:,.3g} done"


def _span(entry: Document, pattern: str, unit: str) -> str:
    value, low, high = (entry[pattern.format(end)] for end in ("", "_low", "_high"))
    return formatting.UNKNOWN if value is None else f"{value:,.4g} {unit} ({low:,.3g} to {high:,.3g})"


def _backlog(entry: Document) -> str:
    if entry["utilisation"] is None:
        return ""
    if entry["backlog_p99_ms"] is None:
        return "grows for ever"
    high = "grows" if entry["backlog_high_ms"] is None else formatting.duration(entry["backlog_high_ms"])
    low = formatting.duration(entry["backlog_low_ms"])
    return f"{formatting.duration(entry['backlog_p99_ms'])} ({low} to {high})"
