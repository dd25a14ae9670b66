"""Search for the rule behind TinyTrain's TinyTL rows (arXiv 2307.09988, Table 2 and peaks): none explains them.

Tries every module shape and counting rule below on both networks and prints the closest ones: memory at batch 100
(542 / 587 MiB), backward MACs (26.4 / 16.4M), and parameters (peak minus memory: 5 / 3 MiB, each +-1 by rounding).
A rule that explains the rows has all errors below 2 % at once. Run: ``python benchmarks/adapter_rules.py``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_graph import LayerGraph

GRAPHS = (layer_graph("mcunet"), layer_graph("mobilenet_v2"))
MEMORY_MIB, MACS, PARAMETERS_MIB = np.array([542.0, 587.0]), np.array([26.4e6, 16.4e6]), np.array([5.0, 3.0])
BATCH = 100
Pair = NDArray[np.float64]
Shape = tuple[str, int, int, float, bool]

KERNELS = ("1", "3", "5", "7", "block", "3 reduced", "5 reduced", "block reduced")
SHAPES: tuple[Shape, ...] = tuple(itertools.product(KERNELS, (1, 2), (1, 2), (0.5, 1, 2, 4, 6), (True, False)))
MODULE_TERMS = ("convolutions", "norms", "activations", "pooling", "upsampling")
CHAINS = ("none", "after block 0", "after the stem", "all", "2 x forward")


def module_counts(graph: LayerGraph, shape: Shape) -> dict[str, float]:
    """Return weights, parameters, MACs and elements per image of the modules of every block, summed."""
    kernel_rule, pooling, groups, expansion, strided = shape
    sums = dict.fromkeys((*MODULE_TERMS, "parameters", "macs"), 0.0)
    for block in range(graph.num_blocks):
        members = graph.block_layers(block)
        first, last = members[0], members[-1]
        depthwise = next(layer for layer in members if layer.role == "depthwise")
        size = max(1, first.in_size // pooling)
        kernel = depthwise.kernel if kernel_rule.startswith("block") else int(kernel_rule[0])
        while kernel_rule.endswith("reduced") and kernel > max(1, size):
            kernel -= 2
        inner = -(-size // (depthwise.stride if strided else 1))
        width = max(groups, int(first.in_channels * expansion))
        weights = first.in_channels * width // groups * kernel**2 + width * last.out_channels
        sums["parameters"] += weights + 2 * width + 2 * last.out_channels
        sums["macs"] += weights * inner**2
        sums["convolutions"] += first.in_channels * size**2 + width * inner**2
        sums["norms"] += (width + last.out_channels) * inner**2
        sums["activations"] += width * inner**2
        sums["pooling"] += first.input_elements
        sums["upsampling"] += last.output_elements
    return sums


def backbone_elements(graph: LayerGraph, chain: str) -> tuple[float, float, float]:
    """Return inputs of convolutions, normalisations and activations of the layers in the chain."""
    start = {"all": 0, "after the stem": 1, "after block 0": graph.block_layers(1)[0].index}.get(chain)
    layers = () if start is None else graph.layers[start:]
    outputs = [layer.output_elements for layer in layers]
    active = sum(layer.output_elements for layer in layers if layer.has_activation)
    return sum(layer.input_elements for layer in layers), sum(outputs), active


def chain_macs(graph: LayerGraph, chain: str) -> float:
    """Return the input-gradient MACs of the backbone under a rule."""
    start = {"all": 0, "after the stem": 1, "after block 0": graph.block_layers(1)[0].index}.get(chain)
    if chain == "2 x forward":
        return 2 * graph.forward_macs
    return 0 if start is None else sum(layer.macs for layer in graph.layers[start:])


def found_rules() -> Iterator[tuple[float, float, float, str]]:
    """Yield (memory error, MACs error, parameter misfit in MiB, rule), the errors the larger of both networks."""
    memory_rules = list(itertools.product(CHAINS[:4], itertools.product((0, 1), repeat=3)))
    for shape in SHAPES:
        counts = [module_counts(graph, shape) for graph in GRAPHS]
        parameters = np.array(
            [4 * (c["parameters"] + g.parameters) / 2**20 for c, g in zip(counts, GRAPHS, strict=True)]
        )
        misfit = float(np.abs(parameters - PARAMETERS_MIB).max())
        macs = min(
            (float(np.abs(_macs(counts, chain, factor) / MACS - 1).max()), f"{chain} + {factor} x modules")
            for chain, factor in itertools.product(CHAINS, (0, 1, 2, 3))
        )
        for chain, kept in memory_rules:
            backbone = np.array([np.dot(kept, backbone_elements(graph, chain)) for graph in GRAPHS])
            for terms in itertools.product((0, 1), repeat=len(MODULE_TERMS)):
                own = np.array([sum(t * c[n] for t, n in zip(terms, MODULE_TERMS, strict=True)) for c in counts])
                state = np.array([16 * c["parameters"] for c in counts])
                memory = (4 * BATCH * (backbone + own) + state) / 2**20
                error = float(np.abs(memory / MEMORY_MIB - 1).max())
                names = [name for name, used in zip(MODULE_TERMS, terms, strict=True) if used]
                yield error, macs[0], misfit, f"{shape}; memory: {chain} {kept} + {names}; MACs: {macs[1]}"


def _macs(counts: list[dict[str, float]], chain: str, factor: int) -> Pair:
    return np.array([chain_macs(g, chain) + factor * c["macs"] for g, c in zip(GRAPHS, counts, strict=True)])


def main() -> None:
    """Print how many rules were tried and the closest ones."""
    tried, explained, closest = 0, 0, []
    for memory, macs, misfit, rule in found_rules():
        tried += 1
        explained += memory < 0.02 and macs < 0.02 and misfit <= 1
        closest.append((max(memory, macs, 0.0 if misfit <= 1 else 1.0), memory, macs, misfit, rule))
        if len(closest) > 1000:
            closest = sorted(closest)[:5]
    print(f"{tried:,} rules tried; {explained} explain memory and MACs within 2 % and the parameters within rounding")
    for _, memory, macs, misfit, rule in sorted(closest)[:5]:
        print(f"memory {100 * memory:5.1f} %  MACs {100 * macs:5.1f} %  parameters {misfit:.1f} MiB off  {rule}")


if __name__ == "__main__":
    main()
