"""The backbone and channel criterion of docs/methods.md, installed as a package of their own, listed and adapted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pages import REPOSITORY, blocks
from tiny_words import TINY

PAGE = REPOSITORY / "docs" / "methods.md"
Words = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def tinytrain(tmp_path: Path) -> Words:
    """The command line in a process of its own that finds the page's package as an installer leaves it."""
    code, entry = (
        next(b.text for b in blocks(PAGE) if b.language == kind and "slim" in b.text) for kind in ("python", "toml")
    )
    groups = tomllib.loads(entry)["project"]["entry-points"]
    (tmp_path / "tinytrain_slim.py").write_text(code)
    metadata = tmp_path / "slim-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: slim\nVersion: 1.0\n")
    lines = [f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in points.items()) for group, points in groups.items()]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    path = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    environment = {**os.environ, "PYTHONPATH": path}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tinytrain_dist", *words]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    return run


def test_it_is_listed_priced_and_suggested(tinytrain: Words) -> None:
    rows = {row["name"]: row for row in json.loads(tinytrain("backbones", "--json").stdout)}
    assert (rows["slim"]["num_layers"], rows["slim"]["num_blocks"]) == (11, 3) and "mcunet" in rows
    wrong = tinytrain("costs", "--backbone", "slin", "--method", "none")
    assert wrong.returncode == 2 and "unknown backbone 'slin'; did you mean 'slim'" in wrong.stderr
    priced = json.loads(tinytrain("costs", "--backbone", "slim", "--method", "last_layer", "--json").stdout)
    assert priced["updated_weights"] == 16 * 64


@pytest.mark.slow
def test_it_is_adapted_by_its_own_criterion(tinytrain: Words, tmp_path: Path) -> None:
    words = [*TINY, "backbone.name=slim", "selection.channel_criterion=first", "selection.inspect_blocks=2"]
    done = tinytrain("simulate", *words, "run.id=mine")
    assert done.returncode == 0, done.stderr
    assert "no weights are shipped for backbone 'slim': random ones are used" in done.stderr
    rows = pq.read_table(tmp_path / "runs" / "mine" / "results").to_pylist()
    assert {(row["status"], row["backbone"]) for row in rows} == {("ok", "slim")}
    chosen = [row for row in rows if row["method"] == "tinytrain" and row["plan_status"] == "ok"]
    assert chosen and all(row["plan_layers"] for row in chosen)
    assert tinytrain("replay", "runs/mine", "--task", rows[0]["task_id"]).returncode == 0
