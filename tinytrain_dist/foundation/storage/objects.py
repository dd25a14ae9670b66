"""A folder in an object store (S3 or GCS): one PUT per file, conditional PUTs where only the first may win."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tinytrain_dist.foundation.errors import ConfigError, StorageError
from tinytrain_dist.foundation.storage import gcs, s3
from tinytrain_dist.foundation.storage.contract import checked, is_temporary
from tinytrain_dist.foundation.storage.refusals import is_missing_bucket, named

if TYPE_CHECKING:
    from obstore import ObjectMeta, UpdateVersion
    from obstore.store import GCSStore, S3Store
    from pyarrow.fs import FileSystem

_LIST_CHUNK = 1000


@dataclass(frozen=True)
class ObjectStorage:
    """A ``Storage`` below ``prefix`` of a bucket; ``scheme`` is ``s3`` or ``gs``."""

    scheme: str
    bucket: str
    prefix: str

    @classmethod
    def at(cls, uri: str) -> ObjectStorage:
        """Return the storage at ``scheme://bucket/prefix``; raises ``ConfigError`` for a malformed URI."""
        scheme, _, rest = uri.partition("://")
        bucket, _, prefix = rest.partition("/")
        if "@" in bucket:  # the location is not repeated: what stands before the @ may be a secret
            raise ConfigError(f"storage location {scheme}://***: credentials go into the environment, not into a URI")
        if not bucket or any(mark in uri for mark in "?#"):
            raise ConfigError(f"storage location {uri!r}: expected {scheme}://bucket/folder and nothing else")
        prefix = prefix.rstrip("/")
        if prefix:
            checked(prefix, location=f"{scheme}://{bucket}", error=ConfigError)
        return cls(scheme, bucket, prefix)

    @property
    def location(self) -> str:
        """See ``Storage.location``."""
        return f"{self.scheme}://{self._whole('')}"

    def write(self, path: str, data: bytes) -> None:
        """See ``Storage.write``."""
        with self._asking("written", path):
            self._store.put(self._checked(path), data, use_multipart=False)

    def create(self, path: str, data: bytes) -> bool:
        """See ``Storage.create``."""
        return self.replace_if(path, data, version=None) is not None

    def read(self, path: str) -> bytes:
        """See ``Storage.read``."""
        found = self.read_if_there(path)
        if found is None:
            raise StorageError(f"{self._uri(path)}: no such object")
        return found

    def read_if_there(self, path: str) -> bytes | None:
        """See ``Storage.read_if_there``."""
        found = self.read_version(path)
        return None if found is None else found[0]

    def names(self, folder: str = "") -> Iterator[str]:
        """See ``Storage.names``; the store's own listing, in its own (sorted) order."""
        prefix, last = self._checked(folder) if folder else None, ""
        with self._asking("listed", folder):
            for entry in self._listed(prefix):
                name = entry["path"]
                if is_temporary(name.rpartition("/")[2]) or self._is_folder_mark(entry):
                    continue
                if name < last:
                    raise StorageError(f"{self._uri(folder)}: the store lists names in no order; it cannot be used")
                last = name
                yield name

    def _listed(self, prefix: str | None) -> Iterator[ObjectMeta]:
        for chunk in self._store.list(prefix, chunk_size=_LIST_CHUNK):
            yield from chunk

    def _is_folder_mark(self, entry: ObjectMeta) -> bool:
        """Say whether this is an empty object ``folder/``, as other programs leave them; listings drop the slash."""
        return entry["size"] == 0 and (not entry["path"] or self.size(entry["path"]) is None)

    def size(self, path: str) -> int | None:
        """See ``Storage.size``."""
        with self._asking("looked at", path):
            try:
                return self._store.head(self._checked(path))["size"]
            except FileNotFoundError:  # a HEAD's answer has no body: only a GET's says whether the bucket is there
                found = self.read_if_there(path)
                return None if found is None else len(found)

    def remove(self, path: str) -> None:
        """See ``Storage.remove``."""
        with self._asking("removed", path):
            try:
                self._store.delete(self._checked(path))
            except FileNotFoundError as error:
                if is_missing_bucket(error):
                    raise

    def below(self, folder: str) -> ObjectStorage:
        """See ``Storage.below``."""
        name = self._checked(folder)
        return ObjectStorage(self.scheme, self.bucket, f"{self.prefix}/{name}" if self.prefix else name)

    def dataset_filesystem(self) -> tuple[FileSystem, str]:
        """See ``Storage.dataset_filesystem``."""
        with self._asking("opened"):
            return _SERVICES[self.scheme].arrow_filesystem(), self._whole("")

    def read_version(self, path: str) -> tuple[bytes, str] | None:
        """See ``Storage.read_version``."""
        with self._asking("read", path):
            try:
                found = self._store.get(self._checked(path))
                return bytes(found.bytes()), _version(found.meta)
            except FileNotFoundError as error:
                if is_missing_bucket(error):
                    raise
                return None

    def replace_if(self, path: str, data: bytes, *, version: str | None) -> str | None:
        """See ``Storage.replace_if``."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode: Any = "create" if version is None else _update(version)
        with self._asking("written", path):
            try:
                return _version(self._store.put(self._checked(path), data, mode=mode, use_multipart=False))
            except (AlreadyExistsError, PreconditionError, FileNotFoundError) as error:
                if is_missing_bucket(error):
                    raise
                return None

    @cached_property
    def _store(self) -> S3Store | GCSStore:
        return _SERVICES[self.scheme].object_store(self.bucket, self.prefix)

    def __reduce__(self) -> tuple[type[ObjectStorage], tuple[str, str, str]]:
        return ObjectStorage, (self.scheme, self.bucket, self.prefix)

    def _checked(self, path: str) -> str:
        return checked(path, location=self.location)

    def _whole(self, path: str) -> str:
        return "/".join(part for part in (self.bucket, self.prefix, path) if part)

    def _uri(self, path: str) -> str:
        return f"{self.scheme}://{self._whole(path)}"

    def _asking(self, done: str, path: str = "") -> AbstractContextManager[None]:
        return named(self._uri(path), done, service=_SERVICES[self.scheme])


_SERVICES = {"s3": s3.SERVICE, "gs": gcs.SERVICE}


def _version(meta: Any) -> str:
    """Return what a conditional put is to compare: S3 wants the entity tag, GCS the generation."""
    return json.dumps([meta["e_tag"], meta["version"]])


def _update(version: str) -> UpdateVersion:
    e_tag, generation = json.loads(version)
    return {"e_tag": e_tag} if generation is None else {"e_tag": e_tag, "version": generation}
