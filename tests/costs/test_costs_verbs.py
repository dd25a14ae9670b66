"""``tinytrain devices`` and ``tinytrain costs`` as a user meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from paper_tables import plan_of

from tinytrain_dist.cli import main
from tinytrain_dist.costs.profile_files import profile_names
from tinytrain_dist.foundation.paths import resource_folder
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.update_plan import plan_to_json

LISTED = {
    "name", "board", "runtime", "precision", "threads", "accelerator", "standing", "ram_bytes", "flash_bytes",
}  # fmt: skip


def _json(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def _error(capsys: pytest.CaptureFixture[str], *words: str, code: int = 2) -> str:
    assert main(list(words)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_devices_list(capsys: pytest.CaptureFixture[str]) -> None:
    rows = _json(capsys, "devices", "list")
    assert [row["name"] for row in rows] == profile_names()
    assert all(set(row) == LISTED for row in rows)


def test_devices_show_has_the_source_of_every_number(capsys: pytest.CaptureFixture[str]) -> None:
    shown = _json(capsys, "devices", "show", "raspberry_pi_zero_2")
    assert shown["provenance"]["active_power_w"]["kind"] == "derived"
    assert shown["ram_bytes"] == 512 * 1024**2
    assert main(["devices", "show", "stm32h743"]) == 0
    text = capsys.readouterr().out
    assert "active_power_w" in text and "unknown" in text and "unsourced" in text


def test_devices_check(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    good = resource_folder("device_profiles") / "stm32h747.yaml"
    assert _json(capsys, "devices", "check", str(good))["unsourced"] != []
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: bad\nram_bytes: 256KB\n")
    assert "'256KB'" in _error(capsys, "devices", "check", str(bad), code=3)
    assert "FILE is missing" in _error(capsys, "devices", "check")


def test_costs_of_the_published_scheme(capsys: pytest.CaptureFixture[str]) -> None:
    answer = _json(capsys, "costs", "--backbone", "mcunet", "--method", "sparse_update")
    assert answer["paper_memory_bytes"] == 1_495_040
    assert answer["microcontroller_memory_bytes"] == 102_240
    assert answer["backward_macs"] == 11_882_240
    assert "device" not in answer


def test_costs_on_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("costs", "--backbone", "mcunet", "--method", "full_train", "--batch", "100")
    answer = _json(capsys, *words, "--device", "raspberry_pi_zero_2")
    assert answer["paper_memory_rule"] == "full_train"
    assert answer["fits"] == "no"
    assert answer["swap_ms"] > 0
    assert answer["batch"] == 100


def test_costs_of_a_plan_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(plan_to_json(plan_of(layer_graph("mcunet"), "sparse_update")))
    words = ("costs", "--backbone", "mcunet", "--method", "tinytrain")
    answer = _json(capsys, *words, "--plan", str(path))
    assert answer["updated_weights"] == 52_480
    assert answer["fisher_macs"] == 50 * answer["fisher_macs_per_image"]
    assert "--plan" in _error(capsys, *words)
    assert "nowhere.json" in _error(capsys, *words, "--plan", str(tmp_path / "nowhere.json"), code=3)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--backbone", "mcunet", "--method", "last_laier"), "last_layer"),
        (("--backbone", "mobilenet_v2_w0.5", "--method", "sparse_update"), "--plan"),
        (("--backbone", "mcunet", "--method", "raw_pixels"), "uses no network"),
        (("--backbone", "mcunett", "--method", "none"), "mcunet"),
        (("--backbone", "mcunet", "--method", "none", "--batch", "0"), "batch"),
        (("--backbone", "mcunet", "--method", "none", "--devise", "x"), "--device"),
    ],
)
def test_costs_mistakes_are_named(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], expected: str) -> None:
    assert expected in _error(capsys, "costs", *words)


def test_the_planner_loads_neither_torch_nor_ray() -> None:
    script = (
        "import sys; from tinytrain_dist.cli import main\n"
        "main(['devices', 'list', '--json']); "
        "main(['costs', '--backbone', 'mcunet', '--method', 'none', '--device', 'stm32f746'])\n"
        "sys.exit(bool({'torch', 'ray', 'scipy', 'pyarrow'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL, timeout=60)
