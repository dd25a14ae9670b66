"""Compiled loops: Numba where it is installed, nothing where it is not; callers keep a fallback.

Loops are compiled at first use for the CPU they run on and kept on disk: nothing has to be compiled when the
package is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any


@cache
def compiler() -> Any:
    """Return Numba's compiler with this project's options, ``None`` where Numba is missing."""
    try:
        from numba import njit
    except ImportError:
        return None
    # contraction into fused multiply-add only: sums keep the order they are written in
    return njit(cache=True, fastmath={"contract"})


@cache
def compiled(loop: Callable[..., None]) -> Callable[..., None]:
    """Return the compiled form of ``loop``; only where ``compiler()`` is not ``None``."""
    made: Callable[..., None] = compiler()(loop)
    return made


def forget_compiler() -> None:
    """Look for the compiler again at the next use."""
    compiler.cache_clear()
    compiled.cache_clear()
