"""Colour and marker of each line: Okabe and Ito's palette, safe for colour-blind readers, plus a shape."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7A5195")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon", "hexagon", "triangle-down")
GREY = "#767676"


@dataclass(frozen=True)
class Style:
    """How one adaptation is drawn everywhere on the page."""

    colour: str
    symbol: str


def styles(labels: Iterable[str]) -> dict[str, Style]:
    """Return a style per label; the pair of colour and shape repeats only after 40 labels."""
    return {
        label: Style(_COLOURS[place % len(_COLOURS)], _SYMBOLS[place % len(_SYMBOLS)])
        for place, label in enumerate(labels)
    }
