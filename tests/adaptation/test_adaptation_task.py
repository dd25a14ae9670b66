"""What a task refuses: episodes and weights that no prototype head can tell anything about."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_task import ARCHITECTURE, SIZE, plan_of, tiny_backbone, tiny_episode, tiny_task

from tinytrain_dist.adaptation import fisher
from tinytrain_dist.adaptation import task as adaptation_task
from tinytrain_dist.adaptation.fine_tuning import fine_tune
from tinytrain_dist.adaptation.fisher import fisher_information
from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.adaptation.task import NotFiniteError, TargetTask
from tinytrain_dist.backbones.folded import FoldedNetwork, pool
from tinytrain_dist.data.episodes import Episode
from tinytrain_dist.foundation.errors import DataError, ExitCode
from tinytrain_dist.graphs.update_plan import LayerUpdate


def with_support(labels: list[int], *, way: int) -> Episode:
    found = tiny_episode(shots=(len(labels),))
    return replace(found, support_labels=np.array(labels, dtype=np.int64), way=way)


@pytest.mark.parametrize(
    ("episode", "words"),
    [
        (tiny_episode(shots=(3,)), "an episode of 1 class; a task tells at least 2 classes apart"),
        (with_support([0, 0, 0], way=2), "no support image of class 1; each of the classes 0 to 1 needs one"),
        (with_support([1, 2, 2], way=3), "no support image of class 0; each of the classes 0 to 2 needs one"),
        (with_support([0, 1, 2], way=2), r"support labels \[0, 1, 2\]; each of the classes 0 to 1 needs one"),
        (with_support([], way=2), "no support image of class 0"),
    ],
    ids=["one class", "one class of two", "a class without support", "a label beyond the way", "no support"],
)
def test_a_support_set_that_makes_no_prototypes_is_refused(episode: Episode, words: str) -> None:
    network = FoldedNetwork(tiny_backbone())
    with pytest.raises(DataError, match=f"^tiny/0: .*{words}") as raised:
        TargetTask("tiny/0", episode=episode, network=network, settings=FineTuneSettings(), scale=10.0)
    assert raised.value.exit_code == ExitCode.BAD_INPUT


LINEAR = replace(ARCHITECTURE, mix_channels=0).graph(SIZE)
"""Its last layer is a projection: nothing bounds its features."""


def too_large() -> TargetTask:
    """Return a task on weights whose features are finite, and their lengths are not."""
    backbone = tiny_backbone(dtype=torch.float32, graph=LINEAR)
    with torch.no_grad():
        backbone.unit(8).norm.weight.fill_(1e25)
    return tiny_task(backbone)


@pytest.mark.parametrize("value", [None, "nan", "inf"])
def test_features_that_tell_nothing_have_no_accuracy(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of NaN and of 0 would count as class 0."""
    task = too_large() if value is None else tiny_task()
    if value is not None:
        monkeypatch.setattr(adaptation_task, "pool", lambda state: pool(state).fill_(float(str(value))))
    words = "^tiny/0: the frozen network makes features .* not finite, or too large"
    for plan in (plan_of(), plan_of(LayerUpdate(layer=8))):
        with pytest.raises(NotFiniteError, match=words) as raised:
            fine_tune(task, plan)
        assert raised.value.exit_code == ExitCode.BAD_INPUT


def test_large_features_are_as_good_as_others() -> None:
    accuracies = []
    for scale in (2.0**30, 2.0**50):  # what the residual adds is nothing beside either
        backbone = tiny_backbone(dtype=torch.float32, graph=LINEAR)
        with torch.no_grad():
            backbone.unit(8).norm.weight.mul_(scale)
            backbone.unit(8).norm.bias.mul_(scale)
        accuracies.append(tiny_task(backbone).accuracy_before)
    assert accuracies[0] == accuracies[1] > 0


def test_fisher_information_that_is_no_number_ranks_no_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    task, true_delta = tiny_task(), fisher.delta_of

    def overflows(products: torch.Tensor) -> np.ndarray:
        return true_delta(products) * (np.inf if products.shape[1] == 20 else 1.0)

    monkeypatch.setattr(fisher, "delta_of", overflows)
    with pytest.raises(NotFiniteError, match=r"^tiny/0: the Fisher information of layers \[9\] is not finite"):
        fisher_information(task, (8, 9))
    assert 0 < task.accuracy_before <= 1
