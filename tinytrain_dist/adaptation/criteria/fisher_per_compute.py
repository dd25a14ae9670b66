"""Criterion ``fisher_per_compute``: Fisher potential per MAC.

Source: TinyTrain (ICML 2024), Table 3.
"""

from tinytrain_dist.adaptation.criteria.registry import CRITERIA, LayerFacts


def score(facts: LayerFacts) -> float:
    """Return the layer's score; larger is chosen first."""
    return facts.potential / facts.macs_share


CRITERIA.register("fisher_per_compute", score)
