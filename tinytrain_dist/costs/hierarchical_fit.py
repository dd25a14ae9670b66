"""Fit of a form to all boards at once: each shrinks to its runtime's siblings, these to the class's prior.

Non-negative least squares on relative error with Gaussian priors on the logarithms of the coefficients
(coefficients are exponentials, hence above 0):

    log c[board, k] = shape[k] + runtime[group, k] + scale[board] + deviation[board, k]

A board with one row gets its scale from it and its shape from its siblings; a board with many rows its own shape.
Deterministic: fixed start, no random numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from tinytrain_dist.costs.latency_forms import NS_PER_MS, Form, amounts, group_of
from tinytrain_dist.costs.measurements import Measurement, Setting

Array = npt.NDArray[np.float64]
SCALE_WIDTH = 3.0
_MAX_EVALUATIONS = 400
_TOLERANCES = {"ftol": 1e-12, "xtol": 1e-12, "gtol": 1e-12}


@dataclass(frozen=True)
class FittedForm:
    """Logarithms of the coefficients of each board [terms] and their standard deviations."""

    form: Form
    log_coefficients: dict[Setting, Array]
    deviations: dict[Setting, Array]
    unknowns: Array

    def predict_ms(self, row: Measurement) -> float:
        """Return the fitted latency of ``row``'s operations on ``row``'s setting."""
        known = np.asarray(amounts(self.form, row.operations, row.setting.precision))
        return float(known @ np.exp(self.log_coefficients[row.setting])) / NS_PER_MS


class _Layout:
    """Where each block of parameters lies in the flat vector of unknowns."""

    def __init__(self, form: Form, settings: Sequence[Setting]) -> None:
        groups = sorted({group_of(setting) for setting in settings})
        self.num_terms, self.num_boards = len(form.terms), len(settings)
        self.group_index = [groups.index(group_of(setting)) for setting in settings]
        self.scales_at = self.num_terms * (1 + len(groups))
        self.deviations_at = self.scales_at + self.num_boards
        self.size = self.deviations_at + self.num_boards * self.num_terms
        self.scaled = np.array([float(term.scales_with_board) for term in form.terms])
        self.prior = np.zeros(self.size)
        self.prior[: self.num_terms] = np.log([term.prior for term in form.terms])
        self.width = np.concatenate([
            np.full(self.num_terms, form.shape_width),
            np.full(self.num_terms * len(groups), form.group_width),
            np.full(self.num_boards, SCALE_WIDTH),
            np.full(self.num_boards * self.num_terms, form.board_width),
        ])  # fmt: skip

    def selector(self, board: int) -> Array:
        """Return the matrix [terms, unknowns] that gives the board's log coefficients."""
        matrix = np.zeros((self.num_terms, self.size))
        terms = np.arange(self.num_terms)
        matrix[terms, terms] = 1.0
        matrix[terms, self.num_terms * (1 + self.group_index[board]) + terms] = 1.0
        matrix[:, self.scales_at + board] = self.scaled
        matrix[terms, self.deviations_at + board * self.num_terms + terms] = 1.0
        return matrix


def fit_form(
    form: Form, rows: Mapping[Setting, Sequence[Measurement]], *, start: FittedForm | None = None
) -> FittedForm:
    """Fit ``form`` to the rows of every setting; a setting without rows gets what its siblings say.

    ``start`` is a fit of the same settings to begin from: the same minimum in fewer steps.
    """
    settings = sorted(rows)
    layout = _Layout(form, settings)
    selectors = [layout.selector(board) for board in range(len(settings))]
    known = [_relative_amounts(form, rows[setting]) for setting in settings]

    def residuals(unknowns: Array) -> Array:
        parts = [(unknowns - layout.prior) / layout.width]
        parts += [(a @ np.exp(s @ unknowns) - 1) / form.row_sigma for a, s in zip(known, selectors, strict=True)]
        return np.concatenate(parts)

    def jacobian(unknowns: Array) -> Array:
        parts = [np.diag(1 / layout.width)]
        parts += [(a * np.exp(s @ unknowns)) @ s / form.row_sigma for a, s in zip(known, selectors, strict=True)]
        return np.vstack(parts)

    first = _scaled_prior(layout, known) if start is None else start.unknowns
    found = least_squares(residuals, first, jac=jacobian, method="lm", max_nfev=_MAX_EVALUATIONS, **_TOLERANCES)
    slopes = jacobian(found.x)
    covariance = np.linalg.inv(slopes.T @ slopes)
    return FittedForm(
        form=form,
        log_coefficients={setting: s @ found.x for setting, s in zip(settings, selectors, strict=True)},
        deviations={
            setting: np.sqrt(np.diag(s @ covariance @ s.T)) for setting, s in zip(settings, selectors, strict=True)
        },
        unknowns=found.x,
    )


def _scaled_prior(layout: _Layout, known: Sequence[Array]) -> Array:
    first = layout.prior.copy()
    for board, relative in enumerate(known):
        if len(relative):
            first[layout.scales_at + board] = -np.log(np.median(relative @ np.exp(layout.prior[: layout.num_terms])))
    return first


def _relative_amounts(form: Form, rows: Sequence[Measurement]) -> Array:
    table = [amounts(form, row.operations, row.setting.precision) for row in rows]
    times = np.array([row.latency_ms * NS_PER_MS for row in rows])
    relative: Array = np.array(table, dtype=np.float64).reshape(len(rows), len(form.terms)) / times[:, None]
    return relative
