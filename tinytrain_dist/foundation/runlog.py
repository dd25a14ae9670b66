"""What a run tells whoever listens (W&B, a log, a test): the floors know only this protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class RunLogger(Protocol):
    """Receives a run's figures; an implementation must never raise (a listener cannot fail a run)."""

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Record scalar ``values`` at ``step``."""

    def note(self, message: str) -> None:
        """Record one line of text."""


class SilentRunLogger:
    """Listens to nothing."""

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Ignore the values."""

    def note(self, message: str) -> None:
        """Ignore the message."""
