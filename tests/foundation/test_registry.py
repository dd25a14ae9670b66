"""The registry: lazy modules, entry points, nearest names."""

import importlib
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.foundation.registry import Registry


def registry(modules: list[str], calls: list[str]) -> Registry[int]:
    def found() -> list[str]:
        calls.append("asked")
        return modules

    return Registry("method", package="fake_methods", modules=found, entry_point_group="tinytrain_dist.test_only")


def test_names_and_nearest() -> None:
    methods = registry([], [])
    assert methods.register("last_layer", 1) == 1
    methods.register("none", 2)
    assert methods["last_layer"] == 1
    assert list(methods) == ["last_layer", "none"]
    assert "none" in methods
    assert "nothing" not in methods
    with pytest.raises(ConfigError, match="unknown method 'last_layr'; did you mean 'last_layer'"):
        methods["last_layr"]


def test_the_same_name_twice_is_an_error() -> None:
    methods = registry([], [])
    methods.register("a", 1)
    with pytest.raises(ConfigError, match="registered twice"):
        methods.register("a", 2)


def test_modules_are_imported_when_first_asked_for_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    methods = registry(["one"], calls)
    monkeypatch.setitem(sys.modules, "fake_methods", ModuleType("fake_methods"))
    monkeypatch.setitem(sys.modules, "fake_methods.one", ModuleType("fake_methods.one"))
    assert calls == []
    assert list(methods) == list(methods) == []
    assert calls == ["asked"]


def test_entry_points_extend_but_never_replace(monkeypatch: pytest.MonkeyPatch) -> None:
    methods = registry([], [])
    methods.register("own", 1)

    class Entry:
        def __init__(self, name: str) -> None:
            self.name = name

        def load(self) -> int:
            return 99

    monkeypatch.setattr(metadata, "entry_points", lambda *, group: [Entry("own"), Entry("foreign")])
    assert methods["own"] == 1
    assert methods["foreign"] == 99


def test_a_module_that_fails_leaves_no_registry_half_filled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "half_methods"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "good.py").write_text("import sys\nsys.half_registry.register('good', 1)\n")
    (package / "late.py").write_text("raise RuntimeError('no luck')\n")
    methods: Registry[int] = Registry(
        "method",
        package="half_methods",
        modules=lambda: ["good", "late"],
        entry_point_group="tinytrain_dist.test_only",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "half_registry", methods, raising=False)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no luck"):
            list(methods)
        with pytest.raises(RuntimeError, match="no luck"):
            methods["good"]
    (package / "late.py").write_text("import sys\nsys.half_registry.register('late', 2)\n")
    importlib.invalidate_caches()
    assert dict.fromkeys(methods) == {"good": None, "late": None}, "mended, it is complete"
    for name in ("half_methods", "half_methods.good", "half_methods.late"):
        monkeypatch.delitem(sys.modules, name)


def test_a_module_may_look_up_another_while_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    methods = registry(["one"], calls)

    def imported(name: str) -> None:
        methods.register("one", 1)
        assert methods["one"] == 1

    monkeypatch.setattr("tinytrain_dist.foundation.registry.import_module", imported)
    assert list(methods) == ["one"] and calls == ["asked"]


def test_a_family_is_found_by_its_pattern_and_not_listed() -> None:
    methods = registry([], [])
    methods.register("none", 0)
    methods.register_family("layer_<n>", lambda name: int(name[6:]) if name[6:].isdigit() else None)
    assert methods["layer_7"] == 7 and "layer_12" in methods and "layer_x" not in methods
    assert list(methods) == ["none"] and methods.patterns == ("layer_<n>",)
    with pytest.raises(ConfigError, match=r"unknown method 'layer_x'; did you mean 'layer_<n>'"):
        methods["layer_x"]
    with pytest.raises(ConfigError, match="registered twice"):
        methods.register_family("layer_<n>", lambda name: None)
