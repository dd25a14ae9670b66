"""Bad input at the job's door: one clear message, the right exit code, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from tiny_job import SERIAL, TINY

from tinytrain_dist.backbones.card import CheckpointCard
from tinytrain_dist.backbones.checkpoint import save_checkpoint
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.cli import main
from tinytrain_dist.costs.schemes import SHIPPED
from tinytrain_dist.data.splits import BUNDLED
from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.foundation.paths import resource_folder


def refused(capsys: pytest.CaptureFixture[str], root: Path, *words: str, code: ExitCode) -> str:
    """Run the job, assert that it refused cleanly, return its one message."""
    assert main(["simulate", *TINY, SERIAL, f"run.root={root}", *words]) == code
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and "Traceback" not in err
    assert [line.split(":")[0] for line in lines] == ["error", f"exit code {int(code)}"], err
    assert lines[1] == f"exit code {int(code)}: {code.describe()}"
    assert not root.exists()
    return lines[0]


@pytest.mark.parametrize(
    ("word", "code", "expected"),
    [
        ("finetune.iteratons=1", ExitCode.USAGE, "did you mean 'finetune.iterations'"),
        ("experiment=quikstart", ExitCode.USAGE, "unknown experiment 'quikstart'"),
        ("methods=[none,tinytrian]", ExitCode.USAGE, "unknown method 'tinytrian'; did you mean 'tinytrain'"),
        (
            "methods=[none,layer_alone_99]",
            ExitCode.USAGE,
            "'layer_alone_99': unknown layer; mobilenet_v2_w0.1 has layers",
        ),
        ("methods=[none,layer_alone_2_top]", ExitCode.USAGE, "raise selection.inspect_blocks"),
        ("selection.criterion=fisher_onyl", ExitCode.USAGE, "did you mean 'fisher_only'"),
        (
            "devices.names=[stm32f764]",
            ExitCode.BAD_INPUT,
            "unknown device profile 'stm32f764'; did you mean 'stm32f746'",
        ),
        ("devices.names=[../../etc/passwd]", ExitCode.BAD_INPUT, "device profile"),
        ("data.domains=[sings]", ExitCode.BAD_INPUT, "unknown domain 'sings'; did you mean 'signs'"),
        ("data.domains=[../../etc/passwd]", ExitCode.BAD_INPUT, "domain"),
        ("data.roots=[/no/such/folder]", ExitCode.BAD_INPUT, "no such folder"),
        ("data.split=tset", ExitCode.USAGE, "did you mean 'test'"),
        ("backbone.name=mcunett", ExitCode.USAGE, "did you mean 'mcunet'"),
        ("backbone.resolution=0", ExitCode.USAGE, "resolution"),
        ("backbone.weights=/no/such.safetensors", ExitCode.BAD_INPUT, "/no/such.safetensors"),
        ("episodes.sampler=fxied", ExitCode.USAGE, "did you mean 'fixed'"),
        ("episodes.way=1", ExitCode.USAGE, "set way to 2 or more"),
        ("episodes.shot=0", ExitCode.USAGE, "set shot to 1 or more"),
        ("episodes.way=500", ExitCode.BAD_INPUT, "way is 500; set way to"),
        ("episodes.shot=5000", ExitCode.BAD_INPUT, "lower shot"),
        ("episodes.num_tasks=0", ExitCode.USAGE, "episodes.num_tasks: found 0; allowed: 1 or more"),
        ("budget.memory_bytes=0", ExitCode.USAGE, "budget.memory_bytes: found 0; allowed"),
        ("budget.compute_share=-1", ExitCode.USAGE, "budget.compute_share: found -1; allowed"),
        ("budget.compute_share=15%", ExitCode.USAGE, "budget.compute_share: found '15%'; allowed"),
        (
            "budget.memory_bytes=1MB",
            ExitCode.USAGE,
            "budget.memory_bytes: found '1MB'; allowed: a whole number",
        ),
        ("budget.memory_bytes=-5", ExitCode.USAGE, "budget.memory_bytes: found -5; allowed"),
        ("selection.channel_ratio=0", ExitCode.USAGE, "selection.channel_ratio: found 0; allowed: above 0, up to 1"),
        ("selection.channel_ratio=1.5", ExitCode.USAGE, "selection.channel_ratio: found 1.5; allowed"),
        ("selection.channel_ratio=most", ExitCode.USAGE, "found 'most'; allowed: above 0, up to 1, or auto"),
        ("selection.channel_criterion=fishr", ExitCode.USAGE, "did you mean 'fisher'"),
        ("selection.fisher_point=before", ExitCode.USAGE, "allowed: after_activation, before_activation"),
        ("selection.device_ratios={stm32f764:0.5}", ExitCode.USAGE, "did you mean 'stm32f746'"),
        ("selection.device_ratios={stm32f746:2}", ExitCode.USAGE, "selection.device_ratios.stm32f746: found 2"),
        ("selection.device_ratios=0.5", ExitCode.USAGE, "selection.device_ratios: found 0.5; allowed: {DEVICE:RATIO"),
        ("selection.scheme=mcunet--mcunet3", ExitCode.USAGE, "did you mean 'mcunet--mcunetv3'"),
        ("selection.scheme=mcunet--mcunetv3", ExitCode.BAD_INPUT, "scheme for backbone 'mcunet' used with"),
        ("finetune.distance=cosin", ExitCode.USAGE, "did you mean 'cosine'"),
        ("finetune.learning_rate=fast", ExitCode.USAGE, "found 'fast'; allowed: above 0, below 10, or auto"),
        ("selection.inspect_blocks=99", ExitCode.USAGE, "selection.inspect_blocks: found 99; allowed: 1 to 17"),
        ("finetune.device=cuda", ExitCode.USAGE, "finetune.device: found 'cuda'; allowed: cpu, in mode reference"),
        ("finetune.device=gpu", ExitCode.USAGE, "finetune.device: found 'gpu'; allowed: cpu, cuda"),
        ("finetune.learning_rate=nan", ExitCode.USAGE, "finetune.learning_rate: found nan"),
        ("dispatch.max_failed_share=2", ExitCode.USAGE, "dispatch.max_failed_share: found 2.0"),
        ("executor.kind=rya", ExitCode.USAGE, "did you mean 'ray'"),
        ("wandb.mode=of", ExitCode.USAGE, "wandb.mode"),
        ("run.id=../../x", ExitCode.USAGE, "run.id '../../x'"),
        ("run._target_=os.system", ExitCode.USAGE, "nothing is instantiated"),
    ],
)
def test_a_bad_word_is_refused(
    word: str, code: ExitCode, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refused(capsys, tmp_path / "runs", word, code=code)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("finetune.mode=fast", "finetune.device=cuda")
    message = refused(capsys, tmp_path / "runs", *words, code=ExitCode.USAGE)
    assert "finetune.device: found cuda, but torch" in message and message.endswith("where the workers run")


def device_file(folder: Path, text: str) -> str:
    folder.mkdir()
    (folder / "mine.yaml").write_text(text)
    return f"devices.dirs=[{folder}]"


def board(**changes: object) -> str:
    raw = yaml.safe_load((resource_folder("device_profiles") / "stm32f746.yaml").read_text())
    return yaml.safe_dump(raw | {"name": "mine"} | changes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (board(ram_bytes="320KB"), "key 'ram_bytes': found '320KB'; allowed: a whole number of bytes above 0"),
        (board(ram_kb=320), "unknown key 'ram_kb'; did you mean 'ram_bytes'"),
        (board(clock_hz=-1), "key 'clock_hz': found -1"),
        (board(active_power_w=float("nan")), "key 'active_power_w'"),
        (board(_target_="os.system"), "'_target_' is not allowed"),
        ("name: mine\nname: mine\n", "duplicate key 'name'"),
        ("a: !!python/object/apply:os.system ['true']\n", "python/object"),
        ("name: other\n", "mine.yaml"),
    ],
)
def test_a_bad_profile_is_refused(text: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (device_file(tmp_path / "devices", text), "devices.names=[mine]")
    message = refused(capsys, tmp_path / "runs", *words, code=ExitCode.BAD_INPUT)
    assert expected in message and "mine.yaml" in message


@pytest.mark.parametrize("keep", [0, 10, 5000])
def test_a_damaged_domain_file_is_refused(keep: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.parquet").write_bytes((BUNDLED / "fashion.parquet").read_bytes()[:keep])
    words = (f"data.roots=[{tmp_path / 'data'}]", "data.domains=[mine]")
    assert "mine.parquet" in refused(capsys, tmp_path / "runs", *words, code=ExitCode.BAD_INPUT)


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "narrow.safetensors"
    save_checkpoint(path, build_backbone("mobilenet_v2_w0.2"), CheckpointCard(initialization="random", resolution=32))
    message = refused(capsys, tmp_path / "runs", f"backbone.weights={path}", code=ExitCode.BAD_INPUT)
    assert "narrow.safetensors" in message
    assert "architecture 'mobilenet_v2_w0.2'" in message and "expected 'mobilenet_v2_w0.1'" in message


def test_a_pickle_is_refused_unopened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "weights.pkl"
    path.write_bytes(b"\x80\x04cos\nsystem\n(S'touch /tmp/owned'\ntR." + bytes(64))
    message = refused(capsys, tmp_path / "runs", f"backbone.weights={path}", code=ExitCode.BAD_INPUT)
    assert "pickle" in message


def test_a_relative_root_in_a_ray_job_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.chdir(tmp_path)
    message = refused(capsys, Path("runs"), code=ExitCode.USAGE)
    assert "run.root: found 'runs'" in message


@pytest.mark.parametrize("where", ["file/runs", "file"])
def test_a_root_that_cannot_be_written_is_a_storage_error(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["simulate", *TINY, SERIAL, f"run.root={tmp_path / where}"]) == ExitCode.STORAGE
    err = capsys.readouterr().err
    assert "Traceback" not in err and "cannot be created" in err and "file" in err
    assert err.splitlines()[-1] == "exit code 8: storage error"


def test_storage_of_an_unknown_scheme_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", *TINY, SERIAL, "run.root=gopher://x"]) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert "gopher://...: this scheme is unknown; allowed: a local path, file://, s3://, gs://" in err


def test_nothing_is_asked_of_ray_before_the_words_are_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tinytrain_dist.verbs.simulate.cluster", None)  # would raise
    words = [*TINY, f"run.root={tmp_path / 'runs'}", "backbone.weights=meta_train", "methods=[tinytrian]"]
    assert main(["simulate", *words]) == ExitCode.USAGE
    assert "did you mean 'tinytrain'" in capsys.readouterr().err


def test_a_damaged_or_foreign_scheme_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text((SHIPPED / "mcunet--mcunetv3.yaml").read_text().replace("36: 0.125", "36: 12.5"))
    message = refused(capsys, tmp_path / "runs", f"selection.scheme={path}", code=ExitCode.BAD_INPUT)
    assert "mine.yaml: key 'input_shares.36': found 12.5" in message
    path.write_text("format: 1\nbackbone: mobilenet_v2_w0.1\nsource: me\ninput_shares: {99: 1.0}\nnum_last_biases: 0\n")
    message = refused(capsys, tmp_path / "runs", f"selection.scheme={path}", code=ExitCode.BAD_INPUT)
    assert "layer 99: mobilenet_v2_w0.1 has layers 0 to" in message


def test_a_domain_of_one_class_makes_no_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in ("train/ant", "train/bee", "test/cat"):
        folder = tmp_path / "photos" / place
        folder.mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(folder / f"{number}.png")
    where = ["--format", "image_folder", "--out", str(tmp_path / "data"), "--name", "mine"]
    assert main(["data", "import", str(tmp_path / "photos"), *where]) == ExitCode.DONE
    capsys.readouterr()
    words = (f"data.roots=[{tmp_path / 'data'}]", "data.domains=[mine]", "data.split=test", "episodes.way=2")
    message = refused(capsys, tmp_path / "runs", *words, code=ExitCode.BAD_INPUT)
    assert "'mine'" in message and "class" in message


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["methods=[none]"], "auto, but none of ['none'] trains; set a rate"),
        (
            ["data.domains=[emoji,icons]", "data.split=valid"],
            "choose the rate on ['emoji', 'icons'], which data.domains tests; name others",
        ),
        (
            ["rate_search.rates=[0.1,0.1]"],
            "rate_search.rates: found [0.1, 0.1]; allowed: at least one rate, none twice",
        ),
        (["rate_search.rates=[-1]"], "rate_search.rates: found -1.0; allowed: above 0, below 10"),
    ],
)
def test_a_rate_that_cannot_be_searched_is_refused(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, tmp_path / "runs", "finetune.learning_rate=auto", *words, code=ExitCode.USAGE)
    assert expected in message
