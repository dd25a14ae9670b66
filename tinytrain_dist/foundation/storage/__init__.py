"""Storage: one interface to folders on local disks and in object stores (see ``contract.py``)."""

from tinytrain_dist.foundation.storage.contract import Storage
from tinytrain_dist.foundation.storage.opening import open_storage

__all__ = ["Storage", "open_storage"]
