"""``doctor``: are the bundled domains whole? Their contents are held to ``bundled/contents.csv``."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.data.splits import BUNDLED
from tinytrain_dist.foundation.diagnosis import Diagnosis, ok, problem
from tinytrain_dist.foundation.errors import DataError, ExitCode

_REINSTALL = "reinstall tinytrain-dist (in a checkout: restore tinytrain_dist/data/bundled)"


def bundled_contents() -> dict[str, dict[str, str]]:
    """Return domain -> images, classes and content hash as they were when the domains were made."""
    with (BUNDLED / "contents.csv").open(encoding="utf-8", newline="") as stream:
        return {row.pop("domain"): row for row in csv.DictReader(stream)}


def diagnose_bundled() -> Iterator[Diagnosis]:
    """Yield a line for each domain that is not whole, or one line for all."""
    contents = bundled_contents()
    wrong = [line for name, known in contents.items() for line in _damage(name, known)]
    images = sum(int(known["images"]) for known in contents.values())
    yield from wrong or [ok("data", f"{len(contents)} bundled domains, {images} images, every content hash as made")]


def _damage(name: str, known: dict[str, str]) -> Iterator[Diagnosis]:
    try:
        found = open_domain(name)
    except DataError as error:
        yield problem("data", str(error), _REINSTALL, exit_code=ExitCode.BAD_INPUT)
        return
    if found.content_hash != known["content_hash"]:
        text = (
            f"domain {name!r}: {len(found)} images of {len(found.class_names)} classes, hash {found.content_hash}; "
            f"made with {known['images']} of {known['classes']}, hash {known['content_hash']}"
        )
        yield problem("data", text, _REINSTALL, exit_code=ExitCode.BAD_INPUT)
