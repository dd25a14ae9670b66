"""Short names for the lines of a table: the method, and only what else tells two lines apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from tinytrain_dist.reporting.comparison import ADAPTATION, ComparisonRow

AdaptationKey = tuple[str | None, ...]


def adaptation_key(row: ComparisonRow) -> AdaptationKey:
    """Return (backbone, initialization, checkpoint, method, variant)."""
    return tuple(getattr(row, name) for name in ADAPTATION)


def adaptation_labels(rows: Sequence[ComparisonRow]) -> dict[AdaptationKey, str]:
    """Return a unique label per adaptation, such as ``tinytrain`` or ``tinytrain, mcunet, pretrained``."""
    networks = [row for row in rows if row.backbone is not None]
    several_backbones = len({row.backbone for row in networks}) > 1
    several_starts = len({row.initialization for row in networks}) > 1
    checkpoint = _varies(networks, lambda row: (row.backbone, row.initialization), lambda row: row.checkpoint)
    variant = _varies(rows, lambda row: adaptation_key(row)[:4], lambda row: row.variant)
    labels = {}
    for row in rows:
        words = [row.method]
        words += [row.backbone] if several_backbones and row.backbone else []
        words += [row.initialization] if several_starts and row.initialization else []
        words += [row.checkpoint[:8]] if row.checkpoint and (row.backbone, row.initialization) in checkpoint else []
        words += [row.variant] if adaptation_key(row)[:4] in variant else []
        labels[adaptation_key(row)] = ", ".join(words)
    return labels


def _varies(
    rows: Sequence[ComparisonRow],
    place: Callable[[ComparisonRow], tuple[str | None, ...]],
    value: Callable[[ComparisonRow], str | None],
) -> set[tuple[str | None, ...]]:
    """Return the places that hold more than one value."""
    seen: dict[tuple[str | None, ...], set[str | None]] = defaultdict(set)
    for row in rows:
        seen[place(row)].add(value(row))
    return {name for name, values in seen.items() if len(values) > 1}
