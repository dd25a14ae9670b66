"""Methods ``tiny_tl`` and ``adapter_drop_25/50/75``: lite residual modules beside a frozen backbone."""

from __future__ import annotations

from tinytrain_dist.adaptation.methods.method import METHODS, Method, PlanQuestion
from tinytrain_dist.adaptation.selection import Decision
from tinytrain_dist.graphs.adapters import adapter_plan


class TinyTransfer(Method):
    """TinyTL: a lite residual module per block is trained, the backbone and its biases stay frozen."""

    name = "tiny_tl"
    citation = "TinyTL, Cai et al., NeurIPS 2020 (arXiv 2007.11622)"
    dropped_share = 0.0

    def decide(self, question: PlanQuestion) -> Decision:
        """Return the plan of the modules that stay, whatever the device."""
        return Decision(status="ok", plan=adapter_plan(question.graph, dropped_share=self.dropped_share))


class AdapterDrop25(TinyTransfer):
    """TinyTL without the first quarter of its modules, counted from the input."""

    name = "adapter_drop_25"
    citation = "AdapterDrop, Rueckle et al., EMNLP 2021 (arXiv 2010.11918), on TinyTL's modules"
    dropped_share = 0.25


class AdapterDrop50(AdapterDrop25):
    """TinyTL without the first half of its modules."""

    name = "adapter_drop_50"
    dropped_share = 0.5


class AdapterDrop75(AdapterDrop25):
    """TinyTL with only the last quarter of its modules."""

    name = "adapter_drop_75"
    dropped_share = 0.75


for _method in (TinyTransfer(), AdapterDrop25(), AdapterDrop50(), AdapterDrop75()):
    METHODS.register(_method.name, _method)
