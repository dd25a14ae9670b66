"""Accuracies published with the domains: pixels, and a frozen network with ImageNet weights."""

import os
from pathlib import Path

import numpy as np
import pytest

from tinytrain_dist.adaptation.fisher import fisher_information
from tinytrain_dist.adaptation.methods import METHODS, PlanQuestion
from tinytrain_dist.adaptation.settings import FineTuneSettings, SelectionSettings
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.adaptation.weight_norms import channel_norms, weight_norm
from tinytrain_dist.backbones.flat_state import flat_to_state
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.backbones.importers import IMPORTERS
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.costs.counters import paper_memory
from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.data.episodes import EpisodeSettings, EpisodeSpec, load_episode
from tinytrain_dist.graphs.budget import Budget
from tinytrain_dist.graphs.update_plan import UpdatePlan

RESOLUTION = 84
TOLERANCE = 0.04
FIVE_WAY = EpisodeSettings(sampler="fixed", way=5, shot=5, query=10)


def task_of(
    domain_name: str, index: int, network: FoldedNetwork, *, settings: EpisodeSettings = FIVE_WAY
) -> TargetTask:
    domain = open_domain(domain_name)
    spec = EpisodeSpec.of(domain, split="test", settings=settings, seed=0, index=index)
    episode = load_episode(domain, spec, resolution=RESOLUTION)
    return TargetTask(spec.task_id, episode=episode, network=network, settings=FineTuneSettings(), scale=10.0)


@pytest.fixture(scope="module")
def blank() -> FoldedNetwork:
    return FoldedNetwork(build_backbone("mcunet", resolution=RESOLUTION))


@pytest.fixture(scope="module")
def pretrained() -> FoldedNetwork:
    """MCUNet 5FPS with the weights of the public repository mit-han-lab/tiny-training."""
    if "TINYTRAIN_REFERENCE_DIR" not in os.environ:
        pytest.skip("set TINYTRAIN_REFERENCE_DIR to a folder with weights/tiny-training/mcunet-5fps.pkl")
    path = Path(os.environ["TINYTRAIN_REFERENCE_DIR"]) / "weights" / "tiny-training" / "mcunet-5fps.pkl"
    backbone = build_backbone("mcunet", resolution=RESOLUTION)
    flat_to_state(backbone, IMPORTERS["tiny_training"].read(path, graph=backbone.graph))
    return FoldedNetwork(backbone)


@pytest.mark.slow
@pytest.mark.parametrize(
    "domain, share", [("signs", 0.56), ("glyphs", 0.54), ("clipart", 0.35), ("fashion", 0.51), ("flags", 0.70)]
)
def test_raw_pixels(domain: str, share: float, blank: FoldedNetwork) -> None:
    method, nothing = METHODS["raw_pixels"], UpdatePlan(backbone="mcunet")
    found = [method.adapt(task_of(domain, index, blank), nothing).accuracy_before for index in range(60)]
    assert np.mean(found) == pytest.approx(share, abs=TOLERANCE)


@pytest.mark.slow
@pytest.mark.reference
@pytest.mark.parametrize(
    "domain, share", [("signs", 0.86), ("glyphs", 0.83), ("clipart", 0.63), ("fashion", 0.74), ("flags", 0.78)]
)
def test_the_frozen_network(domain: str, share: float, pretrained: FoldedNetwork) -> None:
    found = [task_of(domain, index, pretrained).accuracy_before for index in range(40)]
    assert np.mean(found) == pytest.approx(share, abs=TOLERANCE)


@pytest.mark.slow
@pytest.mark.reference
@pytest.mark.parametrize("domain", ["signs", "glyphs"])
def test_tinytrain_gains_over_none_in_the_budget_of_the_paper(domain: str, pretrained: FoldedNetwork) -> None:
    """20-way tasks leave room: in 5-way ones the frozen network is right nine times in ten."""
    twenty_way = EpisodeSettings(sampler="fixed", way=20, shot=5, query=5)
    gains = []
    for index in range(2):
        task = task_of(domain, index, pretrained, settings=twenty_way)
        decision = METHODS["tinytrain"].decide(paper_question(task))
        outcome = METHODS["tinytrain"].adapt(task, decision.plan)
        assert decision.status == "ok" and outcome.accuracy_after is not None
        gains.append(outcome.accuracy_after - outcome.accuracy_before)
    assert np.mean(gains) > 0.05, gains


def paper_question(task: TargetTask) -> PlanQuestion:
    """About 1 MB, and 15 % of FullTrain's backward MACs."""
    graph, settings = task.network.graph, SelectionSettings()
    return PlanQuestion(
        graph=graph,
        task_id=task.task_id,
        settings=settings,
        budget=Budget(memory_bytes=1_000_000, backward_macs=int(0.15 * 2 * graph.forward_macs)),
        memory_of=lambda plan: paper_memory(graph, plan).total_bytes,
        fisher=lambda: fisher_information(task, graph.last_blocks(settings.inspect_blocks)),
        weight_norm=lambda layer: weight_norm(task.network, layer),
        channel_norms=lambda layer, side: channel_norms(task.network, layer, side),
    )
