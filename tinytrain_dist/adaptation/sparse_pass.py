"""Forward and backward over the layers a plan can change, written out: nothing is kept or computed that no
selected channel needs.

Kept for the backward pass: the input channels that updated weights multiply, and the ReLU6 masks from the first
touched layer on; not one activation more (``costs.saved_exact``). Weight gradients are made for the selected
channels alone, and no gradient is passed below the first touched layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from tinytrain_dist.adaptation.branches import ModuleTape
from tinytrain_dist.adaptation.plan_weights import PlanWeights
from tinytrain_dist.backbones.compiled import masked_, relu6_mask, select_channels
from tinytrain_dist.backbones.folded import Folded, FoldedNetwork, pool, rounded
from tinytrain_dist.backbones.kernels import convolve, input_gradient, weight_gradient, widened
from tinytrain_dist.backbones.layout import channels_last
from tinytrain_dist.backbones.network import LayerState
from tinytrain_dist.graphs.layer_graph import ConvLayer


class GradientTap(Protocol):
    """Sees a layer's activation and its gradient on the way back; returns the gradient before the layer's ReLU6.

    The memory of both is the tap's to reuse.
    """

    def __call__(self, index: int, activation: Tensor, gradient: Tensor) -> Tensor: ...


@dataclass
class Tape:
    """What a forward pass keeps for its backward pass, by layer.

    Attributes
    ----------
    inputs
        Input maps of updated layers, only the channels that are needed.
    masks
        Where ReLU6 lets the gradient through, one byte an element; a kept activation says it itself.
    activations
        Activations a tap asked for (the Fisher pass).
    modules
        What every lite residual module keeps; the backward pass gives it back module by module.
    shapes
        Input shape of every layer; costs nothing.
    """

    inputs: dict[int, Tensor] = field(default_factory=dict)
    masks: dict[int, Tensor] = field(default_factory=dict)
    activations: dict[int, Tensor] = field(default_factory=dict)
    modules: dict[int, ModuleTape] = field(default_factory=dict)
    shapes: dict[int, torch.Size] = field(default_factory=dict)
    out_shape: torch.Size = field(default_factory=torch.Size)
    out_type: torch.dtype = torch.float32

    @property
    def saved_bytes(self) -> int:
        """Bytes of everything that is kept."""
        return sum(t.numel() * t.element_size() for t in self.tensors)

    @property
    def tensors(self) -> list[Tensor]:
        """Everything that is kept."""
        of_modules = [tensor for module in self.modules.values() for tensor in module.tensors]
        return [*self.inputs.values(), *self.masks.values(), *self.activations.values(), *of_modules]


class SparsePass:
    """Runs layers ``start`` to the last one forward, and backward as far as ``start``.

    Parameters
    ----------
    weights
        What is updated; ``None`` updates nothing (the Fisher pass).
    start
        First layer of the pass.
    stop
        Layer the backward pass ends at: the first touched one, or the first inspected one; ``None``: ``start``.
    tapped
        Layers whose activations are kept for a tap.
    """

    def __init__(
        self,
        network: FoldedNetwork,
        *,
        weights: PlanWeights | None,
        start: int,
        stop: int | None = None,
        tapped: frozenset[int] = frozenset(),
    ) -> None:
        self._network, self._weights, self._tapped = network, weights, tapped
        self._stop = start if stop is None else stop
        self._branches = None if weights is None or not weights.plan.adapters else weights.branches
        self._layers = network.graph.layers[start:]
        self._opens = network.opens_residual
        self._folded: dict[int, Folded] = {}

    def refresh(self) -> None:
        """Take over the current values of the updated weights."""
        self._folded = self._weights.folded() if self._weights is not None else {}

    @torch.no_grad()
    def forward(self, state: LayerState, *, keep: bool = True) -> tuple[Tensor, Tape]:
        """Return features ``[N, F]`` and, with ``keep``, the tape its backward pass needs."""
        tape, (x, residual) = Tape(), state
        branched: Tensor | None = None
        for layer in self._layers:
            if layer.index in self._opens:
                residual = x
            if self._branches is not None and layer.index in self._branches.opens:
                branched = x
            kept = tape if keep and layer.index >= self._stop else None
            if kept is not None:
                self._keep_input(kept, layer, x)
            x, residual = self._apply(kept, layer, x, residual)
            if self._branches is not None and layer.index in self._branches:
                assert branched is not None
                x = x + self._branch(kept, layer.index, widened(branched)).to(x.dtype)
        tape.out_shape, tape.out_type = x.shape, x.dtype
        return pool(LayerState(x)), tape

    def _apply(
        self, tape: Tape | None, layer: ConvLayer, x: Tensor, residual: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        weight, bias = self._current(layer.index, of=x.dtype)
        tapped = layer.index in self._tapped
        added = residual if layer.residual_after and not tapped else None
        out = convolve(x, weight, bias, layer=layer, residual=added)
        if tape is not None and tapped:
            tape.activations[layer.index] = out
        elif tape is not None and layer.has_activation:
            tape.masks[layer.index] = relu6_mask(out)
        if layer.residual_after:
            return (out + residual if tapped and residual is not None else out), None
        return out, residual

    def _current(self, index: int, *, of: torch.dtype) -> Folded:
        """Return the weights of a layer as they are now, for maps of type ``of``."""
        folded = self._folded.get(index)
        if folded is None:
            return self._network.weights(index, of=of)
        return rounded(folded) if of == torch.bfloat16 else folded

    def _branch(self, tape: Tape | None, index: int, x: Tensor) -> Tensor:
        """Return what the module at layer ``index`` adds, from its block's input."""
        assert self._weights is not None and self._branches is not None
        parameters = self._weights.module(index)
        if tape is None:
            return self._branches.apply(index, parameters, x)
        added, tape.modules[index] = self._branches.forward(index, parameters, x)
        return added

    @torch.no_grad()
    def measure_branches(self, state: LayerState) -> None:
        """Fix the statistics of every module's normalisations to those of the frozen backbone on ``state``."""
        x, residual = state
        for layer in self._layers if self._branches is not None else ():
            assert self._branches is not None and self._weights is not None
            if layer.index in self._branches.opens:
                end = self._branches.opens[layer.index]
                self._branches.measure(end, self._weights.module(end), widened(x))
            x, residual = self._network.run(LayerState(x, residual), start=layer.index, stop=layer.index + 1)

    def _keep_input(self, tape: Tape, layer: ConvLayer, x: Tensor) -> None:
        tape.shapes[layer.index] = x.shape
        weights = self._weights
        if weights is None or layer.index not in weights.touched:
            return
        if weights.needs_weight_gradient(layer.index):
            chosen = weights.input_channels(layer.index)
            tape.inputs[layer.index] = x if chosen is None else select_channels(x, chosen)

    @torch.no_grad()
    def backward(self, tape: Tape, feature_gradient: Tensor, *, tap: GradientTap | None = None) -> Tensor:
        """Return the flat gradient of the updated values (empty: there are none) from dLoss/dFeatures ``[N, F]``."""
        flat = feature_gradient.new_zeros(0 if self._weights is None else self._weights.values.numel())
        height, width = tape.out_shape[2:]
        grad = (feature_gradient / (height * width))[:, :, None, None].expand(tape.out_shape)
        grad = channels_last(grad).to(tape.out_type)
        pending: Tensor | None = None
        of_module: Tensor | None = None
        for layer in reversed(self._layers):
            index = layer.index
            if index in tape.modules:
                of_module = self._module_backward(flat, tape, index, grad)
            if layer.residual_after:
                pending = grad
            grad = _before_activation(tape, layer, grad, tap)
            if self._weights is not None and index in self._weights.touched:
                self._add_gradient(flat, tape, layer, grad)
            if index == self._stop:
                break
            weight = self._current(index, of=grad.dtype)[0]
            grad = input_gradient(grad, weight, layer=layer, in_shape=tape.shapes[index])
            if index in self._opens and pending is not None:
                grad, pending = grad + pending, None
            if of_module is not None and self._branches is not None and index in self._branches.opens:
                grad, of_module = grad + of_module, None
        return flat

    def _module_backward(self, flat: Tensor, tape: Tape, index: int, grad: Tensor) -> Tensor | None:
        """Add the gradients of a module's parameters; return that of its input where it is needed."""
        assert self._weights is not None and self._branches is not None
        found, of_input = self._branches.backward(
            index, self._weights.module(index), tape.modules.pop(index), widened(grad), passes=index != self._stop
        )
        self._weights.add_module_gradient(flat, index, found)
        return None if of_input is None else of_input.to(grad.dtype)

    def _add_gradient(self, flat: Tensor, tape: Tape, layer: ConvLayer, grad: Tensor) -> None:
        weights, index = self._weights, layer.index
        assert weights is not None
        bias = widened(grad).sum(dim=(0, 2, 3)) if weights.needs_bias_gradient(index) else None
        weight = None
        if weights.needs_weight_gradient(index):
            chosen = weights.output_channels(index)
            wanted = grad if chosen is None else select_channels(grad, chosen)
            weight = weight_gradient(wanted, tape.inputs[index], layer=layer)
        weights.add_gradient(flat, index, weight=weight, bias=bias)


def _before_activation(tape: Tape, layer: ConvLayer, grad: Tensor, tap: GradientTap | None) -> Tensor:
    """Return dLoss/dInput of the layer's ReLU6 (of nothing: as it is), past the tap where there is one."""
    activation = tape.activations.get(layer.index)
    if activation is not None and tap is not None:
        return tap(layer.index, activation, grad)
    if not layer.has_activation:
        return grad
    return masked_(grad, tape.masks[layer.index] if activation is None else relu6_mask(activation))
