"""What adaptation does with weights, losses and budgets nothing can be done with, as a user of the job meets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_job import SERIAL, TINY

from tinytrain_dist.backbones.card import CheckpointCard
from tinytrain_dist.backbones.checkpoint import save_checkpoint
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.cli import main
from tinytrain_dist.foundation.errors import ExitCode

ONE = ("data.domains=[signs]", "episodes.num_tasks=1", "methods=[none,tinytrain]", "devices.names=[jetson_nano]")


def simulated(
    root: Path, *words: str, method: str = "tinytrain", code: ExitCode = ExitCode.DONE
) -> list[dict[str, Any]]:
    """Run one tiny task, return its rows of ``method``."""
    assert main(["simulate", *TINY, SERIAL, *ONE, f"run.root={root}", "run.id=one", *words]) == code
    rows: list[dict[str, Any]] = pq.read_table(root / "one" / "results").to_pylist()
    return [row for row in rows if row["method"] == method]


@pytest.mark.slow
def test_a_loss_that_is_no_number_is_a_row_that_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explode = ("finetune.optimizer=sgd", "finetune.learning_rate=9.9", "finetune.scale=1e30", "finetune.iterations=20")
    words = (*explode, "dispatch.max_failed_share=1", "methods=[none,full_train]")
    (row,) = simulated(tmp_path, *words, method="full_train", code=ExitCode.PARTIAL)
    assert (row["status"], row["accuracy_after"]) == ("diverged", None)
    assert "not finite after iteration" in row["message"] and "finetune.learning_rate" in row["message"]
    assert row["accuracy_before"] is not None and row["latency_ms"] > 0
    assert "exit code 5: partial: some rows failed" in capsys.readouterr().err


@pytest.mark.slow
def test_a_budget_nothing_fits_in_is_a_result_that_says_what_is_missing(tmp_path: Path) -> None:
    (row,) = simulated(tmp_path, "budget.memory_bytes=1")
    assert (row["status"], row["plan_status"], row["fits"], row["signature"]) == ("ok", "infeasible", "no", "stalled")
    assert row["accuracy_after"] == row["accuracy_before"] and row["iterations"] == 0
    missing = int(row["plan_reason"].split(" misses ")[1].split(" bytes")[0])
    assert row["plan_reason"].startswith("no layer fits the budget; layer ") and missing > 0
    (enough,) = simulated(tmp_path / "more", f"budget.memory_bytes={1 + missing}")
    assert enough["plan_status"] == "ok" and len(enough["plan_layers"]) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(
    value: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "weights.safetensors"
    backbone = build_backbone("mobilenet_v2_w0.1")
    save_checkpoint(path, backbone, CheckpointCard(initialization="random", resolution=32))
    with safe_open(path, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    first = next(iter(tensors.values()))
    assert first.dtype == torch.float32 and np.isfinite(first.numpy()).all()
    first.view(-1)[0] = value
    save_file(tensors, path, metadata=metadata)
    words = (*TINY, SERIAL, f"run.root={tmp_path / 'runs'}", f"backbone.weights={path}")
    assert main(["simulate", *words]) == ExitCode.BAD_INPUT
    err = capsys.readouterr().err
    assert "weights.safetensors" in err and "finite" in err and "Traceback" not in err
    assert not (tmp_path / "runs").exists()


def large_weights(path: Path, *, scale: float) -> Path:
    """Write a checkpoint whose last projection scales its features; the file's own tensors are all finite."""
    backbone = build_backbone("mobilenet_v2_no_mix", resolution=32)
    with torch.no_grad():
        backbone.unit(50).norm.weight.fill_(scale)
    save_checkpoint(path, backbone, CheckpointCard(initialization="random", resolution=32))
    return path


@pytest.mark.slow
def test_features_that_are_no_numbers_are_rows_that_say_so_and_a_page(tmp_path: Path) -> None:
    path = large_weights(tmp_path / "large.safetensors", scale=1e30)
    weights = (f"backbone.weights={path}", "backbone.name=mobilenet_v2_no_mix", "dispatch.max_failed_share=1")
    methods = ("raw_pixels", "none", "last_layer", "tinytrain")
    words = (*TINY, SERIAL, *ONE, *weights, f"methods=[{','.join(methods)}]", "run.id=one")
    assert main(["simulate", *words, f"run.root={tmp_path}"]) == ExitCode.PARTIAL
    rows = {row["method"]: row for row in pq.read_table(tmp_path / "one" / "results").to_pylist()}
    assert rows.pop("raw_pixels")["status"] == "ok" and set(rows) == {"none", "last_layer", "tinytrain"}
    for row in rows.values():
        assert (row["status"], row["accuracy_before"], row["accuracy_after"]) == ("diverged", None, None)
        assert "the frozen network makes features" in row["message"] and "learning_rate" not in row["message"]
        assert (row["plan_status"], row["plan_layers"]) == ("not_applicable", None)
    assert (tmp_path / "one" / "report.html").is_file() and (tmp_path / "one" / "_SUCCESS").is_file()
    assert main(["report", str(tmp_path / "one")]) in (ExitCode.DONE, ExitCode.PARTIAL)
    more, roots = f"methods=[{','.join(methods)},sparse_update]", (tmp_path, tmp_path / "fresh")
    assert [main(["simulate", *words, more, f"run.root={root}"]) for root in roots] == [ExitCode.PARTIAL] * 2
    totals = [json.loads((root / "one" / "_SUCCESS").read_text()) for root in roots]
    assert totals[0]["result_hash"] == totals[1]["result_hash"], "what is added to a run is what a fresh one finds"
