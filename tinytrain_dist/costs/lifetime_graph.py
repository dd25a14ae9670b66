"""What the lifetime planner knows of a network before any plan: bytes per tensor, blocks, buffers, as vectors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tinytrain_dist.costs.counters import mask_bytes
from tinytrain_dist.costs.saved_exact import module_kept_elements
from tinytrain_dist.graphs.adapters import LiteResidual, lite_residual
from tinytrain_dist.graphs.layer_graph import ConvLayer, LayerGraph

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Im2col = Literal["none", "columns", "whole", "static"]

WORD_BYTES = 4
_COLUMN_BYTES = 2 * 2
"""Two columns of 16-bit values: the buffer of CMSIS-NN's and TinyEngine's int8 convolutions."""


@dataclass(frozen=True, kw_only=True)
class RuntimeRules:
    """How a runtime treats its tensors.

    Attributes
    ----------
    element_bytes, gradient_bytes
        Bytes of one weight or activation, and of one element of an activation's gradient.
    mask_every_layer
        Every layer of the chain keeps a 1-bit mask, linear projections too: int8 outputs are cut to their range.
    im2col
        ``columns``: two 16-bit columns per convolution; ``whole``: the unrolled input of every kernel above 1x1;
        ``static``: TinyEngine's two buffers beside the arena, each of its largest user and there throughout: two
        columns or two padded channels of a depthwise layer, and the 16-bit weights of kernels above 1x1. Depthwise
        layers then need no channel of the arena.
    fused_update
        A weight is updated as soon as its gradient exists, image by image, as MCUNetV3's runtime does; the gradient
        is freed at once. Otherwise the gradients of a whole iteration are summed and live as long as the weights.
    reorder
        A layer's weight gradient is made before its input gradient, so that its saved input is freed in between.
    """

    element_bytes: int
    gradient_bytes: int = 4
    mask_every_layer: bool
    im2col: Im2col = "none"
    fused_update: bool = False
    reorder: bool = True


INT8_RUNTIME = RuntimeRules(element_bytes=1, mask_every_layer=True, im2col="columns")
"""An int8 microcontroller runtime; gradients of activations are 32-bit, the default of MCUNetV3's compiler."""
TINYENGINE_RUNTIME = RuntimeRules(
    element_bytes=1, gradient_bytes=1, mask_every_layer=True, im2col="static", fused_update=True
)
"""TinyEngine as its code generator allocates (mit-han-lab/tinyengine, ``code_generator/GeneralMemoryScheduler.py``).

Layer by layer, depthwise in place; its training example runs no patches and int8 gradients
(``examples/tiny_training.py``).
"""
FP32_RUNTIME = RuntimeRules(element_bytes=4, mask_every_layer=False)


@dataclass(frozen=True, kw_only=True)
class TensorBytes:
    """Vectors over the layers, in bytes unless said otherwise, for one batch.

    ``element_bytes`` is one element of the whole batch, ``channels`` the output channels.
    ``first`` is the index of the first layer of the layer's block, ``block_input`` that layer's input and
    ``block_grad`` the gradient of the block's output; both are held while a residual needs them (``skips``).
    """

    element_bytes: int
    num_layers: int
    inputs: Ints
    outputs: Ints
    input_grads: Ints
    output_grads: Ints
    masks: Ints
    scratch: Ints
    channels: Ints
    one_channel: Ints
    num_buffer_channels: int
    one_grad_channel: Ints
    depthwise: Flags
    is_first: Flags
    is_last: Flags
    skips: Flags
    first: Ints
    block_input: Ints
    block_grad: Ints
    block_input_grad: Ints
    module_kept: Ints
    module_work: Ints
    module_parameters: Ints
    end_of_block: Ints


@lru_cache(maxsize=64)
def tensor_bytes(graph: LayerGraph, rules: RuntimeRules, batch: int) -> TensorBytes:
    """Return the vectors of ``graph``."""
    layers = graph.layers
    starts = {layer.block: layer for layer in reversed(layers)}
    ends = {layer.block: layer for layer in layers}
    skipping = {layer.block for layer in layers if layer.residual_after}
    modules = {x.index: lite_residual(graph, x.index) for x in layers if x.role == "project"}
    act, grad = batch * rules.element_bytes, batch * rules.gradient_bytes

    def ints(values: list[int]) -> Ints:
        return np.array(values, np.int64)

    def over_modules(count: dict[int, int]) -> Ints:
        return ints([count.get(x.index, 0) for x in layers])

    return TensorBytes(
        element_bytes=act,
        num_layers=len(layers),
        inputs=ints([act * x.input_elements for x in layers]),
        outputs=ints([act * x.output_elements for x in layers]),
        input_grads=ints([grad * x.input_elements for x in layers]),
        output_grads=ints([grad * x.output_elements for x in layers]),
        masks=ints([_mask(x, rules, batch) for x in layers]),
        scratch=ints(
            _static_buffers(graph, rules) if rules.im2col == "static" else [_scratch(x, rules) for x in layers]
        ),
        channels=ints([x.out_channels for x in layers]),
        one_channel=ints([act * x.out_size**2 for x in layers]),
        num_buffer_channels=int(rules.im2col != "static"),
        one_grad_channel=ints([grad * x.in_size**2 for x in layers]),
        depthwise=np.array([x.role == "depthwise" for x in layers]),
        is_first=np.array([starts[x.block] is x for x in layers]),
        is_last=np.array([ends[x.block] is x for x in layers]),
        skips=np.array([x.block in skipping for x in layers]),
        first=ints([starts[x.block].index for x in layers]),
        block_input=ints([act * starts[x.block].input_elements for x in layers]),
        block_grad=ints([grad * ends[x.block].output_elements for x in layers]),
        block_input_grad=ints([grad * starts[x.block].input_elements for x in layers]),
        module_kept=over_modules({i: _module_kept(m, rules, batch) for i, m in modules.items()}),
        module_work=over_modules({i: grad * _module_work(m) for i, m in modules.items()}),
        module_parameters=over_modules({i: m.parameters for i, m in modules.items()}),
        end_of_block=ints([ends[x.block].index for x in layers]),
    )


def _mask(layer: ConvLayer, rules: RuntimeRules, batch: int) -> int:
    return mask_bytes(batch * layer.output_elements) if rules.mask_every_layer or layer.has_activation else 0


def _scratch(layer: ConvLayer, rules: RuntimeRules) -> int:
    """Return the unrolling buffer of one image: a runtime unrolls image by image."""
    taps = layer.channels_per_group * layer.kernel**2
    if rules.im2col == "columns":
        return _COLUMN_BYTES * taps
    unrolled = layer.kernel > 1 and layer.role != "depthwise"
    return rules.element_bytes * taps * layer.out_size**2 if rules.im2col == "whole" and unrolled else 0


def _static_buffers(graph: LayerGraph, rules: RuntimeRules) -> list[int]:
    """Return TinyEngine's two buffers, the same for every layer: ``get_sbuf_size`` and ``get_kbuf_size`` there."""
    columns = max(
        2 * (x.in_size + 2 * (x.kernel // 2)) ** 2
        if x.role == "depthwise"
        else _COLUMN_BYTES * x.in_channels * x.kernel**2
        for x in graph.layers
    )
    kernels = max(2 * x.weights * (x.kernel > 1 and x.role != "depthwise") for x in graph.layers)
    return [columns + kernels] * len(graph.layers)


def _module_kept(module: LiteResidual, rules: RuntimeRules, batch: int) -> int:
    masks = mask_bytes(batch * module.convolutions[0].output_elements)
    return batch * rules.element_bytes * module_kept_elements(module) + masks


def _module_work(module: LiteResidual) -> int:
    """Return the elements a module works on at once besides what it keeps: its two largest neighbours."""
    first, second = module.convolutions
    return max(first.input_elements + first.output_elements, second.input_elements + second.output_elements)
