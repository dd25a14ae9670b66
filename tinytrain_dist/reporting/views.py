"""The DuckDB views every table and chart is computed from.

``stored``    the result rows as written
``rows``      one row per result; raw_pixels once per task (it knows neither device nor network);
              ``inapplicable``: why the method has nothing to update on this network (null: it has, or needs
              nothing); such a row is no result of the method, nor a failure: it is in no mean;
              ``ok``: finished with a result; ``failed``; ``planned``: ok and not infeasible;
              ``fitting``: planned and fits the device;
              ``undecided``: planned, and the counter's own error decides whether it fits
``baseline``  accuracy of ``none`` per task and checkpoint (it does not depend on the device)
``paired``    ``rows`` with ``gain_points``: accuracy minus that of ``none`` on the same task, in absolute points
"""

from __future__ import annotations

import duckdb

NETWORK_FREE = "raw_pixels"
BASELINE = "none"

_ROWS = f"""
CREATE VIEW rows AS
WITH once AS (
    SELECT *, row_number() OVER (PARTITION BY task_id, variant ORDER BY status <> 'ok', checkpoint, device) AS copy
    FROM stored WHERE method = '{NETWORK_FREE}'
), merged AS (
    SELECT * FROM stored WHERE method <> '{NETWORK_FREE}'
    UNION ALL
    SELECT * REPLACE (
        NULL::VARCHAR AS device, NULL::VARCHAR AS checkpoint, NULL::VARCHAR AS backbone,
        NULL::VARCHAR AS initialization
    ) FROM (SELECT * EXCLUDE (copy) FROM once WHERE copy = 1)
)
SELECT *,
    CASE WHEN status = 'ok' AND plan_status = 'not_applicable' THEN plan_reason END AS inapplicable,
    status = 'ok' AND accuracy_after IS NOT NULL AND inapplicable IS NULL AS ok,
    NOT ok AND inapplicable IS NULL AS failed,
    ok AND plan_status <> 'infeasible' AS planned,
    planned AND coalesce(fits = 'yes', false) AS fitting,
    planned AND coalesce(fits = 'uncertain', false) AS undecided
FROM merged
"""

_BASELINE = f"""
CREATE VIEW baseline AS
SELECT task_id, checkpoint, resolution, mode, accuracy_numerics, avg(accuracy_after ORDER BY accuracy_after) AS share
FROM rows WHERE method = '{BASELINE}' AND ok GROUP BY ALL
"""

# raw_pixels has no checkpoint: it is paired only where the task has one single baseline.
_PAIRED = f"""
CREATE VIEW paired AS
WITH single AS (
    SELECT task_id, min(share) AS share FROM baseline GROUP BY task_id HAVING count(*) = 1
)
SELECT r.*, CASE WHEN r.ok THEN 100 * (r.accuracy_after - coalesce(b.share, s.share)) END AS gain_points
FROM rows r
LEFT JOIN baseline b ON b.task_id = r.task_id AND b.checkpoint = r.checkpoint AND b.resolution = r.resolution
    AND b.mode = r.mode AND b.accuracy_numerics = r.accuracy_numerics
LEFT JOIN single s ON r.method = '{NETWORK_FREE}' AND s.task_id = r.task_id
"""


def create(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the views over the existing view ``stored``."""
    for statement in (_ROWS, _BASELINE, _PAIRED):
        connection.execute(statement)
