"""Layer scores, one file each; ``CRITERIA`` finds them by name."""

from tinytrain_dist.adaptation.criteria.registry import CRITERIA, Criterion, LayerFacts

__all__ = ["CRITERIA", "Criterion", "LayerFacts"]
