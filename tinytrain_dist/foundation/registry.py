"""A registry finds a component by name: our own modules, and entry points of other packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from typing import Generic, TypeVar

from tinytrain_dist.foundation.errors import ConfigError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """Names -> components. Modules of ``package`` register themselves when first asked for.

    Parameters
    ----------
    kind
        What the components are, for error messages ("method").
    package, modules
        Package and its module names that register built-in components on import.
    entry_point_group
        Group under which other distributions offer components (``tinytrain_dist.methods``).
    """

    def __init__(self, kind: str, *, package: str, modules: Callable[[], list[str]], entry_point_group: str) -> None:
        self.kind = kind
        self._package, self._modules, self._group = package, modules, entry_point_group
        self._items: dict[str, T] = {}
        self._loaded = False

    def register(self, name: str, item: T) -> T:
        """Add ``item`` under ``name``; the same name twice is an error."""
        if name in self._items:
            raise ConfigError(f"{self.kind} {name!r} is registered twice")
        self._items[name] = item
        return item

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        for module in self._modules():
            import_module(f"{self._package}.{module}")
        for entry in metadata.entry_points(group=self._group):
            if entry.name not in self._items:
                self._items[entry.name] = entry.load()

    def __getitem__(self, name: str) -> T:
        self._load()
        if name not in self._items:
            raise ConfigError(f"unknown {self.kind} {name!r}; {nearest(name, self._items)}")
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(self._items)

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._items
