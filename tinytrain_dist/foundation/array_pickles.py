"""NumPy arrays in pickles of others, rebuilt from their bytes alone: what such a pickle may ask for by name.

NumPy's own functions are not safe in a stranger's hand: ``ndarray((1,), "O", buffer=numbers)`` takes the numbers for
addresses of objects, and whoever looks at the array then follows them. So the names lead to the stand-ins below, which
know plain numbers only. ``plain`` turns what was read into arrays once the pickle has ended.
"""

from __future__ import annotations

import math
import pickle
import re
from typing import Any

import numpy as np
import numpy.typing as npt

_NUMBERS = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248])")


class _Name:
    """A name that may be handed on, not called; nothing can be set on it."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError(f"sets the state of {type(self).__name__.lstrip('_')}")


class _NdArray(_Name):
    def __call__(self, *_: Any) -> Any:
        raise pickle.UnpicklingError("calls numpy.ndarray")


class _DtypeOf(_Name):
    def __call__(self, code: Any, *_: Any) -> StoredDtype:
        return StoredDtype(code)


class _Reconstruct(_Name):
    def __call__(self, kind: Any, *_: Any) -> StoredArray:
        if not isinstance(kind, _NdArray):
            raise pickle.UnpicklingError(f"reconstructs a {kind!r}")
        return StoredArray()


class _Scalar(_Name):
    def __call__(self, dtype: Any, raw: Any) -> Any:
        return _array(dtype, (), raw)[()]


class _FromBuffer(_Name):
    def __call__(self, raw: Any, dtype: Any, shape: Any, order: Any) -> StoredArray:
        found = StoredArray()
        found.__setstate__((1, shape, dtype, order == "F", raw))
        return found


class StoredDtype:
    """A type of numbers, as a pickle describes it; anything else is an ``UnpicklingError``."""

    __slots__ = ("value",)

    def __init__(self, code: Any) -> None:
        if not isinstance(code, str) or not _NUMBERS.fullmatch(code):
            raise pickle.UnpicklingError(f"dtype {code!r}; allowed: plain numbers")
        self.value = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError("state of a dtype")
        self.value = self.value.newbyteorder(state[1])


class StoredArray:
    """An array whose content comes after it; ``value`` is None until then."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: npt.NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise pickle.UnpicklingError("state of an array")
        shape, dtype, by_columns, raw = state[-4:]
        self.value = _array(dtype, shape, raw, order="F" if by_columns else "C")


def _array(dtype: Any, shape: Any, raw: Any, *, order: Any = "C") -> npt.NDArray[Any]:
    """Return a read-only array over the bytes; pickles of Python 2 hold them as text."""
    if not isinstance(dtype, StoredDtype):
        raise pickle.UnpicklingError("an array without a dtype of numbers")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise pickle.UnpicklingError(f"an array of shape {shape!r}")
    data = raw.encode("latin1") if isinstance(raw, str) else raw
    if not isinstance(data, bytes | bytearray):
        raise pickle.UnpicklingError(f"an array of {type(raw).__name__} instead of bytes")
    wanted = math.prod(shape) * dtype.value.itemsize
    if len(data) != wanted:
        raise pickle.UnpicklingError(f"an array of {wanted} bytes with {len(data)}")
    return np.frombuffer(bytes(data), dtype=dtype.value).reshape(shape, order=order)


STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _NdArray(),
    ("numpy", "dtype"): _DtypeOf(),
    **{
        (f"numpy.{core}.{module}", name): found
        for core in ("core", "_core")
        for module, name, found in (
            ("multiarray", "_reconstruct", _Reconstruct()),
            ("multiarray", "scalar", _Scalar()),
            ("numeric", "_frombuffer", _FromBuffer()),
        )
    },
}
"""(module, name) in the pickle -> what takes its place, under the names of NumPy 1 and NumPy 2."""


def plain(value: Any) -> Any:
    """Return what was unpickled with NumPy's arrays in place of the stand-ins, in dicts, lists and tuples."""
    return _plain(value, {})


def _plain(value: Any, seen: dict[int, Any]) -> Any:
    if isinstance(value, StoredArray | StoredDtype):
        return value.value
    if id(value) in seen or not isinstance(value, dict | list | tuple):
        return seen.get(id(value), value)
    if isinstance(value, tuple):
        return tuple(_plain(item, seen) for item in value)
    seen[id(value)] = value
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        value[key] = _plain(item, seen)
    return value
