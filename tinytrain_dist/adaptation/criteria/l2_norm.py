"""Criterion ``l2_norm``: L2 norm of the layer's weights, blind to the task.

Source: TinyTrain (ICML 2024), Table 3.
"""

from tinytrain_dist.adaptation.criteria.registry import CRITERIA, LayerFacts


def score(facts: LayerFacts) -> float:
    """Return the layer's score; larger is chosen first."""
    return facts.weight_norm


CRITERIA.register("l2_norm", score)
