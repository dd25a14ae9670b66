"""Analyses of studies: stored runs in, tables out; one file each. Nothing is computed that a run could have stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tinytrain_dist.reporting.runs import RunResults
from tinytrain_dist.reporting.studies.criteria import criteria
from tinytrain_dist.reporting.studies.fisher_rank import fisher_rank
from tinytrain_dist.reporting.studies.initialization import initialization
from tinytrain_dist.reporting.studies.main_table import main_table
from tinytrain_dist.reporting.studies.report import StudyReport

Analysis = Callable[[Mapping[str, RunResults]], StudyReport]
ANALYSES: Mapping[str, Analysis] = {
    "main_table": main_table,
    "criteria": criteria,
    "fisher_rank": fisher_rank,
    "initialization": initialization,
}
"""Name of an analysis -> what it makes of a study's runs, in the order of its variants."""
