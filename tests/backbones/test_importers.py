"""Weights of other projects: exact conversion, what is refused, and that nothing in a file runs."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tinytrain_dist.backbones.flat_state import flat_to_state, split_flat, state_to_flat
from tinytrain_dist.backbones.importers import IMPORTERS, state_dict, tiny_training
from tinytrain_dist.backbones.importers.restricted import MAX_UNPACKED_BYTES, load_restricted
from tinytrain_dist.backbones.network import Backbone, build_backbone
from tinytrain_dist.foundation.errors import CheckpointError, ConfigError
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_graph import ConvLayer, LayerGraph

PUBLISHED = {
    "mcunet": "mcunet-5fps.pkl",
    "mobilenet_v2_no_mix": "mbv2-w0.35.pkl",
    "proxylessnas_no_mix": "proxyless-w0.3.pkl",
}
EGYPTIAN_CAT = 285
GRAPH = layer_graph("mobilenet_v2_no_mix")


def quantized(layer: ConvLayer, rng: np.random.Generator) -> dict[str, Any]:
    shape = (layer.out_channels, layer.channels_per_group, layer.kernel, layer.kernel)
    params = {
        "weight": rng.integers(-128, 128, shape, dtype=np.int8),
        "bias": rng.integers(-30_000, 30_000, shape[0], dtype=np.int32),
        "w_scales": rng.uniform(0.001, 0.02, shape[0]).astype(np.float32),
        "x_scale": 0.0235, "y_zero": -128 if layer.has_activation else 3,
    }  # fmt: skip
    return {"stride": layer.stride, "groups": layer.groups, "params": params}


def published_form(graph: LayerGraph) -> dict[str, Any]:
    """Return a network in the published nesting, with random values."""
    rng = np.random.default_rng(0)
    blocks = []
    for number in range(graph.num_blocks):
        found = {x.role: quantized(x, rng) for x in graph.block_layers(number)}
        last = graph.block_layers(number)[-1]
        blocks.append(
            {
                "pointwise1": found.get("expand"), "depthwise": found["depthwise"], "pointwise2": found["project"],
                "residual": {"in_channel": last.out_channels} if last.residual_after else None, "se": None,
            }
        )  # fmt: skip
    return {"first_conv": quantized(graph.layers[0], rng), "blocks": blocks, "feature_mix": None, "classifier": None}


def stored(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


def test_conversion_is_exact(tmp_path: Path) -> None:
    raw = published_form(GRAPH)
    flat = tiny_training.read(stored(tmp_path / "w.pkl", raw), graph=GRAPH)
    views = split_flat(GRAPH, flat)
    params = raw["blocks"][0]["depthwise"]["params"]
    expected = params["weight"] * params["w_scales"].reshape(-1, 1, 1, 1).astype(np.float64)
    np.testing.assert_allclose(views["units.1.conv.weight"], expected, rtol=1e-7)
    bias = params["bias"] * params["w_scales"].astype(np.float64) * params["x_scale"]
    np.testing.assert_allclose(views["units.1.norm.bias"], bias, rtol=1e-7)
    assert (views["units.1.norm.weight"] == 1).all()
    assert (views["units.1.norm.running_mean"] == 0).all()
    assert (views["units.1.norm.running_var"] == np.float32(1 - 1e-5)).all()


def test_folded_normalisation_adds_the_bias_and_nothing_else(tmp_path: Path) -> None:
    backbone = build_backbone(GRAPH).double()
    flat_to_state(backbone, tiny_training.read(stored(tmp_path / "w.pkl", published_form(GRAPH)), graph=GRAPH))
    unit = backbone.unit(2)
    x = torch.rand(1, 16, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        expected = unit.conv(x) + unit.norm.bias.reshape(1, -1, 1, 1)
        torch.testing.assert_close(unit(x), expected, rtol=1e-6, atol=1e-6)


def _set(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(raw: Any) -> None:
        for key in path[:-1]:
            raw = raw[key]
        raw[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("blocks", value=None), "blocks: expected a list"),
        (_set("blocks", 3, value=7), "block 3"),
        (_set("blocks", 3, "residual", value={}), "block 3: residual"),
        (_set("blocks", 3, "pointwise1", value=None), "block 3: expansion"),
        (_set("blocks", 3, "se", value={}), "squeeze"),
        (_set("feature_mix", value={}), "feature mix"),
        (_set("first_conv", value=None), "first_conv"),
        (_set("first_conv", "stride", value=1), "first_conv: stride 1"),
        (_set("first_conv", "params", "x_scale", value=float("nan")), "x_scale nan"),
        (_set("first_conv", "params", "y_zero", value=0), "activation differs"),
        (
            _set("first_conv", "params", "weight", value=np.zeros((1, 3), np.int8)),
            r"first_conv weight: found int8 \[1, 3\]",
        ),
        (_set("first_conv", "params", "bias", value=np.zeros(16, np.float32)), "first_conv bias: found float32"),
        (_set("first_conv", "params", "w_scales", value=[1.0]), "first_conv w_scales: found list"),
        (_set("first_conv", "params", "w_scales", value=np.full(16, np.nan, np.float32)), "first_conv w_scales"),
    ],
)
def test_a_different_network_is_named(tmp_path: Path, change: Callable[[Any], None], words: str) -> None:
    raw = published_form(GRAPH)
    change(raw)
    with pytest.raises(CheckpointError, match=words):
        tiny_training.read(stored(tmp_path / "w.pkl", raw), graph=GRAPH)


def test_missing_mix_layer_names_the_variant(tmp_path: Path) -> None:
    path = stored(tmp_path / "w.pkl", published_form(GRAPH))
    with pytest.raises(CheckpointError, match="import it as 'mobilenet_v2_no_mix'"):
        tiny_training.read(path, graph=layer_graph("mobilenet_v2"))
    with pytest.raises(CheckpointError, match="17 blocks; mcunet has 14"):
        tiny_training.read(path, graph=layer_graph("mcunet"))


class Payload:
    """Unpickling this runs a command that creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


class SetState:
    """Unpickling this calls a method of a class that is not allowed."""

    def __setstate__(self, state: dict[str, str]) -> None:
        Path(state["target"]).touch()


@pytest.mark.parametrize("name", ["tiny_training", "state_dict"])
def test_a_payload_never_runs(tmp_path: Path, name: str) -> None:
    target = tmp_path / "owned"
    state = SetState()
    state.__dict__["target"] = str(target)
    hidden = np.array([Payload(target)], dtype=object)
    for number, evil in enumerate((Payload(target), {"blocks": [Payload(target)]}, state, {"weight": hidden})):
        path = stored(tmp_path / f"{number}.pkl", evil)
        with pytest.raises(CheckpointError, match="restricted loader"):
            IMPORTERS[name].read(path, graph=GRAPH)
        assert not target.exists()


class Addresses:
    """An array of objects over numbers, which NumPy itself takes for their addresses; iterating it follows them."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return np.ndarray, ((1,), "O", np.array([0x4141414141414141]))


class OfObjects:
    """An array of objects, asked for the way every array is."""

    def __reduce__(self) -> tuple[object, ...]:
        return np.zeros(1, dtype=object).__reduce__()


class TooLong:
    """An array that says it is longer than its bytes."""

    def __reduce__(self) -> tuple[object, ...]:
        make, args, (version, _, dtype, order, raw) = np.zeros(4, dtype=np.int8).__reduce__()
        return make, args, (version, (10**12,), dtype, order, raw)


@pytest.mark.parametrize(
    ("evil", "words"), [(Addresses(), "calls numpy.ndarray"), (OfObjects(), "dtype 'O8'"), (TooLong(), "bytes with 4")]
)
def test_no_array_is_made_but_from_its_own_numbers(tmp_path: Path, evil: object, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        load_restricted(stored(tmp_path / "w.pkl", {"weight": evil}))


@pytest.mark.parametrize("raw", [b"", b"PK\x03\x04", b"\x80\x04.", b"cos\nsystem\n(S'true'\ntR.", b"nonsense" * 100])
def test_what_is_no_torch_zip_is_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "w.pkl"
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"w\.pkl"):
        load_restricted(path)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / "bomb.pkl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data.pkl", "w") as stream:
        for _ in range(MAX_UNPACKED_BYTES // 2**20 + 1):
            stream.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    with pytest.raises(CheckpointError, match="unpacks to"):
        load_restricted(path)


def foreign_state(backbone: Backbone) -> dict[str, torch.Tensor]:
    """Return the backbone's state under another project's names, with a classifier."""
    state = {f"features.{key}": value for key, value in backbone.state_dict().items()}
    return state | {"classifier.weight": torch.zeros(10, 4), "classifier.bias": torch.zeros(10)}


@pytest.mark.parametrize("nested", [True, False])
def test_state_dict_is_matched_in_forward_order(tmp_path: Path, nested: bool) -> None:
    backbone = build_backbone("mcunet", seed=3)
    state = foreign_state(backbone)
    path = stored(tmp_path / "w.pth", {"state_dict": state} if nested else state)
    assert np.array_equal(state_dict.read(path, graph=backbone.graph), state_to_flat(backbone))


def test_state_dict_of_another_network_names_the_difference(tmp_path: Path) -> None:
    state = foreign_state(build_backbone("mcunet"))
    path = stored(tmp_path / "w.pth", state)
    with pytest.raises(CheckpointError, match="42 convolutions; mobilenet_v2 has 52"):
        state_dict.read(path, graph=layer_graph("mobilenet_v2"))
    state["features.units.4.conv.weight"] = torch.zeros(1, 1, 1, 1)
    with pytest.raises(CheckpointError, match=r"units\.4\.conv\.weight: shape \[1, 1, 1, 1\]; layer 4"):
        state_dict.read(stored(path, state), graph=layer_graph("mcunet"))
    del state["features.units.2.norm.running_var"]
    with pytest.raises(CheckpointError, match=r"running_var after .*units\.2"):
        state_dict.read(stored(path, state), graph=layer_graph("mcunet"))
    with pytest.raises(CheckpointError, match="expected a tensor"):
        state_dict.read(stored(path, {"epoch": 3}), graph=layer_graph("mcunet"))


def test_formats_are_registered() -> None:
    assert {"tiny_training", "state_dict"} <= set(IMPORTERS)
    with pytest.raises(ConfigError, match="did you mean 'tiny_training'"):
        IMPORTERS["tiny_trainin"]


@pytest.mark.reference
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_see_the_cat(name: str) -> None:
    root = os.environ.get("TINYTRAIN_REFERENCE_DIR")
    if not root:
        pytest.skip("TINYTRAIN_REFERENCE_DIR is not set: the published weights are not here")
    path = Path(root) / "weights" / "tiny-training" / PUBLISHED[name]
    backbone = build_backbone(name)
    flat_to_state(backbone, tiny_training.read(path, graph=backbone.graph))
    weight, bias = tiny_training.read_classifier(path)
    pixels = np.array(Image.open(Path(__file__).parent / "chelsea_128.png").convert("RGB"))
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        logits = torch.from_numpy(weight) @ backbone(x)[0] + torch.from_numpy(bias)
    shares = torch.softmax(logits, dim=0)
    assert int(shares.argmax()) == EGYPTIAN_CAT
    assert 0.6 <= float(shares.max()) <= 0.9
