"""``tinytrain weights card FILE_OR_BACKBONE``: all that a checkpoint says about itself."""

from __future__ import annotations

from collections.abc import Iterator
from math import fsum, hypot

from tinytrain_dist.backbones.card import CheckpointCard, Evaluation, read_card
from tinytrain_dist.backbones.shipped_weights import shipped_files
from tinytrain_dist.foundation.errors import ConfigError, ExitCode, nearest
from tinytrain_dist.foundation.paths import local_path
from tinytrain_dist.verbs.arguments import VerbParser, print_json

_ARMS = ("weights", "random", "raw_pixels", "teacher")


def show_card(argv: list[str]) -> ExitCode:
    """Print a card."""
    parser = VerbParser(
        "weights card", description="Show a checkpoint's card: what it is, how it was made, what was measured on it.",
        example="tinytrain weights card weights/mcunet.safetensors",
    )  # fmt: skip
    parser.add_argument("name", metavar="FILE_OR_BACKBONE", help="a checkpoint, or a backbone: its shipped one")
    options = parser.parse(argv)
    shipped = shipped_files()
    path = shipped.get(options.name) or local_path(options.name, what="checkpoint")
    if not path.exists():
        words = ", ".join(shipped) or "none in this installation"
        raise ConfigError(f"{options.name!r}: no such file; shipped: {words}; {nearest(options.name, shipped)}")
    card = read_card(path)
    if options.json:
        print_json({"path": str(path), **card.model_dump(mode="json")})
    else:
        print(f"{'path':<18}{path}")
        print("\n".join(card_lines(card)))
    return ExitCode.DONE


def card_lines(card: CheckpointCard) -> Iterator[str]:
    """Yield a card as lines of text; what it does not say is left out."""
    for key, value in card.model_dump(exclude={"evaluation", "metrics"}).items():
        if value not in ("", None):
            yield f"{key:<18}{value}"
    for key, share in card.metrics.items():
        yield f"{key:<44}{100 * share:5.1f} %"
    if card.evaluation is not None:
        yield from evaluation_lines(card.evaluation)


def evaluation_lines(evaluation: Evaluation) -> Iterator[str]:
    """Yield the figures as a table: a line per domain, and their mean."""
    arms = [arm for arm in _ARMS if any(arm in found for found in evaluation.accuracy.values())]
    yield f"{'evaluation':<18}{evaluation.protocol}"
    yield f"  {'domain':<12}" + "".join(f"{arm:>16}" for arm in arms)
    for domain, found in evaluation.accuracy.items():
        yield f"  {domain:<12}" + "".join(_cell(found[arm].mean, found[arm].half_width) for arm in arms)
    yield f"  {'mean':<12}" + "".join(_cell(*mean_of(evaluation, arm)) for arm in arms)
    for verdict in evaluation.verdicts:
        yield f"  {verdict}"


def mean_of(evaluation: Evaluation, arm: str) -> tuple[float, float]:
    """Return the mean over domains and half the width of its interval (domains' episodes are independent)."""
    found = [values[arm] for values in evaluation.accuracy.values()]
    return fsum(x.mean for x in found) / len(found), hypot(*(x.half_width for x in found)) / len(found)


def _cell(mean: float, half_width: float) -> str:
    return f"{100 * mean:>9.1f} +- {100 * half_width:3.1f}"
