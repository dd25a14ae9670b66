"""How well calibrated profiles predict rows they have not seen: each target, what is reached, met or missed.

python benchmarks/calibration.py
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from tinytrain_dist.costs.calibration import CalibratedSetting, UnseenRow, calibrate
from tinytrain_dist.costs.hierarchical_fit import fit_form
from tinytrain_dist.costs.latency_forms import FORMS, form_of
from tinytrain_dist.costs.measurements import Measurement, Setting, by_setting, read_measurements
from tinytrain_dist.costs.power_fit import unseen_power_errors
from tinytrain_dist.costs.profile_files import load_profile
from tinytrain_dist.costs.training_fit import CalibratedTraining, calibrate_training
from tinytrain_dist.costs.training_runs import read_training_runs
from tinytrain_dist.foundation.paths import resource_folder

MLPERF_BOARDS = ("stm32h7a3", "stm32l4r5", "stm32u575")
PI_AND_NANO = ("raspberry_pi_zero_2", "raspberry_pi_3b_plus", "raspberry_pi_4b", "jetson_nano")
RAM_BYTES = {"raspberry_pi_zero_2": 512 * 2**20, "jetson_nano": 4 * 2**30}


@dataclass(frozen=True, kw_only=True)
class Target:
    """One line of the report; ``high`` and ``low`` bound what counts as met."""

    name: str
    reached: float
    high: float
    low: float = 0.0

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.low <= self.reached <= self.high


def shipped_rows() -> tuple[Measurement, ...]:
    """Return the shipped inference rows."""
    return read_measurements(resource_folder("device_profiles") / "measurements" / "inference.csv")


def calibrated_training() -> dict[str, CalibratedTraining]:
    """Return the calibration of the paper's training runs, by device."""
    runs = read_training_runs(resource_folder("device_profiles") / "measurements" / "training.csv")
    return {
        device: calibrate_training(
            [run for run in runs if run.setting.profile == device],
            ram_bytes=ram,
            idle_power_w=load_profile(device).idle_power_w or 0.0,
        )
        for device, ram in RAM_BYTES.items()
    }


def inference_targets(found: Iterable[CalibratedSetting]) -> list[Target]:
    """Return the targets on inference rows."""
    unseen = [row for item in found for row in item.unseen]

    def mean(kind: str, wanted: Callable[[Setting], bool]) -> float:
        return float(np.mean([abs(row.error) for row in unseen if row.kind == kind and wanted(row.row.setting)]))

    def covered(rows: list[UnseenRow]) -> float:
        return float(np.mean([row.covered for row in rows]))

    def tinyengine(setting: Setting) -> bool:
        return setting.runtime == "tinyengine"

    targets = [
        Target(
            name="STM32H747, family left out", reached=mean("family", lambda s: s.profile == "stm32h747"), high=0.09
        ),
        Target(name="STM32H743 TinyEngine, row left out", reached=mean("row", tinyengine), high=0.06),
        Target(name="STM32H743 TinyEngine, family left out everywhere", reached=mean("family", tinyengine), high=0.06),
    ]
    for device in PI_AND_NANO:
        for kind in ("row", "family"):
            reached = mean(kind, lambda s, device=device: s.profile == device and s.accelerator == "cpu")
            targets.append(Target(name=f"{device} CPU, {kind} left out", reached=reached, high=0.25))
    for device in ("jetson_nano", "jetson_tx2_nx", "jetson_orin_nano"):
        for kind in ("row", "family"):
            reached = mean(kind, lambda s, device=device: s.profile == device and s.accelerator == "gpu")
            targets.append(Target(name=f"{device} GPU, {kind} left out", reached=reached, high=0.20))
    for kind in ("row", "family"):
        rows = [row for row in unseen if row.kind == kind]
        targets.append(Target(name=f"90 % intervals hold, {kind} left out", reached=covered(rows), low=0.80, high=0.97))
    return targets


def energy_targets(rows: Iterable[Measurement]) -> list[Target]:
    """Return the targets on energy given measured time."""
    rows = list(rows)
    targets = []
    for board in MLPERF_BOARDS:
        powers = [r.energy_mj / r.latency_ms for r in rows if r.setting.profile == board and r.energy_mj is not None]
        reached = float(np.mean(np.abs(unseen_power_errors(powers))))
        targets.append(Target(name=f"{board} energy given time, row left out", reached=reached, high=0.10))
    return targets


def training_targets(found: dict[str, CalibratedTraining]) -> list[Target]:
    """Return the targets on whole training runs: each run predicted from the other backbone's rows."""
    targets = []
    for device, item in found.items():
        for run in item.unseen:
            what = f"{device} {run.run.backbone} {run.run.method} from the other backbone"
            targets.append(Target(name=f"{what}, time", reached=abs(run.error), high=0.20))
            if run.energy_error is not None:
                targets.append(Target(name=f"{what}, energy", reached=abs(run.energy_error), high=0.20))
    return targets


def new_board_errors(rows: Iterable[Measurement]) -> dict[tuple[str, str], float]:
    """Return the mean error on each device where only the first row of each of its settings is known."""
    rows, found = [row for row in rows if row.status == "measured"], {}
    for device, name in sorted({(row.setting.profile, form_of(row.setting).name) for row in rows}):
        alike = [row for row in rows if form_of(row.setting).name == name]
        own = [row for row in alike if row.setting.profile == device]
        known = {setting: settings_rows[:1] for setting, settings_rows in by_setting(own).items()}
        others = by_setting(row for row in alike if row.setting.profile != device)
        fit = fit_form(FORMS[name], others | known)
        unseen = [row for row in own if row not in known[row.setting]]
        found[device, name] = float(np.mean([abs(fit.predict_ms(row) / row.latency_ms - 1) for row in unseen]))
    return found


def main() -> None:
    """Print every target."""
    rows = shipped_rows()
    found, training = calibrate(rows), calibrated_training()
    targets = inference_targets(found) + energy_targets(rows) + training_targets(training)
    for target in targets:
        bounds = f"{target.low:.0%} to {target.high:.0%}" if target.low else f"at most {target.high:.0%}"
        print(f"{'met' if target.met else 'MISSED':<7} {target.reached:>6.1%}  target {bounds:<12} {target.name}")
    for (device, form), error in new_board_errors(rows).items():
        print(f"one row of each setting known, siblings for the rest: {error:>6.1%}  {device} ({form})")
    for item in found:
        for name in item.forward.contradictory:
            print(f"contradictory, kept out of the fit, counted in the error: {item.setting.long_name} {name}")
    for device, trained in training.items():
        for run in trained.unseen:
            if run.times.swap_s:
                print(f"swap is {run.times.swap_share:.0%} of {device} {run.run.backbone} {run.run.method}")
    print(f"{sum(target.met for target in targets)} of {len(targets)} targets met")


if __name__ == "__main__":
    main()
