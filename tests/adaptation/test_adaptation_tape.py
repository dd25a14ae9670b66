"""What a step keeps in memory: exactly what ``saved_exact`` counts, in micro-batches where it is too much."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_gradient import sparse_gradient
from tiny_task import GRAPH, plan_of, tiny_backbone, tiny_task
from torch import Tensor

from tinytrain_dist.adaptation import fine_tuning
from tinytrain_dist.adaptation.fine_tuning import EpisodeObjective, fine_tune, pass_start
from tinytrain_dist.adaptation.plan_weights import PlanWeights
from tinytrain_dist.adaptation.sparse_pass import SparsePass, Tape
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.backbones.network import LayerState, build_backbone
from tinytrain_dist.costs.saved_exact import saved_exact_bytes
from tinytrain_dist.costs.static_plans import static_plan
from tinytrain_dist.graphs.adapters import adapter_plan, block_ends
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan, full_plan, side_channels

RESOLUTION = 48
NUM_IMAGES = 3


def some_layers(graph: LayerGraph) -> st.SearchStrategy[tuple[int, ...]]:
    return st.sets(st.integers(0, len(graph.layers) - 1), max_size=4).map(sorted).map(tuple)


@st.composite
def random_plans(draw: st.DrawFn, graph: LayerGraph) -> UpdatePlan:
    """Any weights of either side, shifts, scales and lite residual modules; never empty."""
    updates = []
    for index in draw(some_layers(graph)):
        side = draw(st.sampled_from(["output", "input"]))
        limit = side_channels(graph.layer(index), side)
        count = draw(st.none() | st.integers(1, limit))
        channels = None if count is None else tuple(range(limit - count, limit))
        updates.append(LayerUpdate(layer=index, channels=channels, side=side))
    bias, scale = draw(some_layers(graph)), draw(some_layers(graph))
    adapters = draw(st.sets(st.sampled_from(block_ends(graph)), max_size=3).map(sorted).map(tuple))
    if not (updates or bias or scale or adapters):
        scale = (draw(st.integers(0, len(graph.layers) - 1)),)
    return UpdatePlan(
        backbone=graph.name, updates=tuple(updates), bias_layers=bias, scale_layers=scale, adapters=adapters
    )


def kept(network: FoldedNetwork, plan: UpdatePlan) -> Tape:
    """Return the tape of one running forward pass over all images."""
    start = pass_start(plan, network.graph)
    sparse = SparsePass(network, weights=PlanWeights(network, plan), start=start, stop=plan.earliest_layer)
    size = network.graph.resolution
    images = torch.rand(NUM_IMAGES, 3, size, size).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        state = network.run(LayerState(images), stop=start)
        sparse.measure_branches(state)
        sparse.refresh()
        return sparse.forward(state)[1]


NETWORKS = {"tiny": FoldedNetwork(tiny_backbone(dtype=torch.float32))} | {
    name: FoldedNetwork(build_backbone(layer_graph(name, RESOLUTION)))
    for name in ("mcunet", "mobilenet_v2", "proxylessnas")
}


@given(st.data())
@settings(max_examples=40)
def test_the_running_step_keeps_the_bytes_that_are_counted(data: st.DataObject) -> None:
    network = NETWORKS[data.draw(st.sampled_from(sorted(NETWORKS)))]
    plan = data.draw(random_plans(network.graph))
    assert kept(network, plan).saved_bytes == saved_exact_bytes(network.graph, plan, batch=NUM_IMAGES, mask_bits=8)


@pytest.mark.parametrize(
    "method",
    ["full_train", "last_layer", "sparse_update", "tiny_tl", "adapter_drop_25", "adapter_drop_50", "adapter_drop_75"],
)
@pytest.mark.parametrize("name", ["mcunet", "mobilenet_v2", "proxylessnas"])
def test_the_bytes_of_the_methods(name: str, method: str) -> None:
    network = NETWORKS[name]
    plan = static_plan(method, network.graph).plan
    assert kept(network, plan).saved_bytes == saved_exact_bytes(network.graph, plan, batch=NUM_IMAGES, mask_bits=8)


@pytest.mark.parametrize("name", ["mcunet", "mobilenet_v2", "proxylessnas"])
def test_a_module_whose_block_is_touched_in_the_middle_first(name: str) -> None:
    graph = NETWORKS[name].graph
    for opening, middle, end in [
        [x.index for x in graph.block_layers(graph.layer(e).block)] for e in block_ends(graph)[1:4]
    ]:
        for first in (opening, middle, end):
            plan = UpdatePlan(backbone=graph.name, updates=(), scale_layers=(first,), adapters=(end,))
            assert pass_start(plan, graph) == opening
            found = kept(NETWORKS[name], plan).saved_bytes
            assert found == saved_exact_bytes(graph, plan, batch=NUM_IMAGES, mask_bits=8)


@pytest.mark.parametrize(
    "plan", [plan_of(LayerUpdate(layer=7, channels=(0, 5)), LayerUpdate(layer=9)), adapter_plan(GRAPH)]
)
def test_what_is_kept_holds_on_to_nothing_larger(plan: UpdatePlan) -> None:
    tape = kept(NETWORKS["tiny"], plan)
    assert tape.tensors and not any(tensor.requires_grad for tensor in tape.tensors)
    for tensor in tape.tensors:
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


MICRO_PLANS = {
    "late": plan_of(LayerUpdate(layer=7, channels=(0, 5)), LayerUpdate(layer=9)),
    "residual open at the cut": plan_of(LayerUpdate(layer=8, channels=(3,)), bias=(7, 9)),
    "everything": full_plan(GRAPH),
}


@pytest.mark.parametrize("images", [1, 3, 13])
@pytest.mark.parametrize("name", MICRO_PLANS)
def test_micro_batches_give_the_same_gradient(name: str, images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, task = MICRO_PLANS[name], tiny_task()
    expected, _ = sparse_gradient(task, plan)
    per_image = saved_exact_bytes(GRAPH, plan, bytes_per_element=8, mask_bits=8)
    monkeypatch.setattr(fine_tuning, "TAPE_BYTES", images * per_image)
    sizes: list[int] = []
    forward = SparsePass.forward

    def watched(self: SparsePass, state: LayerState, *, keep: bool = True) -> tuple[Tensor, Tape]:
        features, tape = forward(self, state, keep=keep)
        if keep:
            sizes.append(len(state.x))
            assert tape.saved_bytes <= images * per_image
        return features, tape

    monkeypatch.setattr(SparsePass, "forward", watched)
    tuning = fine_tuning.Tuning(task, plan, EpisodeObjective())
    _, found = tuning.step(0)
    assert sum(sizes) == 14 and max(sizes) == min(images, 14)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_micro_batches_give_the_same_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fine_tune(tiny_task(), full_plan(GRAPH))
    monkeypatch.setattr(fine_tuning, "TAPE_BYTES", 1)
    parts = fine_tune(tiny_task(), full_plan(GRAPH))
    torch.testing.assert_close(parts.losses, whole.losses, rtol=1e-9, atol=1e-9)
    assert parts.accuracy_after == whole.accuracy_after


LARGEST = """
import resource, sys
import numpy as np, torch
from tinytrain_dist.execution.threads import keep_freed_memory, use_one_thread
use_one_thread()
keep_freed_memory()  # as every worker does
from tinytrain_dist.adaptation.fisher import fisher_information
from tinytrain_dist.adaptation.methods import METHODS
from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.data.episodes import Episode
from tinytrain_dist.graphs.adapters import adapter_plan
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan, full_plan

rng = np.random.default_rng(0)
images = lambda n: rng.integers(0, 256, (n, 3, 84, 84), dtype=np.uint8)
labels = lambda n: np.arange(n, dtype=np.int64) % 50
episode = Episode(support_images=images(500), support_labels=labels(500), query_images=images(500),
                  query_labels=labels(500), way=50, shots=(10,) * 50)
network = FoldedNetwork(build_backbone("mcunet", resolution=84))
settings = FineTuneSettings(iterations=2, mode=sys.argv[1])
task = TargetTask("largest", episode=episode, network=network, settings=settings, scale=10.0)
if "deep" in sys.argv:
    fisher_information(task, network.graph.last_blocks(14))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    sys.exit()
inspected = network.graph.last_blocks(6)
delta = fisher_information(task, inspected).channels
updates = tuple(
    LayerUpdate(layer=i, channels=tuple(sorted(np.argsort(-delta[i])[: len(delta[i]) // 2].tolist())))
    for i in inspected
)
plans = {"tinytrain": UpdatePlan(backbone="mcunet", updates=updates), "tiny_tl": adapter_plan(network.graph),
         "transductive": full_plan(network.graph)}
for method, plan in plans.items():
    assert len(METHODS[method].adapt(task, plan).losses) == 2
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("words", [("reference",), ("fast",), ("reference", "deep")], ids=" ".join)
def test_the_largest_task_stays_under_two_gib(words: tuple[str, ...]) -> None:
    """50 classes, 500 support images, 84 pixels: Fisher, every inspected layer at 50 %, lite residual modules,
    the whole network with the 500 query images in every step too: more of everything than full_train passes.
    ``deep``: Fisher information of every block."""
    run = subprocess.run([sys.executable, "-c", LARGEST, *words], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 2 * 2**30
