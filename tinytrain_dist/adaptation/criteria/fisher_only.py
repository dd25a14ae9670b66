"""Criterion ``fisher_only``: Fisher potential alone.

Source: TinyTrain (ICML 2024), Table 3.
"""

from tinytrain_dist.adaptation.criteria.registry import CRITERIA, LayerFacts


def score(facts: LayerFacts) -> float:
    """Return the layer's score; larger is chosen first."""
    return facts.potential


CRITERIA.register("fisher_only", score)
