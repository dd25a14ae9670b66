"""Keeps secrets out of everything that is written: config dumps, pages, logs, the W&B folder."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

REDACTED = "[redacted]"
MIN_SECRET_LENGTH = 6
"""Shorter environment values are ordinary words too often to be hidden wherever they occur."""

_SECRET_NAME = re.compile(r"key|token|secret|passw|credential", re.IGNORECASE)
_ASSIGNMENT = re.compile(r"(?<![\w./+-])([\w./+-]*(?:key|token|secret|passw|credential)[\w./+-]*=)(\S+)", re.IGNORECASE)
"""Begins where a word begins: tried at every letter, a long word would take the square of its length."""


def secret_values(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the values of environment variables whose names say that they are secrets, longest first."""
    source = os.environ if environment is None else environment
    found = {v for k, v in source.items() if _SECRET_NAME.search(k) and len(v) >= MIN_SECRET_LENGTH}
    return tuple(sorted(found, key=lambda value: (-len(value), value)))


def redact_text(text: str, *, secrets: tuple[str, ...] | None = None) -> str:
    """Return ``text`` without secret environment values and without ``api_key=...`` style values."""
    for value in secret_values() if secrets is None else secrets:
        text = text.replace(value, REDACTED)
    return _ASSIGNMENT.sub(lambda match: match[1] + REDACTED, text)


def redact(value: Any, *, by_name: bool = True, secrets: tuple[str, ...] | None = None) -> Any:
    """Return a copy of a JSON-like ``value`` with secrets replaced.

    Parameters
    ----------
    value
        Mappings, lists, tuples and plain values.
    by_name
        Also replace what stands under a key that matches key, token, secret, password or credential.
    secrets
        Values to hide; by default those of this process's environment.
    """
    hidden = secret_values() if secrets is None else secrets
    if isinstance(value, Mapping):
        return {
            redact_text(str(name), secrets=hidden): REDACTED
            if by_name and item not in (None, "") and _SECRET_NAME.search(str(name))
            else redact(item, by_name=by_name, secrets=hidden)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact(item, by_name=by_name, secrets=hidden) for item in value]
    return redact_text(value, secrets=hidden) if isinstance(value, str) else value
