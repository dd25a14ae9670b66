"""``UpdatePlan``: which weights one adaptation may change. A small frozen value with a content hash."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from tinytrain_dist.foundation.errors import PlanError
from tinytrain_dist.foundation.hashing import content_hash
from tinytrain_dist.graphs.layer_graph import ConvLayer, LayerGraph

Side = Literal["output", "input"]
PLAN_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class LayerUpdate:
    """Weights of one convolution that are updated.

    Attributes
    ----------
    layer
        Index of the convolution.
    channels
        Selected channels, ascending; ``None`` means all of them.
    side
        Axis of the weight tensor the channels count on: ``output`` (TinyTrain) or ``input`` (MCUNetV3).
        A depthwise convolution has one input channel per output channel: both sides select the same rows.
    """

    layer: int
    channels: tuple[int, ...] | None = None
    side: Side = "output"


@dataclass(frozen=True, kw_only=True)
class UpdatePlan:
    """Everything one adaptation updates; nothing outside it changes.

    Attributes
    ----------
    backbone
        Name of the layer graph the indices refer to.
    updates
        Weight updates, ascending by layer, at most one per layer.
    bias_layers
        Layers whose normalisation shift (the bias after folding) is updated, ascending.
    scale_layers
        Layers whose normalisation scale is updated, ascending.
    adapters
        Last convolutions of the blocks beside which a lite residual module is trained (``graphs/adapters.py``),
        ascending.
    """

    backbone: str
    updates: tuple[LayerUpdate, ...] = ()
    bias_layers: tuple[int, ...] = ()
    scale_layers: tuple[int, ...] = ()
    adapters: tuple[int, ...] = ()

    @cached_property
    def hash(self) -> str:
        """Content hash: equal plans are tuned once."""
        return content_hash(_document(self))

    @property
    def is_empty(self) -> bool:
        """True when nothing is updated."""
        return not (self.updates or self.bias_layers or self.scale_layers or self.adapters)

    @property
    def earliest_weight_layer(self) -> int | None:
        """Index of the first layer whose weights change; ``None`` when there is none."""
        return self.updates[0].layer if self.updates else None

    @property
    def earliest_layer(self) -> int | None:
        """Index of the first layer where anything changes: the backward pass stops there."""
        touched = (*(u.layer for u in self.updates), *self.bias_layers, *self.scale_layers, *self.adapters)
        return min(touched, default=None)

    def check(self, graph: LayerGraph) -> UpdatePlan:
        """Return self if every index exists in ``graph``, else raise ``PlanError``."""
        if self.backbone != graph.name:
            raise PlanError(f"plan for backbone {self.backbone!r} used with {graph.name!r}")
        layers = tuple(u.layer for u in self.updates)
        for key, found in {
            "layers": layers, "bias_layers": self.bias_layers, "scale_layers": self.scale_layers
        }.items():  # fmt: skip
            if list(found) != sorted(set(found)):  # else equal plans have several hashes
                raise PlanError(f"plan: {key} must ascend without repeats, found {list(found)}")
            for index in found:
                graph.layer(index)
        _check_adapters(self.adapters, graph)
        for update in self.updates:
            _check_channels(update, graph.layer(update.layer))
        return self


def _check_adapters(adapters: tuple[int, ...], graph: LayerGraph) -> None:
    ends = [layer.index for layer in graph.layers if layer.role == "project"] if adapters else []
    if list(adapters) != sorted(set(adapters)) or not set(adapters) <= set(ends):
        raise PlanError(
            f"plan: adapters {list(adapters)}: allowed, ascending and without repeats, "
            f"the last convolutions of the blocks of {graph.name}: {ends}"
        )


def _document(plan: UpdatePlan) -> dict[str, Any]:
    """Return the plan as plain values; an empty field of later origin is left out: old plans keep their hash."""
    raw = asdict(plan)
    if not plan.adapters:
        del raw["adapters"]
    return raw


def _check_channels(update: LayerUpdate, layer: ConvLayer) -> None:
    if update.channels is None:
        return
    limit = side_channels(layer, update.side)
    chosen = update.channels
    if not chosen or list(chosen) != sorted(set(chosen)) or chosen[0] < 0 or chosen[-1] >= limit:
        raise PlanError(
            f"plan: layer {layer.index} has {update.side} channels 0 to {limit - 1}; "
            f"a selection must be ascending, without repeats and not empty"
        )


def side_channels(layer: ConvLayer, side: Side) -> int:
    """Return how many channels the layer has on ``side``."""
    return layer.out_channels if side == "output" else layer.in_channels


def num_selected(update: LayerUpdate, layer: ConvLayer) -> int:
    """Return how many channels of ``layer`` the update selects."""
    return side_channels(layer, update.side) if update.channels is None else len(update.channels)


def updated_weights(plan: UpdatePlan, graph: LayerGraph) -> int:
    """Return the number of convolution weights the plan updates (bias and normalisation not counted)."""
    return sum(update_weights(u, graph.layer(u.layer)) for u in plan.updates)


def update_weights(update: LayerUpdate, layer: ConvLayer) -> int:
    """Return the number of weights one layer update changes."""
    return layer.weights // side_channels(layer, update.side) * num_selected(update, layer)


def full_plan(graph: LayerGraph) -> UpdatePlan:
    """Return the plan that updates every weight and every normalisation parameter."""
    every = tuple(layer.index for layer in graph.layers)
    updates = tuple(LayerUpdate(layer=index) for index in every)
    return UpdatePlan(backbone=graph.name, updates=updates, bias_layers=every, scale_layers=every)


def plan_to_json(plan: UpdatePlan) -> str:
    """Return the plan as a JSON document with its format version and hash."""
    return json.dumps({"format": PLAN_FORMAT, "hash": plan.hash, **_document(plan)})


def plan_from_json(text: str, *, name: str) -> UpdatePlan:
    """Read ``plan_to_json``'s form; raises ``PlanError`` naming ``name`` when it is corrupt."""
    try:
        raw = json.loads(text)
        if not isinstance(raw, Mapping) or raw.get("format") != PLAN_FORMAT:
            raise PlanError(f"{name}: expected a plan of format {PLAN_FORMAT}")
        plan = UpdatePlan(
            backbone=str(raw["backbone"]),
            updates=tuple(_update(item) for item in raw["updates"]),
            bias_layers=_whole_numbers(raw["bias_layers"]),
            scale_layers=_whole_numbers(raw["scale_layers"]),
            adapters=_whole_numbers(raw.get("adapters", ())),
        )
    except (KeyError, TypeError, ValueError, RecursionError) as exc:
        if isinstance(exc, PlanError):
            raise
        raise PlanError(f"{name}: is no update plan: {exc}") from exc
    if plan.hash != raw.get("hash"):
        raise PlanError(
            f"{name}: hash {raw.get('hash')!r} does not match its content ({plan.hash}); the file is damaged"
        )
    return plan


def _update(item: Mapping[str, Any]) -> LayerUpdate:
    channels = item["channels"]
    side = item["side"]
    if side not in ("output", "input"):
        raise ValueError(f"side {side!r}; allowed: output, input")
    (layer,) = _whole_numbers([item["layer"]])
    return LayerUpdate(layer=layer, channels=None if channels is None else _whole_numbers(channels), side=side)


def _whole_numbers(found: Iterable[object]) -> tuple[int, ...]:
    """Return the numbers; one with a fraction, infinite or in quotes is damage, not a number to round."""
    numbers = []
    for number in found:
        if isinstance(number, bool) or not isinstance(number, int):
            raise ValueError(f"{number!r} is no whole number")
        numbers.append(number)
    return tuple(numbers)
