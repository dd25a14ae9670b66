"""Criterion ``random``: a uniform draw per task and layer, the floor any criterion must beat.

Source: TinyTrain (ICML 2024), Fig. 4.
"""

from tinytrain_dist.adaptation.criteria.registry import CRITERIA, LayerFacts


def score(facts: LayerFacts) -> float:
    """Return the layer's score; larger is chosen first."""
    return facts.draw


CRITERIA.register("random", score)
