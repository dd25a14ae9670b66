"""Lets a real shell read the documentation's commands: loops, variables and quotes are bash's own business.

Every program is a shell function that writes down how it was called; the search path is empty, so that a program
nobody has thought of is an error and nothing is ever started by mistake.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pages import Block

PROGRAMS = ("tinytrain", "python", "make", "ray", "pip", "kubectl", "docker", "wandb", "git", "aws", "helm")
_END = "\x1e"
_PRELUDE = """
set -euo pipefail
record() { printf '%s\\0' "$LINE" "$@" >> "$RECORD"; printf '\\x1e' >> "$RECORD"; }
nice() { "$@"; }
mkdir() { /bin/mkdir "$@"; }
cat() { /bin/cat "$@"; }
cp() { /bin/cp "$@"; }
"""


@dataclass(frozen=True)
class Call:
    """One call of a program: where it stands and its words."""

    block: Block
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.block.place}: {' '.join(self.words)}"


def calls(blocks: Iterable[Block], *, folder: Path) -> list[Call]:
    """Return what the blocks of one page would start, in order; fails with the shell's own words."""
    listed = list(blocks)
    record = folder / ".record"
    record.write_bytes(b"")
    functions = "".join(f'{name}() {{ record {name} "$@"; }}\n' for name in PROGRAMS)
    body = "".join(f"LINE={number}\n{block.text}" for number, block in enumerate(listed))
    done = subprocess.run(
        ["/bin/bash", "--norc", "-c", f"{_PRELUDE}{functions}PATH=/nowhere\n{body}"],
        cwd=folder, env={"RECORD": str(record), "HOME": str(folder)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{listed[0].page}: the shell refuses its commands: {done.stderr}"
    found = [part.split("\0")[:-1] for part in record.read_text().split(_END)[:-1]]
    return [Call(listed[int(words[0])], tuple(words[1:])) for words in found]
