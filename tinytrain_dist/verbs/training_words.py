"""What the training verbs say when they are done."""

from __future__ import annotations

from tinytrain_dist.foundation.progress import say
from tinytrain_dist.metatraining.stage import TrainingResult
from tinytrain_dist.metatraining.training_settings import TrainingSettings


def say_result(result: TrainingResult, settings: TrainingSettings) -> None:
    """Say how long it took and what it reached on classes it never saw."""
    how = "was there already and is reused" if result.reused else f"trained in {result.seconds:.0f} s"
    best = "" if result.best_round is None else f", best after {result.best_round}"
    say(f"{result.run_folder.name}: {settings.backbone}, {result.num_rounds} rounds{best}, {how}")
    for name, score in result.validation.items():
        what = f"all classes of {name}" if name in settings.validation_domains else f"held-out classes of {name}"
        interval = f"{100 * score.accuracy:.1f} +- {100 * score.half_width:.1f} %"
        say(f"  {what}: {interval} ({settings.validation_way}-way {settings.validation_shot}-shot)")
