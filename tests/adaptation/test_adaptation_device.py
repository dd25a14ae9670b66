"""``finetune.device``: the operations a GPU runs, tried without one; and against one where there is one."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_task import GRAPH, PLANS, plan_of, tiny_backbone, tiny_episode, tiny_task
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.adaptation import main as benchmark
from tinytrain_dist.adaptation import fine_tuning, fisher, task
from tinytrain_dist.adaptation.fine_tuning import Adaptation, EpisodeObjective, Objective, fine_tune
from tinytrain_dist.adaptation.fisher import fisher_information
from tinytrain_dist.adaptation.joint_tuning import JointTuning, fine_tune_together
from tinytrain_dist.adaptation.methods.raw_pixels import RawPixels
from tinytrain_dist.adaptation.methods.transductive import TransductiveObjective
from tinytrain_dist.adaptation.numerics import best_numerics, check_machine
from tinytrain_dist.adaptation.prefix_cache import PrefixCache
from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.adaptation.step_watch import STEPS_PER_LOOK, StepWatch
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.adaptation.weight_norms import channel_norms, weight_norm
from tinytrain_dist.backbones import folded, kernels
from tinytrain_dist.backbones.folded import FoldedNetwork, pool
from tinytrain_dist.backbones.head import class_means
from tinytrain_dist.foundation.compiling import forget_compiler
from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.graphs.update_plan import LayerUpdate, full_plan

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
GPU = torch.device("cuda")
END = len(GRAPH.layers)
INSPECTED = GRAPH.last_blocks(2)
FAST = FineTuneSettings(iterations=3, learning_rate=1e-4, mode="fast", pool_views=2, curve_every=1)


@pytest.fixture
def plain_operations(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """PyTorch's own operations alone, as on a GPU: no compiled loop, no fused convolution."""
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(kernels, "_FUSED", None)
    forget_compiler()
    yield
    monkeypatch.undo()
    forget_compiler()


def task_of(dtype: torch.dtype, settings: FineTuneSettings = FAST) -> TargetTask:
    backbone = tiny_backbone(dtype=dtype).to(settings.device)
    return TargetTask(
        "tiny/0", episode=tiny_episode(), network=FoldedNetwork(backbone), settings=settings, scale=10.0
    )  # fmt: skip


def outcome(dtype: torch.dtype, name: str, settings: FineTuneSettings = FAST) -> tuple[Adaptation, np.ndarray]:
    """Return a tuning, and the Fisher information of all inspected channels."""
    one = task_of(dtype, settings)
    found = fisher_information(one, INSPECTED)
    return fine_tune(one, PLANS[name]), np.concatenate([found.channels[layer] for layer in found.layers])


def assert_near(ours: tuple[Adaptation, np.ndarray], theirs: tuple[Adaptation, np.ndarray], dtype: torch.dtype) -> None:
    exact = dtype == torch.float64
    (found, delta), (wanted, expected) = ours, theirs
    np.testing.assert_allclose(
        found.losses, wanted.losses, rtol=1e-10 if exact else 1e-2, atol=1e-10 if exact else 1e-3
    )
    np.testing.assert_allclose(
        delta, expected, rtol=1e-9 if exact else 1e-3, atol=0 if exact else 1e-6 * expected.max()
    )
    assert (found.accuracy_before, found.accuracy_after, found.curve, found.status) == (
        wanted.accuracy_before, wanted.accuracy_after, wanted.curve, wanted.status,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", PLANS)
def test_plain_operations_give_what_the_fast_kernels_give(
    name: str, dtype: torch.dtype, request: pytest.FixtureRequest
) -> None:
    wanted = outcome(dtype, name)
    request.getfixturevalue("plain_operations")
    assert_near(outcome(dtype, name), wanted, dtype)


# --- no tensor of the CPU meets one of the GPU, and no step waits for a value. PyTorch's device ``meta`` stands in for
# the GPU: it is not the CPU, and it holds no values, so that nothing can read one. (FakeTensorMode cannot: indexing a
# fake tensor of a GPU needs a CUDA build.)

ELSEWHERE = torch.device("meta")


class OneDevice(TorchDispatchMode):
    """Refuses an operation on tensors of several devices (a number may come from the CPU), and counts copied images."""

    def __init__(self) -> None:
        super().__init__()
        self.copied_images = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.dim()]
        found = {x.device.type for x in given}
        assert len(found) <= 1, f"{func} on tensors of {' and '.join(sorted(found))}"
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dim() == 4 and found == {"cpu"}:
            self.copied_images += result.device.type != "cpu"
        return result


@pytest.fixture
def one_device() -> Iterator[OneDevice]:
    with OneDevice() as mode:
        yield mode


@pytest.fixture(params=["fp32", "bf16"])
def task_elsewhere(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, one_device: OneDevice
) -> TargetTask:
    """Its images are augmented on the CPU, as for a GPU."""
    monkeypatch.setattr(task, "check_machine", lambda settings: None)
    monkeypatch.setattr(folded, "overflowing", lambda graph, layers: [])  # looks at the weights, once for all tasks
    settings = replace(FAST, numerics=request.param)
    object.__setattr__(settings, "device", ELSEWHERE.type)  # no setting takes it
    network = FoldedNetwork(tiny_backbone(dtype=torch.float32).to(ELSEWHERE))
    return TargetTask("tiny/0", episode=tiny_episode(), network=network, settings=settings, scale=10.0)


def test_the_stand_in_notices_a_tensor_of_the_cpu_and_a_value_that_is_read(task_elsewhere: TargetTask) -> None:
    state = task_elsewhere.support_state(2)
    with pytest.raises(AssertionError, match=r"convolution.* on tensors of cpu and meta"):
        task_elsewhere.network.run(state._replace(x=torch.zeros(state.x.shape)), start=2, stop=3)
    with pytest.raises(RuntimeError, match="meta"):
        float(state.x.sum())


@pytest.mark.parametrize("objective", [EpisodeObjective(), TransductiveObjective()], ids=["episode", "transductive"])
@pytest.mark.parametrize("name", PLANS)
def test_a_step_stays_on_its_device_and_waits_for_nothing(
    name: str, objective: Objective, task_elsewhere: TargetTask
) -> None:
    tuning = fine_tuning.Tuning(task_elsewhere, PLANS[name], objective)
    losses = list(steps_of(tuning, count=3))
    assert {loss.device for loss in losses} == {tuning.weights.values.device} == {ELSEWHERE}
    assert tuning.watch.losses == ()


@pytest.mark.parametrize("name", PLANS)
def test_a_step_of_several_tasks_stays_on_its_device_and_waits_for_nothing(
    name: str, task_elsewhere: TargetTask
) -> None:
    tunings = [fine_tuning.Tuning(task_elsewhere, PLANS[name], EpisodeObjective()) for _ in range(2)]
    losses, gradients = JointTuning(tunings).step(0)
    assert losses.device == gradients.device == ELSEWHERE and losses.shape == (2,)
    assert gradients.shape == (2, tunings[0].weights.values.numel())


def steps_of(tuning: fine_tuning.Tuning, *, count: int) -> Iterator[torch.Tensor]:
    """Yield the loss of each of so many steps, fewer than are looked at together."""
    optimizer = fine_tuning.make_optimizer(tuning.weights.values, tuning.task.settings)
    for iteration in range(count):
        loss, tuning.weights.values.grad = tuning.step(iteration)
        optimizer.step()
        tuning.watch.add(loss, tuning.weights.values.isfinite().all())
        assert not tuning.watch.has_failed()
        yield loss


def test_every_image_is_copied_once(task_elsewhere: TargetTask, one_device: OneDevice) -> None:
    one_device.copied_images = 0  # weights are four-dimensional, too
    tuning = fine_tuning.Tuning(task_elsewhere, plan_of(LayerUpdate(layer=END - 1)), EpisodeObjective())
    copied = [one_device.copied_images for _ in steps_of(tuning, count=6)]
    assert copied[-1] == 1 + task_elsewhere.settings.pool_views, "support and views"
    assert copied[1:] == copied[-1:] * 5, "nothing after the second step"


@pytest.mark.parametrize("point", ["after_activation", "before_activation"])
def test_fisher_information_stays_on_its_device(
    point: fisher.FisherPoint, task_elsewhere: TargetTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.device] = []

    def delta_of(products: torch.Tensor) -> np.ndarray:
        seen.append(products.device)
        return np.zeros(1)

    monkeypatch.setattr(fisher, "delta_of", delta_of)
    fisher_information(task_elsewhere, INSPECTED, point=point)
    assert set(seen) == {ELSEWHERE} and len(seen) == len(INSPECTED)


def test_prototypes_of_the_query_stay_on_their_device(task_elsewhere: TargetTask) -> None:
    support, query = pool(task_elsewhere.support_state(END)), pool(task_elsewhere.query_state(END))
    logits = task_elsewhere.logits(query, class_means(support, task_elsewhere.support_labels, task_elsewhere.way))
    assert (logits.argmax(1) == task_elsewhere.query_labels).device == ELSEWHERE


# --- what is looked at later, and kept longer, changes no outcome


class LateWatch(StepWatch):
    """Looks as seldom as on a GPU."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(GPU)


DIVERGES = FineTuneSettings(iterations=20, optimizer="sgd", learning_rate=9.9, scale=1e30, mode="fast")


@pytest.mark.parametrize(
    "settings",
    [replace(FAST, iterations=23), DIVERGES, replace(DIVERGES, curve_every=3), replace(DIVERGES, iterations=2)],
)
def test_looking_at_several_steps_together_gives_the_same_outcome(
    settings: FineTuneSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = fine_tune(task_of(torch.float32, settings), full_plan(GRAPH))
    assert wanted.status == ("diverged" if settings.optimizer == "sgd" else "ok")
    monkeypatch.setattr(fine_tuning, "StepWatch", LateWatch)
    found = fine_tune(task_of(torch.float32, settings), full_plan(GRAPH))
    assert repr(found) == repr(wanted)  # NaN is not equal to itself


def test_steps_after_the_first_bad_one_are_forgotten() -> None:
    watch, good = StepWatch(GPU), torch.tensor(True)
    for loss in (1.0, 2.0, float("nan"), 3.0):
        watch.add(torch.tensor(loss), good)
        assert not watch.has_failed(), "looked at too early"
    assert watch.has_failed(now=True) and watch.has_failed()
    assert watch.losses[:2] == (1.0, 2.0) and len(watch.losses) == 3
    weights = StepWatch(GPU)
    for number in range(STEPS_PER_LOOK):
        weights.add(torch.tensor(0.5), torch.tensor(number != 4))
    assert weights.has_failed() and weights.losses == (0.5,) * 5


@pytest.mark.parametrize(("device", "times"), [("cpu", 2), ("cuda", 1)])
def test_a_gpu_keeps_the_images_it_was_given(device: str, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is on a GPU here: only what the network says of itself is changed."""
    asked: list[int] = []

    def images() -> torch.Tensor:
        asked.append(1)
        return torch.zeros(2, 3, 32, 32)

    cache = PrefixCache(FoldedNetwork(tiny_backbone(dtype=torch.float32)))
    monkeypatch.setattr(FoldedNetwork, "device", torch.device(device))
    for _ in range(2):
        assert cache.state("view 0", 0, images=images, limit_bytes=1).x.shape == (2, 3, 32, 32)
    assert len(asked) == times


# --- settings, and machines without a GPU


def test_the_reference_is_the_cpu() -> None:
    with pytest.raises(ConfigError, match=r"finetune.device: found 'cuda'; allowed: cpu, in mode reference"):
        FineTuneSettings(device="cuda")
    with pytest.raises(ConfigError, match=r"finetune.device: found 'gpu'; allowed: cpu, cuda"):
        FineTuneSettings(mode="fast", device="gpu")  # type: ignore[arg-type]


@without_gpu
def test_a_machine_without_a_gpu_computes_nothing_instead() -> None:
    settings = replace(FAST, device="cuda")
    with pytest.raises(ConfigError, match=r"finetune.device: found cuda, but torch .* sees no GPU .*set it to cpu"):
        check_machine(settings)
    with pytest.raises(ConfigError, match="sees no GPU"):
        tiny_task(tiny_backbone(), settings=settings)
    assert best_numerics("cuda") == "fp32"


@without_gpu
def test_the_benchmark_says_that_there_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["adaptation", "--device", "cuda"])
    benchmark()
    assert capsys.readouterr().out == f"no GPU: torch {torch.__version__} sees none here; nothing was measured\n"


@pytest.mark.parametrize(("has", "expected"), [(True, "bf16"), (False, "fp32")])
def test_a_gpu_takes_bf16_where_it_does_not_emulate_it(
    has: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: has or including_emulation)
    assert best_numerics("cuda") == expected
    settings = replace(FAST, device="cuda", numerics="bf16")
    if has:
        check_machine(settings)
    else:
        with pytest.raises(ConfigError, match=r"finetune.numerics: found 'bf16', but a GPU .*; allowed: fp32"):
            check_machine(settings)


# --- with a GPU


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", PLANS)
def test_a_gpu_gives_what_the_cpu_gives(name: str, dtype: torch.dtype) -> None:
    wanted, found = outcome(dtype, name), outcome(dtype, name, replace(FAST, device="cuda"))
    if dtype == torch.float64:
        np.testing.assert_allclose(found[0].losses, wanted[0].losses, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found[1], wanted[1], rtol=1e-8)
        assert found[0].accuracy_after == wanted[0].accuracy_after
    else:
        np.testing.assert_allclose(found[0].losses, wanted[0].losses, rtol=1e-2, atol=1e-3)
        assert found[0].accuracy_after == pytest.approx(wanted[0].accuracy_after, abs=0.12)


@needs_gpu
@pytest.mark.parametrize("name", PLANS)
def test_tasks_together_on_a_gpu_are_what_each_is_alone(name: str) -> None:
    network = FoldedNetwork(tiny_backbone().to(GPU))
    shots = ((3, 2, 2), (2, 3, 2), (2, 2, 3))
    tasks = [
        TargetTask(
            f"tiny/{i}", episode=tiny_episode(i, shots=shots[i]), network=network,
            settings=replace(FAST, device="cuda"), scale=10.0,
        )
        for i in range(3)
    ]  # fmt: skip
    wanted = [fine_tune(task, PLANS[name]) for task in tasks]
    assert len({outcome.losses for outcome in wanted}) == 3
    together = fine_tune_together(tasks, [PLANS[name]] * 3, objective=EpisodeObjective())
    for found, alone in zip(together, wanted, strict=True):
        np.testing.assert_allclose(found.losses, alone.losses, rtol=1e-9, atol=1e-9)
        assert found.accuracy_after == alone.accuracy_after


@needs_gpu
def test_what_needs_no_gpu_is_the_same_beside_one() -> None:
    here, there = task_of(torch.float32), task_of(torch.float32, replace(FAST, device="cuda"))
    assert RawPixels().adapt(there, plan_of()) == RawPixels().adapt(here, plan_of())
    assert torch.equal(there.view(1).cpu(), here.view(1)), "the same augmented images"
    assert weight_norm(there.network, 3) == weight_norm(here.network, 3)
    np.testing.assert_array_equal(channel_norms(there.network, 3, "output"), channel_norms(here.network, 3, "output"))


@needs_gpu
def test_no_step_waits_for_the_gpu() -> None:
    one = task_of(torch.float32, replace(FAST, device="cuda"))
    tuning = fine_tuning.Tuning(one, plan_of(LayerUpdate(layer=END - 1)), EpisodeObjective())
    steps = steps_of(tuning, count=6)
    for _ in range(2):
        assert next(steps).is_cuda  # every view has been copied
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(steps)) == 4
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_gpu
def test_bf16_on_a_gpu_learns_as_float32() -> None:
    if best_numerics("cuda") != "bf16":
        pytest.skip("this GPU has no bf16")
    on_gpu = replace(FAST, device="cuda")
    single, half = (outcome(torch.float32, "everything", s)[0] for s in (on_gpu, replace(on_gpu, numerics="bf16")))
    assert half.losses == pytest.approx(single.losses, rel=0.15, abs=0.02) and half.losses != single.losses
