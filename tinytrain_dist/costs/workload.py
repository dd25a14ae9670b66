"""``Workload``: what one adaptation runs, whatever device it runs on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tinytrain_dist.costs.counters import STATE_WORDS, check_batch
from tinytrain_dist.costs.lifetime import WAY_DEFAULT
from tinytrain_dist.foundation.errors import ConfigError, nearest
from tinytrain_dist.graphs.update_plan import UpdatePlan

PAPER_IMAGES = 25
"""Sample passes of one iteration behind the paper's end-to-end figures."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What one adaptation runs.

    Attributes
    ----------
    support_size
        Support images of the task.
    iterations
        Fine-tuning iterations; each passes all support images and as many pseudo-query images.
    optimizer
        ``adam`` or ``sgd``: decides the state kept per updated weight. Adam's two moments and the gradient take 12
        bytes per weight at every precision, which alone keeps many plans off a microcontroller.
    inspected
        Layers of the Fisher pass; empty: no pass is made.
    full
        The FullTrain formula counts the memory.
    extra_images
        Images an iteration passes beside ``2 x support_size``: the query images of ``transductive``.
    paper_convention
        Count as the paper's end-to-end figures do: 25 sample passes per iteration whatever the task, no second
        forward pass for the prototypes, memory at the stated batch even where the task has fewer images.
    way
        Classes of the task: the lifetime planner keeps their prototypes.
    fused_update
        The lifetime planner's runtime updates image by image and keeps no gradient (MCUNetV3). The accuracy is
        computed with the gradient of a whole iteration, so this is not the default.
    """

    support_size: int
    iterations: int
    batch: int = 1
    optimizer: str = "adam"
    inspected: tuple[int, ...] = ()
    full: bool = False
    extra_images: int = 0
    paper_convention: bool = False
    way: int = WAY_DEFAULT
    fused_update: bool = False

    def __post_init__(self) -> None:
        for key, low in (("support_size", 1), ("iterations", 0), ("way", 1), ("extra_images", 0)):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ConfigError(f"{key}: found {value!r}; allowed: a whole number of at least {low}")
        if self.extra_images and self.paper_convention:
            raise ConfigError(f"extra_images: found {self.extra_images}; the paper's convention of {PAPER_IMAGES} "
                              "sample passes knows no query images; allowed: 0")  # fmt: skip
        check_batch(self.batch)
        if self.optimizer not in STATE_WORDS:
            raise ConfigError(f"unknown optimizer {self.optimizer!r}; {nearest(self.optimizer, STATE_WORDS)}")

    @property
    def step_images(self) -> int:
        """Images passed forward and backward in one iteration."""
        return PAPER_IMAGES if self.paper_convention else 2 * self.support_size + self.extra_images

    @property
    def convention(self) -> str:
        """What one iteration passes, in words."""
        if self.paper_convention:
            return f"the paper's {PAPER_IMAGES} sample passes, no second forward pass for the prototypes"
        again = f", {self.recomputed_images} once more forward for the prototypes" if self.recomputed_images else ""
        query = f" + {self.extra_images} query" if self.extra_images else ""
        return f"{self.support_size} support + {self.support_size} pseudo-query{query} images{again}"

    @property
    def recomputed_images(self) -> int:
        """Images passed forward once more in one iteration, for the prototypes.

        The loss of any image needs all prototypes, so a step that does not hold the whole task passes the support
        images first without keeping anything. The paper's convention leaves it out.
        """
        whole = self.paper_convention or self.batch >= self.step_images
        return 0 if whole else self.support_size

    def at_once(self, plan: UpdatePlan) -> Workload:
        """Return this workload with no more images in a batch than there are to pass under ``plan``."""
        if self.paper_convention:
            return self
        there = self.step_images if self.trains(plan) else self.support_size
        return self if self.batch <= there else replace(self, batch=there)

    def trains(self, plan: UpdatePlan) -> bool:
        """Return whether anything is updated; otherwise the support images pass forward once (prototypes)."""
        return self.iterations > 0 and not plan.is_empty
