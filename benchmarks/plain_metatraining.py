"""A plain ProtoNet training loop, as the public few-shot libraries write it: the arm that the benchmark divides by.

Written after the episodic training of easy-few-shot-learning (github.com/sicara/easy-few-shot-learning: a DataLoader
over a ``TaskSampler``, images opened and transformed one by one, prototypes from the support set, query images in a
forward of their own, ``loss.backward()`` and one Adam step per episode) and learn2learn's
``examples/vision/protonet_miniimagenet.py`` (github.com/learnables/learn2learn: the same on images held in memory, as
easy-few-shot-learning's ``load_on_ram`` does). One thread, NCHW, autograd through every layer. Two deliberate
differences make both arms compute the same thing: the cosine head of PMF instead of the Euclidean distance, and this
project's networks as plain modules.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Sampler

from tinytrain_dist.backbones.network import Backbone
from tinytrain_dist.graphs.layer_graph import ConvLayer

WAY, SHOT, QUERY, SCALE = 5, 5, 15, 10.0


class PlainUnit(nn.Sequential):
    """Convolution, batch normalisation, ReLU6."""

    def __init__(self, layer: ConvLayer) -> None:
        conv = nn.Conv2d(
            layer.in_channels, layer.out_channels, layer.kernel, stride=layer.stride,
            padding=(layer.kernel - 1) // 2, groups=layer.groups, bias=False,
        )  # fmt: skip
        parts: list[nn.Module] = [conv, nn.BatchNorm2d(layer.out_channels)]
        super().__init__(*parts, *([nn.ReLU6()] if layer.has_activation else []))


class PlainNetwork(nn.Module):
    """The layers of a backbone as torch's own modules, with its weights."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.graph = backbone.graph
        self.units = nn.ModuleList(PlainUnit(layer) for layer in self.graph.layers)
        self._openings = {self.graph.block_layers(x.block)[0].index for x in self.graph.layers if x.residual_after}
        for layer, unit in zip(self.graph.layers, self.units, strict=True):
            ours = backbone.unit(layer.index)
            unit[0].load_state_dict(ours.conv.state_dict())  # type: ignore[index]
            unit[1].load_state_dict(ours.norm.state_dict())  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``[N, F]`` of images ``[N, 3, R, R]``."""
        block_input = x
        for layer, unit in zip(self.graph.layers, self.units, strict=True):
            if layer.index in self._openings:
                block_input = x
            x = unit(x)
            if layer.residual_after:
                x = x + block_input
        return x.mean(dim=(2, 3))


class ImageSet(Dataset[tuple[Tensor, int]]):
    """Images one by one: decoded at every access, or from arrays in memory."""

    def __init__(self, encoded: list[bytes], labels: list[int], *, resolution: int, in_memory: bool) -> None:
        self.labels, self.resolution, self._encoded = labels, resolution, encoded
        self._memory = [self._decode(data) for data in encoded] if in_memory else None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = self._decode(self._encoded[index]) if self._memory is None else self._memory[index]
        image = torch.from_numpy(pixels).permute(2, 0, 1).float().div(255.0)  # torchvision's ToTensor
        return (image - 0.5) / 0.5, self.labels[index]

    def _decode(self, data: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image.convert("RGB").resize((self.resolution, self.resolution)))


class TaskSampler(Sampler[list[int]]):
    """Indices of one episode after the other: way classes, shot + query images of each, support first."""

    def __init__(self, labels: list[int], *, num_episodes: int, seed: int) -> None:
        self._num_episodes, self._rng = num_episodes, np.random.default_rng(seed)
        members: dict[int, list[int]] = {}
        for index, label in enumerate(labels):
            members.setdefault(label, []).append(index)
        self._members = [own for own in members.values() if len(own) >= SHOT + QUERY]

    def __len__(self) -> int:
        return self._num_episodes

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(self._num_episodes):
            classes = self._rng.choice(len(self._members), WAY, replace=False)
            drawn = [self._rng.choice(self._members[c], SHOT + QUERY, replace=False) for c in classes]
            yield [int(i) for own in drawn for i in own[:SHOT]] + [int(i) for own in drawn for i in own[SHOT:]]


def plain_training(network: PlainNetwork, images: ImageSet, *, num_episodes: int, seed: int) -> list[float]:
    """Train on so many episodes; returns their losses."""
    loader = DataLoader(images, batch_sampler=TaskSampler(images.labels, num_episodes=num_episodes, seed=seed))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    support_labels = torch.arange(WAY).repeat_interleave(SHOT)
    query_labels = torch.arange(WAY).repeat_interleave(QUERY)
    network.train()
    losses = []
    for batch, _ in loader:
        optimizer.zero_grad()
        support, query = batch[: WAY * SHOT], batch[WAY * SHOT :]
        features = network(support)
        prototypes = torch.stack([features[support_labels == c].mean(0) for c in range(WAY)])
        unit_query, unit_prototypes = functional.normalize(network(query), dim=1), functional.normalize(prototypes)
        loss = functional.cross_entropy(SCALE * unit_query @ unit_prototypes.T, query_labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
