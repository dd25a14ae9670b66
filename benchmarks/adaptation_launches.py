"""Operations that a step hands to the device: of eight tasks on their own, and of the eight together.

What a small step on a GPU takes is mostly the launching of its operations, so their number is worth knowing before a
GPU is at hand. Counted on PyTorch's device ``meta``, which runs the operations of a GPU and computes nothing; views are
left out, they launch nothing.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.adaptation_tasks import FIVE_WAY, Workbench
from tinytrain_dist.adaptation import task as task_module
from tinytrain_dist.adaptation.fine_tuning import EpisodeObjective, Tuning
from tinytrain_dist.adaptation.joint_tuning import JointTuning
from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.backbones.head import SCALE_DEFAULT
from tinytrain_dist.backbones.network import build_backbone

TOGETHER = 8
PLANS = ("last_layer", "last 2 blocks", "3 layers 50 %", "5 layers 50 %", "full_train")
MAKES_NO_KERNEL = (
    "alias", "detach", "empty", "expand", "permute", "select", "slice", "split", "squeeze", "t.", "transpose", "unbind",
    "unsqueeze", "view",
)  # fmt: skip


class Counter(TorchDispatchMode):
    """Counts the operations that would start a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.num_operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.").removeprefix("_").removeprefix("unsafe_").removeprefix("new_")
        self.num_operations += not name.startswith(MAKES_NO_KERNEL)
        return func(*args, **(kwargs or {}))


def measure_launches(bench: Workbench) -> None:
    """Operations of one step, 5-way: eight tasks each alone, and together (counted on no device)"""
    tasks = _tasks(bench)
    for name in PLANS:
        plan = bench.plans[name]
        alone = _operations(Tuning(tasks[0], plan, EpisodeObjective()))
        together = _operations(JointTuning([Tuning(task, plan, EpisodeObjective()) for task in tasks]))
        print(f"  {name:14s} {TOGETHER} x {alone} alone, {together} together: {TOGETHER * alone / together:.1f}x fewer")


def _operations(tuning: Tuning | JointTuning) -> int:
    tuning.step(0)  # the frozen layers run once
    with Counter() as counter:
        tuning.step(0)
    return counter.num_operations


def _tasks(bench: Workbench) -> list[TargetTask]:
    settings = FineTuneSettings(mode="fast")
    object.__setattr__(settings, "device", "meta")  # no setting takes it
    network = FoldedNetwork(build_backbone("mcunet", resolution=bench.graph.resolution).to("meta"))
    episodes = [bench.episode(index, settings=FIVE_WAY) for index in range(TOGETHER)]
    with mock.patch.object(task_module, "check_machine"):
        return [
            TargetTask(task_id, episode=episode, network=network, settings=settings, scale=SCALE_DEFAULT)
            for task_id, episode in episodes
        ]
