"""A registry finds a component by name: our own modules, and entry points of other packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from typing import Generic, TypeVar

from tinytrain_dist.foundation.errors import ConfigError, nearest

T = TypeVar("T")
Family = Callable[[str], T | None]
"""Makes the component of a name that follows the family's pattern, ``None`` for any other name."""


class Registry(Generic[T]):
    """Names -> components. Modules of ``package`` register themselves when first asked for.

    A family stands for names with a parameter in them: its components are found but not listed.

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
        self._families: dict[str, Family[T]] = {}
        self._loaded = False
        self._loading = False

    def register(self, name: str, item: T) -> T:
        """Add ``item`` under ``name``; the same name twice is an error."""
        if name in self._items:
            raise ConfigError(f"{self.kind} {name!r} is registered twice")
        self._items[name] = item
        return item

    def register_family(self, pattern: str, family: Family[T]) -> None:
        """Add every name ``family`` knows; ``pattern`` says how such a name is written."""
        if pattern in self._families:
            raise ConfigError(f"{self.kind} {pattern!r} is registered twice")
        self._families[pattern] = family

    @property
    def patterns(self) -> tuple[str, ...]:
        """How the names of the families are written."""
        self._load()
        return tuple(self._families)

    def _load(self) -> None:
        """Import everything once; what fails is raised again at the next call, never a registry half filled."""
        if self._loaded or self._loading:  # a module may look up another while it is imported
            return
        self._loading = True
        try:
            for module in self._modules():
                import_module(f"{self._package}.{module}")
            for entry in metadata.entry_points(group=self._group):
                if entry.name not in self._items:
                    self._items[entry.name] = entry.load()
            self._loaded = True
        finally:
            self._loading = False

    def __getitem__(self, name: str) -> T:
        item = self._find(name)
        if item is None:
            raise ConfigError(f"unknown {self.kind} {name!r}; {nearest(name, [*self._items, *self._families])}")
        return item

    def _find(self, name: object) -> T | None:
        self._load()
        if not isinstance(name, str):
            return None
        if name in self._items:
            return self._items[name]
        made = (family(name) for family in self._families.values())
        return next((item for item in made if item is not None), None)

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(self._items)

    def __contains__(self, name: object) -> bool:
        return self._find(name) is not None
