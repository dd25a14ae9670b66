"""``tinytrain predict``: latency and energy of networks given by their operation totals."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from tinytrain_dist.costs.measurements import OPERATION_COLUMNS, read_operations
from tinytrain_dist.costs.prediction import Prediction, predict
from tinytrain_dist.costs.profile_files import load_profile
from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.verbs.arguments import VerbParser, print_json


def main(argv: list[str]) -> ExitCode:
    """Run the verb."""
    parser = VerbParser(
        "predict",
        description="Latency and energy of one forward pass of each network in a CSV of operation totals.\n"
        f"Columns: {', '.join(OPERATION_COLUMNS)}; others are ignored.",
        example="tinytrain predict --device stm32h747 --ops device_profiles/measurements/inference.csv",
    )
    parser.add_argument("--device", required=True, help="profile to predict for ('tinytrain devices list')")
    parser.add_argument("--ops", required=True, metavar="FILE", help="CSV, one row per network")
    parser.add_argument("--dir", action="append", default=[], metavar="DIR", help="folder with your own profiles")
    options = parser.parse(argv)
    profile = load_profile(options.device, options.dir)
    found = [predict(profile, row) for row in read_operations(Path(options.ops))]
    if options.json:
        print_json({"device": profile.name, "rows": [as_json(item) for item in found]})
        return ExitCode.DONE
    for number, item in enumerate(found, start=1):
        print(f"{number:>4}  {_line(item)}")
    return ExitCode.DONE


def as_json(item: Prediction) -> dict[str, Any]:
    """Return one row of the answer; ``extrapolated`` says whether a total lies outside what was measured."""
    return {**asdict(item), "extrapolated": bool(item.extrapolated), "extrapolated_totals": list(item.extrapolated)}


def _line(item: Prediction) -> str:
    energy = "energy unknown"
    if item.energy_mj is not None:
        energy = f"{item.energy_mj:.4g} mJ [{item.energy_low_mj:.4g}, {item.energy_high_mj:.4g}]"
    beyond = f"  outside the measured range: {', '.join(item.extrapolated)}" if item.extrapolated else ""
    time = f"{item.latency_ms:.4g} ms [{item.latency_low_ms:.4g}, {item.latency_high_ms:.4g}]"
    return f"{time:<40} {energy:<36} {item.standing}{beyond}"
