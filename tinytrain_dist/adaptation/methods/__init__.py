"""Adaptation methods, one file each; ``METHODS`` finds them by name."""

from tinytrain_dist.adaptation.methods.method import METHODS, Method, PlanQuestion

__all__ = ["METHODS", "Method", "PlanQuestion"]
