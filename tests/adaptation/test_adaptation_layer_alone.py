"""``layer_alone_<layer>[_<quarter>]``: the named channels and nothing else, by the task's own Fisher information."""

import numpy as np
import pytest
from test_adaptation_methods import question_of
from tiny_task import GRAPH, plan_of, tiny_task

from tinytrain_dist.adaptation.fisher import fisher_information
from tinytrain_dist.adaptation.methods import METHODS, PlanQuestion
from tinytrain_dist.adaptation.settings import FineTuneSettings, SelectionSettings
from tinytrain_dist.costs.static_plans import NETWORK_FREE, PLANNED_METHODS, STATIC_METHODS, static_plan
from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_alone import QUARTERS
from tinytrain_dist.graphs.update_plan import LayerUpdate


def test_a_whole_layer_asks_for_no_fisher_pass() -> None:
    task = tiny_task()
    question, passes = question_of(task)
    method = METHODS["layer_alone_4"]
    decision = method.decide(question)
    assert decision.plan == plan_of(LayerUpdate(layer=4)) and not passes and not method.measures_fisher
    outcome = method.adapt(task, decision.plan)
    assert outcome.status == "ok" and len(outcome.losses) == task.settings.iterations
    assert METHODS["layer_alone_9"].decide(question) == METHODS["last_layer"].decide(question), "tuned once"


def test_quarters_go_by_the_tasks_fisher_information() -> None:
    task = tiny_task()
    delta = fisher_information(task, (8,)).channels[8]
    means = []
    for quarter in QUARTERS:
        question, passes = question_of(task)
        method = METHODS[f"layer_alone_8_{quarter}"]
        (update,) = method.decide(question).plan.updates
        assert passes == [1] and method.measures_fisher and update.channels is not None
        means.append(delta[list(update.channels)].mean())
    assert means == sorted(means, reverse=True) and means[0] > means[-1]
    assert METHODS["layer_alone_8_top"].decide(question).plan.updates[0].channels == tuple(
        sorted(np.argsort(-delta)[:3].tolist())
    )


def test_its_variant_knows_the_activation_point_only_where_it_matters() -> None:
    before = SelectionSettings(fisher_point="before_activation")
    for name, same in (("layer_alone_8", True), ("layer_alone_8_top", False)):
        settings = [METHODS[name].variant_settings(FineTuneSettings(), s) for s in (SelectionSettings(), before)]
        assert (settings[0] == settings[1]) == same


def test_what_it_cannot_do_is_said_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="unknown layer; tiny has layers 0 to 9"):
        METHODS["layer_alone_10"].check(GRAPH, SelectionSettings())
    with pytest.raises(ConfigError, match=r"layers 6 to 9 only; raise selection\.inspect_blocks"):
        METHODS["layer_alone_5_top"].check(GRAPH, SelectionSettings(inspect_blocks=1))
    METHODS["layer_alone_5"].check(GRAPH, SelectionSettings(inspect_blocks=1))
    with pytest.raises(ConfigError, match=r"unknown method 'layer_alone_x'; allowed: .*layer_alone_<layer>\[_top"):
        METHODS["layer_alone_x"]


def test_every_other_method_runs_on_any_network() -> None:
    for name in METHODS:
        METHODS[name].check(GRAPH, SelectionSettings(inspect_blocks=1))


def test_what_is_priced_without_a_task_is_what_is_run() -> None:
    assert set(METHODS) == {*STATIC_METHODS, *PLANNED_METHODS, NETWORK_FREE}, "every method can be priced"
    question, _ = question_of(tiny_task())
    graph = layer_graph("mcunet", 48)
    asked = PlanQuestion(**{**vars(question), "graph": graph})
    for name in (*STATIC_METHODS, "layer_alone_30"):
        if name != "sparse_update":  # the weights decide which of its input channels
            assert METHODS[name].decide(asked).plan == static_plan(name, graph).plan, name
        assert METHODS[name].is_full == static_plan(name, graph).full
        assert METHODS[name].measures_fisher == static_plan(name, graph).measures_fisher
