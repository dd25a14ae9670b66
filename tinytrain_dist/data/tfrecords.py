"""TFRecord files and ``tf.train.Example`` messages, read without TensorFlow; every checksum is verified.

A record is length (uint64), masked CRC-32C of the length, data, masked CRC-32C of the data, all little-endian. An
Example is a protobuf map from names to lists of bytes, floats or integers; floats are skipped.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinytrain_dist.foundation.compiling import compiled, compiler
from tinytrain_dist.foundation.errors import DataError

MAX_RECORD_BYTES = 64 * 1024**2
_POLYNOMIAL, _MASK_DELTA = 0x82F63B78, 0xA282EAD8
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
Feature = list[bytes] | list[int]


def read_records(path: Path) -> Iterator[bytes]:
    """Yield the records of a file; ``DataError`` names file and record of a truncated or damaged one."""
    try:
        with path.open("rb") as stream:
            for number in _count():
                head = stream.read(12)
                if not head:
                    return
                where = f"{path}: record {number}"
                length = _checked(head, where, what="length")
                size = struct.unpack("<Q", length)[0]
                if size > MAX_RECORD_BYTES:
                    raise DataError(f"{where}: {size} bytes; at most {MAX_RECORD_BYTES} are allowed")
                body = stream.read(size + 4)
                if len(body) < size + 4:
                    raise DataError(f"{where}: truncated: {len(body)} of {size + 4} bytes")
                yield _checked(body, where, what="data")
    except OSError as exc:
        raise DataError(f"{path}: cannot be read: {exc.strerror or exc}") from exc


def _count() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


def _checked(data: bytes, where: str, *, what: str) -> bytes:
    """Return ``data`` without the masked checksum at its end."""
    if len(data) < 4:
        raise DataError(f"{where}: truncated {what}")
    content, stored = data[:-4], struct.unpack("<I", data[-4:])[0]
    if masked_crc(content) != stored:
        raise DataError(f"{where}: checksum of its {what} does not hold; the file is damaged")
    return content


def masked_crc(data: bytes) -> int:
    """Return TFRecord's rotated CRC-32C."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli, RFC 3720) of ``data``."""
    result = np.array([0xFFFFFFFF], dtype=np.uint32)
    loop = compiled(_update) if compiler() is not None else _update
    loop(np.frombuffer(data, dtype=np.uint8), _table(), result)
    return int(result[0]) ^ 0xFFFFFFFF


@cache
def _table() -> npt.NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1).astype(np.uint32)
    return table


def _update(data: Any, table: Any, crc: Any) -> None:
    value = crc[0]
    for i in range(data.size):
        value = table[(value ^ data[i]) & np.uint32(255)] ^ (value >> np.uint32(8))
    crc[0] = value


def parse_example(record: bytes, *, where: str) -> dict[str, Feature]:
    """Return the features of a serialized ``tf.train.Example``; ``DataError`` if it is none."""
    try:
        found: dict[str, Feature] = {}
        for features in _messages(record, 1):
            for entry in _messages(features, 1):
                name = b"".join(_messages(entry, 1)).decode()
                found[name] = _feature(b"".join(_messages(entry, 2)))
        return found
    except (IndexError, UnicodeDecodeError, ValueError) as exc:
        raise DataError(f"{where}: is no tf.train.Example: {exc}") from exc


def _feature(data: bytes) -> Feature:
    """Return the values of a ``Feature``: bytes (field 1) or integers (field 3); of floats nothing."""
    for content in _messages(data, 1):
        return list(_messages(content, 1))
    numbers: list[int] = []
    for content in _messages(data, 3):
        for field, kind, value in _fields(content):
            if field == 1 and kind == _VARINT:
                numbers.append(_signed(value))
            elif field == 1 and kind == _BYTES:
                numbers += _packed(value)
    return numbers


def _packed(data: bytes) -> list[int]:
    numbers, place = [], 0
    while place < len(data):
        value, place = _varint(data, place)
        numbers.append(_signed(value))
    return numbers


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _messages(data: bytes, wanted: int) -> Iterator[bytes]:
    for field, kind, value in _fields(data):
        if field == wanted and kind == _BYTES:
            yield value


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """Yield (field number, wire type, value) of a protobuf message; values of fixed width are passed over."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        kind = key & 7
        if kind == _VARINT:
            value, place = _varint(data, place)
            yield key >> 3, kind, value
            continue
        if kind not in (_FIXED64, _BYTES, _FIXED32):
            raise ValueError(f"wire type {kind}")
        size, place = _varint(data, place) if kind == _BYTES else ({_FIXED64: 8, _FIXED32: 4}[kind], place)
        if place + size > len(data):
            raise ValueError(f"a field of {size} bytes where {len(data) - place} are left")
        yield key >> 3, kind, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, place
    raise ValueError("a varint of more than ten bytes")
