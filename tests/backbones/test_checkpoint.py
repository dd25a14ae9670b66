"""Checkpoints: round trip, content hash, and everything that is refused."""

import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from tinytrain_dist.backbones.card import CARD_KEY, MAX_FILE_BYTES, CheckpointCard, read_card
from tinytrain_dist.backbones.checkpoint import HEAD_SCALE, checkpoint_hash, load_checkpoint, save_checkpoint
from tinytrain_dist.backbones.flat_state import state_to_flat
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.foundation.errors import CheckpointError, ExitCode

CARD = CheckpointCard(
    initialization="meta_trained", resolution=84, command="tinytrain meta-train", data="emoji + icons",
    metrics={"valid_accuracy": 0.5}, licence="CC0", source="a test",
)  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mcunet.safetensors"
    save_checkpoint(path, build_backbone("mcunet", seed=7), CARD, head_scale=12.5)
    return path


def parts(saved: Path) -> tuple[dict[str, np.ndarray], str]:
    """Return the tensors and the card of a good file, to be spoilt."""
    header_length = struct.unpack("<Q", saved.read_bytes()[:8])[0]
    header = json.loads(saved.read_bytes()[8 : 8 + header_length])
    return safetensors.numpy.load(saved.read_bytes()), header["__metadata__"][CARD_KEY]


def written(path: Path, tensors: dict[str, np.ndarray], card: str) -> Path:
    path.write_bytes(safetensors.numpy.save(tensors, metadata={CARD_KEY: card}))
    return path


def refused(path: Path, *words: str, backbone: str | None = None) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, backbone=backbone)
    assert caught.value.exit_code is ExitCode.BAD_INPUT
    for word in (path.name, *words):
        assert word in str(caught.value), str(caught.value)


def test_round_trip(saved: Path) -> None:
    original = build_backbone("mcunet", seed=7)
    found = load_checkpoint(saved, backbone="mcunet")
    assert np.array_equal(found.state, state_to_flat(original))
    assert found.head_scale == 12.5
    assert found.hash == found.card.content_hash
    assert found.card.model_dump(exclude={"backbone", "architecture_hash", "content_hash"}) == CARD.model_dump(
        exclude={"backbone", "architecture_hash", "content_hash"}
    )
    x = torch.full((1, 3, 64, 64), 0.25)
    with torch.no_grad():
        assert torch.equal(found.build(resolution=64)(x), original(x))


def test_the_card_is_read_from_the_header_alone(saved: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.safetensors"
    raw = saved.read_bytes()
    short.write_bytes(raw[: 8 + struct.unpack("<Q", raw[:8])[0]])
    assert read_card(short) == load_checkpoint(saved).card


def test_equal_weights_give_equal_files_and_hashes(saved: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    found = save_checkpoint(again, build_backbone("mcunet", seed=7), CARD, head_scale=12.5)
    assert again.read_bytes() == saved.read_bytes()
    assert found == load_checkpoint(saved).hash


def test_hash_separates_values_scale_and_architecture() -> None:
    first, second = build_backbone("mcunet"), build_backbone("mcunet", seed=1)
    flat = state_to_flat(first)
    hashes = {
        checkpoint_hash(first.graph, flat),
        checkpoint_hash(first.graph, flat, head_scale=10.0),
        checkpoint_hash(first.graph, flat, head_scale=11.0),
        checkpoint_hash(first.graph, state_to_flat(second)),
        checkpoint_hash(build_backbone("mobilenet_v2").graph, flat),
    }
    assert len(hashes) == 5
    assert checkpoint_hash(build_backbone("mcunet", resolution=64).graph, flat) in hashes


def test_a_width_alias_of_the_same_architecture_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, build_backbone("mobilenet_v2"), CARD)
    assert load_checkpoint(path, backbone="mobilenet_v2_w0.35").backbone == "mobilenet_v2_w0.35"


def test_saving_leaves_no_temporary_file_and_refuses_nan(tmp_path: Path) -> None:
    backbone = build_backbone("mcunet")
    backbone.unit(3).conv.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(CheckpointError, match=r"units\.3\.conv\.weight"):
        save_checkpoint(tmp_path / "x.safetensors", backbone, CARD)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["norm.weight", "conv.weight"])
def test_weights_that_overflow_when_folded_are_named(saved: Path, tmp_path: Path, name: str) -> None:
    """Every tensor is finite, and what the network computes with is not."""
    tensors, card = parts(saved)
    tensors["units.41.norm.running_var"] = np.zeros_like(tensors["units.41.norm.running_var"])
    refused(written(tmp_path / "stale.safetensors", tensors, card), "damaged")
    tensors[f"units.41.{name}"] = np.full_like(tensors[f"units.41.{name}"], 3e38)
    refused(written(tmp_path / "x.safetensors", tensors, card), "overflow", "folded", "units.41")
    backbone = build_backbone("mcunet")
    backbone.unit(41).norm.running_var.zero_()
    backbone.get_parameter(f"units.41.{name}").data.fill_(3e38)
    with pytest.raises(CheckpointError, match=r"big\.safetensors: .*overflow.* in: units\.41$"):
        save_checkpoint(tmp_path / "big.safetensors", backbone, CARD)


class Payload:
    """Unpickling this creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return Path.touch, (self.target,)  # type: ignore[return-value]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_is_refused_and_never_run(tmp_path: Path, protocol: int) -> None:
    target, path = tmp_path / "owned", tmp_path / "evil.safetensors"
    path.write_bytes(pickle.dumps({"state_dict": Payload(target)}, protocol=protocol))
    refused(path, "safetensors")
    assert not target.exists()


def test_a_torch_file_is_refused_and_never_run(tmp_path: Path) -> None:
    target, path = tmp_path / "owned", tmp_path / "evil.safetensors"
    torch.save({"state_dict": Payload(target)}, path)
    refused(path, "pickle or torch file", "weights import")
    assert not target.exists()


@pytest.mark.parametrize("keep", [0, 3, 8, 100, 0.5, 0.999])
def test_truncated(saved: Path, tmp_path: Path, keep: float) -> None:
    raw, path = saved.read_bytes(), tmp_path / "cut.safetensors"
    path.write_bytes(raw[: int(keep if keep >= 1 or keep == 0 else keep * len(raw))])
    refused(path)


def test_trailing_bytes(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.safetensors"
    path.write_bytes(saved.read_bytes() + b"\0" * 16)
    refused(path, "damaged")


def test_flipped_bit_in_a_tensor(saved: Path, tmp_path: Path) -> None:
    raw = bytearray(saved.read_bytes())
    raw[-1001] ^= 1
    path = tmp_path / "flip.safetensors"
    path.write_bytes(bytes(raw))
    refused(path, "hash")


@pytest.mark.parametrize("length", [2**20 + 1, 2**40, 2**64 - 1])
def test_huge_header_is_refused_before_it_is_read(tmp_path: Path, length: int) -> None:
    path = tmp_path / "huge.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    refused(path, "header")


def test_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as stream:
        stream.truncate(MAX_FILE_BYTES + 1)  # sparse: takes no disk
    refused(path, str(MAX_FILE_BYTES))


@pytest.mark.parametrize("header", [b"[]", b"{", b"nonsense", b'{"a":1,"a":2}', b"[" * 100_000, b"\xff\xfe"])
def test_nonsense_header(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    refused(path, "header")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    refused(tmp_path / "none.safetensors", "cannot be read")
    (tmp_path / "folder.safetensors").mkdir()
    refused(tmp_path / "folder.safetensors", "cannot be read")


def test_no_card(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors.numpy.save(parts(saved)[0]))
    refused(path, "no card")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("initialization", "magic"), ("resolution", 0), ("resolution", "84"), ("metrics", {"x": "y"}),
        ("surprise", 1), ("data", None), ("_target_", "os.system"),
    ],
)  # fmt: skip
def test_card_with_a_wrong_field_names_it(saved: Path, tmp_path: Path, key: str, value: object) -> None:
    tensors, card = parts(saved)
    refused(written(tmp_path / "x.safetensors", tensors, json.dumps(json.loads(card) | {key: value})), key)


def test_missing_tensor_is_named(saved: Path, tmp_path: Path) -> None:
    tensors, card = parts(saved)
    del tensors["units.41.conv.weight"]
    refused(written(tmp_path / "x.safetensors", tensors, card), "missing", "units.41.conv.weight")


def test_extra_tensor_is_named(saved: Path, tmp_path: Path) -> None:
    tensors, card = parts(saved)
    tensors["classifier.weight"] = np.zeros((2, 2), dtype=np.float32)
    refused(written(tmp_path / "x.safetensors", tensors, card), "unknown", "classifier.weight")


@pytest.mark.parametrize("name", ["units.0.conv.weight", HEAD_SCALE])
def test_wrongly_shaped_tensor_is_named(saved: Path, tmp_path: Path, name: str) -> None:
    tensors, card = parts(saved)
    tensors[name] = np.zeros((7, 1), dtype=np.float32)
    refused(written(tmp_path / "x.safetensors", tensors, card), "shaped", name, "[7, 1]")


def test_wrong_dtype_is_named(saved: Path, tmp_path: Path) -> None:
    tensors, card = parts(saved)
    tensors["units.0.norm.bias"] = tensors["units.0.norm.bias"].astype(np.float16)
    refused(written(tmp_path / "x.safetensors", tensors, card), "units.0.norm.bias", "F16")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_is_named(saved: Path, tmp_path: Path, value: float) -> None:
    tensors, card = parts(saved)
    tensors["units.5.norm.bias"] = tensors["units.5.norm.bias"].copy()
    tensors["units.5.norm.bias"][0] = value
    refused(written(tmp_path / "x.safetensors", tensors, card), "units.5.norm.bias")


def test_negative_variance_is_named(saved: Path, tmp_path: Path) -> None:
    tensors, card = parts(saved)
    tensors["units.5.norm.running_var"] = -tensors["units.5.norm.running_var"]
    refused(written(tmp_path / "x.safetensors", tensors, card), "units.5.norm.running_var")


def test_another_architecture(saved: Path, tmp_path: Path) -> None:
    refused(saved, "'mcunet'", "'mobilenet_v2'", backbone="mobilenet_v2")
    tensors, card = parts(saved)
    renamed = json.dumps(json.loads(card) | {"backbone": "proxylessnas"})
    refused(written(tmp_path / "x.safetensors", tensors, renamed), "architecture")
    unknown = json.dumps(json.loads(card) | {"backbone": "resnet"})
    refused(written(tmp_path / "y.safetensors", tensors, unknown), "unknown backbone 'resnet'")
