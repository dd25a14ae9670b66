"""Meta-training and simulated on-device few-shot training over fleets of devices.

Where to start: ``graphs`` holds the words everything shares (layer graph, update plan, budget),
``adaptation`` is the method itself, ``simulation`` fans it out, ``verbs`` are the doors.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Find ``open_run`` when it is asked for: every floor imports this package, none may import reporting by it."""
    if name == "open_run":
        return import_module("tinytrain_dist.reporting.api").open_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
