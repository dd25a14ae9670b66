"""Rows of measurements -> calibrated coefficients with their errors on rows the fit has not seen.

Importing this file imports SciPy: only ``calibrate`` does.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

from tinytrain_dist.costs.calibration_record import ESTIMATE_FACTOR, PhaseCalibration
from tinytrain_dist.costs.hierarchical_fit import FittedForm, fit_form
from tinytrain_dist.costs.latency_forms import COEFFICIENTS, Form, form_of, group_of
from tinytrain_dist.costs.measurements import Measurement, Setting, by_setting, rows_hash

CONFIDENCE = 0.90
SLOWER_ON_MORE_THREADS = 1.2
"""More threads taking this much longer than fewer contradicts them: one of the two rows is wrong."""
SUSPICIOUS_LOG = math.log(4.0)
PRIOR_ROWS = 4.0
"""Weight, in rows, of the class's spread when a setting's own spread is estimated."""


@dataclass(frozen=True, kw_only=True)
class UnseenRow:
    """A row predicted by a fit that has not seen it, with its 90 % interval."""

    row: Measurement
    kind: str
    predicted_ms: float
    low_ms: float
    high_ms: float

    @property
    def error(self) -> float:
        """Relative error."""
        return self.predicted_ms / self.row.latency_ms - 1

    @property
    def covered(self) -> bool:
        """Whether the interval holds the measured value."""
        return self.low_ms <= self.row.latency_ms <= self.high_ms


@dataclass(frozen=True, kw_only=True)
class CalibratedSetting:
    """Coefficients of one setting by profile field, its record, and the unseen rows behind its errors."""

    setting: Setting
    board: str
    coefficients: dict[str, float]
    forward: PhaseCalibration
    unseen: tuple[UnseenRow, ...]


def calibrate(rows: Sequence[Measurement]) -> list[CalibratedSetting]:
    """Return the calibration of every setting with rows, siblings taken from all of ``rows``."""
    usable = [row for row in rows if row.status == "measured" and row.phase == "forward"]
    found: list[CalibratedSetting] = []
    for form in {form_of(row.setting).name: form_of(row.setting) for row in usable}.values():
        found += calibrate_form(form, tuple(row for row in usable if form_of(row.setting) is form))
    return sorted(found, key=lambda item: item.setting)


def contradictory_rows(rows: Sequence[Measurement]) -> set[int]:
    """Return the indices of rows that are slower than the same network on fewer threads of the same board."""
    flagged = set()
    for index, row in enumerate(rows):
        for other in rows:
            same = _same_but_threads(row, other) and other.setting.threads < row.setting.threads
            if same and row.latency_ms > SLOWER_ON_MORE_THREADS * other.latency_ms:
                flagged.add(index)
    return flagged


def _same_but_threads(row: Measurement, other: Measurement) -> bool:
    a, b = row.setting, other.setting
    return (row.model, row.operations, a.profile, a.runtime, a.precision, a.accelerator, a.power_mode) == (
        other.model, other.operations, b.profile, b.runtime, b.precision, b.accelerator, b.power_mode
    )  # fmt: skip


@functools.lru_cache(maxsize=16)
def calibrate_form(form: Form, rows: tuple[Measurement, ...]) -> tuple[CalibratedSetting, ...]:
    """Return the calibration of every setting of one device class; ``rows`` are measured forward passes of it.

    Kept for a process that fits again with rows of another class: each row is left out in turn, so it takes seconds.
    """
    flagged = contradictory_rows(rows)
    settings = sorted({row.setting for row in rows})

    def fit(left_out: Container[int], start: FittedForm | None = None) -> FittedForm:
        grouped = by_setting(row for index, row in enumerate(rows) if index not in flagged and index not in left_out)
        return fit_form(form, {setting: grouped.get(setting, []) for setting in settings}, start=start)

    full = fit(())
    repeats = _repeats(rows)
    one_out = [fit(repeats[_network(row)], full).predict_ms(row) for row in rows]
    families = sorted({row.family for row in rows})
    by_family = {
        family: fit([index for index, row in enumerate(rows) if row.family == family], full) for family in families
    }
    family_out = [by_family[row.family].predict_ms(row) for row in rows]
    folds = _Folds(rows=rows, flagged=flagged, one_out=one_out, family_out=family_out)
    return tuple(_record(form, setting, folds, full) for setting in settings)


def _network(row: Measurement) -> tuple[object, ...]:
    return (row.setting, row.model, row.operations)


def _repeats(rows: Sequence[Measurement]) -> dict[tuple[object, ...], list[int]]:
    """Return the indices of each network on each setting: who has seen a repeat of a row has seen the row."""
    found: dict[tuple[object, ...], list[int]] = {}
    for index, row in enumerate(rows):
        found.setdefault(_network(row), []).append(index)
    return found


class _Folds:
    """Every row as predicted without it (``row``) and without its model family (``family``).

    Where a setting has one family only, leaving it out leaves nothing to scale the board by, so there is no
    leave-family-out error; with one row there is no leave-one-out error either.
    """

    def __init__(
        self, *, rows: Sequence[Measurement], flagged: set[int], one_out: list[float], family_out: list[float]
    ) -> None:
        self.rows, self.flagged = rows, flagged
        self.predicted = {"row": one_out, "family": family_out}
        self.spread = _Spread([
            (row, self.predicted[self.kinds(row.setting)[-1]][index])
            for index, row in enumerate(rows)
            if index not in flagged and self.kinds(row.setting)
        ])  # fmt: skip

    def mine(self, setting: Setting, *, fitted: bool = False) -> list[int]:
        """Return the indices of the setting's rows; ``fitted``: without the contradictory ones."""
        indices = [index for index, row in enumerate(self.rows) if row.setting == setting]
        return [index for index in indices if not (fitted and index in self.flagged)]

    def kinds(self, setting: Setting) -> list[str]:
        """Return which errors the setting's rows can give."""
        rows = [self.rows[index] for index in self.mine(setting, fitted=True)]
        several = len({row.family for row in rows}) > 1
        return [] if len(_repeats(rows)) < 2 else ["row", "family"] if several else ["row"]

    def unseen(self, setting: Setting) -> list[UnseenRow]:
        """Return the predictions of unseen rows, each with the interval its own family had no part in."""
        found = []
        for kind in self.kinds(setting):
            for index in self.mine(setting):
                row, middle = self.rows[index], self.predicted[kind][index]
                factor = self.spread.factor(setting, without=row.family)
                found.append(UnseenRow(
                    row=row, kind=kind, predicted_ms=middle, low_ms=middle / factor, high_ms=middle * factor
                ))  # fmt: skip
        return found


class _Spread:
    """Spread of log errors on unseen rows: a setting's own, shrunk to that of its class of devices."""

    def __init__(self, unseen: Sequence[tuple[Measurement, float]]) -> None:
        self.squares = [
            (row.setting, row.family, math.log(predicted / row.latency_ms) ** 2) for row, predicted in unseen
        ]

    def factor(self, setting: Setting, *, without: str | None = None) -> float:
        """Return the interval's factor; ``without`` leaves a family out, as if it had not been measured."""
        kept = [(owner == setting, square) for owner, family, square in self.squares if family != without]
        own = [square for mine, square in kept if mine]
        others = [square for mine, square in kept if not mine]
        if not kept:
            return ESTIMATE_FACTOR
        pooled = float(np.mean(others or own))
        weight = PRIOR_ROWS + len(own)
        sigma = math.sqrt((PRIOR_ROWS * pooled + sum(own)) / weight)
        factor = math.exp(float(student_t.ppf((1 + CONFIDENCE) / 2, weight)) * sigma)
        return factor if own else max(factor, ESTIMATE_FACTOR)


def _record(form: Form, setting: Setting, folds: _Folds, full: FittedForm) -> CalibratedSetting:
    own = [folds.rows[index] for index in folds.mine(setting)]
    fitted = [folds.rows[index] for index in folds.mine(setting, fitted=True)]
    unseen = folds.unseen(setting)
    errors = {kind: [abs(item.error) for item in unseen if item.kind == kind] for kind in ("row", "family")}
    group = group_of(setting)
    forward = PhaseCalibration(
        form=form.name,
        rows=len(_repeats(fitted)),
        families=len({row.family for row in fitted}),
        sibling_rows=sum(group_of(row.setting) == group and row.setting != setting for row in folds.rows),
        leave_one_out_error=_mean(errors["row"]),
        leave_family_out_error=_mean(errors["family"]),
        largest_error=rounded(max(errors["family"] or errors["row"]), digits=3) if unseen else None,
        interval_factor=rounded(folds.spread.factor(setting), digits=3),
        rows_hash=rows_hash(own),
        contradictory=[folds.rows[i].label for i in folds.mine(setting) if i in folds.flagged],
        suspicious=suspicious_rows([item for item in unseen if item.row in fitted]),
        coefficient_intervals=_coefficient_intervals(form, full, setting),
        measured_range=_measured_range(fitted),
    )
    values = np.exp(full.log_coefficients[setting])
    return CalibratedSetting(
        setting=setting, board=own[0].board, coefficients=_fields(form, values), forward=forward, unseen=tuple(unseen)
    )


def suspicious_rows(unseen: Sequence[UnseenRow]) -> list[str]:
    """Return the rows whose predicted over measured time is more than 4 times off the median of all: another unit?"""
    own = [item for item in unseen if item.kind == "row"]
    if len(own) < 3:
        return []
    ratios = [math.log(item.predicted_ms / item.row.latency_ms) for item in own]
    middle = float(np.median(ratios))
    found = [item.row.label for item, ratio in zip(own, ratios, strict=True) if abs(ratio - middle) > SUSPICIOUS_LOG]
    return sorted(set(found))


def _mean(errors: list[float]) -> float | None:
    return rounded(float(np.mean(errors)), digits=3) if errors else None


def _fields(form: Form, values: Sequence[float] | np.ndarray) -> dict[str, float]:
    fields = dict.fromkeys(COEFFICIENTS, 0.0)
    for term, value in zip(form.terms, values, strict=True):
        fields |= dict.fromkeys(term.fields, rounded(float(value)))
    return fields


def _coefficient_intervals(form: Form, full: FittedForm, setting: Setting) -> dict[str, list[float]]:
    z = float(student_t.ppf((1 + CONFIDENCE) / 2, 1e6))
    middle, width = full.log_coefficients[setting], full.deviations[setting]
    low, high = np.exp(middle - z * width), np.exp(middle + z * width)
    return {
        field: [rounded(float(a), digits=3), rounded(float(b), digits=3)]
        for term, a, b in zip(form.terms, low, high, strict=True)
        for field in term.fields
    }


def _measured_range(rows: Sequence[Measurement]) -> dict[str, list[float]]:
    def bounds(values: list[float]) -> list[float]:
        return [float(min(values)), float(max(values))]

    if not rows:
        return {}
    rows = [row for row in rows if row.amount("passes")] or rows  # of a file with single layers: whole passes
    return {
        "macs": bounds([row.operations.macs for row in rows]),
        "weights": bounds([row.operations.weights for row in rows]),
        "activations_in_out": bounds([row.operations.activations_in_out for row in rows]),
        "ops": bounds([row.operations.ops for row in rows]),
    }


def rounded(value: float, *, digits: int = 4) -> float:
    """Return ``value`` to ``digits`` significant digits: what a fit on another machine reproduces."""
    return float(f"{value:.{digits}g}")
