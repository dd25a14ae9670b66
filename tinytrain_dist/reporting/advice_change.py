"""What would have to change for another answer: the runner-up's prices or accuracy, a limit, the method."""

from __future__ import annotations

import math

from tinytrain_dist.reporting import formatting
from tinytrain_dist.reporting.advice import Advice, Lifted, MethodContest
from tinytrain_dist.reporting.advice_choice import Choice
from tinytrain_dist.reporting.tighter_limits import limit_words


def changes(advice: Advice) -> list[str]:
    """Return one sentence or two per change: the runner-up, each limit that matters, the advised device's methods."""
    found = [_without(lifted, advice.advised) for lifted in advice.lifted]
    chosen, second, best = advice.advised, advice.runner_up, advice.best
    if chosen is None:
        return found
    if second is None or best is None:
        text = "No other device certainly fits every task, so there is no runner-up on another one."
    else:
        text = _runner_up(advice, chosen, second, best)
    return [text, *found, *_methods(advice.methods, chosen.device)]


def cost_words(choice: Choice) -> str:
    """Return time and energy of one adaptation."""
    return f"{formatting.duration(choice.latency_p50_ms)} and {_energy(choice.energy_p50_mj)}"


def _methods(found: MethodContest | None, device: str) -> list[str]:
    """Say which method on the advised device comes next, and which more accurate one does not fit."""
    if found is None:
        return []
    texts = []
    if found.second is not None and found.lead_points is not None:
        low, high = found.lead_low_points, found.lead_high_points
        span = "" if low is None or high is None else f" (95 % interval {low:+.1f} to {high:+.1f})"
        text = f"On {device}, {found.winner} is {found.lead_points:.1f} points ahead of {found.second}{span}"
        sure = low is not None and low > 0
        texts.append(text + ("." if sure else ": which is more accurate is not certain on these tasks."))
    if found.blocked is not None:
        texts.append(
            f"{found.blocked} on {device} would be {found.blocked_points:.1f} points more accurate than advised, but "
            f"does not certainly fit every task ({found.blocked_by})."
        )
    return texts


def _energy(energy_mj: float | None) -> str:
    return "an unknown energy" if energy_mj is None else formatting.energy(energy_mj)


def _runner_up(advice: Advice, chosen: Choice, second: Choice, best: Choice) -> str:
    name = f"{second.device} with {second.label}"
    text = f"Runner-up: {name}, {formatting.percent(second.accuracy_mean)} %, {cost_words(second)}."
    gap = 100 * (best.accuracy_mean - second.accuracy_mean)
    if gap <= advice.question.tolerance_points + 1e-9:
        text += _cheaper(chosen, second)
    else:
        text += f" It is {gap:.1f} points below the best: {_gain(advice)}."
    if advice.runner_up_limits:
        ranges = " or ".join(f"{found.option} {limit_words(found)}" for found in advice.runner_up_limits)
        text += f" It also wins under a limit it alone meets: {ranges}."
    return text


def _gain(advice: Advice) -> str:
    """Say what accuracy, or what tolerance, makes the rule take the runner-up."""
    gain, tolerance = advice.runner_up_gain_points, advice.runner_up_tolerance_points
    if gain is None:
        return "no accuracy makes it win, since something within the tolerance would still take less"
    text = f"it wins if it gains more than {math.ceil(10 * gain - 1e-4) / 10:.1f} points"
    return text + ("" if tolerance is None else f", or with --tolerance {tolerance:.1f}")


def _cheaper(chosen: Choice, second: Choice) -> str:
    """Say which energy decides between two of equal accuracy, and whether the prices can tell them apart."""
    ours, theirs = chosen.energy_p50_mj, second.energy_p50_mj
    if ours is None:
        return " Neither's power is known: the times decide."
    if theirs is None:
        return f" Its power is unknown: it wins if it takes less than {formatting.energy(ours)}."
    less = f", {theirs / ours:.2g} times less than estimated" if theirs > 1.05 * ours else ""
    text = f" It wins if its energy is below {formatting.energy(ours)}{less}"
    low, high = second.energy_low_mj, chosen.energy_high_mj
    apart = low is not None and high is not None and low > high
    return text + (
        "; the prices' intervals do not overlap." if apart
        else "; the prices' intervals overlap, so which of the two takes less is not certain."
    )  # fmt: skip


def _without(lifted: Lifted, chosen: Choice | None) -> str:
    other = lifted.choice
    text = (
        f"Without {lifted.option}: {other.device} with {other.label}, {formatting.percent(other.accuracy_mean)} %, "
        f"{cost_words(other)}, {formatting.memory(other.peak_p50_bytes)}"
    )
    if chosen is None:
        return text + "."
    gap = 100 * (other.accuracy_mean - chosen.accuracy_mean)
    return f"{text} ({gap:+.1f} points)."
