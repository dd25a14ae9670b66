"""Parts of whole steps of one network, each timed where it stands: between the layers before and after it.

``input_grad`` is the backward pass that updates nothing, and the masks it needs from the forward pass.
``weight_grad`` cannot run alone: a probe inside the step times kept inputs and weight gradients. forward +
input_grad + weight_grad is the step.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinytrain_dist.adaptation.fine_tuning import make_optimizer
from tinytrain_dist.adaptation.fisher import delta_of
from tinytrain_dist.adaptation.plan_weights import PlanWeights
from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.adaptation.sparse_pass import SparsePass, Tape
from tinytrain_dist.backbones.card import CheckpointCard
from tinytrain_dist.backbones.checkpoint import load_checkpoint, save_checkpoint
from tinytrain_dist.backbones.compiled import product_sums_, relu6_mask
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.backbones.network import LayerState, build_backbone
from tinytrain_dist.costs.phase_amounts import (
    Amounts,
    adapter_amounts,
    added,
    chain_amounts,
    fisher_amounts,
    forward_amounts,
    load_amounts,
    optimizer_amounts,
    weight_grad_amounts,
)
from tinytrain_dist.graphs.adapters import lite_residuals
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_graph import ConvLayer, LayerGraph
from tinytrain_dist.graphs.update_plan import UpdatePlan
from tinytrain_dist.measuring.cases import Case, PartClock, Probe, Run


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

        def build() -> tuple[Run, ...]:
            run = SparsePass(self._network, weights=None, start=0)
            return (lambda: run.forward(LayerState(self._images), keep=False),)

        return self._case("forward", "", forward_amounts(self.graph), build)

    def input_grad(self, start: int) -> Case:
        """Return the input gradients of the layers after ``start``."""

        def build() -> tuple[Run, ...]:
            run = SparsePass(self._network, weights=None, start=0, stop=start)
            _, tape = run.forward(LayerState(self._images))
            outputs = self._masked_outputs(start)

            def masks() -> None:
                for output in outputs:
                    relu6_mask(output)

            return (lambda: run.backward(tape, self._feature_gradient), masks)

        return self._case("input_grad", f"-from{start}", chain_amounts(self.graph, start), build)

    def weight_grad(self, plan: UpdatePlan) -> Case:
        """Return the weight gradients of ``plan``'s updates, biases and scales."""

        def build() -> tuple[Run, ...]:
            clock = PartClock()
            run = self._pass(plan, clock)
            return (Probe(lambda: self._step(run), clock),)

        return self._case("weight_grad", f"-{plan.hash[:8]}", weight_grad_amounts(self.graph, plan), build)

    def adapters(self, plan: UpdatePlan) -> Case:
        """Return the lite residual modules of ``plan``, forward and backward."""
        modules = lite_residuals(self.graph, plan.adapters)

        def build() -> tuple[Run, ...]:
            clock = PartClock()
            run = self._pass(plan, clock)
            return (Probe(lambda: self._step(run), clock),)

        counts = added(adapter_amounts(module) for module in modules)
        return self._case("adapters", f"-{plan.hash[:8]}", counts, build)

    def fisher(self, inspected: Sequence[int]) -> Case:
        """Return the pass that measures Fisher information, one image."""
        first = min(inspected)

        def build() -> tuple[Run, ...]:
            run = SparsePass(self._network, weights=None, start=0, stop=first, tapped=frozenset(inspected))

            def whole() -> None:
                _, tape = run.forward(LayerState(self._images))
                run.backward(tape, self._feature_gradient, tap=self._measure_channels)

            return (whole,)

        return self._case("fisher", f"-from{first}", fisher_amounts(self.graph, inspected), build)

    def _measure_channels(self, index: int, activation: Tensor, gradient: Tensor) -> Tensor:
        products, gradient = product_sums_(activation, gradient, clears=self.graph.layer(index).has_activation)
        delta_of(products)
        return gradient

    def optimizer(self, plan: UpdatePlan, *, optimizer: str = "adam") -> Case:
        """Return one optimizer step over the plan's values, and taking them over into the folded weights."""

        def build() -> tuple[Run, ...]:
            weights = PlanWeights(self._network, plan)
            step = make_optimizer(weights.values, FineTuneSettings(optimizer="adam" if optimizer == "adam" else "sgd"))
            weights.values.grad = torch.full_like(weights.values, 1e-3)

            def run() -> None:
                step.step()
                weights.folded()

            return (run,)

        return self._case("optimizer", f"-{plan.hash[:8]}", optimizer_amounts(self.graph, plan), build, per_image=False)

    def load(self, folder: Path) -> Case:
        """Return reading the checkpoint from storage (its pages dropped from the cache before) and building it."""

        def build() -> tuple[Run, ...]:
            handle, name = tempfile.mkstemp(dir=folder, suffix=".safetensors")
            os.close(handle)
            path = Path(name)
            card = CheckpointCard(initialization="random", resolution=self.graph.resolution)
            save_checkpoint(path, build_backbone(self.graph), card)

            def run() -> None:
                drop_from_cache(path)
                load_checkpoint(path)

            return (run,)

        counts = load_amounts(self.graph, UpdatePlan(backbone=self.graph.name))
        return self._case("load", "", counts, build, per_image=False, waits=True)

    def step(self, plan: UpdatePlan) -> Case:
        """Return forward and backward of one image under ``plan``: what the parts must add up to."""

        def build() -> tuple[Run, ...]:
            run = self._pass(plan)
            return (lambda: self._step(run),)

        start = plan.earliest_layer
        assert start is not None, "an empty plan has no step"
        parts = (forward_amounts(self.graph), chain_amounts(self.graph, start), weight_grad_amounts(self.graph, plan))
        return self._case("step", f"-{plan.hash[:8]}", added(parts), build)

    def _pass(self, plan: UpdatePlan, clock: PartClock | None = None) -> SparsePass:
        weights = PlanWeights(self._network, plan)
        kind = SparsePass if clock is None else partial(_ProbedPass, clock=clock)
        run = kind(self._network, weights=weights, start=0, stop=plan.earliest_layer)
        run.measure_branches(LayerState(self._images))
        run.refresh()
        return run

    def _step(self, run: SparsePass) -> None:
        _, tape = run.forward(LayerState(self._images))
        run.backward(tape, self._feature_gradient)

    @torch.no_grad()
    def _masked_outputs(self, start: int) -> list[Tensor]:
        """Return the outputs whose masks a backward pass to ``start`` needs."""
        found, state = [], self._network.run(LayerState(self._images), stop=start)
        for layer in self.graph.layers[start:]:
            state = self._network.run(state, start=layer.index, stop=layer.index + 1)
            if layer.has_activation:
                found.append(state.x)
        return found

    def _case(
        self,
        phase: str,
        suffix: str,
        amounts: Amounts,
        build: Callable[[], tuple[Run, ...]],
        *,
        per_image: bool = True,
        waits: bool = False,
    ) -> Case:
        return Case(
            phase=phase, model=f"{self._label}{suffix}", family=self.graph.name, resolution=self.graph.resolution,
            amounts=amounts, build=build, per_image=per_image, waits=waits,
        )  # fmt: skip


class _ProbedPass(SparsePass):
    """Times what only updated layers and modules cost: keeping their inputs, and their gradients."""

    def __init__(self, *args: Any, clock: PartClock, **options: Any) -> None:
        super().__init__(*args, **options)
        self._clock = clock

    def _keep_input(self, tape: Tape, layer: ConvLayer, x: Tensor) -> None:
        self._clock.time(lambda: super(_ProbedPass, self)._keep_input(tape, layer, x))

    def _branch(self, tape: Tape | None, index: int, x: Tensor) -> Tensor:
        return self._clock.time(lambda: super(_ProbedPass, self)._branch(tape, index, x))

    def _module_backward(self, flat: Tensor, tape: Tape, index: int, grad: Tensor) -> Tensor | None:
        return self._clock.time(lambda: super(_ProbedPass, self)._module_backward(flat, tape, index, grad))

    def _add_gradient(self, flat: Tensor, tape: Tape, layer: ConvLayer, grad: Tensor) -> None:
        self._clock.time(lambda: super(_ProbedPass, self)._add_gradient(flat, tape, layer, grad))


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
