"""``tinytrain measure``: times layers and steps on this machine and writes rows that ``calibrate`` reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.foundation.paths import local_path, make_folder
from tinytrain_dist.verbs.arguments import print_json
from tinytrain_dist.verbs.key_values import read_key_values

if TYPE_CHECKING:
    from tinytrain_dist.measuring.measurement import Measured
    from tinytrain_dist.measuring.settings import MeasureSettings


@dataclass
class MeasureConfig:
    """Keys of the job.

    Attributes
    ----------
    out
        CSV file of rows; where it exists already, what is missing is added.
    profile
        Name of the profile the rows will be calibrated into.
    backbones, resolutions
        Networks whose layers and whole steps are measured.
    batch
        Images that pass at once; times are of one image.
    threads
        Threads of torch; with several, wall time is taken instead of processor time.
    layers, rounds
        Layer shapes, and times every case is measured.
    quick
        Fewer shapes, resolutions and rounds: about a minute on a quiet machine (also ``--quick``).
    seed
        Decides shapes, plans and order.
    """

    out: str = "this_host.csv"
    profile: str = "this_host"
    backbones: list[str] = field(default_factory=lambda: ["mcunet", "mobilenet_v2", "proxylessnas"])
    resolutions: list[int] = field(default_factory=lambda: [64, 96, 160])
    batch: int = 16
    threads: int = 1
    layers: int = 64
    rounds: int = 11
    quick: bool = False
    seed: int = 0


def main(argv: list[str]) -> ExitCode:
    """Run the verb."""
    if {"--help", "-h"} & set(argv):
        print(_help())
        return ExitCode.DONE
    words = ["quick=true" if word == "--quick" else word for word in argv if word != "--json"]
    config = read_key_values(MeasureConfig, words, verb="measure")
    from tinytrain_dist.measuring.measurement import measure

    path = local_path(config.out, what="out")
    make_folder(path.parent)
    found = measure(path, settings=settings_of(config))
    if "--json" in argv:
        print_json(_as_json(found))
    else:
        print(f"{found.path}: {found.num_rows} rows, {found.num_added} of them new")
        print(f"next: tinytrain calibrate rows={found.path} siblings=false")
    return ExitCode.DONE


def settings_of(config: MeasureConfig) -> MeasureSettings:
    """Return the measurement's settings; raises ``ConfigError`` for values outside what is allowed."""
    from tinytrain_dist.measuring.settings import MeasureSettings

    settings = MeasureSettings(
        profile=config.profile, backbones=tuple(config.backbones), resolutions=tuple(config.resolutions),
        batch=config.batch, threads=config.threads, num_layers=config.layers, rounds=config.rounds, seed=config.seed,
    )  # fmt: skip
    return settings.quick() if config.quick else settings


def _as_json(found: Measured) -> dict[str, object]:
    return {
        "path": str(Path(found.path)),
        "rows": found.num_rows,
        "added": found.num_added,
        "notices": list(found.notices),
    }


def _help() -> str:
    keys = "\n".join(f"  {key}={value}" for key, value in asdict(MeasureConfig()).items())
    return (
        "usage: tinytrain measure [key=value ...] [--quick] [--json]\n\n"
        "Time layers and parts of training steps on this machine, without Ray, and write one row each (CSV).\n"
        "The same command continues where it was interrupted. Keep the machine as quiet as you can.\n\n"
        f"keys and their defaults:\n{keys}\n\n"
        "example:\n  tinytrain measure out=this_host.csv --quick\n"
        "  tinytrain calibrate rows=this_host.csv siblings=false"
    )
