"""Fisher information: Eq. 2 by brute force, and a backward pass that stays in the inspected layers."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_task import GRAPH, tiny_backbone, tiny_task
from torch import Tensor

from tinytrain_dist.adaptation import fisher, sparse_pass
from tinytrain_dist.adaptation.fisher import FisherInformation, fisher_information
from tinytrain_dist.adaptation.sparse_pass import SparsePass, Tape
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.backbones import kernels
from tinytrain_dist.backbones.network import Backbone
from tinytrain_dist.graphs.layer_graph import ConvLayer

EVERY = tuple(layer.index for layer in GRAPH.layers)


def plain_loss(task: TargetTask, support: Tensor, pseudo: Tensor) -> Tensor:
    """Return the loss of the paper's head, written out class by class."""
    labels = task.episode.support_labels.tolist()
    rows = [[i for i, own in enumerate(labels) if own == c] for c in range(task.way)]
    prototypes = [support[own].mean(0) for own in rows]
    total = torch.zeros((), dtype=support.dtype)
    for feature, label in zip(pseudo, labels, strict=True):
        cosines = [feature @ p / (feature.norm() * p.norm()) for p in prototypes]
        logits = task.scale * torch.stack(cosines)
        total = total + torch.logsumexp(logits, 0) - logits[label]
    return total / len(labels)


def brute_force(task: TargetTask, backbone: Backbone) -> dict[int, NDArray[np.float64]]:
    kept: dict[int, Tensor] = {}

    def hook(index: int) -> Any:
        def keep(module: torch.nn.Module, args: Any, output: Tensor) -> None:
            output.retain_grad()
            kept[index] = output

        return keep

    handles = [backbone.unit(index).register_forward_hook(hook(index)) for index in EVERY]
    images = torch.cat([task.support_input, task.view(0)])
    support, pseudo = backbone(images).chunk(2)
    torch.autograd.backward(plain_loss(task, support, pseudo))
    for handle in handles:
        handle.remove()
    found = {}
    for index, activation in kept.items():
        assert activation.grad is not None
        a, g = activation.detach().numpy(), activation.grad.numpy()
        delta = np.zeros(a.shape[1])
        for channel in range(a.shape[1]):
            sums = [float((a[n, channel] * g[n, channel]).sum()) for n in range(len(a))]
            delta[channel] = sum(s * s for s in sums) / (2 * len(a))
        found[index] = delta
    return found


@pytest.mark.parametrize("inspected", [EVERY, GRAPH.last_blocks(2), (7, 8), (5, 9)])
def test_delta_equals_brute_force_over_the_unfolded_backbone(inspected: tuple[int, ...]) -> None:
    backbone = tiny_backbone()
    task = tiny_task(backbone)
    expected = brute_force(task, tiny_backbone())
    found = fisher_information(task, inspected)
    assert found.layers == inspected
    for index in inspected:
        assert found.channels[index].shape == (GRAPH.layer(index).out_channels,)
        np.testing.assert_allclose(found.channels[index], expected[index], rtol=1e-8, atol=1e-16)
        assert found.potential(index) == pytest.approx(math.fsum(expected[index]), rel=1e-8)
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_the_backward_pass_stops_at_the_first_inspected_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    passed, forward, tapes = list[int](), list[int](), list[Tape]()

    def input_gradient(*tensors: Tensor, layer: ConvLayer, **rest: Any) -> Tensor:
        passed.append(layer.index)
        return kernels.input_gradient(*tensors, layer=layer, **rest)

    def convolve(*tensors: Tensor, layer: ConvLayer, **rest: Any) -> Tensor:
        forward.append(layer.index)
        return kernels.convolve(*tensors, layer=layer, **rest)

    class Watched(SparsePass):
        def backward(self, tape: Tape, *args: Any, **rest: Any) -> Tensor:
            tapes.append(tape)
            return super().backward(tape, *args, **rest)

    monkeypatch.setattr(fisher, "SparsePass", Watched)
    monkeypatch.setattr(sparse_pass, "input_gradient", input_gradient)
    monkeypatch.setattr(sparse_pass, "convolve", convolve)
    fisher_information(tiny_task(), GRAPH.last_blocks(1))
    assert passed == [9, 8, 7], "neither the prefix nor layer 6 itself"
    assert forward == [6, 7, 8, 9], "one forward pass"
    (tape,) = tapes
    assert sorted(tape.activations) == [6, 7, 8, 9] and not tape.inputs, "no weight gradients"


def test_the_information_is_a_function_of_the_task_alone() -> None:
    first, second = (fisher_information(tiny_task(), GRAPH.last_blocks(2)) for _ in range(2))
    other = fisher_information(tiny_task(task_id="tiny/1"), GRAPH.last_blocks(2))
    for index in first.layers:
        assert np.array_equal(first.channels[index], second.channels[index])
        assert not np.array_equal(first.channels[index], other.channels[index])


def test_it_does_not_move_the_global_generator() -> None:
    before = torch.random.get_rng_state()
    fisher_information(tiny_task(), (8, 9))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_potential_is_the_sum_over_channels() -> None:
    information = FisherInformation({4: np.array([0.25, 1.0, 2.0]), 2: np.array([0.5])})
    assert information.layers == (2, 4)
    assert information.potential(4) == 3.25


@pytest.mark.parametrize("images", [1, 3, 13])
@pytest.mark.parametrize("inspected", [EVERY, (5, 9)])
def test_micro_batches_change_no_bit_and_keep_what_is_counted(
    images: int, inspected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = tiny_backbone(dtype=torch.float32)
    whole = fisher_information(tiny_task(backbone), inspected)
    per_image = fisher._bytes_per_image(GRAPH, inspected, element=4)
    kept: list[int] = []

    class Watched(SparsePass):
        def backward(self, tape: Tape, *args: Any, **rest: Any) -> Tensor:
            kept.append(tape.saved_bytes // per_image)
            assert tape.saved_bytes == kept[-1] * per_image
            return super().backward(tape, *args, **rest)

    monkeypatch.setattr(fisher, "SparsePass", Watched)
    monkeypatch.setattr(fisher, "TAPE_BYTES", images * per_image)
    parts = fisher_information(tiny_task(backbone), inspected)
    assert max(kept) == images and sum(kept) == 14
    for index in inspected:
        np.testing.assert_array_equal(parts.channels[index], whole.channels[index])
