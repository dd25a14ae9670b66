"""Prices: the columns of a row, phases, swap, energy, verdicts."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paper_tables import MIB, plan_of
from plan_strategies import plans

from tinytrain_dist.costs.counters import paper_memory
from tinytrain_dist.costs.energy import PhaseTimes, phase_energies
from tinytrain_dist.costs.extrapolation import network_operations
from tinytrain_dist.costs.fit import counted_memory, fixed_bytes, free_bytes
from tinytrain_dist.costs.intervals import interval_factor
from tinytrain_dist.costs.latency import forward_ms, image_pass, optimizer_step_ms
from tinytrain_dist.costs.lifetime import lifetime_memory
from tinytrain_dist.costs.macs import fisher_macs, plan_macs
from tinytrain_dist.costs.prediction import predict
from tinytrain_dist.costs.pricing import Price, Workload, device_budget, plan_memory_bytes, price
from tinytrain_dist.costs.profile_files import load_profile, load_profiles
from tinytrain_dist.costs.profiles import DeviceProfile
from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.graphs.adapters import adapter_plan, block_ends, lite_residuals
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import UpdatePlan, full_plan
from tinytrain_dist.simulation.schema import COLUMNS

MCUNET = layer_graph("mcunet")
SPARSE = plan_of(MCUNET, "sparse_update")
NONE = UpdatePlan(backbone="mcunet")
ZERO, F746 = load_profile("raspberry_pi_zero_2"), load_profile("stm32f746")
WORK = Workload(support_size=25, iterations=40)
HUNDRED = replace(WORK, batch=100, full=True, paper_convention=True)


def test_price_has_the_columns_of_a_row() -> None:
    names = {column.name for column in COLUMNS}
    assert {field.name for field in fields(Price)} <= names
    first, last = "batch", "standing"
    order = [column.name for column in COLUMNS]
    costs = set(order[order.index(first) : order.index(last) + 1]) | {"price_numerics"}
    assert {field.name for field in fields(Price)} == costs


def test_an_iteration_passes_support_and_pseudo_query_images() -> None:
    macs = plan_macs(MCUNET, SPARSE)
    inspected = MCUNET.last_blocks(6)
    priced = price(MCUNET, SPARSE, ZERO, replace(WORK, inspected=inspected))
    assert priced.training_macs == 40 * 25 * (2 * (macs.forward + macs.backward) + macs.forward)
    assert priced.fisher_macs == 2 * 25 * fisher_macs(MCUNET, inspected)
    assert 0 < priced.selection_ms < 0.1 * priced.training_ms


def test_the_papers_convention_of_25_passes_is_half_of_a_step_that_holds_the_task() -> None:
    paper = price(MCUNET, SPARSE, ZERO, replace(WORK, paper_convention=True))
    assert 2 * paper.training_macs == price(MCUNET, SPARSE, ZERO, replace(WORK, batch=50)).training_macs


def test_prototypes_need_a_second_forward_pass_below_the_batch_of_the_whole_task() -> None:
    whole, part = (price(MCUNET, SPARSE, F746, replace(WORK, batch=batch)) for batch in (50, 49))
    assert part.training_macs - whole.training_macs == 40 * 25 * MCUNET.forward_macs
    assert part.training_ms - whole.training_ms == pytest.approx(40 * 25 * forward_ms(MCUNET, F746))


def test_a_batch_holds_no_more_images_than_there_are() -> None:
    plan = full_plan(MCUNET)
    fifty, hundred = (price(MCUNET, plan, ZERO, replace(WORK, full=True, batch=batch)) for batch in (50, 100))
    assert fifty == hundred
    assert hundred.batch == 50
    assert price(MCUNET, NONE, ZERO, replace(WORK, batch=100)).batch == 25
    paper = price(MCUNET, plan, ZERO, HUNDRED)
    assert paper.batch == 100
    assert paper.paper_memory_bytes > 1.9 * hundred.paper_memory_bytes


def test_fit_on_a_limit_without_a_source_needs_twice_of_it() -> None:
    sourced = load_profile("stm32h743")
    bare = sourced.model_copy(update={"provenance": {}})
    priced = price(MCUNET, SPARSE, sourced, WORK)
    high, low = priced.peak_high_bytes, priced.peak_low_bytes
    for ram, known, unknown in ((2 * high, "yes", "yes"), (2 * high - 2, "yes", "uncertain"),
                                (low // 2 + 1, "no", "uncertain"), (low // 2 - 1, "no", "no")):  # fmt: skip
        limits = {"ram_bytes": ram, "flash_bytes": None}
        found = [price(MCUNET, SPARSE, p.model_copy(update=limits), WORK).fits for p in (sourced, bare)]
        assert found == [known, unknown]


def test_query_images_in_the_loss_need_the_prototypes_too() -> None:
    """``transductive``: support, its augmented copy and the query; below their batch the support passes once more."""
    more = replace(WORK, extra_images=75)
    macs = plan_macs(MCUNET, SPARSE)
    both = macs.forward + macs.backward
    assert price(MCUNET, SPARSE, F746, more).training_macs == 40 * (125 * both + 25 * macs.forward)
    assert price(MCUNET, SPARSE, F746, replace(more, batch=125)).training_macs == 40 * 125 * both


@pytest.mark.parametrize("work", [replace(WORK, iterations=0), WORK])
def test_none_makes_prototypes_with_one_forward_pass_per_support_image(work: Workload) -> None:
    priced = price(MCUNET, NONE, F746, work)
    assert priced.training_macs == 25 * MCUNET.forward_macs
    assert priced.selection_ms == 0
    assert priced.fits == "yes"


def test_phases_add_up_and_an_estimate_may_be_half_or_double() -> None:
    priced = price(MCUNET, SPARSE, ZERO, WORK)
    phases = priced.load_ms + priced.selection_ms + priced.training_ms + priced.swap_ms
    assert priced.latency_ms == pytest.approx(phases)
    unmeasured = load_profile("max78000").model_copy(update={"active_power_w": 0.1, "io_power_w": 0.1})
    bare = price(MCUNET, SPARSE, unmeasured, WORK)
    assert (bare.latency_low_ms, bare.latency_high_ms) == (bare.latency_ms / 2, bare.latency_ms * 2)
    assert bare.energy_mj is not None
    assert bare.energy_low_mj == bare.energy_mj / 2
    assert bare.energy_high_mj == bare.energy_mj * 2
    assert priced.standing == "estimate"


def test_full_train_at_batch_100_swaps_on_512_mb_and_the_sparse_plan_does_not() -> None:
    swapping = price(MCUNET, full_plan(MCUNET), ZERO, HUNDRED)
    sparse = price(MCUNET, SPARSE, ZERO, WORK)
    assert swapping.fits == "no"
    assert swapping.ram_margin_bytes < 0
    excess = swapping.peak_bytes - 512 * MIB
    assert swapping.swap_ms == pytest.approx(2 * 40 * 1e3 * excess / ZERO.storage_bandwidth_bytes_per_s)
    assert swapping.swap_ms > swapping.training_ms
    assert sparse.fits == "yes"
    assert sparse.swap_ms == 0


def test_a_microcontroller_cannot_swap() -> None:
    priced = price(MCUNET, full_plan(MCUNET), F746, HUNDRED)
    assert priced.fits == "no"
    assert priced.swap_ms == 0
    assert priced.load_ms == 0


def test_peak_adds_resident_parameters_and_the_system_on_linux_alone() -> None:
    on_board = price(MCUNET, SPARSE, ZERO, WORK)
    assert on_board.peak_bytes == on_board.paper_memory_bytes + 4 * MCUNET.parameters + ZERO.os_overhead_bytes
    on_chip = price(MCUNET, SPARSE, F746, WORK)
    assert fixed_bytes(MCUNET, F746) == 0
    assert on_chip.peak_bytes == plan_memory_bytes(MCUNET, SPARSE, F746)
    assert on_chip.peak_bytes == lifetime_memory(MCUNET, SPARSE, optimizer="adam").total_bytes


def test_fits_is_uncertain_inside_the_counters_own_error() -> None:
    peak = price(MCUNET, SPARSE, F746, WORK).peak_bytes
    at = {
        name: price(MCUNET, SPARSE, F746.model_copy(update={"ram_bytes": ram}), WORK)
        for name, ram in {
            "yes": -(-110 * peak // 100), "just not": 110 * peak // 100 - 1, "even": peak, "no": 70 * peak // 100 - 1,
        }.items()
    }  # fmt: skip
    assert {name: priced.fits for name, priced in at.items()} == {
        "yes": "yes", "just not": "uncertain", "even": "uncertain", "no": "no",
    }  # fmt: skip
    assert at["even"].ram_margin_bytes == 0
    assert at["even"].peak_low_bytes < peak < at["even"].peak_high_bytes


def test_flash_is_uncertain_inside_the_assumed_code_allowance() -> None:
    flash = price(MCUNET, NONE, F746, WORK).flash_bytes
    half = F746.code_allowance_bytes // 2
    words = [
        price(MCUNET, NONE, F746.model_copy(update={"flash_bytes": flash + extra}), WORK).fits
        for extra in (half, half - 1, 0, -half, -half - 1)
    ]
    assert words == ["yes", "uncertain", "uncertain", "uncertain", "no"]


def test_adapters_cost_time_flash_and_memory() -> None:
    methods = ("none", "adapter_drop_75", "adapter_drop_50", "adapter_drop_25", "tiny_tl")
    for device in (ZERO, F746):
        priced = [price(MCUNET, plan_of(MCUNET, method), device, WORK) for method in methods]
        for key in ("training_ms", "flash_bytes", "training_macs", "peak_bytes"):
            values = [getattr(x, key) for x in priced]
            assert values == sorted(values), key
        modules = lite_residuals(MCUNET, block_ends(MCUNET))
        stored = sum(m.weights * device.bytes_per_element + 4 * m.norm_parameters for m in modules)
        assert priced[-1].flash_bytes - priced[0].flash_bytes == stored


def test_the_papers_columns_do_not_depend_on_the_device() -> None:
    shared = [f.name for f in fields(Price) if f.name.startswith(("paper_", "saved_", "updated_"))]
    first, second = price(MCUNET, SPARSE, ZERO, WORK), price(MCUNET, SPARSE, F746, WORK)
    assert [getattr(first, name) for name in shared] == [getattr(second, name) for name in shared]
    assert round(first.paper_memory_bytes / MIB, 2) == 1.43


def test_flash_holds_stored_parameters_and_code() -> None:
    priced = price(MCUNET, SPARSE, F746, WORK)
    stored = MCUNET.weights + 4 * MCUNET.norm_parameters
    assert priced.flash_bytes == stored + F746.code_allowance_bytes
    assert priced.flash_margin_bytes == 1024 * 1024 - priced.flash_bytes
    assert price(MCUNET, SPARSE, ZERO, WORK).flash_margin_bytes is None


def test_too_little_flash_does_not_fit() -> None:
    tiny = F746.model_copy(update={"flash_bytes": 100_000})
    priced = price(MCUNET, NONE, tiny, WORK)
    assert priced.ram_margin_bytes > 0
    assert priced.fits == "no"


def test_unknown_power_gives_no_energy() -> None:
    priced = price(MCUNET, SPARSE, load_profile("stm32h747"), WORK)
    assert priced.energy_mj is None
    assert priced.training_mj is None
    assert priced.energy_low_mj is None
    assert priced.latency_ms > 0


def test_energy_is_power_of_the_phase_times_its_time() -> None:
    times = PhaseTimes(load_ms=10.0, selection_ms=20.0, training_ms=30.0, swap_ms=40.0)
    board = phase_energies(times, ZERO)
    assert ZERO.active_power_w is not None and ZERO.io_power_w is not None
    assert board.training_mj == ZERO.active_power_w * 30
    assert board.total_mj == pytest.approx(ZERO.active_power_w * 50 + ZERO.io_power_w * 50)
    assert phase_energies(times, F746).total_mj == pytest.approx(0.3 * 100)


def test_a_training_step_on_the_stm32f746_lies_in_the_interval_of_the_estimate() -> None:
    """Published: 546 ms for one sparse step of mcunet at 128 pixels (arXiv 2206.15472, Fig. 10)."""
    step_ms = image_pass(MCUNET, SPARSE, F746).total_ms + optimizer_step_ms(MCUNET, SPARSE, F746, optimizer="sgd")
    factor = interval_factor(F746)
    assert step_ms / factor < 546 < step_ms * factor


def test_budget_of_a_device_and_of_the_paper() -> None:
    own = device_budget(MCUNET, F746, memory_bytes=None, compute_share=0.15)
    assert own.memory_bytes == 100 * F746.ram_bytes // 110
    assert own.backward_macs == int(0.15 * 2 * MCUNET.forward_macs)
    assert device_budget(MCUNET, F746, memory_bytes=1_000_000, compute_share=0.15).memory_bytes == 1_000_000
    assert plan_memory_bytes(MCUNET, SPARSE) == price(MCUNET, SPARSE, F746, WORK).paper_memory_bytes


def test_a_stated_budget_counts_modules_too() -> None:
    """Otherwise every lite residual module would be free under ``budget.memory_bytes``."""
    graph = layer_graph("mcunet", 84)
    adapters = adapter_plan(graph)
    for optimizer, batch, size in (("adam", 1, 4), ("sgd", 5, 4), ("adam", 1, 1)):
        both = counted_memory(graph, adapters, optimizer=optimizer, batch=batch, bytes_per_element=size).total_bytes
        assert plan_memory_bytes(graph, adapters, size, optimizer=optimizer, batch=batch) == both
        assert (
            both > paper_memory(graph, adapters, optimizer=optimizer, batch=batch, bytes_per_element=size).total_bytes
        )
    assert plan_memory_bytes(graph, adapters, 4) == 3_569_536


def test_a_device_without_free_memory_has_a_budget_nothing_fits() -> None:
    full = ZERO.model_copy(update={"ram_bytes": 1000})
    assert device_budget(MCUNET, full).memory_bytes == 1
    assert free_bytes(MCUNET, full) < -1000
    for profile in (full, ZERO, F746):
        found = device_budget(MCUNET, profile).missing_bytes(10**9)
        assert found == 10**9 - free_bytes(MCUNET, profile)
    assert device_budget(MCUNET, full, memory_bytes=1000).missing_bytes(1500) == 500
    assert device_budget(MCUNET, ZERO).missing_bytes(0) == 0


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, float("nan")])
def test_compute_share_must_be_a_share(share: float) -> None:
    with pytest.raises(ConfigError, match="compute_share"):
        device_budget(MCUNET, F746, compute_share=share)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"support_size": 0}, "support_size"),
        ({"iterations": -1}, "iterations"),
        ({"batch": 0}, "batch"),
        ({"optimizer": "adagrad"}, "optimizer"),
        ({"way": 0}, "way"),
        ({"extra_images": -1}, "extra_images"),
        ({"extra_images": 3, "paper_convention": True}, "extra_images"),
    ],
)
def test_a_bad_workload_says_which_setting(change: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        replace(WORK, **change)  # type: ignore[arg-type]


def test_what_lies_outside_the_measured_rows_is_named_and_wider_with_the_distance() -> None:
    """The Raspberry Pi's rows are of networks with 314 million MACs and more; mcunet has 22 million: an estimate."""
    far, near = price(MCUNET, NONE, ZERO, WORK), price(layer_graph("mcunet", 512), NONE, ZERO, WORK)
    assert ZERO.calibration.forward is not None
    inside = ZERO.calibration.forward.interval_factor
    assert "macs" in far.extrapolated.split(", ")
    assert near.extrapolated == "weights"
    compute = far.latency_ms - far.load_ms
    distance = ZERO.calibration.forward.measured_range["macs"][0] / MCUNET.forward_macs
    assert far.standing == "estimate" and near.standing == "fitted"
    assert (far.latency_high_ms - 2 * far.load_ms) / compute > 2
    assert (far.latency_high_ms - 2 * far.load_ms) / compute >= max(inside, distance**0.5) * (1 - 1e-9)
    bare = load_profile("max78000")
    assert price(MCUNET, NONE, bare, WORK).extrapolated == ""  # no rows at all: an estimate, and so it says
    assert predict(ZERO, network_operations(MCUNET)).extrapolated == tuple(far.extrapolated.split(", "))


def test_more_backward_macs_than_were_measured_are_named() -> None:
    paper = load_profile("raspberry_pi_zero_2--tinytrain-paper--fp32--t4--cpu")
    assert price(MCUNET, SPARSE, paper, WORK).extrapolated == ""
    large = layer_graph("mcunet", 224)
    assert price(large, full_plan(large), paper, WORK).extrapolated == "forward_macs, backward_macs"
    assert price(large, NONE, paper, WORK).extrapolated == ""  # nothing trains, and no forward rows exist


def test_uncertain_memory_is_uncertain_swapping() -> None:
    peak = price(MCUNET, SPARSE, ZERO, WORK).peak_bytes
    exact = price(MCUNET, SPARSE, ZERO.model_copy(update={"ram_bytes": peak}), WORK)
    roomy = price(MCUNET, SPARSE, ZERO.model_copy(update={"ram_bytes": 2 * peak}), WORK)
    assert (exact.fits, exact.swap_ms) == ("uncertain", 0)
    assert exact.latency_ms == roomy.latency_ms and exact.latency_low_ms == roomy.latency_low_ms
    assert exact.latency_high_ms > roomy.latency_high_ms
    assert exact.energy_high_mj is not None and roomy.energy_high_mj is not None
    assert exact.energy_high_mj > roomy.energy_high_mj


@settings(max_examples=40, deadline=None)
@given(
    plans(biases=True, adapters=True), st.sampled_from(load_profiles()), st.integers(1, 60), st.integers(0, 40),
    st.integers(1, 120), st.integers(8, 400),
)  # fmt: skip
def test_every_interval_holds_its_value_and_grows_with_the_work(
    case: tuple[LayerGraph, UpdatePlan], profile: DeviceProfile, support: int, iterations: int, batch: int, ram: int
) -> None:
    graph, plan = case
    device = profile.model_copy(update={"ram_bytes": profile.os_overhead_bytes + ram * 100_000})
    work = Workload(support_size=support, iterations=iterations, batch=batch)
    less = price(graph, plan, device, work)
    more = price(graph, plan, device, replace(work, support_size=2 * support))
    for first in (less, more):
        assert first.peak_low_bytes <= first.peak_bytes <= first.peak_high_bytes
        assert 0 < first.latency_low_ms <= first.latency_ms <= first.latency_high_ms
        if first.energy_mj is not None:
            assert first.energy_low_mj is not None and first.energy_high_mj is not None
            assert 0 < first.energy_low_mj <= first.energy_mj <= first.energy_high_mj
    if batch <= support:  # above, twice the images may fill one batch better and need no second forward pass
        assert less.latency_low_ms <= more.latency_low_ms and less.latency_high_ms <= more.latency_high_ms


@pytest.mark.parametrize("profile", load_profiles(), ids=lambda profile: profile.name)
@pytest.mark.parametrize("precision", ["as it is", "fp16", "int8"])
def test_a_forward_pass_is_priced_as_it_is_predicted(profile: DeviceProfile, precision: str) -> None:
    """Bytes of the precision the rows were measured in, whatever the memory is counted at."""
    if precision != "as it is":
        profile = profile.model_copy(update={"precision": precision})
    found = predict(profile, network_operations(MCUNET)).latency_ms
    assert forward_ms(MCUNET, profile) == pytest.approx(found, rel=1e-9)
