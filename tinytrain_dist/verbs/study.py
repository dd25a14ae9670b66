"""``tinytrain study NAME key=value ...``: a named set of simulations, then tables of what they say together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tinytrain_dist.execution.settings import cluster
from tinytrain_dist.foundation.errors import ConfigError, ExitCode
from tinytrain_dist.foundation.logs import start_logging
from tinytrain_dist.foundation.paths import atomic_write, make_folder
from tinytrain_dist.foundation.progress import say
from tinytrain_dist.reporting.runs import RunResults, open_run
from tinytrain_dist.reporting.studies import ANALYSES
from tinytrain_dist.reporting.studies.report import StudyReport
from tinytrain_dist.simulation.engine import SimulationResult
from tinytrain_dist.simulation.settings import SimulationSettings
from tinytrain_dist.verbs.compose import command_line, compose_job, output_root
from tinytrain_dist.verbs.job_config import JobConfig
from tinytrain_dist.verbs.settings_of import executor_settings, wandb_mode
from tinytrain_dist.verbs.simulate import checked_settings, publish, say_what_ran, simulated
from tinytrain_dist.verbs.study_file import ChosenVariants, StudyFile, chosen_variants, load_study, study_names


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One variant, checked."""

    config: JobConfig
    settings: SimulationSettings


def main(argv: list[str]) -> ExitCode:
    """Run every variant of the study the words ask for, write ``study.md`` and ``study.json``, print the tables."""
    if {"--help", "-h"} & set(argv):
        print(_help())
        return ExitCode.DONE
    if not argv or "=" in argv[0]:
        raise ConfigError(f"tinytrain study: name one of {', '.join(study_names())}; see tinytrain study --help")
    name, words = argv[0], argv[1:]
    study = load_study(name)
    start_logging()
    chosen = chosen_variants(study, words)
    jobs, folder = _checked(name, chosen)
    results = _run(jobs, folder, command=command_line("study", argv))
    runs = {variant: open_run(result.folder) for variant, result in results.items()}
    report = _with_left_out(ANALYSES[study.analysis](runs), chosen)
    _write(name, study, report, runs, folder)
    print(report.to_markdown(title=f"{name}: {study.question}"))
    print(f"study: {folder / 'study.md'}")
    return max((result.exit_code for result in results.values()), default=ExitCode.DONE)


def _checked(name: str, chosen: ChosenVariants) -> tuple[dict[str, _Job], Path]:
    """Return every variant's job, all checked before the first starts, and the folder below which they run."""
    jobs: dict[str, _Job] = {}
    folder: Path | None = None
    for variant, words in chosen.words.items():
        config = compose_job(list(words))
        if config.run.force_new:
            raise ConfigError("run.force_new=true: a study has one folder; set run.id=NAME to start another")
        folder = output_root(config) / (config.run.id or f"study-{name}")
        config.run.root, config.run.id = str(folder), variant
        wandb_mode(config)
        jobs[variant] = _Job(config=config, settings=checked_settings(config))
    assert folder is not None, "at least one variant is chosen"
    return jobs, folder


def _run(jobs: Mapping[str, _Job], folder: Path, *, command: str) -> dict[str, SimulationResult]:
    """Run (or reuse) every variant, one after the other, on one cluster."""
    make_folder(folder)
    results = {}
    first = next(iter(jobs.values())).config
    with cluster(executor_settings(first.executor)):
        for variant, job in jobs.items():
            results[variant] = simulated(job.config, job.settings, root=folder, command=command)
            say_what_ran(results[variant])
            job.config.wandb.group = job.config.wandb.group or folder.name
            publish(job.config, results[variant])
    return results


def _with_left_out(report: StudyReport, chosen: ChosenVariants) -> StudyReport:
    notes = [f"left out: {name}; give {words} to run it" for name, words in chosen.left_out.items()]
    for note in notes:
        say(note)
    return replace(report, notes=(*report.notes, *notes))


def _write(name: str, study: StudyFile, report: StudyReport, runs: Mapping[str, RunResults], folder: Path) -> None:
    """Write the report for readers and for programs; the same rows give the same bytes."""
    head = {
        "study": name,
        "question": study.question,
        "analysis": study.analysis,
        "runs": {
            variant: {"run": run.run_id, "rows": run.num_rows, "result_hash": run.record.get("result_hash")}
            for variant, run in runs.items()
        },
    }
    document = json.dumps(head | report.to_dict(), indent=1, allow_nan=False)
    atomic_write(folder / "study.json", document.encode())
    atomic_write(folder / "study.md", report.to_markdown(title=f"{name}: {study.question}").encode())


def _help() -> str:
    lines = []
    for name in study_names():
        study = load_study(name)
        shown = [f"{v} ({v}:{f.given}=...)" if f.given else v for v, f in study.variants.items()]
        lines += [f"  {name}: {study.question}", f"      variants: {', '.join(shown)}"]
    return (
        "usage: tinytrain study NAME [variants=[A,B]] [key=value ...] [VARIANT:key=value ...]\n\n"
        "Runs a named set of simulations below one folder and writes study.md and study.json there. The same command\n"
        "resumes: what is there is read, not run. Keys are those of 'tinytrain simulate --help'; run.id names the\n"
        "folder. A variant with a key in brackets runs where that key is given for it.\n\n"
        "studies:\n" + "\n".join(lines) + "\n\n"
        "example:\n  tinytrain study criteria episodes.num_tasks=2 finetune.iterations=5 'variants=[full,random]'"
    )
