"""The jobs of the pages a newcomer follows, really run: as typed, with settings of a second added at the end."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import COMMANDS, REPOSITORY, blocks
from shell import calls

from tinytrain_dist.cli import main

FOLLOWED = ("README.md", "docs/getting_started.md", "docs/data.md")
JOBS = ("simulate", "meta-train")
SMALL = (
    "run.id=null",
    "backbone.resolution=32",
    "episodes.num_tasks=1",
    "finetune.iterations=1",
    "meta_train.num_episodes=2",
    "meta_train.episodes_per_round=1",
    "meta_train.way=[3,3]",
    "meta_train.query=[2,2]",
    "meta_train.validation_episodes=2",
    "meta_train.validation_query=2",
    "executor.kind=serial",
    "wandb.mode=disabled",
)


@pytest.mark.slow
@pytest.mark.parametrize("page", FOLLOWED)
def test_the_jobs_of_a_page_run(page: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = [block for block in blocks(REPOSITORY / page) if block.language in COMMANDS and not block.reason]
    found = [list(call.words[1:]) for call in calls(wanted, folder=folder) if call.words[0] == "tinytrain"]
    if page == "docs/data.md":
        for left in (folder / "domains").glob("*"):  # the page's own commands may have been run in this folder before
            left.unlink()
        assert main(next(words for words in found if words[:2] == ["data", "import"])) == 0
    jobs = [words for words in found if words[0] in JOBS]
    assert jobs
    for words in jobs:
        code = main([*words, *SMALL, f"run.root={tmp_path}"])
        assert code == 0, f"tinytrain {' '.join(words)}: exit code {code}: {capsys.readouterr().err}"
