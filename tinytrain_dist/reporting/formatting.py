"""Numbers as a reader wants them: with a unit, rounded, and a dash where nothing is known."""

from __future__ import annotations

import unicodedata

UNKNOWN = "-"


def percent(share: float | None, *, digits: int = 1) -> str:
    """Return a share (0 to 1) in per cent, without the sign."""
    return UNKNOWN if share is None else f"{100 * share:.{digits}f}"


def percent_interval(mean: float | None, high: float | None, low: float | None = None) -> str:
    """Return mean and half width of an interval of shares, in per cent (of a lopsided one half of its length)."""
    if mean is None:
        return UNKNOWN
    half = _half(mean, high, low)
    return f"{100 * mean:.1f}" + (f" ±{100 * half:.1f}" if half is not None else " ±?")


def points(gain: float | None, high: float | None, low: float | None = None) -> str:
    """Return a gain in absolute points with its half width."""
    if gain is None:
        return UNKNOWN
    half = _half(gain, high, low)
    return f"{gain:+.1f}" + (f" ±{half:.1f}" if half is not None else " ±?")


def probability(p: float | None) -> str:
    """Return a p value with two digits, tiny ones as a bound."""
    if p is None:
        return UNKNOWN
    return "<0.001" if p < 0.001 else f"{p:.2g}"


def _half(middle: float, high: float | None, low: float | None) -> float | None:
    if high is None:
        return None
    return (high - low) / 2 if low is not None else high - middle


def duration(milliseconds: float | None) -> str:
    """Return a time in ms, s, min or h."""
    return _scaled(milliseconds, (("h", 3_600_000), ("min", 60_000), ("s", 1000), ("ms", 1)))


def energy(millijoules: float | None) -> str:
    """Return an energy in mJ, J or kJ."""
    return _scaled(millijoules, (("kJ", 1e6), ("J", 1000), ("mJ", 1)))


def memory(num_bytes: float | None) -> str:
    """Return bytes in B, KiB, MiB or GiB."""
    return _scaled(num_bytes, (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("B", 1)))


def _scaled(value: float | None, units: tuple[tuple[str, float], ...]) -> str:
    if value is None:
        return UNKNOWN
    name, size = next(((n, s) for n, s in units if abs(value) >= s), units[-1])
    scaled = value / size
    text = f"{scaled:.3g}" if abs(scaled) < 1000 else f"{scaled:,.0f}"
    return f"{text} {name}"


def one_line(text: str, *, limit: int = 200) -> str:
    """Return ``text`` without control characters (a name must not steer a terminal), at most ``limit`` long."""
    clean = "".join(" " if unicodedata.category(c)[0] == "C" else c for c in text)
    return clean if len(clean) <= limit else clean[: limit - 3] + "..."
