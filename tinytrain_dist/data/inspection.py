"""Looks at every image of a source: what will be converted, what cannot be used, which classes are too small."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tinytrain_dist.data.image_table import SPLITS, ImageTable, Split
from tinytrain_dist.data.images import decode, read_header
from tinytrain_dist.data.sources import SOURCES, source_of
from tinytrain_dist.foundation.errors import DataError

NAMED_PER_KIND = 10
"""Findings of one kind that are named; all are counted."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of finding: an error makes the domain unusable, a warning leaves something out, a note does neither."""

    level: Literal["error", "warning", "note"]
    kind: str
    count: int
    named: tuple[str, ...]

    def text(self) -> str:
        """Return the finding in one line."""
        more = f" ... and {self.count - len(self.named)} more" if self.count > len(self.named) else ""
        return f"{self.level}: {self.kind}: {self.count}: " + "; ".join(self.named) + more


@dataclass(frozen=True, kw_only=True)
class DomainReport:
    """Counts of a domain and everything found in it."""

    path: str
    format: str
    images: int
    classes: int
    superclasses: int
    classes_per_split: dict[Split, int]
    images_per_class: tuple[int, int]
    content_hash: str
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that make the domain unusable."""
        return tuple(finding for finding in self.findings if finding.level == "error")


def inspect(path: Path, *, format: str | None = None, shot: int = 5, query: int = 10) -> DomainReport:
    """Read and decode everything under ``path`` and report.

    Parameters
    ----------
    path
        File or folder.
    format
        Name of a source; found from the path when None.
    shot, query
        Classes with fewer images than these ask for are named.

    Raises
    ------
    DataError
        The form itself cannot be read: a missing column, no image at all, a class in two splits.
    """
    name = format or source_of(path)
    return report_on(SOURCES[name].read(path), path=str(path), format=name, shot=shot, query=query)


def report_on(table: ImageTable, *, path: str, format: str, shot: int, query: int) -> DomainReport:
    """Decode every image of ``table`` and report."""
    counts = Counter(table.labels.tolist())
    sizes = {name: counts[i] for i, name in enumerate(table.class_names)}
    return DomainReport(
        path=path,
        format=format,
        images=len(table),
        classes=len(sizes),
        superclasses=len(set(table.superclasses or ())),
        classes_per_split={split: table.class_splits.count(split) for split in SPLITS},
        images_per_class=(min(sizes.values()), max(sizes.values())),
        content_hash=table.content_hash(),
        findings=(*_image_findings(table), *_class_findings(sizes, shot=shot, query=query), *_source_notes(table)),
    )


def refuse(report: DomainReport) -> None:
    """Raise ``DataError`` with all errors of the report, if there are any."""
    if report.errors:
        raise DataError(f"{report.path}: " + " | ".join(finding.text() for finding in report.errors))


def _image_findings(table: ImageTable) -> Iterator[Finding]:
    broken: list[str] = []
    converted: dict[str, list[str]] = {}
    for row in range(len(table)):
        where = f"row {row} ({table.sources[row]})" if table.sources[row] else f"row {row}"
        data = table.encoded(row)
        try:
            kind = read_header(data, where=where).kind
            decode(data, where=where)
        except DataError as error:
            broken.append(str(error))
            continue
        if kind != "rgb":
            converted.setdefault(kind, []).append(where)
    if broken:
        yield _finding("error", "images that cannot be used", broken)
    for kind in sorted(converted):
        yield _finding("note", f"{kind} images converted to RGB", converted[kind])


def _class_findings(sizes: dict[str, int], *, shot: int, query: int) -> Iterator[Finding]:
    usable = [name for name, size in sizes.items() if size >= 2]
    if len(usable) < 2:
        text = f"{len(usable)} of {len(sizes)} classes have two images or more; an episode needs two such classes"
        yield Finding(level="error", kind="too few classes", count=1, named=(text,))
    small = [f"{name!r} ({size})" for name, size in sizes.items() if size < shot + 1]
    if small:
        yield _finding("warning", f"classes left out of episodes of shot {shot} (fewer than {shot + 1} images)", small)
    short = [f"{name!r} ({size})" for name, size in sizes.items() if shot + 1 <= size < shot + query]
    if short:
        yield _finding("note", f"classes with fewer than {query} query images at shot {shot}", short)


def _source_notes(table: ImageTable) -> Iterator[Finding]:
    if table.notes:
        yield _finding("warning", "left out by the source", list(table.notes))


def _finding(level: Literal["error", "warning", "note"], kind: str, named: list[str]) -> Finding:
    return Finding(level=level, kind=kind, count=len(named), named=tuple(named[:NAMED_PER_KIND]))
