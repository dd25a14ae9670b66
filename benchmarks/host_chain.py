"""The whole chain on the machine it stands on: measure, calibrate a profile, predict what was not measured.

Predicted: 40 random sparse plans, and every method on all backbones, at two resolutions no row was measured at.
Times are processor time relative to a reference kernel (``measuring/timing.py``): the machine may be busy. Its state
drifts over minutes by more than the model's error, so rows to calibrate on and times to predict are measured in turns.

nice python benchmarks/host_chain.py --out host_chain            # again: continues, or prints from what is there
python benchmarks/host_chain.py --out new --reuse host_chain     # measures nothing: its times, today's counts and forms
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from scipy.stats import spearmanr

from tinytrain_dist.costs.adapter_latency import adapter_optimizer_ms, adapter_pass
from tinytrain_dist.costs.fit import stored_parameter_bytes
from tinytrain_dist.costs.latency import fisher_pass_ms, forward_ms, image_pass, optimizer_step_ms
from tinytrain_dist.costs.latency import load_ms as loading_ms
from tinytrain_dist.costs.macs import plan_macs
from tinytrain_dist.costs.measurements import OPERATION_COLUMNS
from tinytrain_dist.costs.phase_amounts import FURTHER
from tinytrain_dist.costs.profile_files import load_profile
from tinytrain_dist.costs.profiles import DeviceProfile
from tinytrain_dist.costs.static_plans import STATIC_METHODS, static_plan
from tinytrain_dist.foundation.seeding import generator_of
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan
from tinytrain_dist.measuring.cases import Case
from tinytrain_dist.measuring.design import designed_cases, random_plan
from tinytrain_dist.measuring.measurement import measure
from tinytrain_dist.measuring.row_file import COLUMNS, cell, read_rows, write_rows
from tinytrain_dist.measuring.settings import MeasureSettings
from tinytrain_dist.measuring.step_cases import StepCases
from tinytrain_dist.verbs.calibrate_job import calibrate_files

NUM_PLANS = 40
UNSEEN_RESOLUTIONS = (80, 128)
TARGETS = {"median": 0.12, "p90": 0.30, "rank": 0.95}
COMPUTE_SHARE, CHANNEL_RATIO = 0.15, 0.5


@dataclass(frozen=True, kw_only=True)
class Question:
    """One number to predict and the case that measures it."""

    group: str
    case: Case
    predict: Callable[[DeviceProfile], float]


def main() -> None:
    """Run the chain and print the errors beside their targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for rows and profile")
    parser.add_argument("--quick", action="store_true", help="the one-minute measurement to calibrate on")
    parser.add_argument("--reuse", type=Path, metavar="FOLDER", help="measure nothing: times of an earlier --out")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    settings = MeasureSettings().quick() if options.quick else MeasureSettings()
    with tempfile.TemporaryDirectory(dir=options.out) as scratch:
        designed = designed_cases(settings, Path(scratch))
        questions = [*random_plans(settings), *methods(settings, Path(scratch))]
        cases = in_turns(designed, questions)
        if options.reuse is None:
            measure(options.out / "all.csv", settings=settings, cases=cases)
    rows = read_rows(options.out / "all.csv") if options.reuse is None else recounted(options.reuse / "all.csv", cases)
    known = {case.key for case in designed}
    write_rows(options.out / "rows.csv", [row for row in rows if (row["phase"], row["model"]) in known])
    calibrate_files([options.out / "rows.csv"], [], out=options.out, siblings=False)
    profile = load_profile(settings.profile, [options.out])
    times = {(row["phase"], row["model"]): float(row["latency_ms"]) for row in rows}
    report([question for question in questions if question.case.key in times], profile, times)


def recounted(path: Path, cases: Iterable[Case]) -> list[dict[str, str]]:
    """Return the rows of ``path`` that belong to ``cases``, their times with the counts of today."""
    amounts = {case.key: case.amounts for case in cases}
    with path.open(newline="", encoding="utf-8") as stream:
        stored = [row for row in csv.DictReader(stream) if (row["phase"], row["model"]) in amounts]
    print(f"{path}: {len(stored)} rows, {len(amounts)} cases")
    return [
        {name: row.get(name, "") for name in COLUMNS}
        | {
            name: cell(amounts[row["phase"], row["model"]].get(name, 0.0), digits=12)
            for name in (*OPERATION_COLUMNS, *FURTHER)
        }
        for row in stored
    ]


def in_turns(designed: Sequence[Case], questions: Sequence[Question]) -> list[Case]:
    """Return all cases once, those to calibrate on and those to predict mixed."""
    cases = list({case.key: case for case in [*designed, *(question.case for question in questions)]}.values())
    return [cases[index] for index in generator_of("host chain").permutation(len(cases))]


def random_plans(settings: MeasureSettings) -> Iterator[Question]:
    """Yield the phases of random sparse plans, backbones and resolutions in turn."""
    for number in range(NUM_PLANS):
        backbone = settings.backbones[number % len(settings.backbones)]
        resolution = UNSEEN_RESOLUTIONS[number // len(settings.backbones) % len(UNSEEN_RESOLUTIONS)]
        steps = steps_of(backbone, resolution, settings.batch)
        plan = random_plan(steps.graph, ("unseen", number))
        yield from plan_questions("40 sparse plans", steps, plan)
        yield fisher_question("40 sparse plans", steps, 1 + number % 8)


def methods(settings: MeasureSettings, folder: Path) -> Iterator[Question]:
    """Yield the phases of every method that runs the network."""
    for backbone in settings.backbones:
        for resolution in UNSEEN_RESOLUTIONS:
            steps, group = steps_of(backbone, resolution, settings.batch), "all methods"
            yield Question(group=group, case=steps.forward(), predict=partial(forward_ms, steps.graph))
            yield fisher_question(group, steps, 6)
            yield Question(group=group, case=steps.load(folder), predict=partial(load_ms, steps.graph))
            for plan in method_plans(steps.graph):
                yield from plan_questions(group, steps, plan)


@cache
def steps_of(backbone: str, resolution: int, batch: int) -> StepCases:
    """Return the cases of one network, built once."""
    return StepCases(backbone, resolution, batch=batch)


def fisher_question(group: str, steps: StepCases, blocks: int) -> Question:
    """Return the Fisher pass over the last ``blocks`` blocks."""
    inspected = steps.graph.last_blocks(blocks)
    return Question(group=group, case=steps.fisher(inspected), predict=partial(fisher_pass_ms, steps.graph, inspected))


def method_plans(graph: LayerGraph) -> list[UpdatePlan]:
    """Return the distinct plans of all methods; ``none`` is the forward pass."""
    static = [static_plan(name, graph).plan for name in STATIC_METHODS]
    found = {plan.hash: plan for plan in (*static, chosen_plan(graph)) if not plan.is_empty}
    return list(found.values())


def chosen_plan(graph: LayerGraph) -> UpdatePlan:
    """Return a plan of the form Algorithm 1 gives: half the channels of layers in drawn order, inside the budget."""
    draw = generator_of("chosen plan", graph.name)
    limit = COMPUTE_SHARE * 2 * graph.forward_macs
    updates: list[LayerUpdate] = []
    for index in draw.permutation(graph.last_blocks(6)).tolist():
        count = graph.layer(index).out_channels
        channels = sorted(draw.choice(count, size=max(1, int(CHANNEL_RATIO * count)), replace=False).tolist())
        wider = sorted([*updates, LayerUpdate(layer=index, channels=tuple(channels))], key=lambda u: u.layer)
        if plan_macs(graph, UpdatePlan(backbone=graph.name, updates=tuple(wider))).backward <= limit:
            updates = wider
    return UpdatePlan(backbone=graph.name, updates=tuple(updates))


def plan_questions(group: str, steps: StepCases, plan: UpdatePlan) -> Iterator[Question]:
    """Yield step and optimizer of ``plan``; of plans without adapters the phases of the step too."""
    graph, start = steps.graph, plan.earliest_layer
    assert start is not None
    yield Question(group=group, case=steps.optimizer(plan), predict=partial(optimizer_ms, graph, plan))
    yield Question(group=group, case=steps.step(plan), predict=partial(step_ms, graph, plan))
    if plan.adapters:
        return
    if start + 1 < len(graph.layers):
        case = steps.input_grad(start)
        yield Question(group=group, case=case, predict=lambda p: image_pass(graph, plan, p).input_grad_ms)
    if plan.updates:
        case = steps.weight_grad(plan)
        yield Question(group=group, case=case, predict=lambda p: image_pass(graph, plan, p).weight_grad_ms)


def step_ms(graph: LayerGraph, plan: UpdatePlan, profile: DeviceProfile) -> float:
    """Return the predicted time of forward and backward of one image."""
    return image_pass(graph, plan, profile).total_ms + adapter_pass(graph, plan, profile).total_ms


def optimizer_ms(graph: LayerGraph, plan: UpdatePlan, profile: DeviceProfile) -> float:
    """Return the predicted time of one step of Adam."""
    own = optimizer_step_ms(graph, plan, profile, optimizer="adam")
    return own + adapter_optimizer_ms(graph, plan, profile, optimizer="adam")


def load_ms(graph: LayerGraph, profile: DeviceProfile) -> float:
    """Return the predicted time to load a network."""
    empty = UpdatePlan(backbone=graph.name)
    return loading_ms(graph, empty, profile, stored_bytes=stored_parameter_bytes(graph, profile, empty))


def report(questions: Sequence[Question], profile: DeviceProfile, measured: dict[tuple[str, str], float]) -> None:
    """Print median and 90th percentile of the relative error, and the rank correlation, per group and phase."""
    print(f"{'':<18}{'phase':<13}{'n':>4}{'median':>9}{'p90':>9}{'rank':>8}   targets: <= 12 %, <= 30 %, >= 0.95")
    for group in dict.fromkeys(question.group for question in questions):
        mine = [question for question in questions if question.group == group]
        for phase in dict.fromkeys(question.case.phase for question in mine):
            _line(group, phase, [q for q in mine if q.case.phase == phase], profile, measured)
    steps = [question for question in questions if question.case.phase == "step"]
    _line("both", "step", steps, profile, measured)
    everything = [question for question in questions if question.case.phase != "load"]
    _line("both", "all phases", everything, profile, measured)


def _line(
    group: str,
    phase: str,
    questions: Sequence[Question],
    profile: DeviceProfile,
    measured: dict[tuple[str, str], float],
) -> None:
    unique = {question.case.key: question for question in questions}
    predicted = np.array([question.predict(profile) for question in unique.values()])
    times = np.array([measured[key] for key in unique])
    errors = np.abs(predicted / times - 1)
    median, p90 = float(np.median(errors)), float(np.quantile(errors, 0.9))
    rank = float(spearmanr(predicted, times).statistic) if len(times) > 2 else float("nan")
    met = median <= TARGETS["median"] and p90 <= TARGETS["p90"] and rank >= TARGETS["rank"]
    print(f"{group:<18}{phase:<13}{len(times):>4}{median:>9.1%}{p90:>9.1%}{rank:>8.3f}   {'met' if met else 'MISSED'}")


if __name__ == "__main__":
    main()
