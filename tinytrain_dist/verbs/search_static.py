"""``tinytrain search-static``: finds a static scheme for sparse_update on meta-validation tasks and stores it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinytrain_dist.adaptation.settings import FineTuneSettings, check_rate
from tinytrain_dist.backbones.shipped_weights import SHIPPED, shipped_path
from tinytrain_dist.backbones.weight_words import RANDOM
from tinytrain_dist.data.episodes import EpisodeSettings
from tinytrain_dist.execution.settings import KINDS, ExecutorSettings, cluster
from tinytrain_dist.foundation.errors import ConfigError, ExitCode
from tinytrain_dist.foundation.logs import start_logging
from tinytrain_dist.foundation.paths import local_path
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_graph import RESOLUTION_DEFAULT
from tinytrain_dist.simulation.scheme_search import Evolution
from tinytrain_dist.simulation.search_static import SearchSettings, search_static
from tinytrain_dist.verbs.arguments import VerbParser, print_json
from tinytrain_dist.verbs.compose import command_line

POOL_VIEWS = 8
"""Enough to rank schemes by; what the shipped ones were found with."""


def main(argv: list[str]) -> ExitCode:
    """Run the verb."""
    options = _parser().parse(argv)
    start_logging()
    check_rate(options.learning_rate, key="--learning-rate")
    settings = SearchSettings(
        backbone=options.backbone,
        memory_bytes=_bytes(options.budget_memory_bytes),
        compute_share=options.budget_compute_share,
        weights=_weights(options.weights, backbone=options.backbone),
        evolution=Evolution(generations=options.generations, population=options.population, seed=options.seed),
        num_tasks=options.tasks,
        episodes=EpisodeSettings(way=options.way, shot=options.shot, query=options.query),
        resolution=options.resolution,
        budget_resolution=options.budget_resolution,
        finetune=FineTuneSettings(
            mode="fast",
            pool_views=POOL_VIEWS,
            iterations=max(0, options.iterations),
            learning_rate=options.learning_rate,
        ),
    )
    executor = ExecutorSettings(kind=options.executor, num_workers=options.num_workers)
    out = local_path(options.out, what="--out")
    with cluster(executor):
        file = search_static(settings, out=out, executor=executor, command=command_line("search-static", argv))
    found = file.model_dump() | {"file": str(out)}
    if options.json:
        print_json(found)
    else:
        print(_text(found, out))
    return ExitCode.DONE


def _parser() -> VerbParser:
    parser = VerbParser(
        "search-static",
        description="Evolutionary search of a static scheme for sparse_update under a budget, on classes of the\n"
        "source domains (emoji, icons) that no test uses. The same command resumes.",
        example="tinytrain search-static --backbone mcunet --budget-memory-bytes 1000000 --generations 2 --population 4"
        " --tasks 2 --iterations 5 --out scheme.yaml",
    )
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--budget-memory-bytes", required=True, metavar="BYTES",
                        help="weights, Adam and activations of the update (fp32, batch 1), in bytes")  # fmt: skip
    parser.add_argument("--budget-compute-share", type=float, default=0.15, metavar="SHARE",
                        help="of FullTrain's backward MACs (default %(default)s)")  # fmt: skip
    parser.add_argument(
        "--weights",
        metavar="FILE",
        default=SHIPPED,
        help="checkpoint; shipped: the package's; random: of the seed, a scheme for trials (default %(default)s)",
    )
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="scheme to write (YAML); scores are kept beside it"
    )
    parser.add_argument("--generations", type=int, default=20, help="default %(default)s")
    parser.add_argument("--population", type=int, default=8, help="new schemes per generation (default %(default)s)")
    parser.add_argument("--tasks", type=int, default=8,
                        help="tasks of the evolution; as many choose among its best, as many are held out "
                        "(default %(default)s)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of tasks and evolution (default %(default)s)")
    parser.add_argument("--way", type=int, default=5, help="classes of a task (default %(default)s)")
    parser.add_argument("--shot", type=int, default=5, help="support images per class (default %(default)s)")
    parser.add_argument("--query", type=int, default=10, help="query images per class (default %(default)s)")
    parser.add_argument("--resolution", type=int, default=84, help="pixels of the tasks (default %(default)s)")
    parser.add_argument("--budget-resolution", type=int, default=128, help="pixels of the budget (default %(default)s)")
    parser.add_argument("--iterations", type=int, default=40, help="of each tuning (default %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=FineTuneSettings().learning_rate,
                        help="of each tuning (default %(default)s)")  # fmt: skip
    parser.add_argument("--executor", default="ray", help=f"{' or '.join(KINDS)} (default %(default)s)")
    parser.add_argument("--num-workers", type=int, default=None, help="CPUs to use (default: all)")
    return parser


def _weights(word: str, *, backbone: str) -> Path | None:
    """Return the checkpoint; ``None``: random weights, as in a simulation with ``backbone.weights=random``."""
    if word == RANDOM:
        return None
    layer_graph(backbone, RESOLUTION_DEFAULT)  # an unknown network is not one without shipped weights
    return shipped_path(backbone) if word == SHIPPED else local_path(word, what="--weights")


def _bytes(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise ConfigError(
            f"--budget-memory-bytes: found {text!r}; allowed: a whole number of bytes above 0, without a unit"
        )
    return int(text)


def _text(found: dict[str, Any], out: Path) -> str:
    search = found["search"]
    layers = ", ".join(f"{layer} ({share:g})" for layer, share in found["input_shares"].items())
    lines = [
        f"layers (share of input channels): {layers}; last biases: {found['num_last_biases']}",
        f"{found['updated_weights']} weights, {found['backward_macs']} backward MACs, {found['memory_bytes']} bytes",
        "accuracy before and after:",
        *(f"  {words}: {100 * before:.1f} %, {100 * after:.1f} %" for words, before, after in _sets(search)),
        "other finalists after (evolution, validation, held out):",
    ]
    lines += [f"  {name}: {', '.join(f'{100 * x:.1f} %' for x in row)}" for name, row in search["others"].items()]
    return "\n".join([*lines, f"scheme: {out}"])


def _sets(search: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Return each set of tasks with its accuracies before and after."""
    return [
        ("tasks of the evolution", search["accuracy_before"], search["accuracy"]),
        ("validation, by which it was chosen", search["validation_accuracy_before"], search["validation_accuracy"]),
        ("held out, by which nothing was chosen", search["held_out_accuracy_before"], search["held_out_accuracy"]),
    ]
