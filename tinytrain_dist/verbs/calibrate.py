"""``tinytrain calibrate``: fits device profiles to rows of measurements and writes them with their errors inside."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any

from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.foundation.paths import local_path
from tinytrain_dist.verbs.arguments import print_json
from tinytrain_dist.verbs.key_values import read_key_values


@dataclass
class CalibrateConfig:
    """Keys of the job.

    Attributes
    ----------
    rows
        CSV files of inference measurements; empty: the shipped ones.
    training
        CSV files of whole training runs.
    scales
        CSV files of one or two rows per profile that exists: they scale its times, and the cost of backward MACs by
        rows of phase ``step``. With none of the three: the shipped files.
    out
        Folder the profiles are written to; null: beside the first file, or the shipped profiles.
    dirs
        Folders with further profiles.
    base
        Profile whose limits a device without a profile of its own takes over (marked as assumed).
    siblings
        Whether the shipped rows serve as siblings.
    """

    rows: list[str] = field(default_factory=list)
    training: list[str] = field(default_factory=list)
    scales: list[str] = field(default_factory=list)
    out: str | None = None
    dirs: list[str] = field(default_factory=list)
    base: str | None = None
    siblings: bool = True


def main(argv: list[str]) -> ExitCode:
    """Run the verb."""
    if {"--help", "-h"} & set(argv):
        print(_help())
        return ExitCode.DONE
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # small matrices: threads of the linear algebra only wait for each other
    from tinytrain_dist.verbs.calibrate_job import calibrate_files

    config = read_config([word for word in argv if word != "--json"])
    report = calibrate_files(
        [local_path(name, what="rows") for name in config.rows],
        [local_path(name, what="training") for name in config.training],
        out=None if config.out is None else local_path(config.out, what="out"),
        dirs=[local_path(name, what="dirs") for name in config.dirs],
        base=config.base,
        siblings=config.siblings,
        scale_files=[local_path(name, what="scales") for name in config.scales],
    )
    if "--json" in argv:
        print_json(report)
    else:
        for item in report["profiles"]:
            print(_line(item))
    return ExitCode.DONE


def read_config(words: list[str]) -> CalibrateConfig:
    """Return the settings that ``key=value`` words ask for; raises ``ConfigError`` for anything unknown."""
    return read_key_values(CalibrateConfig, words, verb="calibrate")


def _line(item: dict[str, Any]) -> str:
    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f} %"

    notes = "".join(f"  {note}" for note in item["notes"])
    return (
        f"{item['profile']:<52} {item['phase']:<9} {item['standing']:<10} rows {item['rows']:>3}"
        f"  row out {percent(item['leave_one_out_error']):>7}  family out {percent(item['leave_family_out_error']):>7}"
        f"  90 % within x/ {item['interval_factor']:.3g}{notes}"
    )


def _help() -> str:
    keys = "\n".join(f"  {key}={value}" for key, value in asdict(CalibrateConfig()).items())
    return (
        "usage: tinytrain calibrate [key=value ...] [--json]\n\n"
        "Fit device profiles to rows of measurements (CSV) and write them with their errors inside.\n"
        "Without rows: the shipped measurements into the shipped profiles; a second run changes nothing.\n\n"
        f"keys and their defaults:\n{keys}\n\n"
        "example:\n  tinytrain calibrate rows=device_profiles/measurements/inference.csv out=my_profiles"
    )
