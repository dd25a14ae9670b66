"""The best validation so far: what keeping the best weights and stopping early need, small enough for a note."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Best:
    """Attributes
    ----------
    round
        Rounds done when it was reached; its weights are ``best-<round>.weights.safetensors``.
    score
        Mean accuracy over the validated domains.
    weights
        Content hash of its weights.
    worse_since
        Validations after it, none of which was better.
    """

    round: int
    score: float
    weights: str
    worse_since: int = 0

    def note(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @staticmethod
    def of_note(note: Any) -> Best | None:
        """Return what ``note`` gave; raises ``TypeError`` if it is none."""
        return None if note is None else Best(**note)
