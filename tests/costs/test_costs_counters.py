"""The counters reproduce the published figures whose rule is known.

Not explained by any rule found, and therefore not asserted: 1.57M backward MACs for the last layer on mcunet (ours:
1.47M), and the tinytrain rows, the sparse_update rows of mobilenet_v2 (unpublished plans) and the tiny_tl rows.
"""

from __future__ import annotations

import pytest
from paper_tables import KIB, MIB, from_layer, plan_of, table

from tinytrain_dist.costs.counters import full_memory, paper_memory, saved_activation_bytes
from tinytrain_dist.costs.macs import fisher_macs, plan_macs
from tinytrain_dist.costs.microcontroller_counter import microcontroller_memory
from tinytrain_dist.costs.saved_exact import saved_exact_bytes
from tinytrain_dist.costs.schemes import Scheme, scheme_plan
from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan, full_plan

EXPLAINED = {("mcunet", "last_layer"), ("mobilenet_v2", "last_layer"), ("mcunet", "sparse_update")}
PLAN_ROWS = [r for r in table("backward_cost_table2") if (r["backbone"], r["method"]) in EXPLAINED]
FULL_ROWS = [r for r in table("backward_cost_table2") if r["method"] == "full_train"]
PEAK_ROWS = [r for r in table("peak_memory_table8") if (r["backbone"], r["method"]) in EXPLAINED]


def _id(row: dict[str, str]) -> str:
    return "-".join(list(row.values())[:2])


@pytest.mark.parametrize("row", PLAN_ROWS, ids=_id)
def test_backward_memory_of_plans_equals_table_2(row: dict[str, str]) -> None:
    graph = layer_graph(row["backbone"])
    memory = paper_memory(graph, plan_of(graph, row["method"]))
    assert memory.rule == "plan"
    assert round(memory.total_bytes / MIB, 2) == float(row["backward_memory_mib"])


@pytest.mark.parametrize("row", FULL_ROWS, ids=_id)
def test_full_train_formula_is_within_0_4_percent_of_table_2(row: dict[str, str]) -> None:
    memory = full_memory(layer_graph(row["backbone"]), batch=int(row["costed_batch_size"]))
    assert memory.rule == "full_train"
    assert memory.total_bytes / MIB == pytest.approx(float(row["backward_memory_mib"]), rel=0.004)


@pytest.mark.parametrize(("backbone", "mib"), [("mcunet", 16.2), ("mobilenet_v2", 15.0), ("proxylessnas", 14.1)])
def test_full_train_at_batch_1(backbone: str, mib: float) -> None:
    assert round(full_memory(layer_graph(backbone), batch=1).total_bytes / MIB, 1) == mib


@pytest.mark.parametrize("row", PEAK_ROWS, ids=_id)
def test_peak_memory_equals_table_8(row: dict[str, str]) -> None:
    graph = layer_graph(row["backbone"])
    peak = paper_memory(graph, plan_of(graph, row["method"])).peak_bytes
    assert round(peak / MIB, 2) == float(row["peak_memory_mib"])


@pytest.mark.parametrize("backbone", ["mcunet", "mobilenet_v2"])
def test_full_train_peak_is_within_0_4_percent_of_table_8(backbone: str) -> None:
    rows = table("peak_memory_table8")
    published = next(
        float(r["peak_memory_mib"]) for r in rows if (r["backbone"], r["method"]) == (backbone, "full_train")
    )
    assert full_memory(layer_graph(backbone), batch=100).peak_bytes / MIB == pytest.approx(published, rel=0.004)


@pytest.mark.parametrize(
    "row", [r for r in table("memory_breakdown_table7_mcunet_adam") if r["method"] != "tinytrain"], ids=_id
)
def test_memory_terms_equal_table_7(row: dict[str, str]) -> None:
    graph = layer_graph("mcunet")
    memory = paper_memory(graph, plan_of(graph, row["method"]))
    # the table rounds each term; 640 KiB = 0.625 MiB stands there as 0.63
    assert memory.updated_weight_bytes / MIB == pytest.approx(float(row["weights_mib"]), abs=0.0051)
    assert memory.optimizer_bytes / MIB == pytest.approx(float(row["optimizer_mib"]), abs=0.0051)
    assert memory.activation_bytes / MIB == pytest.approx(float(row["activations_mib"]), abs=0.0051)


@pytest.mark.parametrize(("backbone", "kib"), [("mcunet", 640), ("mobilenet_v2", 896), ("proxylessnas", 512)])
def test_forward_activations_at_128_pixels(backbone: str, kib: int) -> None:
    graph = layer_graph(backbone)
    assert paper_memory(graph, UpdatePlan(backbone=backbone)).forward_activation_bytes == kib * KIB


@pytest.mark.parametrize("row", table("saved_activations_table11"), ids=_id)
def test_saved_activations_are_within_0_3_percent_of_table_11(row: dict[str, str]) -> None:
    graph = layer_graph(row["backbone"])
    start = graph.last_blocks(int(row["last_k_blocks"]))[0]
    saved = saved_activation_bytes(graph, start) / KIB
    assert saved == pytest.approx(float(row["saved_activations_kib"]), rel=0.003)


@pytest.mark.parametrize(
    ("backbone", "weights"), [("mcunet", 92_160), ("mobilenet_v2", 50_176), ("proxylessnas", 36_864)]
)
def test_last_layer_is_the_last_convolution(backbone: str, weights: int) -> None:
    graph = layer_graph(backbone)
    assert paper_memory(graph, plan_of(graph, "last_layer")).updated_weight_bytes == 4 * weights


def test_sgd_keeps_the_gradient_alone() -> None:
    graph = layer_graph("mcunet")
    plan = plan_of(graph, "last_layer")
    assert paper_memory(graph, plan, optimizer="sgd").optimizer_bytes == 4 * 92_160
    assert paper_memory(graph, plan, optimizer="adam").optimizer_bytes == 12 * 92_160


def test_optimizer_state_stays_fp32_at_int8() -> None:
    graph = layer_graph("mcunet")
    memory = paper_memory(graph, plan_of(graph, "last_layer"), bytes_per_element=1)
    assert memory.updated_weight_bytes == 92_160
    assert memory.optimizer_bytes == 12 * 92_160
    assert memory.forward_activation_bytes == 160 * KIB


def test_microcontroller_counter_of_the_published_scheme() -> None:
    graph = layer_graph("mcunet")
    assert microcontroller_memory(graph, plan_of(graph, "sparse_update")).total_bytes == 102_240


@pytest.mark.parametrize("row", table("mcunetv3_schemes"), ids=_id)
def test_microcontroller_counter_names_every_published_scheme(row: dict[str, str]) -> None:
    """The names of the 15 schemes state the KiB, cut."""
    graph = layer_graph(row["backbone"])
    shares = tuple((int(layer), float(share)) for layer, share in (x.split(":") for x in row["input_shares"].split()))
    plan = scheme_plan(
        graph, Scheme(backbone=graph.name, input_shares=shares, num_last_biases=int(row["num_last_biases"]))
    )
    counted = microcontroller_memory(graph, plan).total_bytes / KIB
    assert counted - 1 < int(row["published_kib"]) <= counted


@pytest.mark.parametrize("backbone", ["mcunet", "mobilenet_v2_no_mix", "proxylessnas_no_mix"])
def test_shipped_schemes_are_published_ones(backbone: str) -> None:
    graph = layer_graph(backbone)
    counted = microcontroller_memory(graph, plan_of(graph, "sparse_update")).total_bytes
    assert int(counted / KIB) in (98, 99)


def test_microcontroller_counter_of_the_last_12_layers() -> None:
    graph = layer_graph("mcunet")
    assert microcontroller_memory(graph, from_layer(graph, 30)).total_bytes == 458_800


@pytest.mark.parametrize(("backbone", "mmacs"), [("mcunet", 44.9), ("mobilenet_v2", 34.9)])
def test_full_train_backward_is_twice_the_forward(backbone: str, mmacs: float) -> None:
    graph = layer_graph(backbone)
    macs = plan_macs(graph, full_plan(graph))
    assert macs.backward == 2 * graph.forward_macs
    assert round(macs.backward / 1e6, 1) == mmacs


def test_sparse_update_macs_with_and_without_the_chain_of_biases() -> None:
    graph = layer_graph("mcunet")
    plan = plan_of(graph, "sparse_update")
    assert round(plan_macs(graph, plan).backward / 1e6, 2) == 11.88
    assert round(plan_macs(graph, plan, chain="everything").backward / 1e6, 2) == 12.29


def test_last_layer_macs() -> None:
    mobilenet, mcunet = layer_graph("mobilenet_v2"), layer_graph("mcunet")
    assert round(plan_macs(mobilenet, plan_of(mobilenet, "last_layer")).backward / 1e6, 2) == 0.80
    assert round(plan_macs(mcunet, plan_of(mcunet, "last_layer")).backward / 1e6, 2) == 1.47  # paper: 1.57, unexplained


def test_fisher_pass_has_no_weight_gradients() -> None:
    graph = layer_graph("mcunet")
    inspected = graph.last_blocks(1)
    after_first = sum(layer.macs for layer in graph.layers[inspected[0] + 1 :])
    outputs = sum(graph.layer(index).output_elements for index in inspected)
    assert fisher_macs(graph, inspected) == graph.forward_macs + after_first + outputs
    assert fisher_macs(graph, ()) == 0


def test_empty_plan_costs_a_forward_pass() -> None:
    graph = layer_graph("proxylessnas")
    empty = UpdatePlan(backbone=graph.name)
    assert plan_macs(graph, empty).backward == 0
    assert saved_exact_bytes(graph, empty) == 0
    assert paper_memory(graph, empty).total_bytes == 512 * KIB


def test_saved_exact_counts_the_slices_a_plan_reads() -> None:
    graph = layer_graph("mcunet")
    layer = graph.layer(39)
    masks = sum(x.output_elements for x in graph.layers[39:] if x.has_activation) // 8
    by_input = UpdatePlan(backbone=graph.name, updates=(LayerUpdate(layer=39, channels=(0, 5), side="input"),))
    by_output = UpdatePlan(backbone=graph.name, updates=(LayerUpdate(layer=39, channels=(0, 5)),))
    depthwise = UpdatePlan(backbone=graph.name, updates=(LayerUpdate(layer=40, channels=(0, 5)),))
    assert saved_exact_bytes(graph, by_input) == 4 * 2 * layer.in_size**2 + masks
    assert saved_exact_bytes(graph, by_output) == 4 * layer.input_elements + masks
    assert saved_exact_bytes(graph, depthwise) == 4 * 2 * graph.layer(40).in_size ** 2 + (
        graph.layer(40).output_elements // 8
    )


@pytest.mark.parametrize("batch", [0, -1, True, 1.5])
def test_batch_must_be_a_whole_number_of_images(batch: object) -> None:
    with pytest.raises(ConfigError, match="batch"):
        full_memory(layer_graph("mcunet"), batch=batch)  # type: ignore[arg-type]


def test_unknown_optimizer_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="adam"):
        full_memory(layer_graph("mcunet"), batch=1, optimizer="adamm")
