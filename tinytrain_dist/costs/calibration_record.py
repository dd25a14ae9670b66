"""What a calibration leaves inside a profile: rows, errors on unseen rows, intervals, and the word they earn."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Standing = Literal["estimate", "anchored", "fitted", "calibrated"]

ESTIMATE_FACTOR = 2.0
"""Half-width of the interval of an estimate: the value may be half or double."""

WHOLE_RUNS = "whole_runs"
"""Form of rows that time a whole training run: no phase of it is measured alone, so it earns ``fitted`` at most."""

Count = Annotated[int, Field(ge=0, description="a whole number, 0 or more")]
Error = Annotated[float, Field(ge=0, description="a relative error, a number, 0 or more")]
MaybeError = Annotated[float | None, Field(ge=0, description="a relative error, 0 or more, or null where none exists")]
Factor = Annotated[float, Field(ge=1, description="a factor of 1 or more")]
Bounds = Annotated[list[float], Field(min_length=2, max_length=2, description="a list of two numbers, low and high")]


def standing_of(*, rows: int, families: int, leave_family_out_error: float | None) -> Standing:
    """Return the word that ``rows`` measurements of one profile and phase earn."""
    if rows == 0:
        return "estimate"
    if rows <= 2:
        return "anchored"
    return "calibrated" if rows >= 6 and families >= 2 and leave_family_out_error is not None else "fitted"


class PhaseCalibration(BaseModel):
    """Calibration of one phase (forward passes, energy, or whole training runs).

    Attributes
    ----------
    leave_one_out_error, leave_family_out_error
        Mean relative error on rows the fit has not seen: one row left out, or a model family left out of this
        profile's rows and of all its siblings'. Contradictory rows count, though they are kept out of the fit.
    interval_factor
        A value ``v`` lies in ``[v / factor, v * factor]`` with 90 % confidence, inside the measured range.
    contradictory, suspicious
        Rows kept out of the fit because others contradict them; rows in it that others predict 4 times off.
    priors
        Field -> what its factor was shrunk to: the profile's value before any row of its phase.
    measured_range
        Smallest and largest total of the rows, by name; a number outside is an extrapolation.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    form: Annotated[str, Field(min_length=1, description="the name of a form")]
    rows: Count
    families: Count
    sibling_rows: Count = 0
    leave_one_out_error: MaybeError = None
    leave_family_out_error: MaybeError = None
    largest_error: MaybeError = None
    interval_factor: Factor
    rows_hash: Annotated[str, Field(description="hash of the rows")] = ""
    contradictory: Annotated[list[str], Field(description="a list of names of rows")] = []
    suspicious: Annotated[list[str], Field(description="a list of names of rows")] = []
    coefficient_intervals: Annotated[dict[str, Bounds], Field(description="field -> [low, high]")] = {}
    priors: Annotated[dict[str, float], Field(description="field -> a number")] = {}
    measured_range: Annotated[dict[str, Bounds], Field(description="total -> [low, high]")] = {}

    @property
    def standing(self) -> Standing:
        """The word this phase has earned; with an interval wider than an estimate's it is no more than one."""
        if self.interval_factor > ESTIMATE_FACTOR:
            return "estimate"
        stated = None if self.form == WHOLE_RUNS else self.leave_family_out_error
        return standing_of(rows=self.rows, families=self.families, leave_family_out_error=stated)


class Calibration(BaseModel):
    """Calibration of a profile, phase by phase; a phase without rows is absent."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    forward: PhaseCalibration | None = None
    energy: PhaseCalibration | None = None
    training: PhaseCalibration | None = None
    training_energy: PhaseCalibration | None = None
