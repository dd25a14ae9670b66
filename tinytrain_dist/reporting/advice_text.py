"""An advice in sentences and a table, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.text import Text

from tinytrain_dist.reporting import formatting
from tinytrain_dist.reporting.advice import Advice, DeviceLine
from tinytrain_dist.reporting.advice_change import changes, cost_words
from tinytrain_dist.reporting.advice_choice import Choice
from tinytrain_dist.reporting.advice_sizing import TaskSizes, needs, pictures_for, tasks_for
from tinytrain_dist.reporting.comparison_row import EXTRAPOLATED
from tinytrain_dist.reporting.limits import Limits
from tinytrain_dist.reporting.rendering import paragraphs, plain_text, text_table

_COLUMNS = ("device", "method", "accuracy %", "below best, pts", "time", "energy", "peak memory", "standing", "why")


def render_advice(advice: Advice) -> str:
    """Return the sentences, then the table, as plain text."""
    heads = {"Answer": answer(advice), "To win": changes(advice), "How sure": certainty(advice)}
    parts: list[Any] = []
    for head, sentences in heads.items():
        if sentences:
            parts += [Text(head), *paragraphs(f"- {sentence}" for sentence in sentences), ""]
    parts += [Text("The best choice of each device, by the same rule"), _table(advice.devices)]
    return plain_text([*parts, "", *paragraphs(advice.notices)])


def document(advice: Advice) -> dict[str, Any]:
    """Return the advice as plain values, its sentences included."""
    plain = asdict(advice)
    sentences = {"answer": answer(advice), "to_change": changes(advice), "certainty": certainty(advice)}
    return {"asked": plain.pop("question"), **plain, "sentences": sentences}


def answer(advice: Advice) -> list[str]:
    """Return what to take, why, and what adapting on the device brings."""
    chosen, best = advice.advised, advice.best
    if chosen is None or best is None:
        reasons = "; ".join(f"{line.device}: {line.why}" for line in advice.devices)
        return [f"No device certainly fits every task within the limits. {reasons}."]
    limits = advice.question.limits
    found = [_take(chosen, limits), _budget(chosen, limits), _why(chosen, best, advice.question.tolerance_points)]
    found += [_gain(chosen)] if chosen.method != "none" else []
    if advice.smallest not in (None, chosen.device):
        found.append(f"Within the same tolerance, the device with the least memory is {advice.smallest}.")
    pixels = advice.raw_pixels_mean
    if pixels is not None and pixels >= chosen.accuracy_mean:
        found.append(f"Comparing raw pixels, without any network, does as well: {formatting.percent(pixels)} %.")
    return found


def _take(chosen: Choice, limits: Limits) -> str:
    span = _span(chosen.accuracy_low, chosen.accuracy_high)
    ram = "RAM" if limits.max_ram_bytes is None or chosen.ram_bytes != limits.max_ram_bytes else "RAM allowed"
    return (
        f"Take {chosen.device} with {chosen.label}: accuracy {formatting.percent(chosen.accuracy_mean)} %{span}; one "
        f"adaptation takes {cost_words(chosen)} and {formatting.memory(chosen.peak_p50_bytes)} of the "
        f"{formatting.memory(chosen.ram_bytes)} {ram}."
    )


def _budget(chosen: Choice, limits: Limits) -> str:
    size = f"{chosen.iterations} iterations over {chosen.support_size:.0f} pictures"
    if not chosen.iterations:
        return "Method: the network stays as it is; the pictures only make the classes' prototypes."
    updated = f"{chosen.updated_weights:,.0f} weights in {chosen.updated_layers:.0f} layers"
    if chosen.budget_memory_bytes is None or chosen.budget_backward_macs is None:
        return f"Method and budget: {chosen.method} updates {updated}, {size}; it has no budget to keep to."
    cap = limits.max_ram_bytes  # a plan chosen within more that fits less is what is chosen within less
    memory = chosen.budget_memory_bytes if cap is None else min(cap, chosen.budget_memory_bytes)
    return (
        f"Method and budget: {chosen.method} chooses for each task what to update, within "
        f"{formatting.memory(memory)} and {chosen.budget_backward_macs / 1e6:.2f} million backward "
        f"MACs a picture (median: {updated}); {size}."
    )


def _why(chosen: Choice, best: Choice, tolerance: float) -> str:
    if (chosen.device, chosen.method, chosen.variant) == (best.device, best.method, best.variant):
        spent = "takes less time, and no energy there is known" if chosen.energy_p50_mj is None else "takes less energy"
        less = "nothing" if chosen.energy_p50_mj is None else "nothing of known energy"
        return f"Why: nothing that fits is more accurate, and {less} within {_points(tolerance)} {spent}."
    other = f"{best.label} on {best.device}"
    if abs(chosen.loss_points) < 5e-4:
        return f"Why: as accurate as {other}, at {cost_words(chosen)} instead of {cost_words(best)}."
    span = _points_span(chosen.loss_low_points, chosen.loss_high_points)
    return (
        f"Why: {other} is {chosen.loss_points:.1f} points more accurate{span}, which is within the tolerance of "
        f"{_points(tolerance)}, but takes {cost_words(best)}."
    )


def _gain(chosen: Choice) -> str:
    if chosen.gain_points is None:
        return "What adapting gains is not known: there are no rows of 'none'."
    span = _points_span(chosen.gain_low_points, chosen.gain_high_points)
    text = f"Adapting on the device gains {chosen.gain_points:+.1f} points over the network as it is{span}"
    sure = chosen.gain_p_holm is not None and chosen.gain_p_holm < 0.05
    return text + ("." if sure else ": not distinguishable from nothing on these tasks.")


def certainty(advice: Advice) -> list[str]:
    """Return how many tasks were drawn, what their interval covers, and how sure each number is."""
    sizes, chosen = advice.question.sizes, advice.advised
    found = [
        f"{sizes.num_tasks} tasks were drawn from {sizes.num_pictures} pictures of {sizes.num_classes} classes: "
        f"{sizes.way} classes each, {sizes.shot} pictures per class to learn from and {sizes.query} others to judge."
    ]
    if chosen is not None:
        found += [*_accuracy(chosen, sizes), *_prices(chosen)]
    return found + needs(sizes)


def _accuracy(chosen: Choice, sizes: TaskSizes) -> list[str]:
    low, high = chosen.accuracy_low, chosen.accuracy_high
    near, far = chosen.new_pictures_low, chosen.new_pictures_high
    wider = (
        f"For new pictures of these classes, taken alike, expect {formatting.percent(near)} to "
        f"{formatting.percent(far)} % (95 %, as if each of the {sizes.num_judged} pictures judged had been judged once)"
    )
    half = (far - near) / 2
    wider += f"; an interval half as wide takes about {pictures_for(half / 2, chosen.accuracy_mean):,} pictures." if (
        0 < chosen.accuracy_mean < 1
    ) else "."  # fmt: skip
    if low is None or high is None:
        return ["The accuracy rests on a single task: no interval.", wider]
    text = (
        f"Accuracy: ±{50 * (high - low):.1f} points (95 %, Student's t over tasks). The tasks share these "
        f"{sizes.num_pictures} pictures: the interval covers which of them a task learns from and is judged on, and "
        "nothing beyond these pictures."
    )
    if high - low > 0.02:
        more = tasks_for(0.01, low=low, high=high, num_tasks=chosen.num_tasks)
        text += f" ±1 point takes about {more:,} tasks (--tasks {more})."
    return [text, wider]


def _prices(chosen: Choice) -> list[str]:
    rest = {
        "estimate": "estimates: no measurement of training on this device stands behind them",
        "anchored": "anchored to a published figure of this device",
        "fitted": "fitted to published measurements of this device",
        "calibrated": "calibrated on measurements of this device",
    }
    word = chosen.standing.removesuffix(f", {EXTRAPOLATED}")
    standing = rest.get(word, word)
    known = [
        f"{name} {show(low)} to {show(high)} (a factor of {factor:.2g})"
        for name, show, low, high, factor in (
            ("time", formatting.duration, chosen.latency_low_ms, chosen.latency_high_ms, chosen.latency_error_factor),
            ("energy", formatting.energy, chosen.energy_low_mj, chosen.energy_high_mj, chosen.energy_error_factor),
        )
        if factor is not None
    ]
    text = f"Time and energy are {standing}; 90 % intervals: {', '.join(known) or 'unknown'}."
    if chosen.extrapolated:
        share = 100 * (chosen.extrapolated_share or 0.0)
        text += (
            f" Extrapolated: {chosen.extrapolated} of {share:.0f} % of the tasks lie outside what was measured on this "
            "device; the intervals are widened with the distance."
        )
    if chosen.energy_p50_mj is None:
        text += " The power of this device is unknown, so its energy is."
    margin = formatting.memory(chosen.ram_margin_bytes)
    return [text, f"Memory: fits on every task for every value within the counter's error; at least {margin} are left."]


def _span(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return ""
    return f" (95 % interval {formatting.percent(low)} to {formatting.percent(min(1.0, high))})"


def _points_span(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" (95 % interval {low:+.1f} to {high:+.1f})"


def _points(tolerance: float) -> str:
    return f"{tolerance:g} point" + ("" if tolerance == 1 else "s")


def _table(lines: Sequence[DeviceLine]) -> Any:
    return text_table(_COLUMNS, [_cells(line) for line in lines], left=("device", "method", "standing", "why"))


def _cells(line: DeviceLine) -> list[str]:
    found = line.choice
    if found is None:
        return [line.device, *["-"] * 7, line.why]
    return [
        found.device, found.label, formatting.percent_interval(found.accuracy_mean, found.accuracy_high),
        f"{found.loss_points:.1f}", formatting.duration(found.latency_p50_ms), formatting.energy(found.energy_p50_mj),
        formatting.memory(found.peak_p50_bytes), found.standing, line.why,
    ]  # fmt: skip
