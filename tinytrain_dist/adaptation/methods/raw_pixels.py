"""Method ``raw_pixels``: nearest class mean of mean-centred 32x32 pixels; no network, no device cost."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tinytrain_dist.adaptation.fine_tuning import Adaptation
from tinytrain_dist.adaptation.methods.method import METHODS, Method, PlanQuestion
from tinytrain_dist.adaptation.selection import Decision
from tinytrain_dist.adaptation.settings import FineTuneSettings, SelectionSettings
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.backbones.head import accuracy, class_means, cosine_logits
from tinytrain_dist.graphs.update_plan import UpdatePlan

PIXELS = 32


class RawPixels(Method):
    """What a task's images give away without any learning: belongs beside every accuracy."""

    name = "raw_pixels"
    citation = "nearest class mean on pixels; baseline of this project"
    uses_network = False
    tuner = "raw_pixels"

    def decide(self, question: PlanQuestion) -> Decision:
        """There is no plan to choose."""
        return Decision(status="not_applicable", plan=UpdatePlan(backbone=question.graph.name))

    def adapt(self, task: TargetTask, plan: UpdatePlan) -> Adaptation:
        """Return the accuracy of the pixel baseline as before and after."""
        support, query = pixel_features(task.episode.support_images), pixel_features(task.episode.query_images)
        prototypes = class_means(support, task.support_labels.cpu(), task.way)  # wherever the networks run
        share = accuracy(cosine_logits(query, prototypes), task.query_labels.cpu())
        return Adaptation(accuracy_before=share, accuracy_after=share)

    def variant_settings(self, finetune: FineTuneSettings, selection: SelectionSettings) -> dict[str, object]:
        """Nothing can be set."""
        return {}


def pixel_features(images: np.ndarray) -> Tensor:
    """Return mean-centred 32x32 pixels, ``[N, 3, R, R]`` uint8 -> ``[N, 3072]`` float32."""
    small = F.interpolate(torch.from_numpy(images).float(), size=(PIXELS, PIXELS), mode="area")
    flat = small.flatten(1)
    return flat - flat.mean(dim=1, keepdim=True)


METHODS.register(RawPixels.name, RawPixels())
