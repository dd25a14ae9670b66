"""What did not work: failed rows, infeasible plans, tasks that do not fit, and warning signs."""

from __future__ import annotations

from dataclasses import dataclass

from tinytrain_dist.foundation.redaction import redact_text
from tinytrain_dist.reporting.cells import INAPPLICABLE
from tinytrain_dist.reporting.comparison import ADAPTATION
from tinytrain_dist.reporting.formatting import one_line
from tinytrain_dist.reporting.runs import RunResults


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """One kind of trouble of one adaptation on one device and domain: how often, and one example of the reason."""

    domain: str
    device: str | None
    key: tuple[str | None, ...]
    kind: str
    num: int
    of: int
    example: str


def troubles(run: RunResults) -> list[Trouble]:
    """Return every (domain, device, adaptation, kind) with trouble, most frequent first.

    Kinds: the status of failed rows, ``not applicable``, ``infeasible``, ``does not fit``, ``fit uncertain``, and the
    signatures of finished rows.
    """
    group = f"domain, device, {', '.join(ADAPTATION)}"
    found = run.select(f"""
    WITH kinds AS (
        SELECT *, unnest([
            CASE WHEN failed THEN status END,
            CASE WHEN inapplicable IS NOT NULL THEN '{INAPPLICABLE}' END,
            CASE WHEN ok AND NOT planned THEN 'infeasible' END,
            CASE WHEN planned AND NOT fitting AND NOT undecided THEN 'does not fit' END,
            CASE WHEN undecided THEN 'fit uncertain' END,
            CASE WHEN ok AND planned AND signature <> '' THEN signature END
        ]) AS kind FROM rows
    ), totals AS (SELECT {group}, count(*) AS total FROM rows GROUP BY ALL)
    SELECT k.*, t.total FROM (
        SELECT {group}, kind, count(*) AS num, min(coalesce(message, plan_reason, '')) AS example
        FROM kinds WHERE kind IS NOT NULL GROUP BY ALL
    ) k JOIN totals t ON {" AND ".join(f"k.{n} IS NOT DISTINCT FROM t.{n}" for n in group.split(", "))}
    ORDER BY num DESC, {group}, kind
    """)
    return [
        Trouble(
            domain=row["domain"],
            device=row["device"],
            key=tuple(row[name] for name in ADAPTATION),
            kind=row["kind"],
            num=row["num"],
            of=row["total"],
            example=one_line(redact_text(row["example"])),
        )
        for row in found
    ]
