"""The tiny simulation and the tiny job are those of their own tests."""

from __future__ import annotations

import sys
from pathlib import Path

for name in ("simulation", "verbs"):
    sys.path.append(str(Path(__file__).parents[1] / name))
