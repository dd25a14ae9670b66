"""One run seen through a filter: the same views, and so the same figures as the tables, over the rows of one domain."""

from __future__ import annotations

from dataclasses import replace

from tinytrain_dist.reporting import views
from tinytrain_dist.reporting.runs import RunResults


def domains_of(run: RunResults) -> list[str]:
    """Return the domains of the run, sorted."""
    return [str(row["domain"]) for row in run.select("SELECT DISTINCT domain FROM stored ORDER BY domain")]


def only_domain(run: RunResults, domain: str) -> RunResults:
    """Return ``run`` reduced to one domain: every view of ``views.py`` holds the rows of that domain alone.

    ``num_rows`` becomes the number of its stored rows; record and path stay the run's.
    """
    connection = run.connection.cursor()  # a session of its own on the same data: another schema is in front there
    schema = f"domain_{domain.encode().hex()}"
    known = connection.execute("SELECT 1 FROM information_schema.schemata WHERE schema_name = ?", [schema]).fetchone()
    if known is None:
        connection.execute(f"CREATE SCHEMA {schema}")
        quoted = domain.replace("'", "''")  # a view's text takes no parameters
        connection.execute(f"CREATE VIEW {schema}.stored AS SELECT * FROM main.stored WHERE domain = '{quoted}'")
    connection.execute(f"SET schema = '{schema}'")
    if known is None:
        views.create(connection)
    found = connection.execute("SELECT count(*) FROM stored").fetchone()
    return replace(run, connection=connection, num_rows=int(found[0]) if found else 0)
