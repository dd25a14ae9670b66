"""``tinytrain backbones``: tables, JSON and usage errors."""

import json

import pytest

from tinytrain_dist.cli import main
from tinytrain_dist.graphs.architectures import backbone_names


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backbones", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == backbone_names()
    assert main(["backbones"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in backbone_names())
    assert "22,453,504" in out


def test_layers_and_totals(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backbones", "mobilenet_v2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    layers, totals = found["layers"], found["totals"]
    assert len(layers) == totals["num_layers"] == 52
    assert sum(x["weights"] for x in layers) == totals["weights"] == 288_864
    assert sum(x["macs"] for x in layers) == totals["forward_macs"] == 17_449_728
    assert totals["feature_channels"] == 448
    assert layers[0] == {
        "index": 0, "block": -1, "role": "stem", "in_channels": 3, "out_channels": 16, "kernel": 3, "stride": 2,
        "groups": 1, "in_size": 128, "out_size": 64, "input_shape": [3, 128, 128], "output_shape": [16, 64, 64],
        "weights": 432, "macs": 1_769_472, "residual_after": False,
    }  # fmt: skip


def test_resolution_changes_macs_but_not_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backbones", "mcunet", "--resolution", "84", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["resolution"] == 84
    assert found["totals"]["weights"] == 463_216
    assert found["totals"]["forward_macs"] < 22_453_504


def test_text_has_one_line_per_layer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backbones", "mcunet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(" project " in line or " depthwise " in line or " expand " in line for line in lines) == 41
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["mcunett"], "did you mean 'mcunet'"),
        (["mcunet", "--resolution", "4"], "allowed 16 to 1024"),
        (["mcunet", "--resolution", "abc"], "invalid int value"),
        (["mcunet", "--resolutoin", "84"], "did you mean '--resolution'"),
        (["mcunet", "extra"], "extra"),
        (["mobilenet_v2_w9"], "allowed 0.1 to 2.0"),
    ],
)
def test_usage_errors(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backbones", *argv]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["backbones", "--help"])
    assert caught.value.code == 0
    assert "example:\n  tinytrain backbones" in capsys.readouterr().out
