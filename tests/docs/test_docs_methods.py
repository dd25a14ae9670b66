"""The worked example of docs/methods.md, taken from the page, installed as a package of its own, and run."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pages import REPOSITORY, blocks
from tiny_words import TINY

from tinytrain_dist.adaptation.methods import METHODS
from tinytrain_dist.adaptation.methods.method import _modules
from tinytrain_dist.cli import main
from tinytrain_dist.foundation.registry import Registry
from tinytrain_dist.graphs.architectures import layer_graph

PAGE = REPOSITORY / "docs" / "methods.md"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The package of the page on the path, with its metadata as an installer writes it; the method's name."""
    code, entry = (next(b.text for b in blocks(PAGE) if b.language == language) for language in ("python", "toml"))
    points = tomllib.loads(entry)["project"]["entry-points"]["tinytrain_dist.methods"]
    (name,) = points
    (tmp_path / f"{points[name].split(':')[0]}.py").write_text(code)
    metadata = tmp_path / "example-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: example\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[tinytrain_dist.methods]\n{name} = {points[name]}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return str(name)


def test_the_example_is_found_by_its_entry_point_and_runs(
    installed: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = "tinytrain_dist.methods"
    fresh: Registry[object] = Registry("method", package="", modules=lambda: [], entry_point_group=group)
    found = fresh[installed]
    assert list(METHODS)  # load the built-in ones first
    monkeypatch.setitem(METHODS._items, installed, found)  # type: ignore[arg-type]
    words = [f"methods=[none,{installed}]", "backbone.weights=mcunet.safetensors", "run.id=example"]
    assert main(["simulate", *TINY, *words]) == 0
    rows = [row for row in pq.read_table("runs/example/results").to_pylist() if row["method"] == installed]
    assert {row["status"] for row in rows} == {"ok"}
    lasts = {layer.block: layer.index for layer in layer_graph("mcunet", 32).layers}
    for row in rows:
        on_linux = row["device"] == "raspberry_pi_zero_2"  # the other board's memory does not hold even one layer
        assert row["plan_status"] == ("ok" if on_linux else "infeasible")
        assert row["plan_layers"] == (sorted(lasts.values()) if on_linux else [])


def test_every_method_of_the_program_stands_on_the_page() -> None:
    page = PAGE.read_text().split("One file each in")[0]
    words = page.replace("adapter_drop_25/50/75", "adapter_drop_25` `adapter_drop_50` `adapter_drop_75")
    assert _modules()
    missing = [name for name in METHODS if f"`{name}`" not in words and f"`{name.split('_')[0]}_alone" not in words]
    assert missing == []
