"""``Learner``: the one holder of weights, optimizer and head scale; turns a round's results into a step.

Sums run in slot order over float32 arrays, so the weights do not depend on who did which slot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tinytrain_dist.backbones.flat_state import FlatState, tensor_shapes
from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.metatraining.episode_worker import SlotResult
from tinytrain_dist.metatraining.schedule import learning_rate
from tinytrain_dist.metatraining.settings import MetaTrainSettings

Mask = npt.NDArray[np.bool_]


class Learner:
    """Weights and optimizer of one meta-training.

    Attributes
    ----------
    round
        Rounds done.
    """

    def __init__(self, settings: MetaTrainSettings, graph: LayerGraph, weights: FlatState, *, scale: float) -> None:
        self.settings, self.graph, self.round = settings, graph, 0
        self._weights = weights.astype(np.float32, copy=True)
        self._masks = {part: _mask(graph, part) for part in ("conv.weight", "norm.weight", "norm.bias")}
        self._statistics = {part: _mask(graph, f"norm.{part}") for part in ("running_mean", "running_var")}
        self._parameters = {part: self._parameter(mask) for part, mask in self._masks.items()}
        self._scale = torch.nn.Parameter(torch.tensor(scale, dtype=torch.float32))
        self._optimizer = self._make_optimizer()

    def _parameter(self, mask: Mask) -> torch.nn.Parameter:
        return torch.nn.Parameter(torch.from_numpy(self._weights[mask]))

    def _make_optimizer(self) -> torch.optim.Optimizer:
        settings = self.settings
        plain = [value for part, value in self._parameters.items() if part != "conv.weight"]
        groups = [
            {"params": [self._parameters["conv.weight"]], "weight_decay": settings.weight_decay},
            {"params": [*plain, *([self._scale] if settings.learn_scale else [])], "weight_decay": 0.0},
        ]
        if settings.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)
        return torch.optim.Adam(groups, lr=settings.learning_rate)

    @property
    def weights(self) -> FlatState:
        """Current flat weights, float32 [flat_size] (a copy)."""
        return self._weights.copy()

    @property
    def scale(self) -> float:
        """Current scale of the cosine head."""
        return float(self._scale.detach())

    def rate_of(self, round_index: int) -> float:
        """Return the learning rate of a round."""
        settings = self.settings
        return learning_rate(
            round_index, num_rounds=settings.num_rounds, peak=settings.learning_rate,
            final=settings.final_learning_rate, warmup_share=settings.warmup_share,
        )  # fmt: skip

    def step(self, results: Sequence[SlotResult]) -> None:
        """Average the results in slot order and take one optimizer step. ``ConfigError`` if not finite."""
        total = np.zeros_like(self._weights)
        for result in results:
            total += result.update
        total /= np.float32(len(results))
        scale_gradient = sum(result.scale_gradient for result in results) / len(results)
        if not (np.isfinite(total).all() and np.isfinite(scale_gradient)):
            raise ConfigError(
                f"meta-training diverged in round {self.round} (gradient not finite); "
                "lower meta_train.learning_rate or set meta_train.gradient_clip"
            )
        self._descend(total, scale_gradient)
        self._blend_statistics(total)
        self.round += 1

    def _descend(self, gradient: FlatState, scale_gradient: float) -> None:
        for part, mask in self._masks.items():
            self._parameters[part].grad = torch.from_numpy(gradient[mask])
        self._scale.grad = torch.tensor(scale_gradient, dtype=torch.float32)
        if self.settings.gradient_clip:
            torch.nn.utils.clip_grad_norm_(self._parameters.values(), self.settings.gradient_clip)
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate_of(self.round)
        self._optimizer.step()
        for part, mask in self._masks.items():
            self._weights[mask] = self._parameters[part].detach().numpy()

    def _blend_statistics(self, batch: FlatState) -> None:
        """Move running means and variances towards the round's averages, as batch normalisation itself does."""
        momentum = np.float32(self.settings.norm_momentum)
        for mask in self._statistics.values():
            self._weights[mask] = (np.float32(1) - momentum) * self._weights[mask] + momentum * batch[mask]

    def state(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return the optimizer's tensors and the scale by name; with weights and round it is all there is."""
        tensors: dict[str, Tensor] = {"scale": self._scale.detach()}
        for index, values in self._optimizer.state_dict()["state"].items():
            for key, value in values.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{index}.{key}"] = value
        return {name: value.to(torch.float32).numpy().copy() for name, value in tensors.items()}

    def restore(self, *, weights: FlatState, state: Mapping[str, npt.NDArray[np.float32]], round_index: int) -> None:
        """Continue from what ``weights``, ``state`` and ``round`` gave."""
        self._weights[:] = weights
        found: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            if name != "scale":
                _, index, key = name.split(".", 2)
                found.setdefault(int(index), {})[key] = torch.from_numpy(np.array(value))
        with torch.no_grad():
            self._scale.copy_(torch.from_numpy(np.array(state["scale"])))
            for part, mask in self._masks.items():
                self._parameters[part].copy_(torch.from_numpy(self._weights[mask]))
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": found, "param_groups": groups})
        self.round = round_index


def _mask(graph: LayerGraph, ending: str) -> Mask:
    """Return where in the flat array the tensors with this ending of their name lie."""
    sizes = [(name, int(np.prod(shape))) for name, shape in tensor_shapes(graph).items()]
    return np.concatenate([np.full(size, name.endswith(ending)) for name, size in sizes])
