"""Logging to stderr: stdout belongs to results."""

from __future__ import annotations

import logging
import os
import sys

_ROOT = "tinytrain_dist"


def logger(name: str) -> logging.Logger:
    """Return the project's logger for ``name`` (a module's ``__name__``)."""
    return logging.getLogger(name if name.startswith(_ROOT) else f"{_ROOT}.{name}")


def start_logging(level: str | None = None) -> None:
    """Send the project's log lines to stderr, once; ``TINYTRAIN_LOG`` sets the level (default INFO)."""
    root = logging.getLogger(_ROOT)
    if root.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
    root.addHandler(handler)
    root.setLevel(level or os.environ.get("TINYTRAIN_LOG", "INFO").upper())
    root.propagate = False
