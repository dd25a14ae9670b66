"""YAML from users: safe, bounded, no duplicate keys, no aliases, nothing that could run code."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from tinytrain_dist.foundation.errors import ConfigError, TinyTrainError

MAX_YAML_BYTES = 1 << 20
FORBIDDEN_KEYS = frozenset({"_target_", "_recursive_", "_partial_", "_convert_", "_args_"})


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys, aliases and keys that ask for object construction."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, "aliases (*name) are not allowed", mark)
        return super().compose_node(parent, index)

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
        return super().construct_mapping(node, deep=deep)


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
        value = yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as exc:
        raise error(f"{name}: {' '.join(str(exc).split())}") from exc
    if not isinstance(value, dict):
        raise error(f"{name}: expected a mapping of keys to values, found {type(value).__name__}")
    return value
