"""What a task refuses: episodes that no prototype head can tell anything about."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_task import tiny_backbone, tiny_episode

from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.data.episodes import Episode
from tinytrain_dist.foundation.errors import DataError, ExitCode


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
