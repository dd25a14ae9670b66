"""Checkpoints that come with the package: ``shipped/<backbone>.safetensors``, made by ``make weights``."""

from __future__ import annotations

from pathlib import Path

from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.foundation.paths import check_name

SHIPPED = "shipped"
"""Value of ``backbone.weights`` and of ``initial_weights`` that names them."""
FOLDER = Path(__file__).resolve().parent / "shipped"
MAX_BYTES = 2_500_000
"""Largest file that is shipped; float32 as it is: all three networks of the paper fit."""


def shipped_files(folder: Path = FOLDER) -> dict[str, Path]:
    """Return the shipped checkpoints by backbone."""
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def shipped_path(backbone: str, *, folder: Path = FOLDER) -> Path:
    """Return the shipped checkpoint of a backbone; raises ``ConfigError`` that lists what is shipped."""
    found = shipped_files(folder)
    if backbone not in found:
        raise ConfigError(
            f"no weights are shipped for backbone {check_name(backbone, what='backbone')!r}; shipped: "
            f"{', '.join(found) or 'none in this installation'}; 'make weights' or backbone.weights=meta_train makes "
            f"some"
        )
    return found[backbone]
