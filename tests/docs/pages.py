"""Reads the documentation: every fenced block with its page, its language, and the mark in front of it.

Convention: every fence names its language. ``bash`` blocks are commands; all of a page's are read by a real shell, in
order, in one folder. A block after ``<!-- not run: REASON -->`` is read and composed, but nothing in it is executed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
COMMANDS = ("bash", "sh")
_FENCE = re.compile(r"^( *)```(.*)$")
_MARK = re.compile(r"<!-- not run: (.+?) -->")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block.

    Attributes
    ----------
    line
        Number of its first line of text, from 1.
    reason
        Why it is not executed; empty where it is.
    """

    page: str
    line: int
    language: str
    text: str
    reason: str

    @property
    def place(self) -> str:
        """Page and line, as an editor finds it."""
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Return README.md and every page below docs/."""
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    found: list[Block] = []
    name = str(page.relative_to(REPOSITORY))
    reason, start, language, held = "", 0, "", list[str]()
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fence = _FENCE.match(line)
        if not start:
            if fence:
                start, language, held = number + 1, fence[2].strip(), []
            elif line.strip():
                mark = _MARK.search(line)
                reason = mark[1] if mark else ""
        elif fence and not fence[2].strip():
            found.append(Block(page=name, line=start, language=language, text="\n".join(held) + "\n", reason=reason))
            start, reason = 0, ""
        else:
            held.append(line)
    assert not start, f"{name}:{start}: the block has no end"
    return found


def all_blocks(*languages: str) -> list[Block]:
    """Return the blocks of all pages in these languages."""
    return [block for page in pages() for block in blocks(page) if block.language in languages]
