"""``tinytrain costs``: every counter of a method on a backbone, and its price on a device. No training, no torch."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tinytrain_dist.costs.fit import counted_memory
from tinytrain_dist.costs.macs import fisher_macs, plan_macs
from tinytrain_dist.costs.microcontroller_counter import microcontroller_memory
from tinytrain_dist.costs.pricing import Workload, price, selection_macs, training_macs
from tinytrain_dist.costs.profile_files import load_profile
from tinytrain_dist.costs.saved_exact import saved_exact_bytes
from tinytrain_dist.costs.static_plans import StaticPlan, static_plan
from tinytrain_dist.foundation.errors import ExitCode, PlanError
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_graph import RESOLUTION_DEFAULT, LayerGraph
from tinytrain_dist.graphs.update_plan import plan_from_json, updated_weights
from tinytrain_dist.verbs.arguments import VerbParser, print_json

INSPECT_BLOCKS_DEFAULT = 6


def main(argv: list[str]) -> ExitCode:
    """Run the verb."""
    options = _parser().parse(argv)
    answer = costs(options)
    if options.json:
        print_json(answer)
    else:
        for key, value in answer.items():
            print(f"{key:<34} {_shown(key, value)}")
    return ExitCode.DONE


def _parser() -> VerbParser:
    parser = VerbParser(
        "costs",
        description="Memory, MACs, time and energy of one adaptation, term by term, without training.",
        example="tinytrain costs --backbone mcunet --method sparse_update --device raspberry_pi_zero_2",
    )
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--method", required=True, help="none, last_layer, full_train, transductive, sparse_update; "
                        "any other name with --plan")  # fmt: skip
    parser.add_argument("--plan", metavar="FILE", help="update plan (JSON) to price instead of the method's own")
    parser.add_argument("--resolution", type=int, default=RESOLUTION_DEFAULT, help="pixels (default %(default)s)")
    parser.add_argument("--batch", type=int, default=1, help="images per step (default %(default)s)")
    parser.add_argument("--optimizer", default="adam", help="adam or sgd (default %(default)s)")
    parser.add_argument("--samples", type=int, default=25, help="support images (default %(default)s)")
    parser.add_argument("--iterations", type=int, default=40, help="fine-tuning iterations (default %(default)s)")
    parser.add_argument("--device", help="profile to price on ('tinytrain devices list')")
    parser.add_argument("--dir", action="append", default=[], metavar="DIR", help="folder with your own profiles")
    return parser


def costs(options: argparse.Namespace) -> dict[str, Any]:
    """Return every counter and, with a device, its price: one flat object with units in the names."""
    graph = layer_graph(options.backbone, options.resolution)
    chosen = _chosen(options, graph)
    inspected = graph.last_blocks(min(INSPECT_BLOCKS_DEFAULT, graph.num_blocks))
    workload = Workload(
        support_size=options.samples, iterations=options.iterations, batch=options.batch,
        optimizer=options.optimizer, full=chosen.full, inspected=inspected if options.method == "tinytrain" else (),
    )  # fmt: skip
    answer: dict[str, Any] = {
        "backbone": graph.name, "method": options.method, "resolution": graph.resolution,
        "batch": workload.batch, "optimizer": workload.optimizer, "samples": workload.support_size,
        "iterations": workload.iterations, "images_per_iteration": workload.step_images,
        "plan_hash": chosen.plan.hash, "updated_weights": updated_weights(chosen.plan, graph),
    }  # fmt: skip
    answer |= counters(graph, chosen, workload) | macs(graph, chosen, workload)
    answer["fisher_macs_per_image"] = fisher_macs(graph, inspected)
    if options.device is not None:
        profile = load_profile(options.device, options.dir)
        answer |= {"device": profile.name} | asdict(price(graph, chosen.plan, profile, workload))
    return answer


def _chosen(options: argparse.Namespace, graph: LayerGraph) -> StaticPlan:
    if options.plan is None:
        return static_plan(options.method, graph)
    path = Path(options.plan)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise PlanError(f"--plan {options.plan}: cannot be read: {exc}") from exc
    return StaticPlan(plan=plan_from_json(text, name=str(path)).check(graph))


def counters(graph: LayerGraph, chosen: StaticPlan, workload: Workload) -> dict[str, Any]:
    """Return the memory counters side by side; the paper's terms are fp32."""
    plan = chosen.plan
    paper = counted_memory(graph, plan, full=chosen.full, batch=workload.batch, optimizer=workload.optimizer)
    sparse = microcontroller_memory(graph, plan)
    return {
        "paper_memory_rule": paper.rule,
        "updated_weight_bytes": paper.updated_weight_bytes,
        "optimizer_bytes": paper.optimizer_bytes,
        "forward_activation_bytes": paper.forward_activation_bytes,
        "saved_activation_bytes": paper.saved_activation_bytes,
        "activation_bytes": paper.activation_bytes,
        "paper_memory_bytes": paper.total_bytes,
        "parameter_bytes": paper.parameter_bytes,
        "paper_peak_bytes": paper.peak_bytes,
        "saved_exact_bytes": saved_exact_bytes(graph, plan, batch=workload.batch),
        **{f"microcontroller_{key}": value for key, value in asdict(sparse).items()},
        "microcontroller_memory_bytes": sparse.total_bytes,
    }


def macs(graph: LayerGraph, chosen: StaticPlan, workload: Workload) -> dict[str, int]:
    """Return the MACs of one image and of the whole task."""
    counted = plan_macs(graph, chosen.plan)
    return {
        "forward_macs": counted.forward,
        "input_grad_macs": counted.input_grad,
        "weight_grad_macs": counted.weight_grad,
        "backward_macs": counted.backward,
        "backward_macs_with_biases": plan_macs(graph, chosen.plan, chain="everything").backward,
        "fisher_macs": selection_macs(graph, workload),
        "training_macs": training_macs(graph, chosen.plan, workload),
    }


def _shown(key: str, value: Any) -> str:
    if value is None:
        return "unknown"
    if key.endswith("_bytes"):
        return f"{value:,} ({value / 2**20:.3f} MiB)"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
