"""Methods ``layer_alone_<layer>[_<quarter>]``: one layer and nothing else, to see what its update is worth."""

from __future__ import annotations

import numpy as np

from tinytrain_dist.adaptation.methods.method import METHODS, Method, PlanQuestion
from tinytrain_dist.adaptation.selection import Decision
from tinytrain_dist.adaptation.settings import FineTuneSettings, SelectionSettings
from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.graphs.layer_alone import PATTERN, LayerAlone, layer_alone
from tinytrain_dist.graphs.layer_graph import LayerGraph


class LayerAloneMethod(Method):
    """Fine-tunes one named convolution, or a quarter of its output channels by Fisher information: ``top`` holds
    the quarter of largest Delta, ``bottom`` that of the smallest. Asks whether Fisher information predicts the gain.
    """

    citation = "this project's check of TinyTrain, ICML 2024, Eq. 2: the gain of a layer by its Fisher potential"

    def __init__(self, what: LayerAlone) -> None:
        self.name, self._what = what.name, what
        self.measures_fisher = what.quarter is not None

    def check(self, graph: LayerGraph, selection: SelectionSettings) -> None:
        """Raise ``ConfigError`` for a layer the network does not have, or in which no channel is ranked."""
        self._what.check(graph)
        inspected = graph.last_blocks(min(selection.inspect_blocks, graph.num_blocks))
        if self.measures_fisher and self._what.layer not in inspected:
            raise ConfigError(
                f"method {self.name!r}: Fisher information ranks the channels of layers {inspected[0]} to "
                f"{inspected[-1]} only; raise selection.inspect_blocks"
            )

    def decide(self, question: PlanQuestion) -> Decision:
        """Return the plan of the layer, whatever the device."""
        order = None
        if self.measures_fisher:
            delta = question.fisher().channels[self._what.layer]
            order = np.lexsort((np.arange(len(delta)), -delta)).tolist()
        return Decision(status="ok", plan=self._what.plan(question.graph, order=order))

    def variant_settings(self, finetune: FineTuneSettings, selection: SelectionSettings) -> dict[str, object]:
        """Training settings, and for a quarter where Fisher information is measured."""
        ranked = {"fisher_point": selection.fisher_point} if self.measures_fisher else {}
        return super().variant_settings(finetune, selection) | ranked


def _family(name: str) -> LayerAloneMethod | None:
    what = layer_alone(name)
    return None if what is None else LayerAloneMethod(what)


METHODS.register_family(PATTERN, _family)
