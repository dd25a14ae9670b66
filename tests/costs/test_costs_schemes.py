"""Static schemes as data: what is shipped is whole, what is damaged is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinytrain_dist.costs.schemes import (
    SHIPPED,
    Scheme,
    default_scheme,
    find_scheme,
    read_scheme,
    scheme_names,
    scheme_plan,
    shipped_schemes,
    write_scheme,
)
from tinytrain_dist.foundation.errors import ConfigError, PlanError
from tinytrain_dist.graphs.architectures import backbone_names, layer_graph

TEXT = (SHIPPED / "mcunet--mcunetv3.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", scheme_names())
def test_a_shipped_scheme_belongs_to_the_backbone_it_is_named_after(name: str) -> None:
    file = find_scheme(name)
    assert name.split("--")[0] == file.backbone and file.source
    plan = scheme_plan(layer_graph(file.backbone), file.scheme)
    assert [update.layer for update in plan.updates] == sorted(file.input_shares)
    assert all(update.side == "input" for update in plan.updates)
    assert (file.search is None) == (file.source != "tinytrain search-static")


@pytest.mark.parametrize("backbone", backbone_names())
def test_every_backbone_has_one_default(backbone: str) -> None:
    files = shipped_schemes(backbone).values()
    assert [file.scheme for file in files if file.default] == [default_scheme(backbone)]


def test_the_known_scheme_of_mcunet() -> None:
    shares = ((21, 1.0), (24, 1.0), (27, 1.0), (30, 1.0), (36, 0.125), (39, 0.25))
    assert default_scheme("mcunet") == Scheme(backbone="mcunet", input_shares=shares, num_last_biases=22)
    assert default_scheme("mobilenet_v2_w0.5") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected a mapping"),
        (TEXT[: len(TEXT) // 2], "key"),
        (TEXT.replace("36: 0.125", "36: 1.5"), "key 'input_shares.36': found 1.5"),
        (TEXT.replace("36: 0.125", "36: 0.0"), "key 'input_shares.36': found 0.0"),
        (TEXT.replace("36: 0.125", "36: most"), "key 'input_shares.36': found 'most'"),
        (TEXT.replace("num_last_biases: 22", "num_last_biases: -1"), "key 'num_last_biases': found -1"),
        (TEXT.replace("num_last_biases", "num_last_bias"), "num_last_biases"),
        (TEXT.replace("format: 1", "format: 2"), "key 'format': found 2"),
        (TEXT + "_target_: os.system\n", "'_target_' is not allowed"),
        ("\x00", "yaml"),
    ],
)
def test_a_damaged_file_is_named(text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PlanError, match=r"mine\.yaml") as caught:
        find_scheme(str(path))
    assert expected in str(caught.value)


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'mcunet--mcunetv3'"):
        find_scheme("mcunet--mcunet3")


def test_a_scheme_of_another_backbone_or_with_unknown_layers_is_refused() -> None:
    scheme = default_scheme("mcunet")
    assert scheme is not None
    with pytest.raises(PlanError, match="scheme for backbone 'mcunet' used with 'proxylessnas'"):
        scheme_plan(layer_graph("proxylessnas"), scheme)
    far = Scheme(backbone="mcunet", input_shares=((99, 1.0),), num_last_biases=0)
    with pytest.raises(PlanError, match="layer 99: mcunet has layers 0 to 41"):
        scheme_plan(layer_graph("mcunet"), far)
    with pytest.raises(PlanError, match="43 last biases"):
        scheme_plan(layer_graph("mcunet"), Scheme(backbone="mcunet", input_shares=(), num_last_biases=43))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    for name in scheme_names():
        write_scheme(tmp_path / "copy.yaml", find_scheme(name))
        assert read_scheme(tmp_path / "copy.yaml") == find_scheme(name)


SEARCHED = """
search:
  command: tinytrain search-static
  seed: 0
  checkpoint: 3252decc7f2818b2
  domains: [emoji]
  num_tasks: 8
  generations: 20
  population: 4
  num_schemes: 104
  budget_memory_bytes: 1866000
  budget_backward_macs: 8100387
  budget_resolution: 128
  accuracy_before: 0.5
  accuracy: 0.75
  fresh_accuracy: 0.625
  others:
    5e7ddff7efa97ab1: [0.5, 0.25]
"""


def test_a_search_of_an_earlier_version_is_read_and_written_by_its_new_names(tmp_path: Path) -> None:
    path = tmp_path / "found.yaml"
    path.write_text(TEXT + SEARCHED, encoding="utf-8")
    file = read_scheme(path)
    assert file.search is not None
    assert (file.search.validation_accuracy, file.search.held_out_accuracy) == (0.625, None)
    write_scheme(path, file)
    text = path.read_text(encoding="utf-8")
    assert "validation_accuracy: 0.625" in text and "fresh" not in text and "held_out" not in text
    assert read_scheme(path) == file
