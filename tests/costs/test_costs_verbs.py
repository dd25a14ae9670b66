"""``tinytrain devices`` and ``tinytrain costs`` as a user meets them."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from paper_tables import plan_of

from tinytrain_dist.adaptation.methods import METHODS
from tinytrain_dist.cli import main
from tinytrain_dist.costs.profile_files import profile_names
from tinytrain_dist.costs.static_plans import STATIC_METHODS
from tinytrain_dist.foundation.paths import resource_folder
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan, plan_to_json

LISTED = {
    "name", "board", "runtime", "precision", "threads", "accelerator", "standing", "ram_bytes", "flash_bytes",
}  # fmt: skip

PAPER_ZERO = "raspberry_pi_zero_2--tinytrain-paper--fp32--t4--cpu"


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
    assert all(set(row) >= LISTED for row in rows)
    assert all({"training_standing", "leave_one_out_error", "leave_family_out_error"} < set(row) for row in rows)


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
    assert _json(capsys, *words)["batch"] == 50
    answer = _json(capsys, *words, "--paper-cost", "--device", "raspberry_pi_zero_2")
    assert answer["paper_memory_rule"] == "full_train"
    assert answer["fits"] == "no"
    assert answer["swap_ms"] > 0
    assert answer["batch"] == 100


def test_costs_shows_every_counter_at_any_precision_and_batch(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("costs", "--backbone", "mcunet", "--method", "sparse_update", "--optimizer", "sgd")
    int8 = _json(capsys, *words, "--precision", "int8", "--fused-update")
    fp32 = _json(capsys, *words)
    assert int8["forward_activation_bytes"] * 4 == fp32["forward_activation_bytes"]
    assert int8["lifetime_int8_memory_bytes"] == 242_560
    assert int8["lifetime_int8_optimizer_bytes"] == 0 < fp32["lifetime_int8_optimizer_bytes"]
    assert fp32["recomputed_forward_macs"] == 40 * 25 * fp32["forward_macs"]
    assert _json(capsys, *words, "--batch", "50")["recomputed_forward_macs"] == 0


def test_query_images_are_paid_and_the_prototypes_with_them(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("costs", "--backbone", "mcunet", "--method", "transductive")
    without, found = _json(capsys, *words), _json(capsys, *words, "--query", "75")
    assert (found["query"], found["images_per_iteration"]) == (75, 125)
    assert found["recomputed_forward_macs"] == without["recomputed_forward_macs"] == 40 * 25 * found["forward_macs"]
    both = found["forward_macs"] + found["backward_macs"]
    assert found["training_macs"] - without["training_macs"] == 40 * 75 * both
    assert "extra_images" in _error(capsys, *words, "--query", "-1")


def test_the_papers_convention_can_be_typed_and_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("costs", "--backbone", "mcunet", "--method", "full_train")
    paper = _json(capsys, *words, "--paper-cost", "--batch", "100", "--samples", "400", "--device", PAPER_ZERO)
    assert (paper["images_per_iteration"], paper["recomputed_forward_macs"]) == (25, 0)
    assert paper["training_macs"] == 40 * 25 * (paper["forward_macs"] + paper["backward_macs"])
    assert paper["latency_ms"] / 60e3 == pytest.approx(90, rel=0.2)
    assert main([*words, "--paper-cost"]) == 0
    assert "25 sample passes" in capsys.readouterr().out
    assert main([*words]) == 0
    assert "25 support + 25 pseudo-query images, 25 once more forward" in capsys.readouterr().out
    assert main(["costs", "--backbone", "mcunet", "--all-methods", "--paper-cost"]) == 0
    assert "25 sample passes" in capsys.readouterr().out


def test_the_microcontroller_counter_keeps_every_image_of_a_batch(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("costs", "--backbone", "mcunet", "--method", "sparse_update")
    one, five = _json(capsys, *words), _json(capsys, *words, "--batch", "5")
    for name, times in (("mask", 5), ("input", 5), ("feature", 5), ("weight", 1), ("bias", 1)):
        key = f"microcontroller_{name}_bytes"
        assert five[key] == times * one[key] > 0
    assert one["microcontroller_memory_bytes"] == 102_240 < five["microcontroller_memory_bytes"]


def test_a_limit_without_a_source_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("costs", "--backbone", "mcunet", "--method", "sparse_update", "--device")
    assert _json(capsys, *words, "stm32h747")["unsourced_limits"] == ["ram_bytes", "flash_bytes"]
    assert _json(capsys, *words, "stm32f746")["unsourced_limits"] == []
    for name, marked in (("stm32h747", True), ("stm32f746", False)):
        assert main([*words, name]) == 0
        assert ("without a source" in capsys.readouterr().out) == marked
        assert main(["costs", "--backbone", "mcunet", "--all-methods", "--device", name]) == 0
        assert ("without a source" in capsys.readouterr().out) == marked
    assert main(["devices", "list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "MiB*" in lines["stm32h747"] and "MiB*" not in lines["stm32f746"]


def test_a_ratio_is_shown_at_equal_batch_beside_the_papers(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("costs", "--backbone", "mcunet", "--method", "full_train", "--compare", "sparse_update")
    found = _json(capsys, *words)["comparison"]
    assert (found["paper_batch"], found["compared_paper_batch"], found["batch"]) == (100, 1, 1)
    assert found["memory_paper_batches"] == pytest.approx(906 / 1.43, rel=0.005)
    assert found["memory_equal_batch"] == pytest.approx(16.2 / 1.43, rel=0.01)
    assert found["backward_macs"] == pytest.approx(44.9 / 11.88, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["mcunet", "mobilenet_v2", "proxylessnas", "mobilenet_v2_no_mix"])
def test_all_methods(capsys: pytest.CaptureFixture[str], backbone: str) -> None:
    words = ("costs", "--backbone", backbone, "--all-methods", "--device", "stm32f746")
    rows = {row["method"]: row for row in _json(capsys, *words)["methods"]}
    assert set(rows) == set(STATIC_METHODS)
    assert rows["sparse_update"]["comparison"]["memory_equal_batch"] == 1
    assert {row["fits"] for row in rows.values()} <= {"yes", "no", "uncertain"}
    assert rows["none"]["fits"] == "yes" and rows["full_train"]["fits"] == "no"
    assert main(list(words)) == 0
    text = capsys.readouterr().out
    assert all(method in text for method in STATIC_METHODS) and "paper" in text and "batch 1" in text


def test_costs_of_a_plan_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(plan_to_json(plan_of(layer_graph("mcunet"), "sparse_update")))
    words = ("costs", "--backbone", "mcunet", "--method", "tinytrain")
    answer = _json(capsys, *words, "--plan", str(path))
    assert answer["updated_weights"] == 52_480
    assert answer["fisher_macs"] == 50 * answer["fisher_macs_per_image"]
    assert "--plan" in _error(capsys, *words)
    assert "nowhere.json" in _error(capsys, *words, "--plan", str(tmp_path / "nowhere.json"), code=3)


@pytest.fixture
def plan_file(tmp_path: Path) -> str:
    path = tmp_path / "plan.json"
    path.write_text(plan_to_json(plan_of(layer_graph("mcunet"), "sparse_update")))
    return str(path)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("tinytrian", "unknown method 'tinytrian'; did you mean 'tinytrain'"),
        ("", "unknown method ''"),
        ("none", "--plan: method 'none' has a plan of its own; leave --plan out, or --method"),
        ("full_train", "--plan: method 'full_train' has a plan of its own"),
        ("layer_alone_39", "--plan: method 'layer_alone_39' has a plan of its own"),
        ("raw_pixels", "uses no network"),
    ],
)
def test_a_plan_is_of_a_method_that_decides_per_task(
    method: str, expected: str, plan_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in _error(capsys, "costs", "--backbone", "mcunet", "--method", method, "--plan", plan_file)


def test_a_plan_is_priced_alone_or_as_a_scheme(plan_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("costs", "--backbone", "mcunet", "--plan", plan_file)
    alone, scheme, chosen = (
        _json(capsys, *words, *more) for more in ((), ("--method", "sparse_update"), ("--method", "tinytrain"))
    )
    assert alone["method"] is None and alone | {"method": "sparse_update"} == scheme
    assert chosen["fisher_macs"] > 0 == alone["fisher_macs"] and chosen["plan_hash"] == alone["plan_hash"]
    assert main(list(words)) == 0
    assert not re.search("^method ", capsys.readouterr().out, re.MULTILINE)


def test_a_method_of_another_package_is_priced_with_a_plan_and_asks_for_one(
    plan_file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    list(METHODS)  # load the built-in ones first
    monkeypatch.setitem(METHODS._items, "my_own", METHODS["tinytrain"])
    words = ("costs", "--backbone", "mcunet", "--method", "my_own")
    assert _json(capsys, *words, "--plan", plan_file)["fisher_macs"] > 0
    assert "'my_own' decides its plan per task; give the plan of one task with --plan" in _error(capsys, *words)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda text: text[: len(text) // 2], "is no update plan"),
        (lambda text: "", "is no update plan"),
        (lambda text: "[]", "expected a plan of format 1"),
        (lambda text: text.replace('"format": 1', '"format": 2'), "expected a plan of format 1"),
        (lambda text: text.replace('"layer": 21', '"layer": 22'), "does not match its content"),
        (lambda text: text.replace('"side": "input"', '"side": "left"'), "side 'left'; allowed: output, input"),
        (lambda text: "\xff\xfe", "is no update plan"),
    ],
)
def test_a_corrupt_plan_file_is_refused(
    damage: Callable[[str], str], expected: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "plan.json"
    path.write_text(damage(plan_to_json(plan_of(layer_graph("mcunet"), "sparse_update"))))
    words = ("costs", "--backbone", "mcunet", "--method", "tinytrain", "--plan", str(path))
    message = _error(capsys, *words, code=3)
    assert expected in message and "plan.json" in message


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (
            UpdatePlan(backbone="proxylessnas", updates=(LayerUpdate(layer=60),)),
            "plan for backbone 'proxylessnas' used",
        ),
        (UpdatePlan(backbone="mcunet", updates=(LayerUpdate(layer=42),)), "layer 42: mcunet has layers 0 to 41"),
        (UpdatePlan(backbone="mcunet", updates=(LayerUpdate(layer=41, channels=(160,)),)), "output channels 0 to 159"),
        (UpdatePlan(backbone="mcunet", updates=(LayerUpdate(layer=41, channels=()),)), "not empty"),
    ],
)
def test_a_plan_that_does_not_belong_here_is_refused(
    plan: UpdatePlan, expected: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "plan.json"
    path.write_text(plan_to_json(plan))
    words = ("costs", "--backbone", "mcunet", "--method", "tinytrain", "--plan", str(path))
    assert expected in _error(capsys, *words, code=3)


def test_every_method_has_costs(capsys: pytest.CaptureFixture[str]) -> None:
    """Of one layer alone too; which channels a quarter holds is the task's affair, how many is not."""
    whole, quarter = (
        _json(capsys, "costs", "--backbone", "mcunet", "--method", name)
        for name in ("layer_alone_39", "layer_alone_39_top")
    )
    assert whole["updated_weights"] == layer_graph("mcunet").layer(39).weights == 4 * quarter["updated_weights"]
    assert quarter["fisher_macs"] > 0 == whole["fisher_macs"]
    error = _error(capsys, "costs", "--backbone", "mcunet", "--method", "layer_alone_42")
    assert "unknown layer; mcunet has layers 0 to 41" in error


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--backbone", "mcunet", "--method", "last_laier"), "last_layer"),
        (("--backbone", "mobilenet_v2_w0.5", "--method", "sparse_update"), "--plan"),
        (("--backbone", "mcunet", "--method", "raw_pixels"), "uses no network"),
        (("--backbone", "mcunett", "--method", "none"), "mcunet"),
        (("--backbone", "mcunet"), "--all-methods"),
        (("--backbone", "mcunet", "--method", "none", "--precision", "int4"), "int8"),
        (("--backbone", "mcunet", "--method", "none", "--compare", "none2"), "none"),
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


def test_devices_list_takes_less_than_0_7_seconds_of_processor_time() -> None:
    """Processor time: the machine may be shared. About 0.3 s on an x86-64 server core."""
    script = "from tinytrain_dist.cli import main; main(['devices', 'list', '--json'])"
    spent = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 0.7


def test_documented_shapes_of_the_looking_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    for row in _json(capsys, "devices", "list"):
        numbers = {key for key in row if key.endswith("_bytes")} | {"threads"}
        assert all(row[key] is None or type(row[key]) is int for key in numbers)
        assert row["standing"] in ("estimate", "anchored", "fitted", "calibrated")
    backbone = _json(capsys, "backbones", "mcunet")
    assert len(backbone["layers"]) == 42
    assert (backbone["totals"]["weights"], backbone["totals"]["forward_macs"]) == (463_216, 22_453_504)
    answer = _json(capsys, "costs", "--backbone", "mcunet", "--method", "sparse_update", "--device", "stm32h747")
    plain = {key: value for key, value in answer.items() if key.endswith(("_bytes", "_macs"))}
    assert all(value is None or type(value) is int for value in plain.values())
    assert {"latency_ms", "energy_mj", "fits", "ram_margin_bytes", "standing", "extrapolated"} < set(answer)
