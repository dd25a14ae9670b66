"""``tinytrain costs``: every counter of a method on a backbone, and its price on a device. No training, no torch."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from typing import Any

from tinytrain_dist.costs.all_counters import macs_counters, memory_counters
from tinytrain_dist.costs.equal_batch import ratios
from tinytrain_dist.costs.fit import COUNTER_ERRORS, unsourced_limits
from tinytrain_dist.costs.pricing import Workload, price
from tinytrain_dist.costs.profile_files import load_profile
from tinytrain_dist.costs.static_plans import PLANNED_METHODS, STATIC_METHODS, StaticPlan, static_plan
from tinytrain_dist.foundation.errors import ConfigError, ExitCode
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_alone import PATTERN
from tinytrain_dist.graphs.layer_graph import RESOLUTION_DEFAULT, LayerGraph
from tinytrain_dist.graphs.update_plan import updated_weights
from tinytrain_dist.verbs.arguments import VerbParser, print_json
from tinytrain_dist.verbs.costs_plan import SCHEME_METHOD, chosen_plan
from tinytrain_dist.verbs.costs_tables import print_methods, print_terms

INSPECT_BLOCKS_DEFAULT = 6
REFERENCE_METHOD = "sparse_update"
"""What a table of all methods compares with when no plan of tinytrain is given."""


def main(argv: list[str]) -> ExitCode:
    """Run the verb."""
    options = _parser().parse(argv)
    if options.all_methods == (options.method is not None) and (options.all_methods or options.plan is None):
        raise ConfigError("tinytrain costs: give either --method NAME, --all-methods, or --plan FILE alone")
    answer = all_methods(options) if options.all_methods else costs(options)
    if options.json:
        print_json(answer)
    elif options.all_methods:
        print_methods(answer["methods"])
        print(f"one iteration: {answer['convention']}")
    else:
        print_terms(answer)
    return ExitCode.DONE


def _parser() -> VerbParser:
    parser = VerbParser(
        "costs",
        description="Memory, MACs, time and energy of one adaptation, term by term, without training.",
        example="tinytrain costs --backbone mcunet --method sparse_update --device raspberry_pi_zero_2",
    )
    parser.add_argument("--backbone", required=True)
    parser.add_argument(
        "--method",
        help=f"{', '.join(STATIC_METHODS)}, {PATTERN}; with --plan one that decides per task: tinytrain, ...",
    )
    parser.add_argument("--all-methods", action="store_true", help="one line per method, with ratios at equal batch")
    parser.add_argument("--compare", metavar="METHOD", help="ratios to this method, at equal batch and at the paper's")
    parser.add_argument("--plan", metavar="FILE",
                        help="update plan (JSON) of tinytrain or an own method, or of another scheme for "
                        f"{SCHEME_METHOD}; without --method it is priced alone, without a Fisher pass")  # fmt: skip
    parser.add_argument("--resolution", type=int, default=RESOLUTION_DEFAULT, help="pixels (default %(default)s)")
    parser.add_argument(
        "--batch", type=int, default=1, help="images at once, at most those there are (default %(default)s)"
    )
    parser.add_argument("--optimizer", default="adam", help="adam or sgd (default %(default)s)")
    parser.add_argument("--precision", default="fp32", help="of the paper counter: fp32 or int8 (default %(default)s)")
    parser.add_argument("--fused-update", action="store_true", help="lifetime planner: update image by image")
    parser.add_argument("--samples", type=int, default=25, help="support images (default %(default)s)")
    parser.add_argument("--query", type=int, default=0, help="query images in the loss: transductive (default 0)")
    parser.add_argument("--way", type=int, default=5, help="classes of the task (default %(default)s)")
    parser.add_argument("--iterations", type=int, default=40, help="fine-tuning iterations (default %(default)s)")
    parser.add_argument(
        "--paper-cost", action="store_true", help="the paper's convention: 25 sample passes per iteration"
    )
    parser.add_argument("--device", help="profile to price on ('tinytrain devices list')")
    parser.add_argument("--dir", action="append", default=[], metavar="DIR", help="folder with your own profiles")
    return parser


def costs(options: argparse.Namespace) -> dict[str, Any]:
    """Return every counter and, with a device, its price: one object with units in the names."""
    graph = layer_graph(options.backbone, options.resolution)
    chosen = chosen_plan(options.method, options.plan, graph)
    workload = _workload(options, graph, chosen)
    answer: dict[str, Any] = {
        "backbone": graph.name, "method": options.method, "resolution": graph.resolution,
        "batch": workload.batch, "optimizer": workload.optimizer, "samples": workload.support_size,
        "query": workload.extra_images,
        "way": workload.way, "iterations": workload.iterations, "images_per_iteration": workload.step_images,
        "fused_update": workload.fused_update, "convention": workload.convention,
        "plan_hash": chosen.plan.hash,
        "updated_weights": updated_weights(chosen.plan, graph), "adapters": len(chosen.plan.adapters),
    }  # fmt: skip
    answer |= memory_counters(graph, chosen, workload, precision=options.precision)
    answer |= macs_counters(graph, chosen, workload)
    if options.compare is not None:
        other = static_plan(options.compare, graph)
        found = ratios(
            graph, chosen, other, name=options.compare, batch=workload.batch, optimizer=workload.optimizer
        )  # fmt: skip
        answer["comparison"] = asdict(found)
    if options.device is not None:
        answer |= _priced(options, graph, chosen, workload)
    return answer


def all_methods(options: argparse.Namespace) -> dict[str, Any]:
    """Return the counters of every method, each with its ratios to the plan given, or to sparse_update."""
    graph = layer_graph(options.backbone, options.resolution)
    plans = {method: static_plan(method, graph) for method in STATIC_METHODS}
    reference = options.compare or REFERENCE_METHOD
    if options.plan is not None:
        reference = next(iter(PLANNED_METHODS))
        plans[reference] = chosen_plan(reference, options.plan, graph)
    other = plans[reference] if reference in plans else static_plan(reference, graph)
    rows = []
    for method, chosen in plans.items():
        workload = _workload(options, graph, chosen)
        row: dict[str, Any] = {"method": method, "batch": workload.batch, "optimizer": workload.optimizer}
        row |= memory_counters(graph, chosen, workload, precision=options.precision)
        row |= macs_counters(graph, chosen, workload)
        row["comparison"] = asdict(
            ratios(graph, chosen, other, name=reference, batch=workload.batch, optimizer=workload.optimizer)
        )
        if options.device is not None:
            row |= _priced(options, graph, chosen, workload)
        rows.append(row)
    shared = {"backbone": graph.name, "resolution": graph.resolution, "convention": workload.convention}
    return {**shared, "methods": rows}


def _workload(options: argparse.Namespace, graph: LayerGraph, chosen: StaticPlan) -> Workload:
    inspected = graph.last_blocks(min(INSPECT_BLOCKS_DEFAULT, graph.num_blocks))
    workload = Workload(
        support_size=options.samples, iterations=options.iterations, batch=options.batch, way=options.way,
        optimizer=options.optimizer, full=chosen.full,
        inspected=inspected if chosen.measures_fisher else (),
        fused_update=options.fused_update, extra_images=options.query,
        paper_convention=options.paper_cost,
    )  # fmt: skip
    return workload if options.paper_cost else replace(workload, batch=min(workload.batch, workload.step_images))


def _priced(options: argparse.Namespace, graph: LayerGraph, chosen: StaticPlan, workload: Workload) -> dict[str, Any]:
    """Return the price under its own names; the paper's terms stay those of the counters above (``--precision``)."""
    profile = load_profile(options.device, options.dir)
    terms = asdict(price(graph, chosen.plan, profile, workload))
    paper = {key for key in terms if key in memory_counters(graph, chosen, workload)}
    error = COUNTER_ERRORS[profile.fit_counter].source
    device = {"device": profile.name, "fit_counter_error": error, "unsourced_limits": unsourced_limits(profile)}
    return device | {key: value for key, value in terms.items() if key not in paper}
