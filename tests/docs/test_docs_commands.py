"""Every command of the documentation: read by a shell, composed by the program's own parsers, run where it is cheap."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
import yaml
from composing import compose_call
from pages import COMMANDS, REPOSITORY, Block, all_blocks, blocks, pages
from shell import Call, calls

from tinytrain_dist.cli import main

LANGUAGES = (*COMMANDS, "sql", "python", "yaml", "json", "text", "toml", "dockerfile")
REMOTE = ("ray", "kubectl", "docker", "wandb", "aws", "helm")
"""Programs that need a cluster, a registry or a login: their blocks must be marked."""
REASONS = ("needs a remote cluster", "needs a login", "needs a registry", "installs", "takes")
CHEAP = {
    "data": ("list", "check", "import"),
    "devices": ("list", "show", "check"),
    "weights": ("list", "check"),
    "backbones": (), "predict": (), "costs": (), "compare": (), "report": (), "replay": (), "doctor": (), "plan": (),
}  # fmt: skip
"""Verbs that are executed (with the actions listed, where a verb has actions); all others are composed."""


def is_executed(call: Call) -> bool:
    """Say whether the call is run, not only composed."""
    if call.words[0] != "tinytrain" or call.block.reason or len(call.words) < 2 or call.words[1] not in CHEAP:
        return False
    actions = CHEAP[call.words[1]]
    return not actions or (len(call.words) > 2 and call.words[2] in actions)


@pytest.mark.slow
@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_the_commands_of_a_page(page: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = [block for block in blocks(page) if block.language in COMMANDS]
    found = calls(wanted, folder=folder) if wanted else []
    for call in found:
        if is_executed(call):
            code = main(list(call.words[1:]))
            assert code == 0, f"{call}: exit code {code}: {capsys.readouterr().err}"
        else:
            try:
                compose_call(call)
            except AssertionError as error:
                raise AssertionError(f"{call}: {error} {capsys.readouterr().err}") from error


def test_every_block_names_its_language() -> None:
    assert [block.place for page in pages() for block in blocks(page) if block.language not in LANGUAGES] == []


def test_blocks_that_are_not_run_say_why(folder: Path) -> None:
    marked = [block for block in all_blocks(*COMMANDS) if block.reason]
    assert [f"{block.place}: {block.reason}" for block in marked if not block.reason.startswith(REASONS)] == []
    by_page: dict[str, list[Block]] = {}
    for block in all_blocks(*COMMANDS):
        by_page.setdefault(block.page, []).append(block)
    found = [call for own in by_page.values() for call in calls(own, folder=folder)]
    unmarked = [str(call) for call in found if call.words[0] in REMOTE and not call.block.reason]
    assert unmarked == [], "mark these blocks: <!-- not run: needs a remote cluster -->"
    run = sum(map(is_executed, found))
    print(f"{len(found)} commands: {run} executed, {len(found) - run} composed; {len(marked)} blocks marked")
    assert run >= 15


def test_sql_of_the_pages_runs_on_a_run(folder: Path) -> None:
    found = all_blocks("sql")
    for block in found:
        for statement in filter(str.strip, block.text.split(";")):
            try:
                rows = duckdb.sql(statement).fetchall()
            except duckdb.Error as error:
                raise AssertionError(f"{block.place}: {error}") from error
            assert rows, f"{block.place}: nothing found by {statement}"
    assert found


def test_python_of_the_pages_runs(folder: Path) -> None:
    names: dict[str, dict[str, object]] = {}
    for block in all_blocks("python"):
        code = compile("\n" * (block.line - 1) + block.text, block.page, "exec")
        if not block.reason:
            exec(code, names.setdefault(block.page, {"__name__": block.page}))
    assert names


def test_yaml_of_the_pages_is_yaml() -> None:
    for block in all_blocks("yaml"):
        assert list(yaml.safe_load_all(block.text)), block.place
