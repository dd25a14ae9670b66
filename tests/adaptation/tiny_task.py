"""A network of ten layers with every kind of layer, unlike-default normalisation, and a task of three classes."""

import numpy as np
import torch

from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.backbones.network import Backbone, build_backbone
from tinytrain_dist.data.episodes import Episode
from tinytrain_dist.data.transforms import to_unit
from tinytrain_dist.graphs.adapters import adapter_plan
from tinytrain_dist.graphs.architectures import Architecture, Block
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan, full_plan

SIZE = 32
ARCHITECTURE = Architecture(
    name="tiny",
    stem_channels=8,
    blocks=(
        Block(expand_channels=8, kernel=3, stride=1, out_channels=8, residual=True),
        Block(expand_channels=24, kernel=5, stride=2, out_channels=12, residual=False),
        Block(expand_channels=36, kernel=3, stride=1, out_channels=12, residual=True),
    ),
    mix_channels=20,
)
GRAPH = ARCHITECTURE.graph(SIZE)
"""0 stem 16x16, 1 depthwise, 2 project + residual, 3 expand, 4 depthwise stride 2 to 8x8, 5 project, 6 expand,
7 depthwise, 8 project + residual, 9 mix."""


@torch.no_grad()
def tiny_backbone(seed: int = 0, *, dtype: torch.dtype = torch.float64, graph: LayerGraph = GRAPH) -> Backbone:
    """Statistics are those of real images times random factors: the features differ from image to image."""
    backbone = build_backbone(graph, seed=seed)
    norms = [backbone.unit(layer.index).norm for layer in graph.layers]
    for norm in norms:
        norm.momentum = 1.0
    backbone.train()(to_unit(torch.from_numpy(tiny_episode(seed).support_images)))
    generator = torch.Generator().manual_seed(seed)
    for norm in norms:
        assert norm.running_var is not None
        norm.running_var.mul_(torch.empty_like(norm.bias).uniform_(0.5, 1.5, generator=generator))
        norm.weight.uniform_(0.5, 1.5, generator=generator)
        norm.bias.uniform_(-0.5, 0.5, generator=generator)
    return backbone.to(dtype).eval()


def tiny_episode(seed: int = 0, *, shots: tuple[int, ...] = (3, 2, 2), queries: int = 3) -> Episode:
    """Classes are a colour pattern each, under strong noise."""
    rng = np.random.default_rng(seed)
    patterns = rng.integers(60, 196, (len(shots), 3, 8, 8)).repeat(4, axis=2).repeat(4, axis=3)

    def images(counts: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        noisy = patterns[labels] + rng.normal(0, 40, (len(labels), 3, SIZE, SIZE))
        return noisy.clip(0, 255).astype(np.uint8), labels

    support, support_labels = images(shots)
    query, query_labels = images((queries,) * len(shots))
    return Episode(
        support_images=support, support_labels=support_labels, query_images=query, query_labels=query_labels,
        way=len(shots), shots=shots,
    )  # fmt: skip


def tiny_task(
    backbone: Backbone | None = None, *, settings: FineTuneSettings | None = None, task_id: str = "tiny/0"
) -> TargetTask:
    network = FoldedNetwork(backbone or tiny_backbone())
    chosen = settings or FineTuneSettings(iterations=4)
    return TargetTask(task_id, episode=tiny_episode(), network=network, settings=chosen, scale=10.0)


def plan_of(*updates: LayerUpdate, bias: tuple[int, ...] = (), scale: tuple[int, ...] = ()) -> UpdatePlan:
    return UpdatePlan(backbone="tiny", updates=updates, bias_layers=bias, scale_layers=scale)


PLANS = {
    "halves of every kind": plan_of(
        LayerUpdate(layer=3, channels=tuple(range(0, 24, 2))),
        LayerUpdate(layer=4, channels=tuple(range(0, 24, 2))),
        LayerUpdate(layer=7),
        LayerUpdate(layer=8, channels=tuple(range(0, 36, 2)), side="input"),
        bias=(5, 9),
        scale=(6,),
    ),
    "residual open at the cut": plan_of(LayerUpdate(layer=8, channels=(3,)), bias=(7, 9)),
    "everything": full_plan(GRAPH),
    "lite residual modules": adapter_plan(GRAPH),
}
"""Plans of every kind, by what they are."""
