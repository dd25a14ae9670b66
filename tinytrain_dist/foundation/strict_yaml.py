"""YAML from users: safe, bounded, no duplicate keys, no aliases, nothing that could run code."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from tinytrain_dist.foundation.errors import ConfigError, TinyTrainError

MAX_YAML_BYTES = 1 << 20
MAX_DEPTH = 64
FORBIDDEN_KEYS = frozenset({"_target_", "_recursive_", "_partial_", "_convert_", "_args_"})


_SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The parser in C where PyYAML was built with it: five times as fast, and a planner reads every profile."""


class _StrictLoader(_SafeLoader):  # type: ignore[valid-type, misc]
    """SafeLoader that refuses duplicate keys and keys that ask for object construction."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int) or isinstance(key, bool):  # YAML 1.1 reads on, off, yes, no as booleans
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is no plain word", node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            if key in FORBIDDEN_KEYS:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is not allowed (nothing is instantiated from files)", key_node.start_mark
                )
            seen.add(key)
        return dict(super().construct_mapping(node, deep=deep))


def _refuse_traps(text: str) -> None:
    """Refuse aliases and deep nesting before anything recurses: the parser in C would run out of stack."""
    depth = 0
    for event in yaml.parse(text, Loader=_SafeLoader):
        if isinstance(event, yaml.events.AliasEvent):
            raise yaml.YAMLError(f"aliases (*name) are not allowed, line {_line(event)}")
        if isinstance(event, yaml.events.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise yaml.YAMLError(f"nested deeper than {MAX_DEPTH} levels, line {_line(event)}")
        elif isinstance(event, yaml.events.CollectionEndEvent):
            depth -= 1


def _line(event: yaml.Event) -> int:
    return 0 if event.start_mark is None else event.start_mark.line + 1


def load_yaml(path: Path, *, error: type[TinyTrainError] = ConfigError) -> dict[str, Any]:
    """Read one YAML mapping from ``path``; raises ``error`` naming the file and the line."""
    try:
        size = path.stat().st_size
        if size > MAX_YAML_BYTES:
            raise error(f"{path}: {size} bytes; a YAML file may have at most {MAX_YAML_BYTES}")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise error(f"{path}: cannot be read: {exc}") from exc
    return parse_yaml(text, name=str(path), error=error)


def parse_yaml(text: str, *, name: str, error: type[TinyTrainError] = ConfigError) -> dict[str, Any]:
    """Parse one YAML mapping from ``text``; ``name`` stands in the error message."""
    try:
        _refuse_traps(text)
        value = yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as exc:
        raise error(f"{name}: {' '.join(str(exc).split())}") from exc
    if not isinstance(value, dict):
        raise error(f"{name}: expected a mapping of keys to values, found {type(value).__name__}")
    return value
