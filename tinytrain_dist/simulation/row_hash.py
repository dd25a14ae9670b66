"""The hash of result rows: the same for any order and any cut into files, and it adds up over shards.

A row is written as bytes, column by column in the schema's order without the columns about the computing
machine: one byte that says null, then eight bytes of a number (little-endian; a float by its bits) or sixteen of
the SHA-256 of a text (UTF-8) or a list (little-endian 32-bit integers). The rows' SHA-256 are added as numbers of
256 bits, so a missing, changed or doubled row changes the sum; ``result_hash`` is the SHA-256 of sum and count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tinytrain_dist.foundation.hashing import bytes_hash
from tinytrain_dist.simulation.schema import COLUMNS, HOST_COLUMNS

_MODULUS = 1 << 256
_Bytes = NDArray[np.uint8]


def rows_digest(table: pa.Table) -> str:
    """Return the sum of the rows' hashes as 64 hex digits; the table has at least the columns of the schema."""
    matrix = _row_bytes(table)
    digests = b"".join(hashlib.sha256(row).digest() for row in matrix)
    lanes = np.frombuffer(digests, dtype="<u4").reshape(-1, 8).astype(np.uint64).sum(axis=0, dtype=np.uint64)
    return _hex(sum(int(lane) << (32 * place) for place, lane in enumerate(lanes)))


def added(digests: Iterable[str]) -> str:
    """Return the digest of all rows together from those of their parts."""
    return _hex(sum(int(digest, 16) for digest in digests))


def result_hash(table: pa.Table) -> str:
    """Return the hash of the rows of a table, whatever their order."""
    return hash_of_sum(rows_digest(table), table.num_rows)


def hash_of_sum(digest: str, num_rows: int) -> str:
    """Return the hash of ``num_rows`` rows with this digest."""
    return bytes_hash(f"{num_rows} rows {digest}".encode())


def _hex(value: int) -> str:
    return f"{value % _MODULUS:064x}"


def _row_bytes(table: pa.Table) -> _Bytes:
    """Return the rows as bytes, uint8 [rows, row length]."""
    parts = []
    for column in COLUMNS:
        if column.name not in HOST_COLUMNS:
            values = table[column.name].combine_chunks()
            null = np.asarray(values.is_null(), dtype=np.uint8)[:, None]
            parts += [null, np.where(null, np.uint8(0), _value_bytes(values))]
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def _value_bytes(values: pa.Array) -> _Bytes:
    kind = values.type
    if pa.types.is_list(kind):
        return _list_bytes(values)
    if pa.types.is_string(kind) or pa.types.is_dictionary(kind):
        return _text_bytes(values)
    dtype = "<f8" if pa.types.is_floating(kind) else "<i8"
    numbers = np.asarray(values.fill_null(0), dtype=dtype)
    return np.ascontiguousarray(numbers).view(np.uint8).reshape(len(values), 8)


def _text_bytes(values: pa.Array) -> _Bytes:
    encoded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    texts = encoded.dictionary.to_pylist() or [""]
    digests = np.stack([_short(str(text).encode()) for text in texts])
    return digests[np.asarray(encoded.indices.fill_null(0), dtype=np.int64)]


def _list_bytes(values: pa.Array) -> _Bytes:
    offsets = np.asarray(values.offsets).tolist()
    data = np.ascontiguousarray(np.asarray(values.values), dtype="<i4").tobytes()
    known: dict[bytes, _Bytes] = {}
    found = []
    for first, last in pairwise(offsets):
        key = data[4 * first : 4 * last]
        if key not in known:
            known[key] = _short(key)
        found.append(known[key])
    return np.stack(found) if found else np.zeros((0, 16), dtype=np.uint8)


def _short(data: bytes) -> _Bytes:
    return np.frombuffer(hashlib.sha256(data).digest()[:16], dtype=np.uint8)
