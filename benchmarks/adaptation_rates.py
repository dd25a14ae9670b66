"""How fast this CPU multiplies matrices of a tuning's sizes in float32 and in bf16: what bf16 rests on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.adaptation_tasks import Workbench, in_turn
from tinytrain_dist.adaptation.numerics import INSTRUCTIONS, best_numerics, capabilities

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LAYERS = (6, 21, 33, 39)
"""Pointwise layers from the large maps of few channels to the small maps of many."""


def measure_rates(bench: Workbench) -> None:
    """Pointwise convolution as a matrix product, 100 images (GFLOP/s; the CPU's flags choose bf16, not this)"""
    flags = [name for name in INSTRUCTIONS if name in capabilities()]
    print(f"  the CPU has {', '.join(flags) or 'no bf16'}; numerics auto is {best_numerics()}")
    for index in LAYERS:
        layer = bench.graph.layer(index)
        rows = 100 * layer.out_size**2
        arms: dict[str, Callable[[], Tensor]] = {}
        for name, kind in TYPES.items():
            x = torch.randn(rows, layer.in_channels).to(kind)
            arms[name] = partial(torch.mm, x, torch.randn(layer.in_channels, layer.out_channels).to(kind))
        seconds = {name: found[0] for name, found in in_turn(arms, repeats=10 * bench.repeats).items()}
        flops = 2 * rows * layer.in_channels * layer.out_channels
        rates = ", ".join(f"{name} {1e-9 * flops / spent:.0f}" for name, spent in seconds.items())
        print(f"  layer {index}: {rows} x {layer.in_channels} x {layer.out_channels}: {rates}")
