"""Criterion ``full``: Fisher potential per memory and per compute (Eq. 3).

Source: TinyTrain (ICML 2024), Eq. 3.
"""

from tinytrain_dist.adaptation.criteria.registry import CRITERIA, LayerFacts


def score(facts: LayerFacts) -> float:
    """Return the layer's score; larger is chosen first."""
    return facts.potential / (facts.weight_share * facts.macs_share)


CRITERIA.register("full", score)
