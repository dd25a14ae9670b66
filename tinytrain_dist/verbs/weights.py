"""``tinytrain weights list | card | check | evaluate | gain | import``: checkpoints with their cards."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinytrain_dist.backbones.card import CheckpointCard, read_card
from tinytrain_dist.backbones.checkpoint import load_checkpoint, save_checkpoint
from tinytrain_dist.backbones.flat_state import flat_to_state
from tinytrain_dist.backbones.importers import IMPORTERS, Importer
from tinytrain_dist.backbones.importers.wheels import CARRIED
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.backbones.shipped_weights import shipped_files
from tinytrain_dist.foundation.errors import CheckpointError, ConfigError, ExitCode, nearest
from tinytrain_dist.foundation.paths import local_path
from tinytrain_dist.verbs.arguments import VerbParser, print_json
from tinytrain_dist.verbs.weights_card import show_card
from tinytrain_dist.verbs.weights_evaluate import evaluate_weights
from tinytrain_dist.verbs.weights_gain import put_gain

_HELP = """usage: tinytrain weights ACTION [options]

List, show, check, evaluate or import checkpoints (safetensors files with a card).

actions:
  list [DIR...]                                 shipped checkpoints, and those in folders, with their cards
  card FILE_OR_BACKBONE                         all a checkpoint's card says; a backbone's name: the shipped one
  check FILE [--backbone NAME]                  read everything and say whether it can be used
  evaluate FILE [--episodes N] [--out FILE]     measure it on unseen domains and write the figures into its card
  gain FILE RUN                                 write what tinytrain gained from it in a simulation into its card
  import FILE --backbone NAME --out FILE        convert a file of another project

example:
  tinytrain weights import mcunet-5fps.pkl --backbone mcunet --out weights/mcunet.safetensors

'tinytrain weights ACTION --help' shows an action's options."""


def main(argv: list[str]) -> ExitCode:
    """Run one action of the verb."""
    actions: dict[str, Callable[[list[str]], ExitCode]] = {
        "list": _list, "card": show_card, "check": _check, "evaluate": evaluate_weights, "gain": put_gain,
        "import": _import,
    }  # fmt: skip
    if not argv or argv[0] in ("--help", "-h"):
        print(_HELP)
        return ExitCode.DONE if argv else ExitCode.USAGE
    if argv[0] not in actions:
        raise ConfigError(f"tinytrain weights: unknown action {argv[0]!r}; {nearest(argv[0], actions)}")
    return actions[argv[0]](argv[1:])


def _list(argv: list[str]) -> ExitCode:
    parser = VerbParser(
        "weights list", description="List the shipped checkpoints and those in folders.",
        example="tinytrain weights list runs",
    )  # fmt: skip
    parser.add_argument("folders", nargs="*", metavar="DIR", default=["runs"], help="folders, searched with all inside")
    options = parser.parse(argv)
    rows = [_row(path) | {"shipped": True} for path in shipped_files().values()]
    found = [path for folder in options.folders for path in _checkpoints(folder, default=folder == "runs")]
    rows += [_row(path) | {"shipped": False} for path in found]
    if options.json:
        print_json(rows)
        return ExitCode.DONE
    for row in rows:
        shown = row.get("error") or f"{row['backbone']}  {row['initialization']}  {row['checkpoint']}"
        print(f"{row['path']}  {shown}{'  shipped' if row['shipped'] else ''}")
    if not found:
        print(f"no checkpoints in {', '.join(options.folders)}")
    return ExitCode.DONE


def _checkpoints(folder: str, *, default: bool) -> list[Path]:
    path = local_path(folder, what="folder")
    if not path.is_dir() and not default:
        raise ConfigError(f"folder {folder!r}: does not exist")
    return sorted(path.rglob("*.safetensors"))


def _row(path: Path) -> dict[str, Any]:
    try:
        return _card_row(path, read_card(path))
    except CheckpointError as exc:
        return {"path": str(path), "error": str(exc)}


def _card_row(path: Path, card: CheckpointCard) -> dict[str, Any]:
    fields = card.model_dump()
    return {"path": str(path), "checkpoint": fields.pop("content_hash"), **fields}


def _check(argv: list[str]) -> ExitCode:
    parser = VerbParser(
        "weights check", description="Read a checkpoint completely and say whether it can be used.",
        example="tinytrain weights check weights/mcunet.safetensors --backbone mcunet",
    )  # fmt: skip
    parser.add_argument("file", metavar="FILE", help="a safetensors checkpoint")
    parser.add_argument("--backbone", metavar="NAME", help="backbone it must fit (default: the one its card names)")
    options = parser.parse(argv)
    path = local_path(options.file, what="checkpoint")
    found = load_checkpoint(path, backbone=options.backbone)
    row = _card_row(path, found.card) | {"ok": True, "num_values": found.state.size, "head_scale": found.head_scale}
    _show(row, as_json=options.json)
    return ExitCode.DONE


def _import(argv: list[str]) -> ExitCode:
    parser = VerbParser(
        "weights import",
        description="Convert a file of another project, or what an installed package carries, into a checkpoint. "
        "Nothing in it is run.",
        example="tinytrain weights import mcunet-5fps.pkl --backbone mcunet --out weights/mcunet.safetensors",
    )  # fmt: skip
    carried = ", ".join(CARRIED)
    parser.add_argument("file", metavar="FILE", help=f"the file to convert, or an installed package's: {carried}")
    parser.add_argument("--backbone", required=True, metavar="NAME", help="backbone the weights are for")
    parser.add_argument("--out", required=True, metavar="FILE", help="checkpoint to write (.safetensors)")
    parser.add_argument("--format", metavar="NAME", help="format of FILE (default: by its ending)")
    options = parser.parse(argv)
    out = local_path(options.out, what="checkpoint")
    if out.suffix != ".safetensors":
        raise ConfigError(f"--out {options.out!r}: must end in .safetensors")
    if out.exists():
        raise ConfigError(f"--out {options.out!r}: exists; choose another name or remove it")
    if options.file in CARRIED:
        source, name = CARRIED[options.file].installed_file(), options.file
    else:
        source = local_path(options.file, what="weights")
        name = options.format or _format_of(source)
    command = shlex.join(["tinytrain", "weights", "import", *argv])
    card = _convert(source, out, backbone=options.backbone, importer=IMPORTERS[name], command=command)
    _show(_card_row(out, card), as_json=options.json)
    return ExitCode.DONE


def _format_of(source: Path) -> str:
    for name in IMPORTERS:
        if IMPORTERS[name].takes(source.name):
            return name
    endings = ", ".join(suffix for name in IMPORTERS for suffix in IMPORTERS[name].suffixes)
    raise ConfigError(f"{source}: unknown ending {source.suffix!r}; allowed: {endings}, or set --format")


def _convert(source: Path, out: Path, *, backbone: str, importer: Importer, command: str) -> CheckpointCard:
    network = build_backbone(backbone, resolution=importer.resolution)
    flat_to_state(network, importer.read(source, graph=network.graph))
    card = CheckpointCard(
        initialization="pretrained", resolution=importer.resolution, command=command, data=importer.data,
        licence=importer.licence, source=f"{importer.source} ({source.name})",
    )  # fmt: skip
    save_checkpoint(out, network, card)
    return load_checkpoint(out, backbone=backbone).card


def _show(row: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    for key, value in row.items():
        print(f"{key:<18}{value}")
