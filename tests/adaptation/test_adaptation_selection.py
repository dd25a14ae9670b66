"""Algorithm 1 and its laws: budgets hold, more budget never loses, channel names do not matter."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_task import GRAPH

from tinytrain_dist.adaptation.criteria import CRITERIA
from tinytrain_dist.adaptation.selection import Decision, SelectionInput, layer_order, select_plan, top_channels
from tinytrain_dist.adaptation.settings import SelectionSettings
from tinytrain_dist.costs.counters import paper_memory
from tinytrain_dist.costs.macs import plan_macs
from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.graphs.budget import Budget
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan, side_channels

INSPECTED = GRAPH.last_blocks(3)
PLENTY = Budget(memory_bytes=10**9, backward_macs=10**12)
Deltas = Mapping[int, Sequence[int]]


def memory_of(plan: UpdatePlan) -> int:
    return paper_memory(GRAPH, plan).total_bytes


def backward_macs(plan: UpdatePlan) -> int:
    return plan_macs(GRAPH, plan).backward


def selection_input(deltas: Deltas, *, budget: Budget = PLENTY, **settings: object) -> SelectionInput:
    return SelectionInput(
        graph=GRAPH,
        delta={layer: np.array(values, dtype=np.float64) for layer, values in deltas.items()},
        weight_norms={layer: float(layer % 4) for layer in deltas},
        channel_norms=lambda layer, side: np.arange(side_channels(GRAPH.layer(layer), side), dtype=np.float64),
        budget=budget,
        memory_of=memory_of,
        settings=SelectionSettings(**settings),  # type: ignore[arg-type]
        task_id="tiny/0",
    )


def flat(value: int = 1) -> dict[int, list[int]]:
    return {layer: [value] * GRAPH.layer(layer).out_channels for layer in INSPECTED}


@st.composite
def all_deltas(draw: st.DrawFn) -> dict[int, list[int]]:
    """Whole numbers: their sum does not depend on the order of the channels."""
    seed = draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    scale = {layer: int(10 ** rng.uniform(1, 6)) for layer in INSPECTED}
    return {i: rng.integers(0, scale[i], GRAPH.layer(i).out_channels).tolist() for i in INSPECTED}


EVERYTHING = select_plan(selection_input(flat(), channel_ratio=1.0)).plan
LEAST = UpdatePlan(backbone="tiny", updates=(LayerUpdate(layer=9, channels=(0, 1)),))
budgets = st.builds(
    Budget,
    memory_bytes=st.integers(int(0.9 * memory_of(LEAST)), int(1.1 * memory_of(EVERYTHING))),
    backward_macs=st.integers(int(0.9 * backward_macs(LEAST)), int(1.1 * backward_macs(EVERYTHING))),
)
choices = st.fixed_dictionaries(
    {
        "criterion": st.sampled_from(sorted(CRITERIA)),
        "channel_ratio": st.sampled_from([1.0, 0.5, 0.25, 0.125]),
        "side": st.sampled_from(["output", "input"]),
        "on_overflow": st.sampled_from(["skip", "stop"]),
    }
)


def importance(given_input: SelectionInput, decision: Decision) -> float:
    return sum(float(given_input.delta[update.layer].sum()) for update in decision.plan.updates)


@given(all_deltas(), budgets, choices)
def test_a_plan_never_costs_more_than_its_budget(deltas: Deltas, budget: Budget, chosen: dict[str, object]) -> None:
    decision = select_plan(selection_input(deltas, budget=budget, **chosen))
    decision.plan.check(GRAPH)
    assert (decision.status == "infeasible") == decision.plan.is_empty == (decision.reason is not None)
    if decision.status == "ok":
        assert memory_of(decision.plan) <= budget.memory_bytes
        assert backward_macs(decision.plan) <= budget.backward_macs


@given(all_deltas(), budgets, budgets, choices)
def test_stopping_at_overflow_a_bigger_budget_never_loses_importance(
    deltas: Deltas, first: Budget, second: Budget, chosen: dict[str, object]
) -> None:
    small = Budget(
        memory_bytes=min(first.memory_bytes, second.memory_bytes),
        backward_macs=min(first.backward_macs, second.backward_macs),
    )
    chosen = chosen | {"on_overflow": "stop"}
    low, high = (selection_input(deltas, budget=b, **chosen) for b in (small, first))
    poor, rich = select_plan(low), select_plan(high)
    assert set(poor.plan.updates) <= set(rich.plan.updates)
    assert importance(low, poor) <= importance(high, rich)


@given(all_deltas(), budgets, budgets, choices)
def test_skipping_what_was_feasible_stays_feasible(
    deltas: Deltas, small: Budget, more: Budget, chosen: dict[str, object]
) -> None:
    big = Budget(
        memory_bytes=small.memory_bytes + more.memory_bytes, backward_macs=small.backward_macs + more.backward_macs
    )
    chosen = chosen | {"on_overflow": "skip"}
    before = select_plan(selection_input(deltas, budget=small, **chosen))
    if before.status == "infeasible":
        return
    assert memory_of(before.plan) <= big.memory_bytes and backward_macs(before.plan) <= big.backward_macs
    assert select_plan(selection_input(deltas, budget=big, **chosen)).status == "ok"


@given(all_deltas(), budgets, choices, st.integers(0, 2**32))
def test_the_names_of_channels_do_not_matter(
    deltas: Deltas, budget: Budget, chosen: dict[str, object], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    # no two channels alike: between equals the lower index wins
    unlike = {i: [v * 1000 + k for k, v in enumerate(values)] for i, values in deltas.items()}
    orders = {i: rng.permutation(len(values)) for i, values in unlike.items()}
    renamed = {i: [unlike[i][k] for k in order] for i, order in orders.items()}
    one, other = (
        select_plan(selection_input(d, budget=budget, **chosen | {"side": "output"})) for d in (unlike, renamed)
    )
    assert (one.status, one.reason) == (other.status, other.reason)
    assert [u.layer for u in one.plan.updates] == [u.layer for u in other.plan.updates]
    for a, b in zip(one.plan.updates, other.plan.updates, strict=True):
        assert (a.channels is None) == (b.channels is None)
        if a.channels is not None and b.channels is not None:
            assert set(a.channels) == {int(orders[b.layer][k]) for k in b.channels}


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.floats(0.001, 1.0))
def test_top_channels_are_the_largest_and_as_many_as_asked(values: list[int], ratio: float) -> None:
    found = top_channels(np.array(values, dtype=np.float64), ratio)
    chosen = range(len(values)) if found is None else found
    assert len(chosen) == min(len(values), max(1, int(ratio * len(values) + 0.5)))
    assert list(chosen) == sorted(set(chosen))
    left_out = [index for index in range(len(values)) if index not in chosen]
    assert all((values[c], -c) > (values[k], -k) for c in chosen for k in left_out)


@pytest.mark.parametrize(
    "length, ratio, count", [(8, 0.5, 4), (8, 0.125, 1), (3, 0.125, 1), (5, 0.5, 3), (96, 0.25, 24), (7, 0.99, 7)]
)
def test_counts_of_the_studied_ratios(length: int, ratio: float, count: int) -> None:
    found = top_channels(np.arange(length, dtype=np.float64), ratio)
    assert (length if found is None else len(found)) == count


def test_equal_channels_go_by_index_and_equal_layers_by_depth() -> None:
    assert top_channels(np.ones(6), 0.5) == (0, 1, 2)
    assert top_channels(np.array([1.0, 5.0, 5.0, 0.0]), 0.25) == (1,)
    order = layer_order(selection_input({layer: [2] for layer in INSPECTED}, criterion="fisher_only"))
    assert order == sorted(INSPECTED)


def test_layers_are_ordered_by_equation_3() -> None:
    deltas = {3: [4] * 24, 4: [1] * 24, 8: [6] * 12, 9: [5] * 20}
    weights, macs = max(x.weights for x in GRAPH.layers), max(x.macs for x in GRAPH.layers)
    by_hand = {
        i: sum(values) / (GRAPH.layer(i).weights / weights * GRAPH.layer(i).macs / macs) for i, values in deltas.items()
    }
    assert layer_order(selection_input(deltas)) == sorted(by_hand, key=lambda i: -by_hand[i])
    assert layer_order(selection_input(deltas, criterion="fisher_only")) == [9, 3, 8, 4]
    assert layer_order(selection_input(deltas, criterion="l2_norm")) == [3, 9, 4, 8]


def test_the_random_criterion_is_a_draw_per_task() -> None:
    base = selection_input(flat(), criterion="random")
    orders = [layer_order(replace(base, task_id=f"tiny/{i}")) for i in range(4)]
    assert orders[0] == layer_order(replace(base, task_id="tiny/0"))
    assert len({tuple(order) for order in orders}) > 1
    assert all(sorted(order) == sorted(INSPECTED) for order in orders)


def cheap_after_expensive() -> tuple[SelectionInput, Budget]:
    """The best layer is the earliest and misses the budget; the last one fits."""
    plan = UpdatePlan(backbone="tiny", updates=(LayerUpdate(layer=9),))
    budget = Budget(memory_bytes=memory_of(plan), backward_macs=backward_macs(plan))
    return selection_input({3: [10**6] * 24, 9: [1] * 20}, budget=budget, channel_ratio=1.0), budget


def test_overflow_skips_or_stops() -> None:
    skipping, _ = cheap_after_expensive()
    assert [u.layer for u in select_plan(skipping).plan.updates] == [9]
    stopping = replace(skipping, settings=SelectionSettings(on_overflow="stop", channel_ratio=1.0))
    decision = select_plan(stopping)
    assert decision.status == "infeasible"
    assert decision.reason is not None and decision.reason.startswith("the best layer does not fit the budget; layer 3")


def test_the_plan_ascends_whatever_the_order_of_scores() -> None:
    decision = select_plan(selection_input({9: [9] * 20, 3: [5] * 24, 6: [7] * 36}, criterion="fisher_only"))
    assert [u.layer for u in decision.plan.updates] == [3, 6, 9]
    assert decision.plan.updates[0].channels == tuple(range(12))


def test_the_input_side_takes_the_input_channels_of_largest_weight_norm() -> None:
    decision = select_plan(selection_input(flat(), side="input"))
    for update in decision.plan.updates:
        channels = GRAPH.layer(update.layer).in_channels
        assert update.side == "input"
        assert update.channels == tuple(range(channels - int(channels / 2 + 0.5), channels))


def test_the_reason_says_how_many_bytes_or_macs_are_missing() -> None:
    full = UpdatePlan(backbone="tiny", updates=(LayerUpdate(layer=9),))
    memory, macs = memory_of(full), backward_macs(full)
    for budget, bytes_short, macs_short in (
        (Budget(memory_bytes=memory - 100, backward_macs=macs), 100, 0),
        (Budget(memory_bytes=memory, backward_macs=macs - 7), 0, 7),
        (Budget(memory_bytes=memory - 1, backward_macs=macs - 1), 1, 1),
        (Budget(memory_bytes=1, backward_macs=macs, overdrawn_bytes=5001), memory + 5000, 0),  # 5000 below nothing
    ):
        decision = select_plan(selection_input({9: [1] * 20}, budget=budget, channel_ratio=1.0))
        assert (decision.status, decision.plan.is_empty) == ("infeasible", True)
        expected = f"no layer fits the budget; layer 9 alone misses {bytes_short} bytes and {macs_short} backward MACs"
        assert decision.reason == expected


@given(all_deltas(), choices)
def test_raising_the_budget_by_what_is_missing_makes_it_feasible(deltas: Deltas, chosen: dict[str, object]) -> None:
    tiny = Budget(memory_bytes=1, backward_macs=1)
    reason = select_plan(selection_input(deltas, budget=tiny, **chosen)).reason
    assert reason is not None
    _, bytes_short, macs_short = (int(number) for number in re.findall(r"\d+", reason))
    enough = Budget(memory_bytes=1 + bytes_short, backward_macs=1 + macs_short)
    assert select_plan(selection_input(deltas, budget=enough, **chosen)).status == "ok"


def test_an_unknown_criterion_is_a_user_error() -> None:
    with pytest.raises(ConfigError, match="unknown criterion 'ful'; did you mean 'full'"):
        select_plan(selection_input(flat(), criterion="ful"))
