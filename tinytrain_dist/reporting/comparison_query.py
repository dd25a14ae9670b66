"""The SQL behind the planner's table: per task first, then per line; every sum in sorted order.

``planner_rows``   the rows with their place and one verdict per resource: ``yes``, ``no`` or ``uncertain``
``planner_tasks``  one row per (line, task): a task counts once however many devices it ran on
"""

from __future__ import annotations

from collections.abc import Sequence

from tinytrain_dist.reporting.exact_sums import moments_sql
from tinytrain_dist.reporting.limits import Limits
from tinytrain_dist.reporting.places import place_sql
from tinytrain_dist.reporting.quantiles import quantile_or_none

ADAPTATION = ("backbone", "initialization", "checkpoint", "method", "variant")
"""What a line of a table is about, next to its device or domain."""
JOINT = "+"
"""Joins the words of a row whose tasks differ, such as ``estimate+fitted``."""
MEASURES = ("accuracy", "accuracy_where_fits", "gain")
RESOURCES = ("ram", "flash", "time", "energy")
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
TIMED = (("latency", "ms"), ("energy", "mj"))
_WORDS = ("batch", "fit_counter", "standing", "accuracy_numerics", "price_numerics")
_USED = (
    "task_id", "ok", "failed", "inapplicable", "planned", "accuracy_after", "gain_points", "plan_status", "fits",
    "batch", "fit_counter",
    "standing", "accuracy_numerics", "price_numerics", "peak_bytes", "peak_low_bytes", "peak_high_bytes",
    "ram_margin_bytes", "flash_margin_bytes", "selection_ms", "latency_ms", "latency_low_ms", "latency_high_ms",
    "energy_mj", "energy_low_mj", "energy_high_mj", "extrapolated",
)  # fmt: skip
"""Columns of ``paired`` the table is made of: ``planner_rows`` lies in memory, and a row has three times as many."""


def group_of(places: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that tell one line of a table from another."""
    return (*places, *ADAPTATION)


def rows_sql(places: Sequence[str], limits: Limits) -> str:
    """Return the statement that makes ``planner_rows``."""
    computed = [f"{place_sql(name)} AS {name}" for name in places if name not in ("device", "domain")]
    columns = _comma([*dict.fromkeys(("device", "domain", *ADAPTATION, *_USED)), *computed])
    ram = "(ram_margin_bytes + peak_bytes)"
    cap = ram if limits.max_ram_bytes is None else f"least({ram}, {limits.max_ram_bytes})"
    return f"""
    CREATE OR REPLACE TEMP TABLE planner_rows AS
    WITH placed AS (SELECT {columns} FROM paired), own AS (
        SELECT *, {_word("peak_low_bytes", "peak_high_bytes", ram, unknown="fits")} AS own_ram FROM placed
    ), judged AS (
        SELECT * EXCLUDE (own_ram), {cap} AS ram_bytes, {cap} - peak_bytes AS ram_margin,
            {_word("peak_low_bytes", "peak_high_bytes", cap, unknown="fits")} AS ram_word,
            CASE WHEN flash_margin_bytes IS NULL THEN 'yes'
                WHEN own_ram <> 'no' AND fits = 'no' AND plan_status <> 'infeasible' THEN 'no'
                WHEN own_ram = 'yes' AND fits = 'uncertain' THEN 'uncertain'
                WHEN flash_margin_bytes < 0 THEN 'no' ELSE 'yes' END AS flash_word,
            {_limit_word("latency", "ms", limits.max_latency_ms)} AS time_word,
            {_limit_word("energy", "mj", limits.max_energy_mj)} AS energy_word,
            {_margin("latency_ms", limits.max_latency_ms)} AS time_margin,
            {_margin("energy_mj", limits.max_energy_mj)} AS energy_margin
        FROM own
    )
    SELECT *,
        planned AND {_every("= 'yes'")} AS fitting,
        planned AND NOT ({_every("= 'yes'")}) AND {_every("<> 'no'")} AS undecided
    FROM judged
    """


def tasks_sql(places: Sequence[str]) -> str:
    """Return the statement that makes ``planner_tasks`` from ``planner_rows``.

    On one device a task has one row (the key of a row): there is nothing to average.
    """
    if "device" in places:
        return f"""
        CREATE OR REPLACE TEMP VIEW planner_tasks AS
        SELECT {_comma(group_of(places))}, domain AS task_domain, task_id, 1 AS num_rows,
            failed::INTEGER AS num_failed, (inapplicable IS NOT NULL)::INTEGER AS num_inapplicable,
            (ok AND NOT planned)::INTEGER AS num_infeasible,
            fitting::INTEGER AS num_fitting, undecided::INTEGER AS num_undecided,
            CASE WHEN ok THEN accuracy_after END AS accuracy,
            CASE WHEN fitting THEN accuracy_after END AS accuracy_where_fits, gain_points AS gain
        FROM planner_rows
        """
    return f"""
    CREATE OR REPLACE TEMP TABLE planner_task_means AS
    SELECT {_comma(group_of(places))}, domain AS task_domain, task_id,
        count(*) AS num_rows,
        count(*) FILTER (WHERE failed) AS num_failed,
        count(*) FILTER (WHERE inapplicable IS NOT NULL) AS num_inapplicable,
        count(*) FILTER (WHERE ok AND NOT planned) AS num_infeasible,
        count(*) FILTER (WHERE fitting) AS num_fitting,
        count(*) FILTER (WHERE undecided) AS num_undecided,
        avg(accuracy_after ORDER BY accuracy_after) FILTER (WHERE ok) AS accuracy,
        avg(accuracy_after ORDER BY accuracy_after) FILTER (WHERE fitting) AS accuracy_where_fits,
        avg(gain_points ORDER BY gain_points) AS gain
    FROM planner_rows GROUP BY ALL;
    CREATE OR REPLACE TEMP VIEW planner_tasks AS FROM planner_task_means
    """


def lines_sql(places: Sequence[str]) -> str:
    """Return the query for one line each: counts, moments over tasks, quantiles of the costs, words."""
    group = group_of(places)
    margins = ", ".join(
        f"min({name}_margin) FILTER (WHERE planned) AS {name}_margin" for name in ("ram", *RESOURCES[2:])
    )
    words = ", ".join(
        f"count(*) FILTER (WHERE planned AND {name}_word = '{word}') AS {name}_{word}"
        for name in RESOURCES for word in ("yes", "no", "uncertain")
    )  # fmt: skip
    return f"""
    WITH lines AS (
        SELECT {_comma(group)},
            sum(num_rows)::BIGINT AS num_rows, sum(num_failed)::BIGINT AS num_failed,
            sum(num_inapplicable)::BIGINT AS num_inapplicable,
            sum(num_infeasible)::BIGINT AS num_infeasible, sum(num_fitting)::BIGINT AS num_fitting,
            sum(num_undecided)::BIGINT AS num_undecided,
            {_all_moments(MEASURES)}
        FROM planner_tasks GROUP BY ALL
    ), prices AS (
        SELECT {_comma(group)},
            count(*) FILTER (WHERE planned) AS num_planned, min(inapplicable) AS inapplicable,
            count(latency_ms) FILTER (WHERE planned) AS num_priced,
            count(energy_mj) FILTER (WHERE planned) AS num_energy_priced,
            {", ".join(_quantiles(phase, unit) for phase, unit in TIMED)},
            {_shares("peak", "bytes")},
            {_median("selection_ms / nullif(latency_ms, 0)")} AS selection_share,
            {_median("latency_high_ms / nullif(latency_ms, 0)")} AS latency_error_factor,
            {_median("energy_high_mj / nullif(energy_mj, 0)")} AS energy_error_factor,
            count(*) FILTER (WHERE planned AND extrapolated <> '') AS num_extrapolated,
            count(extrapolated) FILTER (WHERE planned) AS num_judged_range,
            max(latency_high_ms) FILTER (WHERE planned) AS latency_worst_ms,
            max(energy_high_mj) FILTER (WHERE planned) AS energy_worst_mj,
            max(ram_bytes) AS ram_bytes, max(ram_margin_bytes + peak_bytes) AS device_ram_bytes, {margins}, {words},
            min(flash_margin_bytes) FILTER (WHERE planned) AS flash_margin
        FROM planner_rows GROUP BY ALL
    ), said AS (
        SELECT {_comma(group)}, {", ".join(f"{words_sql(f'{name}::VARCHAR')} AS {name}" for name in _WORDS)},
            {words_sql("extrapolated")} AS extrapolated
        FROM (SELECT DISTINCT {_comma(group)}, ok, {_comma(_WORDS)},
            CASE WHEN planned THEN nullif(extrapolated, '') END AS extrapolated FROM planner_rows) GROUP BY ALL
    )
    SELECT lines.*, prices.* EXCLUDE ({_comma(group)}), said.* EXCLUDE ({_comma(group)})
    FROM lines JOIN prices ON {_same("lines", "prices", group)} JOIN said ON {_same("lines", "said", group)}
    """


def domains_sql(places: Sequence[str], *, values: bool) -> str:
    """Return the query for the moments of every (line, domain); with ``values`` the sorted values themselves too."""
    lists = ", ".join(f"list({name} ORDER BY {name}) FILTER ({name} IS NOT NULL) AS {name}_values"
                      for name in MEASURES)  # fmt: skip
    group = _comma(group_of(places))
    return f"""
    SELECT {group}, task_domain, {_all_moments(("accuracy", "gain"))}
        {", " + lists if values else ""}
    FROM planner_tasks GROUP BY ALL ORDER BY ALL
    """


def words_sql(expression: str) -> str:
    """Return the distinct words of the finished rows, joined."""
    return f"coalesce(string_agg(DISTINCT {expression}, '{JOINT}' ORDER BY {expression}) FILTER (WHERE ok), '')"


def known_quantile(value: float | None, word: str, num: int) -> float | None:
    """Return the quantile called ``p50``, ``p95`` or ``p99``, or None where too few tasks stand behind it."""
    return value if word == "p50" else quantile_or_none(value, SHARES[word], num)


def _same(left: str, right: str, names: Sequence[str]) -> str:
    return " AND ".join(f"{left}.{name} IS NOT DISTINCT FROM {right}.{name}" for name in names)


def _comma(names: Sequence[str]) -> str:
    return ", ".join(names)


def _every(condition: str) -> str:
    return "(" + " AND ".join(f"{name}_word {condition}" for name in RESOURCES) + ")"


def _word(low: str, high: str, limit: str, *, unknown: str) -> str:
    return (
        f"CASE WHEN {low} IS NULL OR {high} IS NULL OR {limit} IS NULL THEN coalesce({unknown}, 'no')"
        f" WHEN {high} <= {limit} THEN 'yes' WHEN {low} > {limit} THEN 'no' ELSE 'uncertain' END"
    )


def _limit_word(phase: str, unit: str, limit: float | None) -> str:
    """A method without a network costs no device anything; where power is unknown an energy limit stays uncertain."""
    if limit is None:
        return "'yes'"
    judged = _word(f"{phase}_low_{unit}", f"{phase}_high_{unit}", repr(float(limit)), unknown="'uncertain'")
    return f"CASE WHEN backbone IS NULL THEN 'yes' ELSE {judged} END"


def _margin(column: str, limit: float | None) -> str:
    return "NULL::DOUBLE" if limit is None else f"{float(limit)!r} - {column}"


def _all_moments(names: Sequence[str]) -> str:
    return ", ".join(moments_sql(name, name) for name in names)


def _median(expression: str) -> str:
    return f"quantile_cont({expression}, 0.5) FILTER (WHERE planned)"


def _shares(phase: str, unit: str) -> str:
    """Return median, p95 and p99 as a list: one sort for all three."""
    shares = ", ".join(str(share) for share in SHARES.values())
    return f"quantile_cont({phase}_{unit}, [{shares}]) FILTER (WHERE planned) AS {phase}_quantiles_{unit}"


def _quantiles(phase: str, unit: str) -> str:
    ends = (f"{_median(f'{phase}_{end}_{unit}')} AS {phase}_{end}_{unit}" for end in ("low", "high"))
    return ", ".join((_shares(phase, unit), *ends))
