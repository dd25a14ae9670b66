"""``tinytrain weights gain FILE RUN``: what adaptation gained from these weights in a simulation, onto their card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tinytrain_dist.backbones.checkpoint import load_checkpoint, save_with_card
from tinytrain_dist.foundation.errors import ConfigError, ExitCode
from tinytrain_dist.foundation.paths import local_path
from tinytrain_dist.metatraining.validation import ValidationScore, score
from tinytrain_dist.reporting.runs import RunResults, open_run
from tinytrain_dist.verbs.arguments import VerbParser, print_json

TARGET_POINTS = 8.0
METHOD = "tinytrain"
_START = f"{METHOD} over no update"
_GAINS = """
SELECT domain, avg(gain_points) AS gain FROM paired
WHERE method = ? AND checkpoint = ? AND gain_points IS NOT NULL GROUP BY domain, task_id ORDER BY domain, task_id
"""


def put_gain(argv: list[str]) -> ExitCode:
    """Put the paired gain of a run into a checkpoint's card, in place of an earlier one, and print it."""
    parser = VerbParser(
        "weights gain",
        description="Put what tinytrain gained over no update from these weights, paired on the tasks of a simulation, "
        "onto their card.",
        example="tinytrain weights gain mcunet.safetensors runs/gain20",
    )  # fmt: skip
    parser.add_argument("file", metavar="FILE", help="a safetensors checkpoint")
    parser.add_argument("run", metavar="RUN", help="run directory of a simulation from it with none and tinytrain")
    options = parser.parse(argv)
    path = local_path(options.file, what="checkpoint")
    found, run = load_checkpoint(path), open_run(options.run)
    if found.card.evaluation is None:
        raise ConfigError(f"{path}: its card holds no evaluation yet; 'tinytrain weights evaluate {path}' makes one")
    verdict = f"{_START}, {_shape(run)}, {_tuning(run)}: {_in_words(_gains(run, found.hash, path))}"
    others = tuple(text for text in found.card.evaluation.verdicts if not text.startswith(_START))
    evaluation = found.card.evaluation.model_copy(update={"verdicts": (*others, verdict)})
    save_with_card(found, path, found.card.model_copy(update={"evaluation": evaluation}))
    if options.json:
        print_json({"path": str(path), "verdict": verdict})
    else:
        print(verdict)
    return ExitCode.DONE


def _gains(run: RunResults, checkpoint: str, path: Path) -> dict[str, ValidationScore]:
    """Return the mean gain in points per domain with its interval, over tasks (mean over devices first)."""
    by_domain: dict[str, list[float]] = {}
    for row in run.select(_GAINS, [METHOD, checkpoint]):
        by_domain.setdefault(row["domain"], []).append(row["gain"])
    if not by_domain or min(map(len, by_domain.values())) < 2:
        raise ConfigError(
            f"{run.location}: holds fewer than two tasks of a domain with none and {METHOD} from {path} ({checkpoint})"
        )
    return {domain: score(values) for domain, values in by_domain.items()}


def _shape(run: RunResults) -> str:
    """Return the tasks in words, as the run's configuration says."""
    episodes = run.config.get("episodes", {})
    if episodes.get("sampler", "fixed") != "fixed":
        return f"tasks of the sampler {episodes['sampler']}"
    return f"{episodes.get('way')}-way {episodes.get('shot')}-shot"


def _tuning(run: RunResults) -> str:
    """Return in words what a gain depends on most: iterations and learning rate, and how that was chosen."""
    asked, search = run.config.get("finetune", {}), run.record.get("learning_rate_search")
    rate = f"rate {asked.get('learning_rate')}"
    if isinstance(search, dict):
        rates = ", ".join(f"{tried:g}" for tried in search["grid"]["rates"])
        rate = f"rate {search['rate']:g} of {rates} by classes held out of the source domains"
    return f"{asked.get('iterations')} iterations at {rate}"


def _in_words(gains: Mapping[str, ValidationScore]) -> str:
    mean = sum(gain.accuracy for gain in gains.values()) / len(gains)
    half = sum(gain.half_width**2 for gain in gains.values()) ** 0.5 / len(gains)
    word = "reached" if mean >= TARGET_POINTS else "MISSED"
    parts = ", ".join(f"{name} {gain.accuracy:+.1f} ±{gain.half_width:.1f}" for name, gain in gains.items())
    tasks = min(gain.num_episodes for gain in gains.values())
    return (
        f"{mean:+.1f} ±{half:.1f} points on the mean (target +{TARGET_POINTS:g}: {word}; {parts}; {tasks} tasks each)"
    )
