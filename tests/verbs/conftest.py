"""Jobs called in this process: logging goes back to how it was, so that no test sees another's stderr."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def plain_logging() -> Iterator[None]:
    root = logging.getLogger("tinytrain_dist")
    before = list(root.handlers), root.level, root.propagate
    yield
    root.handlers[:], root.level, root.propagate = before
