"""Which weights an advice starts from: the file named, else those shipped, else the newest meta-trained ones here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tinytrain_dist.backbones.card import CheckpointCard, read_card
from tinytrain_dist.backbones.shipped_weights import FOLDER, shipped_files
from tinytrain_dist.foundation.errors import CheckpointError, ConfigError
from tinytrain_dist.foundation.paths import local_path

PREFERRED = "mcunet"
META_TRAINED = "*/weights.safetensors"
"""Where a training run keeps its weights, below the run root; a run counts once its ``_SUCCESS`` is there."""
_HOW = (
    "'make run' meta-trains some in a minute; 'tinytrain weights import FILE --backbone NAME --out FILE' converts "
    "published ones; then give --weights FILE"
)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A checkpoint file, the backbone it is for, and its card."""

    path: Path
    backbone: str
    card: CheckpointCard


def find_weights(given: str | None, *, backbone: str | None, run_root: Path, shipped_folder: Path = FOLDER) -> Weights:
    """Return the weights to start from: ``given``, those shipped for ``backbone``, or the newest below ``run_root``.

    Where no backbone is named it is ``PREFERRED``, or the first that is shipped.

    Raises
    ------
    ConfigError
        There are none; says how to get some.
    CheckpointError
        The file is no checkpoint, or one for another backbone.
    """
    path = _given(given) if given is not None else _shipped(backbone, shipped_folder) or _newest(run_root, backbone)
    card = read_card(path)
    if backbone is not None and card.backbone != backbone:
        raise CheckpointError(f"{path}: is for backbone {card.backbone!r}; --backbone asks for {backbone!r}")
    return Weights(path=path, backbone=card.backbone, card=card)


def _given(name: str) -> Path:
    path = local_path(name, what="--weights")
    if not path.is_file():
        raise ConfigError(f"--weights: found {name!r}; allowed: a checkpoint file; {_HOW}")
    return path


def _shipped(backbone: str | None, folder: Path) -> Path | None:
    found = shipped_files(folder)
    return found.get(backbone) if backbone is not None else found.get(PREFERRED, next(iter(found.values()), None))


def _newest(run_root: Path, backbone: str | None) -> Path:
    found = [path for path in run_root.glob(META_TRAINED) if (path.parent / "_SUCCESS").is_file()]
    ours = [path for path in found if _card_fits(path, backbone)]
    if not ours:
        wanted = "" if backbone is None else f" for backbone {backbone!r}"
        raise ConfigError(
            f"--weights: not given, none are shipped, and {run_root} holds no meta-trained weights{wanted}: {_HOW}"
        )
    return max(ours, key=lambda path: path.stat().st_mtime)


def _card_fits(path: Path, backbone: str | None) -> bool:
    try:
        card = read_card(path)
    except CheckpointError:
        return False
    return card.initialization == "meta_trained" and backbone in (None, card.backbone)
