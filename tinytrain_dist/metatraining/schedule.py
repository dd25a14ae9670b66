"""The learning rate of every round: linear warm-up, then half a cosine (Loshchilov & Hutter, arXiv 1608.03983)."""

from __future__ import annotations

import math


def learning_rate(
    round_index: int, *, num_rounds: int, peak: float, final: float = 0.0, warmup_share: float = 0.0
) -> float:
    """Return the rate of round 0 .. num_rounds-1: from ``final`` up to ``peak``, then down to ``final`` again.

    The peak is reached in the first round after the warm-up; the last round has ``final``, unless it is the only one.
    """
    assert 0 <= round_index < num_rounds
    warmup = min(math.ceil(warmup_share * num_rounds), num_rounds - 1)
    if round_index < warmup:
        return final + (peak - final) * (round_index + 1) / (warmup + 1)
    span = num_rounds - 1 - warmup
    place = (round_index - warmup) / span if span else 0.0
    return final + (peak - final) * 0.5 * (1.0 + math.cos(math.pi * place))
