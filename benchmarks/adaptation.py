"""Tunings and a grid of methods and devices, the plain way and ours, beside the targets.

Run from the repository: ``python -m benchmarks.adaptation [--tasks N] [--repeats N] [--weights FILE]``. One process,
one thread, the same tasks, plans and random numbers in all arms: plain (``benchmarks/plain_adaptation.py``), plain
with identical plans tuned once, ours in mode ``reference`` and in mode ``fast``, there in float32 and, where the CPU
has instructions for it, in bf16. Memory that is freed is kept, as in every worker. Seconds are CPU seconds of the
process, arms take turns, the smallest of the repeats counts. mcunet, 84 pixels, 20-way 5-shot, 40 iterations.

``--device cuda`` compares mode fast on this machine's CPU and on its GPU, in tasks per second (wall clock) by tasks in
flight; without a GPU it says so.

Weights: ``--weights FILE`` (a checkpoint), else the published ones in TINYTRAIN_REFERENCE_DIR, else random ones.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before NumPy and PyTorch start their threads

# ruff: noqa: E402
import torch

from benchmarks.adaptation_accuracy import measure_accuracy
from benchmarks.adaptation_gpu import NO_GPU, measure_gpu
from benchmarks.adaptation_launches import measure_launches
from benchmarks.adaptation_measures import (
    measure_float64,
    measure_grid,
    measure_macs_order,
    measure_plans,
    measure_stages,
)
from benchmarks.adaptation_rates import measure_rates
from benchmarks.adaptation_selection import measure_selection
from benchmarks.adaptation_tasks import PLAN_NAMES, Workbench
from tinytrain_dist.backbones.checkpoint import load_checkpoint
from tinytrain_dist.backbones.flat_state import flat_to_state
from tinytrain_dist.backbones.importers import IMPORTERS
from tinytrain_dist.backbones.network import Backbone, build_backbone
from tinytrain_dist.execution.threads import keep_freed_memory, use_one_thread

RESOLUTION = 84
PARTS = {
    "rates": measure_rates,
    "stages": measure_stages,
    "selection": measure_selection,
    "plans": measure_plans,
    "grid": measure_grid,
    "macs": measure_macs_order,
    "float64": measure_float64,
    "accuracy": measure_accuracy,
    "launches": measure_launches,
    "gpu": measure_gpu,
}


def main() -> None:
    """Print every part that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1, help="tasks of the timed parts (default 1)")
    parser.add_argument("--repeats", type=int, default=2, help="the smallest time of so many counts (default 2)")
    parser.add_argument("--accuracy-tasks", type=int, default=0, help="tasks that compare the arms, domains in turn")
    parser.add_argument(
        "--accuracy-plans", nargs="+", choices=PLAN_NAMES, default=["3 layers 50 %"], help="what they tune"
    )
    parser.add_argument("--iterations", type=int, default=40, help="steps of a tuning (default 40)")
    parser.add_argument("--weights", type=Path, help="checkpoint of mcunet")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: the part 'gpu' and no other")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print(NO_GPU)
        return
    parts = ["gpu"] if options.device == "cuda" else options.parts
    use_one_thread()
    keep_freed_memory()
    backbone, source = weights(options.weights)
    print(f"weights: {source}; torch {torch.__version__}, one thread, {options.repeats} repeats, CPU seconds")
    bench = Workbench(
        backbone,
        num_tasks=options.tasks,
        repeats=options.repeats,
        iterations=options.iterations,
        accuracy_tasks=options.accuracy_tasks,
        accuracy_plans=tuple(options.accuracy_plans),
    )
    for part in parts:
        print(f"\n{(PARTS[part].__doc__ or part).splitlines()[0]}")
        PARTS[part](bench)


def weights(path: Path | None) -> tuple[Backbone, str]:
    """Return the backbone and a word on where its weights come from."""
    if path is not None:
        return load_checkpoint(path).build(resolution=RESOLUTION), str(path)
    backbone, folder = build_backbone("mcunet", resolution=RESOLUTION), os.environ.get("TINYTRAIN_REFERENCE_DIR")
    if folder is None:
        return backbone, "RANDOM (accuracies mean nothing; set TINYTRAIN_REFERENCE_DIR or --weights)"
    file = Path(folder) / "weights" / "tiny-training" / "mcunet-5fps.pkl"
    flat_to_state(backbone, IMPORTERS["tiny_training"].read(file, graph=backbone.graph))
    return backbone, "published ImageNet weights (mit-han-lab/tiny-training, mcunet-5fps)"


if __name__ == "__main__":
    main()
