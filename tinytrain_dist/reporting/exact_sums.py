"""Means and deviations whose value does not depend on the order of the rows: DuckDB adds up integers.

Sums of floats in several threads differ in their last digits from one query to the next; a page must not.
"""

from __future__ import annotations

import math
from typing import Any

from tinytrain_dist.reporting.intervals import Estimate, Moments, t_interval

SCALE = 10**9
"""Values are counted in billionths; with up to 10^9 rows of values below 10^6 no sum leaves 127 bits."""


def moments_sql(expression: str, name: str) -> str:
    """Return the columns ``<name>_num``, ``<name>_sum`` and ``<name>_square`` of an aggregation over ``expression``."""
    exact = f"round(({expression}) * {SCALE})::HUGEINT"
    return (
        f"count({expression}) AS {name}_num, coalesce(sum({exact}), 0) AS {name}_sum,"
        f" coalesce(sum({exact} * {exact}), 0) AS {name}_square"
    )


def mean_sql(expression: str, name: str) -> str:
    """Return the column ``<name>``: the mean of ``expression``, NULL where there is no value."""
    return f"sum(round(({expression}) * {SCALE})::HUGEINT) / count({expression})::DOUBLE / {SCALE} AS {name}"


def moments_of(found: dict[str, Any], name: str) -> Moments:
    """Return number, mean and sample deviation of a row that has the columns of ``moments_sql``."""
    num, total, square = int(found[f"{name}_num"]), int(found[f"{name}_sum"]), int(found[f"{name}_square"])
    if num == 0:
        return Moments(0, None, None)
    variance = (square * num - total * total) / (num * (num - 1)) / SCALE**2 if num > 1 else None
    return Moments(num, total / num / SCALE, None if variance is None else math.sqrt(variance))


def estimate(found: dict[str, Any], name: str) -> Estimate | None:
    """Return mean and 95 % t interval of a row that has the columns of ``moments_sql``."""
    moments = moments_of(found, name)
    return t_interval(moments.mean, moments.deviation, moments.num)
