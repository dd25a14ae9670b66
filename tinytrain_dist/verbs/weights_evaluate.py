"""``tinytrain weights evaluate FILE``: accuracy on unseen domains, written into the checkpoint's card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tinytrain_dist.adaptation.nearest_prototype import (
    Features,
    draw_episodes,
    frozen_accuracy,
    network_features,
    raw_pixels,
)
from tinytrain_dist.backbones.card import Accuracy, Evaluation
from tinytrain_dist.backbones.checkpoint import Checkpoint, load_checkpoint, save_with_card
from tinytrain_dist.backbones.flat_state import flat_to_state
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.backbones.teachers import find_teacher
from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.data.episodes import EpisodeSettings
from tinytrain_dist.execution.threads import use_one_thread
from tinytrain_dist.foundation.errors import ConfigError, ExitCode
from tinytrain_dist.foundation.paths import local_path
from tinytrain_dist.foundation.progress import progress
from tinytrain_dist.verbs.arguments import VerbParser, print_json
from tinytrain_dist.verbs.job_config import DataConfig
from tinytrain_dist.verbs.weights_card import card_lines, mean_of

TARGET_GAIN, TARGET_SHARE = 0.08, 0.5
"""Of shipped weights: points above raw pixels, and share of the way from random weights to the teacher."""


def evaluate_weights(argv: list[str]) -> ExitCode:
    """Measure a checkpoint, print its card and write it."""
    options = _parser().parse(argv)
    path = local_path(options.file, what="checkpoint")
    out = path if options.out is None else local_path(options.out, what="checkpoint")
    _check(options.episodes, out.suffix)
    use_one_thread()
    found = load_checkpoint(path)
    settings = EpisodeSettings(way=options.way, shot=options.shot, query=options.query, clamp_way=True)
    features = _features(found, options.resolution, options.seed, options.teacher, options.teacher_resolution)
    evaluation = evaluate(
        features, options.domain or DataConfig().domains, settings, num_episodes=options.episodes, seed=options.seed,
        roots=options.root,
    )  # fmt: skip
    changed = {"evaluation": evaluation, "licence": options.licence, "notes": options.note}
    card = found.card.model_copy(update={key: value for key, value in changed.items() if value is not None})
    if not options.print_only:
        save_with_card(found, out, card)
    if options.json:
        print_json({"path": str(out), **card.model_dump(mode="json")})
    else:
        print("\n".join(card_lines(card)))
    return ExitCode.DONE


def _parser() -> VerbParser:
    parser = VerbParser(
        "weights evaluate",
        description="Measure a checkpoint by nearest prototype (cosine, no adaptation) on domains it was not trained "
        "on, beside random weights, raw pixels and its teacher, and write the figures into its card.",
        example="tinytrain weights evaluate mcunet.safetensors --episodes 200 --teacher efficientnet_lite0_wheel",
    )  # fmt: skip
    parser.add_argument("file", metavar="FILE", help="a safetensors checkpoint")
    parser.add_argument("--episodes", type=int, default=200, metavar="N", help="episodes per domain (200)")
    for name, default in (("way", 5), ("shot", 5), ("query", 10), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"default {default}")
    parser.add_argument(
        "--domain", action="append", metavar="NAME", help="domain to measure on, repeatable (the five target domains)"
    )
    parser.add_argument("--root", action="append", default=[], metavar="DIR", help="folder with domains of your own")
    parser.add_argument("--resolution", type=int, metavar="R", help="pixels (the card's)")
    parser.add_argument("--teacher", metavar="NAME_OR_FILE", help="network to measure beside it (pretrain.teacher)")
    parser.add_argument("--teacher-resolution", type=int, default=161, metavar="R", help="pixels it sees (161)")
    parser.add_argument("--out", metavar="FILE", help="write a copy with the new card there instead of into FILE")
    parser.add_argument("--licence", metavar="TEXT", help="licence to state in the card")
    parser.add_argument("--note", metavar="TEXT", help="note to put into the card")
    parser.add_argument("--print-only", action="store_true", help="write nothing")
    return parser


def _check(episodes: int, suffix: str) -> None:
    if episodes < 2:
        raise ConfigError(f"--episodes: found {episodes}; allowed: 2 or more")
    if suffix != ".safetensors":
        raise ConfigError(f"--out: found ending {suffix!r}; allowed: .safetensors")


def _features(
    found: Checkpoint, resolution: int | None, seed: int, teacher: str | None, teacher_resolution: int
) -> dict[str, Features]:
    pixels = resolution or found.card.resolution
    features = {
        "weights": network_features(FoldedNetwork(found.build(resolution=pixels)), resolution=pixels),
        "random": network_features(
            FoldedNetwork(build_backbone(found.backbone, resolution=pixels, seed=seed)), resolution=pixels
        ),
        "raw_pixels": raw_pixels(pixels),
    }
    if teacher is not None:
        imitated = find_teacher(teacher)
        network = build_backbone(imitated.backbone, resolution=teacher_resolution)
        flat_to_state(network, imitated.weights)
        features["teacher"] = network_features(FoldedNetwork(network), resolution=teacher_resolution)
    return features


def evaluate(
    features: Mapping[str, Features], domains: Sequence[str], settings: EpisodeSettings, *, num_episodes: int,
    seed: int, roots: Sequence[str] = (),
) -> Evaluation:  # fmt: skip
    """Return the figures of every way to describe images on the same episodes (split ``test``)."""
    accuracy: dict[str, dict[str, Accuracy]] = {}
    contents: dict[str, str] = {}
    with progress("domains x networks", total=len(domains) * len(features), done=0) as meter:
        for name in domains:
            domain = open_domain(name, roots=roots)
            episodes = draw_episodes(domain, split="test", settings=settings, num_episodes=num_episodes, seed=seed)
            contents[name], accuracy[name] = domain.content_hash, {}
            for arm, own in features.items():
                accuracy[name][arm] = frozen_accuracy(domain, episodes, own)
                meter.advance(note=f"{name}, {arm}")
    sizes = ", ".join(f"{arm} {own.resolution}" for arm, own in features.items())
    protocol = (
        f"{settings.way}-way {settings.shot}-shot {settings.query}-query (fewer where a domain has fewer), "
        f"{num_episodes} episodes each, seed {seed}, nearest prototype by cosine, no adaptation; pixels: {sizes}"
    )
    found = Evaluation(protocol=protocol, domains=contents, accuracy=accuracy)
    return found.model_copy(update={"verdicts": _verdicts(found, with_teacher="teacher" in features)})


def _verdicts(found: Evaluation, *, with_teacher: bool) -> tuple[str, ...]:
    means = {arm: mean_of(found, arm)[0] for arm in next(iter(found.accuracy.values()))}
    gain = means["weights"] - means["raw_pixels"]
    words = [f"above raw pixels on the mean: {100 * gain:+.1f} points (target +8: {_word(gain >= TARGET_GAIN)})"]
    if with_teacher and means["teacher"] > means["random"]:
        share = (means["weights"] - means["random"]) / (means["teacher"] - means["random"])
        words.append(
            f"way from random weights to the teacher: {100 * share:.0f} % (target 50: {_word(share >= TARGET_SHARE)})"
        )
    return tuple(words)


def _word(reached: bool) -> str:
    return "reached" if reached else "MISSED"
