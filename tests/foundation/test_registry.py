"""The registry: lazy modules, entry points, nearest names."""

import sys
from importlib import metadata
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
