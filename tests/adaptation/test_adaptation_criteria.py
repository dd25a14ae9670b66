"""Layer scores on numbers made by hand, and the registry that finds them."""

import pytest

from tinytrain_dist.adaptation.criteria import CRITERIA, LayerFacts
from tinytrain_dist.foundation.errors import ConfigError

FACTS = LayerFacts(layer=3, potential=6.0, weight_share=0.5, macs_share=0.25, weight_norm=7.0, draw=0.125)


@pytest.mark.parametrize(
    "name, score",
    [
        ("full", 6.0 / (0.5 * 0.25)),
        ("fisher_only", 6.0),
        ("fisher_per_memory", 12.0),
        ("fisher_per_compute", 24.0),
        ("l2_norm", 7.0),
        ("random", 0.125),
    ],
)
def test_scores_of_hand_made_facts(name: str, score: float) -> None:
    assert CRITERIA[name](FACTS) == score


def test_the_registry_holds_exactly_the_ablations_of_the_paper() -> None:
    assert sorted(CRITERIA) == ["fisher_only", "fisher_per_compute", "fisher_per_memory", "full", "l2_norm", "random"]


def test_an_unknown_criterion_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown criterion 'fisher_per_memmory'; did you mean 'fisher_per_memory'"):
        CRITERIA["fisher_per_memmory"]
    with pytest.raises(ConfigError, match="allowed: fisher_only, fisher_per_compute"):
        CRITERIA["zzz"]
