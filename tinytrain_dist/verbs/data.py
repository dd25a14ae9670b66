"""``tinytrain data``: list, check or import domains of images."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tinytrain_dist.data.domain import Domain, domain_names, open_domain
from tinytrain_dist.data.importing import import_domain
from tinytrain_dist.data.inspection import DomainReport, inspect
from tinytrain_dist.data.sources import SOURCES
from tinytrain_dist.foundation.errors import ConfigError, ExitCode, nearest
from tinytrain_dist.foundation.paths import local_path
from tinytrain_dist.verbs.arguments import VerbParser, print_json

USAGE = """usage: tinytrain data {list,check,import} [options]

  list      domains with images, classes, superclasses, splits
  check     read and decode everything under a path, count and name what is wrong
  import    convert a source to one Parquet file of the project's own form

example:
  tinytrain data list

'tinytrain data list --help' shows an action's options and an example."""


def main(argv: list[str]) -> ExitCode:
    """Run ``tinytrain data ARGV``."""
    action = argv[0] if argv else "--help"
    if action in ("--help", "-h"):
        print(USAGE)
        return ExitCode.DONE
    if action not in ACTIONS:
        raise ConfigError(f"tinytrain data: unknown action {action!r}; {nearest(action, ACTIONS)}")
    return ACTIONS[action](argv[1:])


def _list(argv: list[str]) -> ExitCode:
    parser = VerbParser("data list", description="List the domains that can be used.", example="tinytrain data list")
    parser.add_argument("--root", action="append", default=[], metavar="DIR", help="a folder with own domains")
    options = parser.parse(argv)
    rows = [_row(open_domain(name, roots=options.root)) for name in domain_names(options.root)]
    if options.json:
        print_json(rows)
    else:
        _print_table(rows)
    return ExitCode.DONE


def _row(domain: Domain) -> dict[str, Any]:
    sizes = domain.class_sizes
    return {
        "name": domain.name,
        "images": len(domain),
        "classes": len(domain.class_names),
        "images_per_class_min": int(sizes.min()),
        "images_per_class_max": int(sizes.max()),
        "superclasses": len(set(domain.superclasses or ())),
        **{f"{split}_classes": count for split, count in domain.split_sizes().items()},
        "content_hash": domain.content_hash,
    }


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    heads = ("domain", "images", "classes", "per class", "superclasses", "train", "valid", "test", "content hash")
    cells = [
        (r["name"], r["images"], r["classes"], f"{r['images_per_class_min']}-{r['images_per_class_max']}",
         r["superclasses"] or "-", r["train_classes"], r["valid_classes"], r["test_classes"], r["content_hash"])
        for r in rows
    ]  # fmt: skip
    widths = [max(len(str(line[i])) for line in (heads, *cells)) for i in range(len(heads))]
    for line in (heads, *cells):
        first, *rest = (str(cell) for cell in line)
        print("  ".join([first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(rest, widths[1:], strict=True))]))


def _check(argv: list[str]) -> ExitCode:
    parser = VerbParser(
        "data check",
        description="Read and decode every image under PATH; errors end with exit code 3.",
        example="tinytrain data check my_photos --shot 5",
    )
    parser.add_argument("path", metavar="PATH", help="a Parquet file, a folder of Parquet files, or an image folder")
    parser.add_argument("--format", help="by default found from the path: " + ", ".join(SOURCES))
    parser.add_argument("--shot", type=int, default=5, help="name classes with too few images for this (default 5)")
    parser.add_argument("--query", type=int, default=10, help="query images per class to check for (default 10)")
    options = parser.parse(argv)
    path = local_path(options.path, what="PATH")
    report = inspect(path, format=options.format, shot=_positive(options, "shot"), query=_positive(options, "query"))
    _print_report(report, json=options.json)
    return ExitCode.BAD_INPUT if report.errors else ExitCode.DONE


def _positive(options: argparse.Namespace, key: str) -> int:
    value = int(getattr(options, key))
    if value < 1:
        raise ConfigError(f"--{key} is {value}; set it to 1 or more")
    return value


def _import(argv: list[str]) -> ExitCode:
    parser = VerbParser(
        "data import",
        description="Convert SOURCE to DIR/NAME.parquet; nothing is written when an image is unusable.",
        example="tinytrain data import my_photos --format image_folder --out domains --name photos",
    )
    parser.add_argument("source", metavar="SOURCE", help="file or folder")
    parser.add_argument("--format", required=True, help="one of: " + ", ".join(SOURCES))
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the new file")
    parser.add_argument("--name", help="name of the domain (default: the last part of SOURCE)")
    options = parser.parse(argv)
    source = local_path(options.source, what="SOURCE")
    out: Path = local_path(options.out, what="--out")
    target, report = import_domain(source, format=options.format, out=out, name=options.name)
    _print_report(report, json=options.json, written=str(target))
    return ExitCode.DONE


def _print_report(report: DomainReport, *, json: bool, written: str | None = None) -> None:
    if json:
        print_json({**dataclasses.asdict(report), "usable": not report.errors, "written": written})
        return
    splits = ", ".join(f"{split} {count}" for split, count in report.classes_per_split.items())
    low, high = report.images_per_class
    print(f"{report.path} ({report.format}): {report.images} images, {report.classes} classes of {low}-{high} images")
    print(f"classes per split: {splits}; superclasses: {report.superclasses}; content hash {report.content_hash}")
    for finding in report.findings:
        print(finding.text())
    print(f"written: {written}" if written else "unusable" if report.errors else "usable")


ACTIONS: dict[str, Callable[[list[str]], ExitCode]] = {"list": _list, "check": _check, "import": _import}
