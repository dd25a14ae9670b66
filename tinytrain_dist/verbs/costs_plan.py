"""Which plan ``tinytrain costs`` prices: a method's own, or one given for a method that decides per task."""

from __future__ import annotations

from pathlib import Path

from tinytrain_dist.costs.static_plans import NETWORK_FREE, PLANNED_METHODS, STATIC_METHODS, StaticPlan, static_plan
from tinytrain_dist.foundation.errors import ConfigError, PlanError, nearest
from tinytrain_dist.graphs.layer_alone import PATTERN, layer_alone
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import UpdatePlan, plan_from_json

SCHEME_METHOD = "sparse_update"
"""Its plan is a scheme's, and schemes are many: one may be given."""


def chosen_plan(method: str | None, plan_file: str | None, graph: LayerGraph) -> StaticPlan:
    """Return the plan to price, with what the method makes of it; ``method`` ``None``: a bare plan of no method.

    Raises
    ------
    ConfigError
        An unknown method, a method that needs a plan and has none, or one whose plan is known and was given another.
    PlanError
        The file is no plan of this backbone.
    """
    if plan_file is None:
        assert method is not None
        return static_plan(method, graph) if _is_known(method) else _per_task(method, None)
    if method is None:
        return StaticPlan(plan=_read(plan_file, graph))
    if method == NETWORK_FREE:
        return static_plan(method, graph)  # says that it costs nothing
    if method == SCHEME_METHOD:
        return StaticPlan(plan=_read(plan_file, graph))
    if method in PLANNED_METHODS:
        return StaticPlan(plan=_read(plan_file, graph), measures_fisher=True)
    if _is_known(method):
        raise ConfigError(
            f"--plan: method {method!r} has a plan of its own; leave --plan out, or --method to price the plan alone"
        )
    return _per_task(method, _read(plan_file, graph))


def _is_known(method: str) -> bool:
    """Whether the planner's floors know the method, without torch."""
    return method in (*STATIC_METHODS, *PLANNED_METHODS, NETWORK_FREE) or layer_alone(method) is not None


def _per_task(method: str, plan: UpdatePlan | None) -> StaticPlan:
    """Return ``plan`` as a method of another package has it; raises for one that nobody has registered."""
    from tinytrain_dist.adaptation.methods import METHODS  # brings torch, which no other method needs here

    if method not in METHODS:
        raise ConfigError(f"unknown method {method!r}; {nearest(method, [*METHODS, PATTERN])}")
    found = METHODS[method]
    if not found.uses_network:
        raise ConfigError(f"method {method!r} uses no network and costs nothing that is counted here")
    if plan is None:
        raise ConfigError(f"method {method!r} decides its plan per task; give the plan of one task with --plan FILE")
    return StaticPlan(plan=plan, full=found.is_full, measures_fisher=found.measures_fisher)


def _read(plan_file: str, graph: LayerGraph) -> UpdatePlan:
    path = Path(plan_file)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise PlanError(f"--plan {plan_file}: cannot be read: {exc}") from exc
    return plan_from_json(text, name=str(path)).check(graph)
