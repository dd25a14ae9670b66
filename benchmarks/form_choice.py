"""How the forms of the latency model were chosen, and what they miss where they could not be fitted to the answer.

One form per device class: of a small grid of widths (and, on GPUs, with or without a term for activations) the one
with the lowest leave-family-out error, mean over all boards of the class. That choice has seen every board's error, so
the errors of the chosen form are optimistic. ``nested`` is the error of each board under the form chosen on the OTHER
devices of its class: what a new board of the class may expect.

python benchmarks/form_choice.py                     # about four minutes
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from calibration import shipped_rows

from tinytrain_dist.costs.calibration import calibrate_form
from tinytrain_dist.costs.latency_forms import FORMS, Form, form_of
from tinytrain_dist.costs.measurements import Measurement

GRID: dict[str, dict[str, tuple[float, ...]]] = {
    "microcontroller": {
        "row_sigma": (0.03, 0.04, 0.06, 0.08), "group_width": (1.0, 1.5, 2.0), "board_width": (0.4, 0.7, 1.0),
    },
    "linux_cpu": {
        "row_sigma": (0.15, 0.2, 0.3, 0.4), "group_width": (0.1, 0.2, 0.5), "board_width": (0.05, 0.1, 0.2),
    },
    "linux_gpu": {
        "row_sigma": (0.1, 0.15, 0.2), "group_width": (0.3, 0.5, 1.0), "board_width": (0.2, 0.4, 0.6),
    },
}  # fmt: skip


def variants(form: Form) -> Iterator[tuple[str, Form]]:
    """Yield every candidate of ``form``'s class with a name; on GPUs each also without the term for activations."""
    axes = GRID[form.name]
    for values in product(*axes.values()):
        widths = dict(zip(axes, values, strict=True))
        text = " ".join(f"{name} {value:g}" for name, value in widths.items())
        yield text, replace(form, **widths)  # type: ignore[arg-type]
        if form.name == "linux_gpu":
            bare = tuple(term for term in form.terms if term.fields != ("activation_ns_per_byte",))
            yield f"{text} without activations", replace(form, terms=bare, **widths)  # type: ignore[arg-type]


def errors(form: Form, rows: list[Measurement]) -> dict[str, float]:
    """Return the leave-family-out error of every setting that has one."""
    found = {item.setting.long_name: item.forward.leave_family_out_error for item in calibrate_form(form, tuple(rows))}
    return {name: error for name, error in found.items() if error is not None}


def main() -> None:
    """Print, per class, the shipped form, the chosen one, and the nested error of every board."""
    for form in FORMS.values():
        rows = [row for row in shipped_rows() if form_of(row.setting).name == form.name]
        tables = {text: errors(candidate, rows) for text, candidate in variants(form)}
        shipped, boards = errors(form, rows), list(next(iter(tables.values())))
        table = np.array([[found[board] for board in boards] for found in tables.values()])
        names, best = list(tables), int(table.mean(axis=1).argmin())
        same = tables[names[best]] == shipped
        print(f"{form.name}: {len(names)} candidates, mean {np.median(table.mean(axis=1)):.1%} in the middle")
        print(f"  chosen: {names[best]}: {table[best].mean():.1%}; shipped: {np.mean(list(shipped.values())):.1%}"
              f" ({'the same' if same else 'ANOTHER ONE'})")  # fmt: skip
        nested = [nested_error(table, boards, place) for place in range(len(boards))]
        for board, optimistic, honest in zip(boards, table[best], nested, strict=True):
            print(f"  {board:<50} chosen on all {optimistic:>6.1%}   nested {honest:>6.1%}")
        print(f"  {'mean':<50} chosen on all {table[best].mean():>6.1%}   nested {np.mean(nested):>6.1%}")


def nested_error(table: np.ndarray, boards: list[str], place: int) -> float:
    """Return the error of a board under the form that is best on all settings of other devices of the class."""
    own = device_of(boards[place])
    others = [index for index, board in enumerate(boards) if device_of(board) != own]
    return float(table[int(table[:, others].mean(axis=1).argmin()), place])


def device_of(board: str) -> str:
    """Return what shares hardware and runtime: another number of threads, or another version, is the same device."""
    name, runtime, *_ = board.split("--")
    return f"{name}--{runtime}"


if __name__ == "__main__":
    main()
