"""At the job's door: links that lead out, typed sections that do not exist, secrets that must stay secret."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tiny_job import SERIAL, TINY, command, environment

from tinytrain_dist.cli import main
from tinytrain_dist.data.splits import BUNDLED
from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.foundation.paths import resource_folder

TARGET = "_target_"


def refused(capsys: pytest.CaptureFixture[str], root: Path, *words: str) -> tuple[int, str]:
    """Run the job, which must end at once with one message and leave nothing; return code and message."""
    code = main(["simulate", *TINY, SERIAL, f"run.root={root}", *words])
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err and not root.exists()
    message, last = err.splitlines()
    assert last == f"exit code {code}: {ExitCode(code).describe()}"
    return code, message


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("simulation.trian=1", "simulation.trian"),
        ("episode.way=5", "episodes.way"),
        ("executor.num_worker=1", "executor.num_workers"),
        ("dispatch.deadline=1", "dispatch.deadline_s"),
        ("wandb.projct=x", "wandb.project"),
    ],
)
def test_a_typo_names_the_nearest_keys(
    word: str, nearest: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message = refused(capsys, tmp_path / "runs", word)
    assert code == ExitCode.USAGE
    assert f"unknown key '{word.partition('=')[0]}'" in message and nearest in message


@pytest.mark.parametrize(
    "text",
    [
        f"{TARGET}: os.system\nargs: [touch /tmp/owned]\n",
        f"name: mine\nchip:\n  {TARGET}: os.system\n",
        f"anchor: &a {{{TARGET}: os.system}}\nname: mine\nchip: *a\n",
        "name: mine\nchip: !!python/object/apply:os.system ['touch /tmp/owned']\n",
        'name: mine\n"\\x5ftarget\\x5f": os.system\n',
    ],
    ids=["top", "nested", "through an alias", "a tag", "escaped"],
)
def test_a_profile_that_names_something_to_call_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "mine.yaml").write_text(text)
    words = (f"devices.dirs=[{tmp_path / 'devices'}]", "devices.names=[mine]")
    code, message = refused(capsys, tmp_path / "runs", *words)
    assert code == ExitCode.BAD_INPUT and "mine.yaml" in message


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "a/../../b"])
@pytest.mark.parametrize("key", ["devices.names", "data.domains"])
def test_a_name_that_is_a_path_is_refused(
    key: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message = refused(capsys, tmp_path / "runs", f"{key}=[{name}]")
    assert code == ExitCode.BAD_INPUT and repr(name) in message


def test_links_that_lead_out_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A profile and a domain that are links to files elsewhere, however well-formed these are."""
    elsewhere, inside = tmp_path / "elsewhere", tmp_path / "inside"
    for folder in (elsewhere, inside):
        folder.mkdir()
    (elsewhere / "mine.yaml").write_text((resource_folder("device_profiles") / "stm32f746.yaml").read_text())
    (elsewhere / "mine.parquet").write_bytes((BUNDLED / "flags.parquet").read_bytes())
    for name in ("mine.yaml", "mine.parquet"):
        (inside / name).symlink_to(elsewhere / name)
    for words in (
        (f"devices.dirs=[{inside}]", "devices.names=[mine]"),
        (f"data.roots=[{inside}]", "data.domains=[mine]"),
    ):
        code, message = refused(capsys, tmp_path / "runs", *words)
        assert code == ExitCode.BAD_INPUT and "leads out of" in message, message


SECRETS = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "AWS_SECRET_ACCESS_KEY": "awsSecretThatNobodyMaySee",
    "HF_TOKEN": "hf_tokenThatNobodyMaySee",
    "RAY_AUTH_TOKEN": "5ca1ab1e" * 8,
    "DATABASE_PASSWORD": "passwordThatNobodyMaySee",
}


@pytest.mark.slow
def test_secrets_of_environment_and_overrides_are_in_no_output(tmp_path: Path) -> None:
    """A whole job on a Ray of its own, W&B offline: every byte it leaves and prints is searched."""
    words = [word for word in TINY if not word.startswith("wandb.")]
    root, typed = tmp_path / "runs", f"wandb.group={SECRETS['HF_TOKEN']}"
    full = [*command()[:2], *words, "executor.num_workers=1", "episodes.num_tasks=1", "wandb.mode=offline",
            typed, f"run.root={root}", "run.id=mine"]  # fmt: skip
    done = subprocess.run(full, env=environment(**SECRETS), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert list((root / "mine" / "wandb").rglob("*.wandb"))
    places = {"stdout": done.stdout.encode(), "stderr": done.stderr.encode()}
    for folder, _, names in os.walk(root):
        places |= {str(file): contents(file) for file in (Path(folder, name) for name in names) if file.is_file()}
    assert len(places) > 20
    leaks = [
        (place, name) for place, data in places.items() for name, value in SECRETS.items() if value.encode() in data
    ]
    assert leaks == []


def contents(file: Path) -> bytes:
    """Return a file's bytes; of a Parquet file also what stands in it uncompressed."""
    data = file.read_bytes()
    if file.suffix == ".parquet":
        table = pq.read_table(file)
        data += json.dumps(table.to_pylist(), default=str).encode() + str(table.schema.metadata).encode()
    return data
