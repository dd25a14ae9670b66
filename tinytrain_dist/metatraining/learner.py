"""``Learner``: the one holder of weights, optimizer and head; turns a round's results into a step.

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
from tinytrain_dist.metatraining.replica import SlotResult
from tinytrain_dist.metatraining.schedule import learning_rate
from tinytrain_dist.metatraining.training_settings import TrainingSettings

Mask = npt.NDArray[np.bool_]


class Learner:
    """Weights, head and optimizer of one training.

    Parameters
    ----------
    weights
        Flat weights to start from.
    head
        What is trained beside the backbone, float32 [n]: the scale of the cosine head first.
    num_rounds
        Length of the schedule.

    Attributes
    ----------
    round
        Rounds done.
    """

    def __init__(
        self, settings: TrainingSettings, graph: LayerGraph, weights: FlatState, *, head: FlatState, num_rounds: int
    ) -> None:
        self.settings, self.graph, self.num_rounds, self.round = settings, graph, num_rounds, 0
        self._weights = weights.astype(np.float32, copy=True)
        self._masks = {part: _mask(graph, part) for part in ("conv.weight", "norm.weight", "norm.bias")}
        self._statistics = {part: _mask(graph, f"norm.{part}") for part in ("running_mean", "running_var")}
        self._parameters = {part: self._parameter(mask) for part, mask in self._masks.items()}
        self._head = torch.nn.Parameter(torch.from_numpy(head.astype(np.float32, copy=True)))
        self._optimizer = self._make_optimizer()

    def _parameter(self, mask: Mask) -> torch.nn.Parameter:
        return torch.nn.Parameter(torch.from_numpy(self._weights[mask]))

    def _make_optimizer(self) -> torch.optim.Optimizer:
        settings = self.settings
        plain = [value for part, value in self._parameters.items() if part != "conv.weight"]
        groups = [
            {"params": [self._parameters["conv.weight"]], "weight_decay": settings.weight_decay},
            {"params": [*plain, self._head], "weight_decay": 0.0},
        ]
        if settings.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)
        return torch.optim.Adam(groups, lr=settings.learning_rate)

    @property
    def weights(self) -> FlatState:
        """Current flat weights, float32 [flat_size] (a copy)."""
        return self._weights.copy()

    @property
    def head(self) -> FlatState:
        """Current head, float32 [n] (a copy)."""
        return self._head.detach().numpy().copy()

    @property
    def scale(self) -> float:
        """Current scale of the cosine head."""
        return float(self._head.detach()[0])

    def rate_of(self, round_index: int) -> float:
        """Return the learning rate of a round."""
        settings = self.settings
        return learning_rate(
            round_index, num_rounds=self.num_rounds, peak=settings.learning_rate,
            final=settings.final_learning_rate, warmup_share=settings.warmup_share,
        )  # fmt: skip

    def step(self, results: Sequence[SlotResult]) -> None:
        """Average the results in slot order and take one optimizer step. ``ConfigError`` if not finite."""
        total, head_gradient = np.zeros_like(self._weights), np.zeros(len(self._head), dtype=np.float32)
        for result in results:
            total += result.update
            head_gradient += result.head_gradient
        total /= np.float32(len(results))
        head_gradient /= np.float32(len(results))
        if not (np.isfinite(total).all() and np.isfinite(head_gradient).all()):
            section = self.settings.SECTION
            raise ConfigError(
                f"training diverged in round {self.round} (gradient not finite); "
                f"lower {section}.learning_rate or set {section}.gradient_clip"
            )
        self._descend(total, head_gradient)
        self._blend_statistics(total)
        self.round += 1

    def _descend(self, gradient: FlatState, head_gradient: FlatState) -> None:
        for part, mask in self._masks.items():
            self._parameters[part].grad = torch.from_numpy(gradient[mask])
        if not self.settings.learn_scale:
            head_gradient[0] = 0.0
        self._head.grad = torch.from_numpy(head_gradient)
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
        """Return the optimizer's tensors and the head by name; with weights and round it is all there is."""
        tensors: dict[str, Tensor] = {"head": self._head.detach()}
        for index, values in self._optimizer.state_dict()["state"].items():
            for key, value in values.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{index}.{key}"] = value
        return {name: value.to(torch.float32).numpy().copy() for name, value in tensors.items()}

    def take(self, weights: FlatState, head: FlatState) -> None:
        """Replace weights and head; the optimizer's memory stays."""
        self._weights[:] = weights
        with torch.no_grad():
            self._head.copy_(torch.from_numpy(np.array(head)))
            for part, mask in self._masks.items():
                self._parameters[part].copy_(torch.from_numpy(self._weights[mask]))

    def restore(self, *, weights: FlatState, state: Mapping[str, npt.NDArray[np.float32]], round_index: int) -> None:
        """Continue from what ``weights``, ``state`` and ``round`` gave."""
        found: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            if name != "head":
                _, index, key = name.split(".", 2)
                found.setdefault(int(index), {})[key] = torch.from_numpy(np.array(value))
        self.take(weights, np.array(state["head"]))
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": found, "param_groups": groups})
        self.round = round_index


def _mask(graph: LayerGraph, ending: str) -> Mask:
    """Return where in the flat array the tensors with this ending of their name lie."""
    sizes = [(name, int(np.prod(shape))) for name, shape in tensor_shapes(graph).items()]
    return np.concatenate([np.full(size, name.endswith(ending)) for name, size in sizes])
