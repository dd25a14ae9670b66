"""The life of every tensor of one training step, by name: a slow second opinion on the lifetime planner."""

from __future__ import annotations

from collections.abc import Iterator

from tinytrain_dist.costs.lifetime_graph import RuntimeRules
from tinytrain_dist.graphs.layer_graph import ConvLayer, LayerGraph
from tinytrain_dist.graphs.update_plan import UpdatePlan, num_selected, update_weights

Alive = dict[str, int]


class Step:
    """One training step of a plan without lite residual modules."""

    def __init__(self, graph: LayerGraph, plan: UpdatePlan, *, rules: RuntimeRules, batch: int) -> None:
        self.graph, self.plan, self.rules, self.batch = graph, plan, rules, batch
        self.start = plan.earliest_layer
        self.updates = {update.layer: update for update in plan.updates}
        self.kept: Alive = {}

    def channels_kept(self, layer: ConvLayer) -> int:
        if layer.index in self.plan.scale_layers:
            return layer.in_channels
        update = self.updates.get(layer.index)
        if update is None:
            return 0
        some = update.side == "input" or layer.channels_per_group == 1
        return num_selected(update, layer) if some else layer.in_channels

    def act(self, elements: int) -> int:
        return self.batch * self.rules.element_bytes * elements

    def grad(self, elements: int) -> int:
        return self.batch * self.rules.gradient_bytes * elements

    def scratch(self, layer: ConvLayer) -> int:
        if self.rules.im2col == "static":
            return self.static_buffers()
        taps = layer.channels_per_group * layer.kernel**2
        return 4 * taps if self.rules.im2col == "columns" else 0

    def static_buffers(self) -> int:
        """TinyEngine's two buffers, of their largest users: columns or padded channels, and 16-bit kernels."""
        unrolled = kernels = 0
        for layer in self.graph.layers:
            if layer.role == "depthwise":
                unrolled = max(unrolled, 2 * (layer.in_size + layer.kernel - 1) ** 2)
            else:
                unrolled = max(unrolled, 4 * layer.in_channels * layer.kernel**2)
                kernels = max(kernels, 2 * layer.weights if layer.kernel > 1 else 0)
        return unrolled + kernels

    def residual_block(self, layer: ConvLayer) -> bool:
        return any(x.residual_after for x in self.graph.block_layers(layer.block))

    def forward(self) -> Iterator[int]:
        """Yield the bytes alive at every layer; fills ``kept`` with what the backward pass finds."""
        waiting: Alive = {}
        for layer in self.graph.layers:
            members = self.graph.block_layers(layer.block)
            first = layer is members[0]
            kept = self.act(self.channels_kept(layer) * layer.in_size**2)
            in_place = layer.role == "depthwise" and not (first and self.residual_block(layer))
            buffer = 0 if self.rules.im2col == "static" else 1
            num_new = min(layer.out_channels, buffer + self.channels_kept(layer)) if in_place else layer.out_channels
            alive = dict(self.kept)
            alive |= waiting  # a waiting block input contains the slice kept of it
            alive[f"in{layer.index}"] = self.act(layer.input_elements)
            alive["out"] = self.act(num_new * layer.out_size**2)
            alive["scratch"] = self.scratch(layer)
            after = {f"in{layer.index}": kept} if kept else {}
            if (
                self.start is not None
                and layer.index >= self.start
                and (self.rules.mask_every_layer or layer.has_activation)
            ):
                after[f"mask{layer.index}"] = -(-self.batch * layer.output_elements // 8)
            alive |= {name: size for name, size in after.items() if not name.startswith("in")}
            yield sum(alive.values())
            self.kept |= after
            if first and self.residual_block(layer):
                waiting = {f"in{layer.index}": self.act(layer.input_elements)}
            if layer is members[-1]:
                waiting = {}

    def backward(self) -> Iterator[int]:
        """Yield the bytes alive at every operation of the backward pass."""
        if self.start is None:
            return
        waiting: Alive = {}
        for layer in reversed(self.graph.layers[self.start :]):
            index = layer.index
            members = self.graph.block_layers(layer.block)
            alive = dict(self.kept) | waiting
            alive[f"grad{index + 1}"] = self.grad(layer.output_elements)
            alive["scratch"] = self.scratch(layer)
            weights = update_weights(self.updates[index], layer) if index in self.updates else 0
            fused = 4 * weights if self.rules.fused_update else 0
            to_input = {f"grad{index}": self.grad(layer.input_elements)} if index > self.start else {}
            if self.rules.reorder:
                yield sum(alive.values()) + fused
                alive.pop(f"in{index}", None)
                if to_input:
                    together = alive.pop(f"grad{index + 1}") + to_input[f"grad{index}"]
                    if layer.role == "depthwise":
                        larger = max(self.grad(layer.output_elements), self.grad(layer.input_elements))
                        together = min(together, larger + self.grad(layer.in_size**2))
                    yield sum(alive.values()) + together
            else:
                yield sum((alive | to_input).values()) + fused
            for name in (f"in{index}", f"mask{index}"):
                self.kept.pop(name, None)
            if layer.residual_after and members[0].index > self.start:
                waiting = {"residual": self.grad(layer.output_elements)}
            if layer is members[0]:
                waiting = {}

    def peaks(self) -> tuple[int, int]:
        """Return the largest sums of the two passes."""
        forward = max(self.forward())
        return forward, max(self.backward(), default=0)
