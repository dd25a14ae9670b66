"""``key=value`` words -> a typed config of one verb; anything unknown is named with the nearest keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TypeVar, cast

from tinytrain_dist.foundation.errors import ConfigError, nearest
from tinytrain_dist.foundation.strict_yaml import FORBIDDEN_KEYS

Config = TypeVar("Config")


def read_key_values(kind: type[Config], words: Sequence[str], *, verb: str) -> Config:
    """Return a ``kind`` (a dataclass) with the values that ``words`` give; lists may leave out their brackets."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    empty = kind()
    known = [item.name for item in fields(kind)]  # type: ignore[arg-type]
    listed = {name for name in known if isinstance(getattr(empty, name), list)}
    texts = []
    for word in words:
        key, mark, value = word.partition("=")
        if not mark or key not in known or key in FORBIDDEN_KEYS:
            raise ConfigError(f"{verb}: unknown key {key!r}; {nearest(key, known)} (written key=value)")
        texts.append(f"{key}=[{value}]" if key in listed and not value.startswith("[") else word)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(kind), OmegaConf.from_dotlist(texts))
        return cast(Config, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{verb}: {' '.join(str(error).split())}") from error
