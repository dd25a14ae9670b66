"""Parts of whole steps of one network, each timed where it stands: between the layers before and after it.

``input_grad`` and ``weight_grad`` cannot run alone in a step: each is the difference of two passes, masks and kept
inputs included, so forward + input_grad + weight_grad is the step.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from tinytrain_dist.adaptation.fine_tuning import make_optimizer
from tinytrain_dist.adaptation.fisher import channel_delta
from tinytrain_dist.adaptation.plan_weights import PlanWeights
from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.adaptation.sparse_pass import SparsePass
from tinytrain_dist.backbones.card import CheckpointCard
from tinytrain_dist.backbones.checkpoint import load_checkpoint, save_checkpoint
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.backbones.network import LayerState, build_backbone
from tinytrain_dist.costs.measurements import Operations
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import UpdatePlan, update_weights, updated_weights
from tinytrain_dist.measuring.cases import Case, Term, operations_of, weights_only


class StepCases:
    """Cases of one backbone at one resolution; the network is built once, when the first of them runs."""

    def __init__(self, backbone: str, resolution: int, *, batch: int) -> None:
        self.graph: LayerGraph = layer_graph(backbone, resolution)
        self._batch = batch
        self._label = f"{backbone}-{resolution}px"

    @cached_property
    def _network(self) -> FoldedNetwork:
        return FoldedNetwork(build_backbone(self.graph))

    @cached_property
    def _images(self) -> Tensor:
        shape = (self._batch, 3, self.graph.resolution, self.graph.resolution)
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        return images.contiguous(memory_format=torch.channels_last)

    @cached_property
    def _feature_gradient(self) -> Tensor:
        shape = (self._batch, self.graph.feature_channels)
        return torch.randn(shape, generator=torch.Generator().manual_seed(1))

    def forward(self) -> Case:
        """Return the forward pass."""
        every = [(layer, 1.0) for layer in self.graph.layers]

        def build() -> tuple[Term, ...]:
            run = SparsePass(self._network, weights=None, start=0)
            return ((1.0, lambda: run.forward(LayerState(self._images), keep=False)),)

        return self._case("forward", "", operations_of(every), build)

    def input_grad(self, start: int) -> Case:
        """Return the input gradients of the layers after ``start``."""
        after = [(layer, 1.0) for layer in self.graph.layers[start + 1 :]]

        def build() -> tuple[Term, ...]:
            return self._chain(SparsePass(self._network, weights=None, start=0, stop=start))

        return self._case("input_grad", f"-from{start}", operations_of(after), build)

    def weight_grad(self, plan: UpdatePlan) -> Case:
        """Return the weight gradients of ``plan``'s updates, biases and scales."""
        parts = [(self.graph.layer(u.layer), update_weights(u, self.graph.layer(u.layer))) for u in plan.updates]
        shares = [(layer, count / layer.weights) for layer, count in parts]

        def build() -> tuple[Term, ...]:
            start = plan.earliest_layer
            bare = self._backward_terms(SparsePass(self._network, weights=None, start=0, stop=start))
            return (*self._backward_terms(self._pass(plan)), *((-sign, run) for sign, run in bare))

        return self._case("weight_grad", f"-{plan.hash[:8]}", operations_of(shares), build)

    def fisher(self, inspected: Sequence[int]) -> Case:
        """Return the pass that measures Fisher information, one image."""
        first = min(inspected)
        parts = [(layer, 1.0) for layer in (*self.graph.layers, *self.graph.layers[first + 1 :])]
        sums = sum(self.graph.layer(index).output_elements for index in inspected)

        def build() -> tuple[Term, ...]:
            run = SparsePass(self._network, weights=None, start=0, stop=first, tapped=frozenset(inspected))

            def whole() -> None:
                _, tape = run.forward(LayerState(self._images))
                run.backward(tape, self._feature_gradient, tap=_measure_channels)

            return ((1.0, whole),)

        return self._case("fisher", f"-from{first}", operations_of(parts, extra_macs=sums), build)

    def optimizer(self, plan: UpdatePlan, *, optimizer: str = "adam") -> Case:
        """Return one optimizer step over the plan's values, and taking them over into the folded weights."""

        def build() -> tuple[Term, ...]:
            weights = PlanWeights(self._network, plan)
            step = make_optimizer(weights.values, FineTuneSettings(optimizer="adam" if optimizer == "adam" else "sgd"))
            weights.values.grad = torch.full_like(weights.values, 1e-3)

            def run() -> None:
                step.step()
                weights.folded()

            return ((1.0, run),)

        count = updated_weights(plan, self.graph)
        return self._case("optimizer", f"-{plan.hash[:8]}", weights_only(count), build, per_image=False)

    def load(self, folder: Path) -> Case:
        """Return reading the checkpoint from storage (its pages dropped from the cache before) and building it."""

        def build() -> tuple[Term, ...]:
            handle, name = tempfile.mkstemp(dir=folder, suffix=".safetensors")
            os.close(handle)
            path = Path(name)
            card = CheckpointCard(initialization="random", resolution=self.graph.resolution)
            save_checkpoint(path, build_backbone(self.graph), card)

            def run() -> None:
                drop_from_cache(path)
                load_checkpoint(path)

            return ((1.0, run),)

        totals = weights_only(self.graph.parameters)
        return self._case("load", "", totals, build, per_image=False, waits=True)

    def step(self, plan: UpdatePlan) -> Case:
        """Return forward and backward of one image under ``plan``: what the parts must add up to."""

        def build() -> tuple[Term, ...]:
            run = self._pass(plan)

            def whole() -> None:
                _, tape = run.forward(LayerState(self._images))
                run.backward(tape, self._feature_gradient)

            return ((1.0, whole),)

        return self._case("step", f"-{plan.hash[:8]}", operations_of([]), build)

    def _pass(self, plan: UpdatePlan) -> SparsePass:
        weights = PlanWeights(self._network, plan)
        run = SparsePass(self._network, weights=weights, start=0, stop=plan.earliest_layer)
        run.measure_branches(LayerState(self._images))
        run.refresh()
        return run

    def _chain(self, run: SparsePass) -> tuple[Term, ...]:
        keep, backward = self._backward_terms(run)
        return (keep, backward, (-1.0, lambda: run.forward(LayerState(self._images), keep=False)))

    def _backward_terms(self, run: SparsePass) -> tuple[Term, Term]:
        """Return the forward pass that keeps a tape, and the backward pass over one."""
        _, tape = run.forward(LayerState(self._images))
        return (
            (1.0, lambda: run.forward(LayerState(self._images))),
            (1.0, lambda: run.backward(tape, self._feature_gradient)),
        )

    def _case(
        self,
        phase: str,
        suffix: str,
        operations: Operations,
        build: Callable[[], tuple[Term, ...]],
        *,
        per_image: bool = True,
        waits: bool = False,
    ) -> Case:
        return Case(
            phase=phase, model=f"{self._label}{suffix}", family=self.graph.name, resolution=self.graph.resolution,
            operations=operations, build=build, per_image=per_image, waits=waits,
        )  # fmt: skip


def _measure_channels(index: int, activation: Tensor, gradient: Tensor) -> None:
    channel_delta(activation, gradient)


def drop_from_cache(path: Path) -> None:
    """Ask the kernel to forget the file's pages, so that the next read comes from storage where it can."""
    if not hasattr(os, "posix_fadvise"):
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)
