"""One result row from an outcome and a price: the only place that knows both the schema and the method."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tinytrain_dist.adaptation.fine_tuning import Adaptation
from tinytrain_dist.adaptation.methods import Method
from tinytrain_dist.adaptation.selection import Decision
from tinytrain_dist.costs.pricing import Price, Workload, price
from tinytrain_dist.costs.profiles import DeviceProfile
from tinytrain_dist.data.episodes import Episode, EpisodeSpec
from tinytrain_dist.foundation.hashing import content_hash
from tinytrain_dist.foundation.redaction import redact_text
from tinytrain_dist.foundation.seeding import seed_of
from tinytrain_dist.graphs.budget import Budget
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import num_selected, updated_weights
from tinytrain_dist.simulation.request import UnitSetup
from tinytrain_dist.simulation.schema import COLUMNS

Row = dict[str, Any]

COLLAPSE_SHARE = 0.05
SLOW_SELECTION_MS = 35_000.0
SLOW_SELECTION_SHARE = 0.10
MAX_MESSAGE = 2000
_EMPTY: Row = dict.fromkeys(column.name for column in COLUMNS)


OUTCOME_COLUMNS = (
    "accuracy_before", "accuracy_after", "loss_first", "loss_last", "iterations", "status", "message",
)  # fmt: skip


@dataclass(frozen=True)
class StoredOutcome:
    """The outcome of a plan as a finished row holds it: the values of ``OUTCOME_COLUMNS``."""

    columns: Row
    host_ms: float


def variant_of(method: Method, setup: UnitSetup) -> str:
    """Return a short name and the hash of the settings the method's outcome depends on."""
    settings = method.variant_settings(setup.finetune, setup.selection)
    short = {"criterion": "", "channel_ratio": "r", "learning_rate": "lr", "iterations": "k"}
    words = [f"{prefix}{settings[key]}" for key, prefix in short.items() if key in settings]
    words += [str(settings["device"])] if "device" in settings else []
    digest = content_hash({**settings, "resolution": setup.resolution}, length=6)
    return "-".join([*words, digest])


class RowMaker:
    """Makes the rows of one method on one task."""

    def __init__(self, spec: EpisodeSpec, *, method: Method, setup: UnitSetup, graph: LayerGraph, attempt: int) -> None:
        self.spec, self.method, self.setup, self.graph = spec, method, setup, graph
        self.variant = variant_of(method, setup)
        self._shared = _EMPTY | {
            "task_id": spec.task_id,
            "checkpoint": setup.checkpoint,
            "method": method.name,
            "variant": self.variant,
            "backbone": setup.backbone,
            "initialization": setup.initialization,
            "resolution": setup.resolution,
            "domain": spec.domain,
            "split": spec.split,
            "task_index": spec.index,
            "mode": setup.finetune.mode,
            "accuracy_numerics": setup.finetune.numerics,
            "seed": seed_of(spec.task_id),
            "attempt": attempt,
            "signature": "",
            "status": "ok",
            "iterations": 0,
            "host_ms": 0.0,
        }

    def row(
        self,
        profile: DeviceProfile,
        *,
        episode: Episode,
        decision: Decision,
        outcome: Adaptation | StoredOutcome,
        budget: Budget | None,
    ) -> Row:
        """Return the complete row of one device."""
        row = self._shared | {"device": profile.name, **_episode_columns(episode), **_outcome_columns(outcome)}
        row |= {"plan_status": decision.status, "plan_reason": decision.reason, "fits": "yes"}
        row["price_numerics"] = profile.price_numerics
        if budget is not None:
            row |= {"budget_memory_bytes": budget.memory_bytes, "budget_backward_macs": budget.backward_macs}
        if not self.method.uses_network:
            return row
        row |= self._plan_columns(decision)
        row |= asdict(self.price(profile, decision, episode))
        if decision.status == "infeasible":
            row["fits"] = "no"
        return row | {"signature": signature(row)}

    def price(self, profile: DeviceProfile, decision: Decision, episode: Episode) -> Price:
        """Return what the decision costs on the device, whether or not the tuning went well."""
        inspected = self.graph.last_blocks(self.setup.selection.inspect_blocks) if self.method.measures_fisher else ()
        support_size, query_size = len(episode.support_labels), len(episode.query_labels)
        workload = Workload(
            support_size=support_size,
            iterations=0 if decision.plan.is_empty else self.setup.finetune.iterations,
            optimizer=self.setup.finetune.optimizer,
            inspected=inspected,
            full=self.method.is_full,
            way=episode.way,
            extra_images=query_size if self.method.uses_query else 0,
        )
        return price(self.graph, decision.plan, profile, workload)

    def _plan_columns(self, decision: Decision) -> Row:
        plan = decision.plan
        return {
            "plan_hash": None if plan.is_empty else plan.hash,
            "plan_layers": [u.layer for u in plan.updates],
            "plan_channels": [num_selected(u, self.graph.layer(u.layer)) for u in plan.updates],
            "updated_weights": updated_weights(plan, self.graph),
        }

    def failed(self, device: str, *, status: str, error: object) -> Row:
        """Return the row of a task that gave no outcome: what happened stands in ``message``, without secrets."""
        text = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else str(error)
        return self._shared | {
            "device": device,
            "way": self.spec.settings.way,
            "shots": [],
            "support_size": 0,
            "query_size": 0,
            "plan_status": "not_applicable",
            "price_numerics": self.setup.profile(device).price_numerics,
            "status": status,
            "message": redact_text(text)[:MAX_MESSAGE],
        }


def _episode_columns(episode: Episode) -> Row:
    return {
        "way": episode.way,
        "shots": list(episode.shots),
        "support_size": len(episode.support_labels),
        "query_size": len(episode.query_labels),
    }


def _outcome_columns(outcome: Adaptation | StoredOutcome) -> Row:
    if isinstance(outcome, StoredOutcome):
        return dict(outcome.columns)
    finite = [loss for loss in outcome.losses if abs(loss) < float("inf")]
    return {
        "accuracy_before": outcome.accuracy_before,
        "accuracy_after": outcome.accuracy_after,
        "loss_first": finite[0] if finite else None,
        "loss_last": finite[-1] if finite else None,
        "iterations": len(outcome.losses),
        "status": outcome.status,
        "message": outcome.message,
    }


def signature(row: Row) -> str:
    """Return the failure signature of a row: ``collapsed``, ``stalled``, ``selection_slow`` or empty."""
    before, after = row["accuracy_before"], row["accuracy_after"]
    if after is not None and after < before - COLLAPSE_SHARE:
        return "collapsed"
    flat = row["iterations"] > 0 and row["status"] == "ok" and row["loss_last"] >= row["loss_first"]
    if row["plan_status"] == "infeasible" or flat:
        return "stalled"
    selection = row["selection_ms"] or 0.0
    if selection > SLOW_SELECTION_MS or selection > SLOW_SELECTION_SHARE * (row["training_ms"] or 0.0) > 0:
        return "selection_slow"
    return ""
